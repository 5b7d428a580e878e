//! The ocean between the halves: cut in the middle of an item, at any byte, dead without a word; and batches that the
//! far side calls too large.

use std::time::Duration;

use fedstream_tests::eventually::becomes_true;
use fedstream_tests::link::Direction;
use fedstream_tests::load::Load;
use fedstream_tests::pipeline::{Builder, Pipeline, Which};

use crate::{AFTER, BEFORE, LANES, SOON, more_accepted, more_delivered, two_lanes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_was_at_the_instance_when_the_link_was_cut_is_finished_there_and_not_repeated() {
    let pipeline = two_lanes().start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, BEFORE).await;

    pipeline.instance().set_service_time(Duration::from_millis(500));
    let all = || pipeline.instance().in_progress() == LANES.len();
    becomes_true("the instance works on an item of each lane", SOON, all).await.unwrap();
    let begun: Vec<String> =
        pipeline.instance().seen().into_iter().filter(|seen| seen.ended.is_none()).map(|seen| seen.id).collect();
    pipeline.link.cut();
    assert!(pipeline.instance().in_progress() > 0, "cut in the middle of an item");
    pipeline.instance().set_service_time(Duration::ZERO);

    more_delivered(&pipeline, AFTER).await;
    let sent = load.stop().await;
    pipeline.settle(SOON).await.assert_clean(sent);
    for id in begun {
        let visits = pipeline.instance().seen().into_iter().filter(|seen| seen.id == id).count();
        assert_eq!(visits, 1, "{id}");
    }
    pipeline.wait_trimmed(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_cut_at_any_byte_either_way_costs_no_repeat() {
    let pipeline = two_lanes().one_way(Duration::from_millis(5)).start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    for (direction, bytes) in [
        (Direction::Back, 0), // the head of an answer
        (Direction::Forward, 700),
        (Direction::Back, 450),
        (Direction::Forward, 9_000),
        (Direction::Back, 1_000),
    ] {
        more_delivered(&pipeline, BEFORE / 3).await;
        pipeline.link.cut_after(direction, bytes);
        becomes_true("the link is cut", SOON, || !pipeline.link.cut_pending()).await.unwrap();
    }
    more_delivered(&pipeline, AFTER).await;
    let sent = load.stop().await;
    pipeline.settle(SOON).await.assert_clean(sent);
    pipeline.wait_trimmed(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_goes_dead_without_a_word_is_given_up_and_costs_no_repeat() {
    let pipeline = two_lanes().env(Which::BatchSender, "FED_ANSWER_TIMEOUT", "500ms").start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, BEFORE).await;
    pipeline.link.stall();
    // Before its answer began or in the middle of it: the log line has the time-out in both cases.
    let given_up = || pipeline.batch_sender.log().matches(" 500ms: ").count();
    becomes_true("a batch of each lane is given up", SOON, || given_up() >= LANES.len()).await.unwrap();
    let delivered = pipeline.instance().accepted();
    more_accepted(&pipeline, AFTER).await;
    pipeline.link.flow(); // what was given up arrives now, late
    more_delivered(&pipeline, AFTER).await;
    let sent = load.stop().await;
    assert!(delivered < sent, "in mid-stream: at {delivered} of {sent}");
    pipeline.settle(SOON).await.assert_clean(sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_too_large_inflated_is_halved_until_it_fits() {
    // 96 KiB: a dozen and a half of these activities, where the batch-sender takes a hundred.
    let limits = Pipeline::builder().env(Which::BatchReceiver, "FED_BATCH_BODY_MAX", "96KiB");
    halved(limits).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_too_large_on_the_wire_is_halved_until_it_fits() {
    // Refused before it has all arrived: the batch-sender has to hear why although it is still sending.
    let limits = Pipeline::builder()
        .env(Which::BatchReceiver, "FED_REQUEST_BODY_MAX", "96KiB")
        .env(Which::BatchSender, "FED_BATCH_COMPRESSION", "none")
        .one_way(Duration::from_millis(10));
    halved(limits).await;
}

/// A backlog that goes into one batch, before a batch-receiver that takes a part of it.
async fn halved(limits: Builder) {
    let builder =
        limits.source("a.test").env(Which::BatchReceiver, "FED_BODY_MAX", "10KiB").without(Which::BatchSender);
    let mut pipeline = builder.start().await.expect("the others start");
    let mut sender = pipeline.sender("a.test", pipeline.destination(0));
    sender.text_bytes = 2048;
    sender.send_many(60).await;
    pipeline.batch_sender.start().await.expect("it starts in front of a backlog");
    pipeline.settle(SOON).await.assert_clean(60);
    assert!(pipeline.batch_receiver.log().contains("too-large"), "it had to refuse a batch");
    pipeline.wait_trimmed(SOON).await.expect("what is settled is purged");
}
