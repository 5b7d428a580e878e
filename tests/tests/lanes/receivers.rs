//! A lane that goes to another batch-receiver: what came before goes by the old one, what comes after by the new one, and
//! the old one's gate is closed in between.

use std::time::{Duration, Instant};

use fedstream_tests::chaos::deliveries;
use fedstream_tests::eventually::eventually;
use fedstream_tests::load::Load;
use fedstream_tests::pipeline::{Pipeline, Which};
use fedstream_tests::ports;
use fedstream_tests::process::Service;
use serde_json::{Value, json};

use crate::entries::{Entries, KEY};
use crate::{LANE, SOON, batches, one_lane, view};

/// Delivered before the change and after it.
const SOME: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_moves_to_another_batch_receiver_loses_repeats_and_reorders_nothing() {
    let pipeline = one_lane().env(Which::BatchSender, "HTTP_BATCH_SIZE", "5").start().await.unwrap();
    let (other, url) = another(&pipeline).await;
    let entries = Entries::of(&pipeline).await;
    let load = Load::on(&pipeline, &[("a.test", "home.test")]);
    more_delivered(&pipeline).await;

    entries.set(KEY, &json!({"batch_url": url})).await;
    moved(&pipeline, &entries, &url).await;
    more_delivered(&pipeline).await;
    let sent = load.stop().await;
    pipeline.settle(SOON).await.assert_clean(sent);
    pipeline.wait_trimmed(SOON).await.unwrap();

    let (before, after) = (deliveries::read(&pipeline.batch_receiver.log()), deliveries::read(&other.log()));
    assert!(before.len() >= SOME && after.len() >= SOME, "{} and {}", before.len(), after.len());
    let last = before.iter().map(|attempt| attempt.ended.as_ref().expect("it had its answer").0).max();
    assert!(last < after.iter().map(|attempt| attempt.begun).min(), "the old one is done before the new one begins");
    // An owner that posted nothing there: what was sent there before and is still on its way is void.
    let posted = before.iter().map(|attempt| attempt.epoch).max().unwrap();
    assert!(highest_epoch(&pipeline.batch_receiver) > posted, "its gate is closed");
    assert_eq!(pipeline.batch_sender.log().matches("the lane goes to another receiver").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_waits_for_an_old_batch_receiver_that_is_away_and_says_so() {
    let mut pipeline = one_lane().start().await.unwrap();
    let (other, url) = another(&pipeline).await;
    let entries = Entries::of(&pipeline).await;
    begin_a_move_while_the_old_one_is_away(&mut pipeline, &entries, &url).await;
    assert_eq!(deliveries::read(&other.log()), [], "nothing goes to the new one before");
    let entry = entries.get(KEY).await.unwrap();
    assert_eq!(entry["batch_url_before"], old_url(&pipeline), "a restart would know it: {entry}");

    // It does: another process finishes what this one had begun.
    assert_eq!(pipeline.batch_sender.terminate(SOON).await.unwrap(), Some(0));
    pipeline.batch_sender.start().await.unwrap();
    view::wait_why(&pipeline.batch_sender, LANE, "the old one can't be closed").await;
    pipeline.link.open().await.unwrap();
    moved(&pipeline, &entries, &url).await;
    pipeline.settle(SOON).await.assert_clean(2 * SOME);
    assert_eq!(deliveries::read(&other.log()).len(), SOME);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_an_operator_forces_does_not_wait_for_the_old_batch_receiver() {
    let mut pipeline = one_lane().start().await.unwrap();
    let (other, url) = another(&pipeline).await;
    let entries = Entries::of(&pipeline).await;
    begin_a_move_while_the_old_one_is_away(&mut pipeline, &entries, &url).await;

    let mut entry = entries.get(KEY).await.unwrap();
    entry["batch_url_forced"] = true.into();
    entries.set(KEY, &entry).await;
    moved(&pipeline, &entries, &url).await;
    let report = pipeline.settle(SOON).await;
    report.assert_clean_but_repeated();
    assert_eq!(report.delivered, 2 * SOME, "{report}");
    assert_eq!(deliveries::read(&other.log()).len(), SOME);
    assert_eq!(entries.get(KEY).await, Some(json!({"batch_url": url})), "the next move waits again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_sender_that_is_told_to_stop_in_the_middle_of_a_move_does_not_wait_for_the_old_batch_receiver() {
    let mut pipeline = one_lane().start().await.unwrap();
    let (_other, url) = another(&pipeline).await;
    let entries = Entries::of(&pipeline).await;
    pipeline.sender("a.test", "home.test").send_many(SOME).await;
    pipeline.settle(SOON).await.assert_clean(SOME);
    pipeline.wait_trimmed(SOON).await.unwrap();
    pipeline.link.stall(); // connections are made, and nothing is ever answered
    entries.set(KEY, &json!({"batch_url": url})).await;
    view::wait_why(&pipeline.batch_sender, LANE, "waits until the old one's gate is closed").await;
    let told = Instant::now();
    assert_eq!(pipeline.batch_sender.terminate(SOON).await.unwrap(), Some(0));
    // The grace period is 10 s.
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    let lease = Entries::leases(&pipeline).await.get(KEY).await.unwrap();
    assert_eq!(lease["released"], true, "the next owner takes it at once");
}

/// Another batch-receiver in front of the same instance, and its address.
async fn another(pipeline: &Pipeline) -> (Service, String) {
    let mut other = pipeline.batch_receiver.twin().expect("a place for its log");
    let listen = ports::free();
    other.set_env("FED_LISTEN", Some(&listen.to_string()));
    other.start().await.expect("it starts");
    (other, format!("http://{listen}/batch"))
}

fn old_url(pipeline: &Pipeline) -> String {
    format!("http://{}/batch", pipeline.link.addr())
}

/// Some are delivered by the old one, some wait, and the page says what for.
async fn begin_a_move_while_the_old_one_is_away(pipeline: &mut Pipeline, entries: &Entries, url: &str) {
    let mut sender = pipeline.sender("a.test", "home.test");
    sender.send_many(SOME).await;
    pipeline.instance().wait_accepted(SOME, SOON).await.expect("the old one is there");
    pipeline.wait_trimmed(SOON).await.expect("and has told it");
    pipeline.link.refuse().await;
    sender.send_many(SOME).await;
    entries.set(KEY, &json!({"batch_url": url})).await;
    let why = "the change to another receiver waits until the old one's gate is closed: the old one can't be closed";
    view::wait_why(&pipeline.batch_sender, LANE, why).await;
}

/// Waits until the lane's batches go there, and its settings name no other address any more.
async fn moved(pipeline: &Pipeline, entries: &Entries, url: &str) {
    let there = |lane: &Value| lane["batch_url"] == url;
    view::wait(&pipeline.batch_sender, LANE, "its batches go to the new one", there).await;
    let done = async || Some(entries.get(KEY).await?).filter(|entry| entry["batch_url_before"].is_null());
    eventually("the old address is forgotten", SOON, done).await.expect("the move ends");
}

async fn more_delivered(pipeline: &Pipeline) {
    pipeline.instance().wait_accepted(pipeline.instance().accepted() + SOME, SOON).await.expect("deliveries go on");
}

/// The highest epoch that a batch-receiver let in, with or without activities.
fn highest_epoch(receiver: &Service) -> u64 {
    let lines = batches::lines(receiver);
    let owners = lines.iter().filter(|line| line["message"] == "a new owner of the lane");
    owners.filter_map(|line| line["epoch"].as_u64()).max().unwrap_or_default()
}
