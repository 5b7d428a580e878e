//! `kill -9` of each service in the middle of a load, and a start.

use std::time::Duration;

use fedstream_tests::eventually::becomes_true;
use fedstream_tests::link::{Direction, Link};
use fedstream_tests::load::Load;
use fedstream_tests::pipeline::Which;

use crate::{AFTER, BEFORE, LANES, SOON, more_accepted, more_delivered, two_lanes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_inbox_receiver_had_stored_without_an_answer_is_delivered_once() {
    let mut pipeline = two_lanes().start().await.unwrap();
    let front = Link::start(pipeline.front(), Duration::ZERO).await.unwrap();
    let load = Load::of(LANES.map(|(source, destination)| {
        let mut sender = pipeline.sender(source, destination);
        sender.front = front.addr();
        sender
    }));
    more_delivered(&pipeline, BEFORE).await;

    front.cut_after(Direction::Back, 0); // the next 204: its activity is stored, and its sender does not know
    becomes_true("a 204 is lost", SOON, || !front.cut_pending()).await.unwrap();
    pipeline.inbox_receiver.kill9();
    let accepted = pipeline.ledger.accepted();
    pipeline.inbox_receiver.start().await.unwrap();

    more_delivered(&pipeline, AFTER).await;
    let sent = load.stop().await;
    let report = pipeline.settle(SOON).await;
    assert!(accepted >= BEFORE && accepted < sent, "killed in mid-stream: at {accepted} of {sent}");
    assert!(pipeline.ledger.tries() > sent, "somebody had to send again");
    report.assert_clean(sent);
    let stored = pipeline.stream().await.unwrap().state.last_sequence;
    assert_eq!(stored, sent as u64, "what was sent twice is stored once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_batch_sender_posts_again_what_the_stream_holds_and_the_instance_sees_no_repeat() {
    // After the first trim none: nearly all that was delivered is still in the stream when it is killed.
    let mut pipeline = two_lanes().env(Which::BatchSender, "FED_TRIM_INTERVAL", "60s").start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, BEFORE).await;

    pipeline.batch_sender.kill9();
    more_accepted(&pipeline, AFTER).await;
    let mut sent = load.stop().await;
    let in_stream = usize::try_from(pipeline.depth().await.unwrap()).unwrap();
    let to_be_repeated = (in_stream + pipeline.instance().accepted()).saturating_sub(sent);
    assert!(to_be_repeated > BEFORE / 2, "delivered and not trimmed: {to_be_repeated} of {sent}");

    let load = Load::on(&pipeline, &LANES);
    pipeline.batch_sender.set_env("FED_TRIM_INTERVAL", None);
    pipeline.batch_sender.start().await.unwrap();
    more_delivered(&pipeline, 2 * AFTER).await;
    sent += load.stop().await;
    pipeline.settle(SOON).await.assert_clean(sent);
    pipeline.wait_trimmed(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_batch_receiver_delays_its_lanes_and_repeats_no_more_than_it_had_not_told() {
    let mut pipeline = two_lanes().start().await.unwrap();
    pipeline.instance().set_service_time(Duration::from_millis(5)); // so that it is killed with something in hand
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, BEFORE).await;

    pipeline.batch_receiver.kill9();
    let delivered = pipeline.instance().accepted();
    more_accepted(&pipeline, AFTER).await;
    pipeline.batch_receiver.start().await.unwrap();

    more_delivered(&pipeline, 2 * AFTER).await;
    let sent = load.stop().await;
    let report = pipeline.settle(SOON).await;
    assert!(delivered < sent, "killed in mid-stream: at {delivered} of {sent}");
    report.assert_clean_but_repeated();
    assert_eq!((report.accepted, report.delivered), (sent, sent), "{report}");
    // One batch of each lane was under way, and it was told line by line.
    assert!(report.repeated.len() <= LANES.len() * 10, "{report}");
    pipeline.wait_trimmed(SOON).await.unwrap();
}
