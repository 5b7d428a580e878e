//! The broker killed and started again, and its stream deleted under the services.

use std::collections::HashSet;
use std::time::Instant;

use fedstream_tests::eventually::{becomes_true, eventually};
use fedstream_tests::http1;
use fedstream_tests::ledger::Submission;
use fedstream_tests::load::Load;
use fedstream_tests::pipeline::{INBOX_STREAM, Pipeline, Which};

use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_restored_to_an_earlier_state_hands_out_old_sequences_and_nothing_new_is_lost() {
    let mut pipeline = two_lanes().env(Which::InboxReceiver, "FED_PUBLISH_TIMEOUT", "1s").start().await.unwrap();
    let created = pipeline.stream().await.unwrap().created;
    pipeline.broker.stop().await.unwrap();
    let backup = pipeline.broker.back_up().unwrap();
    pipeline.broker.start_again().await.unwrap();

    let mut before = pipeline.sender("a.test", "home.test");
    before.send_many(BEFORE).await;
    pipeline.instance().wait_accepted(BEFORE, SOON).await.unwrap();
    pipeline.wait_trimmed(SOON).await.unwrap();
    pipeline.broker.kill9();
    pipeline.broker.restore(&backup).unwrap();
    pipeline.broker.start_again().await.unwrap();

    // The same stream by name and creation time, and the sequences of activities that were delivered long ago.
    before.send_many(BEFORE + AFTER).await;
    let stream = pipeline.stream().await.unwrap();
    assert_eq!((stream.created, stream.state.last_sequence), (created, (BEFORE + AFTER) as u64));
    pipeline.settle(SOON).await.assert_clean(BEFORE + BEFORE + AFTER);
    pipeline.wait_trimmed(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_no_client_can_parse_stands_in_its_own_lane_only_and_is_told() {
    let pipeline = two_lanes().start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, BEFORE).await;
    publish_malformed(&pipeline, "fed.inbox.home_test.c_test").await;

    // Each try to read it costs the batch-sender its connection; the lanes beside it go on between the tries.
    let lanes = async || {
        let page = http1::get(pipeline.batch_sender.admin(), "/lanes").await.ok()?.json();
        let trouble = page["lanes"]["home.test/c.test"]["trouble"].as_str()?.to_owned();
        Some(trouble)
    };
    let trouble = eventually("the lane is shown with its trouble", SOON, lanes).await.unwrap();
    assert!(trouble.contains("malformed header"), "{trouble}");
    more_delivered(&pipeline, AFTER).await;
    let sent = load.stop().await;
    let report = pipeline.settle(SOON).await;
    report.assert_clean(sent);
}

/// A header value that is no UTF-8: NATS itself takes it.
async fn publish_malformed(pipeline: &Pipeline, subject: &str) {
    const HEADERS: &[u8] = b"NATS/1.0\r\nX: \xff\r\n\r\n";
    let address = pipeline.broker.url().trim_start_matches("nats://").to_owned();
    let mut stream = TcpStream::connect(address).await.expect("the broker listens");
    let command =
        format!("CONNECT {{\"headers\":true,\"verbose\":false}}\r\nHPUB {subject} {0} {0}\r\n", HEADERS.len());
    let message = [command.as_bytes(), HEADERS, b"\r\nPING\r\n"].concat();
    stream.write_all(&message).await.expect("it takes it");
    let stored = async || {
        let subjects = pipeline.broker.jetstream().await.ok()?.get_stream(INBOX_STREAM).await.ok()?;
        let info = subjects.info_with_subjects(subject).await.ok()?;
        info.collect::<Vec<_>>().await.pop()?.ok().map(|_| ())
    };
    eventually("the malformed message is stored", SOON, stored).await.expect("it is in the lane");
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
