//! A lane that posts nothing for a while: since the instance refuses all, or since an operator says so.

use std::time::Duration;

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::{becomes_true, eventually};
use fedstream_tests::pipeline::Which;
use serde_json::json;

use crate::entries::{Entries, KEY};
use crate::{LANE, SOON, copies, one_lane, view};

/// Refusals in a row that pause a lane, unless it is set otherwise.
const PAUSED_AT: usize = 20;

/// What may come after them: the activities that the batch-receiver had begun, or was about to, when the 20th refusal was
/// on its way back and the cancellation on its way there.
const OVERSHOOT: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_refusals_in_a_row_pause_a_lane_and_one_acceptance_of_a_single_probe_resumes_it() {
    const SENT: usize = 120;
    const PROBED: usize = 4;
    let mut pipeline = one_lane()
        .env(Which::BatchSender, "FED_BACKOFF_MIN", "200ms")
        .env(Which::BatchSender, "FED_BACKOFF_MAX", "400ms")
        .without(Which::BatchSender)
        .start()
        .await
        .unwrap();
    pipeline.instance().set_service_time(Duration::from_millis(5));
    pipeline.instance().behave(Behaviour::rejects(403, "a firewall"));
    pipeline.sender("a.test", "home.test").send_many(SENT).await;
    pipeline.batch_sender.start().await.unwrap();

    view::wait_why(&pipeline.batch_sender, LANE, "20 refusals in a row: single activities are tried").await;
    let probed = || pipeline.instance().arrivals() >= PAUSED_AT + OVERSHOOT + PROBED;
    becomes_true("single activities go on being tried", SOON, probed).await.unwrap();
    pipeline.instance().behave_well();
    let report = pipeline.settle(SOON).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.delivered + report.rejected, SENT, "{report}");

    let seen = pipeline.instance().seen();
    let refused: Vec<_> = seen.iter().filter(|seen| seen.status == Some(403)).collect();
    // Probes are a backoff apart, less half for jitter; what came with the batches is milliseconds apart.
    let apart = |pair: &[&fedstream_tests::instance::Seen]| pair[1].arrived - pair[0].arrived;
    let is_probe = |pair: &&[&fedstream_tests::instance::Seen]| apart(pair) >= Duration::from_millis(95);
    let probes = refused.windows(2).filter(is_probe).count();
    let at_once = refused.len() - probes;
    println!("{at_once} refused before the pause held, {probes} probes refused");
    assert!((PAUSED_AT..=PAUSED_AT + OVERSHOOT).contains(&at_once), "{at_once} and {probes} probes");
    assert!(probes >= PROBED, "{probes}");
    let log = pipeline.batch_sender.log();
    assert_eq!(log.matches("nothing but refusals: the lane pauses").count(), 1);
    assert_eq!(log.matches("one was accepted: the lane goes on").count(), 1);
    assert_eq!(copies::all(&pipeline).await.len(), report.rejected, "none is refused without a copy");
    pipeline.wait_trimmed(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_pauses_and_resumes_a_lane_and_the_front_door_with_it_without_a_restart() {
    let pipeline = one_lane().source("b.test").start().await.unwrap();
    let entries = Entries::of(&pipeline).await;
    let mut sender = pipeline.sender("a.test", "home.test");
    sender.send_many(5).await;
    pipeline.instance().wait_accepted(5, SOON).await.unwrap();

    // What is stored already waits: so something has to be.
    pipeline.instance().behave(Behaviour::Hang);
    sender.send_many(3).await;
    entries.set(KEY, &json!({"paused": true})).await;
    view::wait_why(&pipeline.batch_sender, LANE, "paused by its settings").await;
    pipeline.instance().behave_well();
    let activity = sender.compose();
    let refused = eventually("the front door refuses the lane's activities", SOON, async || {
        Some(sender.try_once(&activity).await.expect("an answer")).filter(|answer| answer.status == 503)
    });
    let refused = refused.await.unwrap();
    assert_eq!(refused.json()["type"], "urn:fedstream:problem:lane-paused", "{refused:?}");
    assert!(refused.retry_after().is_some(), "{refused:?}");
    pipeline.sender("b.test", "home.test").send_many(5).await;
    let other = || pipeline.instance().accepted_on("home.test/b.test");
    becomes_true("another lane goes on", SOON, || other() == 5).await.unwrap();
    assert_eq!(pipeline.instance().accepted_on(LANE), 5, "nothing is posted");
    // A batch that waited at the far side for the one that was given up is told so a little later.
    let lane = view::wait(&pipeline.batch_sender, LANE, "nothing is in flight", |lane| lane["posts"] == 0).await;
    assert!(lane["depth"].as_u64() >= Some(3), "{lane}");
    assert_eq!(pipeline.instance().accepted_on(LANE), 5, "and nothing is posted");

    entries.set(KEY, &json!({"paused": false})).await;
    sender.send_many(5).await;
    let report = pipeline.settle(SOON).await;
    report.assert_clean_but_repeated();
    assert_eq!(report.delivered, report.accepted, "{report}");
    pipeline.wait_trimmed(SOON).await.unwrap();
    view::wait(&pipeline.batch_sender, LANE, "it moves", |lane| lane["why"].is_null()).await;
}
