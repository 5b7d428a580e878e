//! The instance answers "later", resets, hangs, loses answers, or is away. Its lane waits, and nothing else does.

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::check::Report;
use fedstream_tests::eventually::becomes_true;
use fedstream_tests::load::Load;
use fedstream_tests::pipeline::{Pipeline, Which};

use crate::{AFTER, BEFORE, LANES, SOON, more_accepted, more_delivered, two_lanes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_answers_503_for_a_while_gets_everything_once() {
    let (report, sent) = through(Behaviour::busy(503, None)).await;
    report.assert_clean(sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_resets_connections_for_a_while_gets_everything_once() {
    let (report, sent) = through(Behaviour::Reset).await;
    report.assert_clean(sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_hangs_for_a_while_takes_everything_once() {
    let (report, sent) = through(Behaviour::Hang).await;
    // Whether it still works on what was given up is the instance's business: an overlap is allowed.
    report.assert_clean_but_repeated();
    assert_eq!((report.delivered, report.repeated.len()), (sent, 0), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_that_an_instance_loses_costs_one_repeat_and_no_order() {
    const LOST: usize = 5;
    let pipeline = two_lanes().start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, BEFORE).await;
    pipeline.instance().behave_next(LOST, Behaviour::LoseAnswer { status: 200 });
    more_delivered(&pipeline, AFTER).await;
    let sent = load.stop().await;
    let report = pipeline.settle(SOON).await;
    report.assert_clean_but_repeated();
    assert_eq!((report.delivered, report.repeated.len()), (sent, LOST), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_was_down_for_a_while_gets_everything_once() {
    let mut pipeline = two_lanes().start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, BEFORE).await;
    pipeline.instance_mut().go_down().await;
    more_accepted(&pipeline, AFTER).await;
    let (delivered, accepted) = (pipeline.instance().accepted(), pipeline.ledger.accepted());
    assert!(delivered < accepted, "down in mid-stream: {delivered} of {accepted}");
    pipeline.instance_mut().come_up().await.unwrap();
    more_delivered(&pipeline, AFTER).await;
    let sent = load.stop().await;
    pipeline.settle(SOON).await.assert_clean(sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_hangs_or_is_down_delays_no_other() {
    let mut pipeline = Pipeline::builder().source("a.test").instances(2).start().await.unwrap();
    let troubled = [("a.test", pipeline.destination(0))];
    let well = [("a.test", pipeline.destination(1))];
    let load = Load::on(&pipeline, &troubled);
    more_delivered(&pipeline, BEFORE).await;

    pipeline.instances[0].behave(Behaviour::Hang);
    let arrived = pipeline.instances[0].arrivals();
    becomes_true("it hangs", SOON, || pipeline.instances[0].arrivals() > arrived).await.unwrap();
    let stands_at = pipeline.instances[0].accepted();
    let other = Load::on(&pipeline, &well);
    pipeline.instances[1].wait_accepted(AFTER, SOON).await.unwrap();
    pipeline.instances[0].go_down().await;
    pipeline.instances[1].wait_accepted(2 * AFTER, SOON).await.unwrap();
    assert_eq!(pipeline.instances[0].accepted(), stands_at, "all the while this one had nothing");

    pipeline.instances[0].behave_well();
    pipeline.instances[0].come_up().await.unwrap();
    more_delivered(&pipeline, AFTER).await;
    let sent = load.stop().await + other.stop().await;
    pipeline.settle(SOON).await.assert_clean(sent);
}

/// A load on an instance that behaves like this in the middle of it, until it was seen to six times.
async fn through(behaviour: Behaviour) -> (Report, usize) {
    let pipeline = two_lanes()
        .env(Which::BatchReceiver, "FED_DELIVERY_TIMEOUT", "500ms")
        .start()
        .await
        .expect("all three services start");
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, BEFORE).await;
    pipeline.instance().behave(behaviour);
    let arrived = pipeline.instance().arrivals();
    becomes_true("it is tried again", SOON, || pipeline.instance().arrivals() >= arrived + 6)
        .await
        .expect("the lanes retry");
    let delivered = pipeline.instance().accepted();
    pipeline.instance().behave_well();
    more_delivered(&pipeline, AFTER).await;
    let sent = load.stop().await;
    assert!(delivered < sent, "in mid-stream: at {delivered} of {sent}");
    let report = pipeline.settle(SOON).await;
    pipeline.wait_trimmed(SOON).await.expect("what is settled is purged");
    (report, sent)
}
