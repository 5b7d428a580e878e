//! The broker killed and started again, and its stream deleted under the services.

use std::collections::HashSet;
use std::time::Instant;

use fedstream_tests::eventually::{becomes_true, eventually};
use fedstream_tests::ledger::Submission;
use fedstream_tests::load::Load;
use fedstream_tests::pipeline::{INBOX_STREAM, Pipeline, Which};

use crate::{AFTER, BEFORE, LANES, SOON, more_delivered, two_lanes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_comes_back_and_the_services_go_on_without_a_restart() {
    // A publish whose ack never comes holds its sender for as long.
    let mut pipeline = two_lanes().env(Which::InboxReceiver, "FED_PUBLISH_TIMEOUT", "1s").start().await.unwrap();
    let pids = pids(&pipeline);
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, BEFORE).await;

    pipeline.broker.kill9();
    let delivered = pipeline.instance().accepted();
    refused(&pipeline).await;
    pipeline.broker.start_again().await.unwrap();

    more_delivered(&pipeline, AFTER).await;
    let sent = load.stop().await;
    let report = pipeline.settle(SOON).await;
    assert!(delivered < sent, "killed in mid-stream: at {delivered} of {sent}");
    report.assert_clean(sent);
    pipeline.wait_trimmed(SOON).await.unwrap();
    assert_eq!(pids, self::pids(&pipeline));
    assert!(!pipeline.inbox_receiver.has_ended() && !pipeline.batch_sender.has_ended());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_made_anew_under_a_living_batch_receiver_starts_again_and_loses_nothing_of_its_own() {
    let pipeline = two_lanes().start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, BEFORE).await;
    let created = pipeline.stream().await.unwrap().created;

    pipeline.broker.jetstream().await.unwrap().delete_stream(INBOX_STREAM).await.unwrap();
    let deleted_at = Instant::now();
    let delivered = pipeline.instance().accepted();
    let is_new = async || (pipeline.stream().await?.created != created).then_some(());
    eventually("a service makes the stream again", SOON, is_new).await.unwrap();

    // Its sequences begin at 1 again: the batch-receiver remembers other activities under them.
    more_delivered(&pipeline, AFTER).await;
    let sent = load.stop().await;
    let of_the_old = |submission: &&Submission| submission.first_sent < deleted_at;
    let submissions = pipeline.ledger.submissions();
    let may_be_lost: HashSet<&str> = submissions.iter().filter(of_the_old).map(|s| s.id.as_str()).collect();
    let lost_of_the_new = || pipeline.report().lost.into_iter().filter(|id| !may_be_lost.contains(id.as_str())).count();
    becomes_true("all of the new stream is delivered", SOON, || lost_of_the_new() == 0).await.unwrap();

    let mut report = pipeline.report();
    assert!(delivered >= BEFORE && delivered + AFTER <= report.delivered && report.accepted == sent, "{report}");
    report.lost.clear(); // what lay in the old stream went with it
    assert!(report.is_clean(), "{report}");
    pipeline.wait_trimmed(SOON).await.unwrap();
}

fn pids(pipeline: &Pipeline) -> [Option<u32>; 3] {
    [&pipeline.inbox_receiver, &pipeline.batch_sender, &pipeline.batch_receiver].map(|service| service.pid())
}

/// A sender was told to come back later.
async fn refused(pipeline: &Pipeline) {
    let is_refused = |submission: &Submission| submission.accepted.is_none() && submission.last_status == 503;
    let any = || pipeline.ledger.submissions().iter().any(is_refused);
    becomes_true("a sender is answered 503", SOON, any).await.expect("without a broker nothing is stored");
}
