//! `/lanes` of a batch-sender: how each lane is, and in one line why it does not move.

use std::time::Duration;

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::becomes_true;
use fedstream_tests::pipeline::Which;
use fedstream_tests::process::Service;
use serde_json::{Value, json};

use crate::entries::{Entries, KEY};
use crate::{LANE, SOON, copies, one_lane, view};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_depth_age_owner_epoch_what_is_in_flight_and_the_last_outcome_of_a_lane() {
    let pipeline = one_lane().env(Which::BatchSender, "FED_SENDER_ID", "sender-a").start().await.unwrap();
    let mut sender = pipeline.sender("a.test", "home.test");
    sender.send_many(3).await;
    pipeline.settle(SOON).await.assert_clean(3);
    let settled = view::wait(&pipeline.batch_sender, LANE, "three are settled", |lane| lane["floor"] == 3).await;
    assert!(settled["last_outcome"].as_str().is_some_and(|said| said.starts_with("sequence 3: delivered (200) at ")));
    assert_eq!((&settled["owner"], &settled["why"]), (&json!("sender-a"), &Value::Null), "{settled}");
    assert!(settled["epoch"].as_u64() > Some(1_700_000_000_000), "milliseconds since 1970: {settled}");
    assert_eq!(settled["batch_url"], format!("http://{}/batch", pipeline.link.addr()));

    pipeline.instance().freeze();
    sender.send_many(4).await;
    let waits = |lane: &Value| lane["depth"] == 4 && lane["held"] == 4 && lane["oldest_age_s"].as_u64() >= Some(1);
    let waiting = view::wait(&pipeline.batch_sender, LANE, "four wait and grow old", waits).await;
    assert!(waiting["in_flight"].as_u64() >= Some(1) && waiting["posts"].as_u64() >= Some(1), "{waiting}");
    assert_eq!((&waiting["epoch"], &waiting["floor"]), (&settled["epoch"], &json!(3)), "{waiting}");
    pipeline.instance().thaw();
    pipeline.settle(SOON).await.assert_clean(7);
    let empty = |lane: &Value| lane["depth"] == 0 && lane["held"] == 0 && lane["oldest"].is_null();
    view::wait(&pipeline.batch_sender, LANE, "nothing waits", empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_each_kind_of_standing_the_page_says_in_one_line_why_a_lane_does_not_move() {
    let mut pipeline = one_lane()
        .env(Which::BatchSender, "FED_REJECTIONS_MAX", "3")
        // Long enough to be looked at.
        .env(Which::BatchSender, "FED_BACKOFF_MIN", "300ms")
        .env(Which::BatchSender, "FED_ANSWER_TIMEOUT", "2s")
        .start()
        .await
        .unwrap();
    let entries = Entries::of(&pipeline).await;
    let mut sender = pipeline.sender("a.test", "home.test");

    pipeline.link.stall();
    sender.send_many(2).await;
    why(&pipeline.batch_sender, &["the batch-receiver has not answered yet"]).await;
    why(&pipeline.batch_sender, &["it fails for ", " s now, and is tried again ", "no answer within 2s"]).await;
    pipeline.link.flow();
    moves(&pipeline.batch_sender).await;

    pipeline.instance().behave(Behaviour::busy(503, Some(1)));
    sender.send_many(1).await;
    why(&pipeline.batch_sender, &["and is tried again in ", "503"]).await;
    pipeline.instance().behave_well();
    moves(&pipeline.batch_sender).await;

    pipeline.link.refuse().await;
    sender.send_many(1).await;
    why(&pipeline.batch_sender, &["it fails for 1 s now", "error sending request"]).await;
    pipeline.link.open().await.unwrap();
    moves(&pipeline.batch_sender).await;

    // The front door takes nothing for a lane that is paused: so something waits there already.
    pipeline.instance().behave(Behaviour::Hang);
    sender.send_many(1).await;
    becomes_true("the instance has it", SOON, || pipeline.instance().in_progress() == 1).await.unwrap();
    entries.set(KEY, &json!({"paused": true})).await;
    why(&pipeline.batch_sender, &["paused by its settings"]).await;
    pipeline.instance().behave_well();
    entries.set(KEY, &json!({})).await;
    moves(&pipeline.batch_sender).await;

    pipeline.instance().behave(Behaviour::rejects(403, "no"));
    sender.send_many(6).await;
    why(&pipeline.batch_sender, &["3 refusals in a row: single activities are tried (a wrong override"]).await;
    pipeline.instance().behave_well();
    sender.send_many(1).await;
    moves(&pipeline.batch_sender).await;

    let jetstream = pipeline.broker.jetstream().await.unwrap();
    jetstream.delete_stream(copies::STREAM).await.unwrap();
    pipeline.instance().behave_next(1, Behaviour::rejects(403, "no"));
    sender.send_many(1).await;
    why(&pipeline.batch_sender, &["is being parked: ", "can't be parked"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_another_batch_sender_has_is_shown_with_its_owner_and_one_that_nobody_has_with_the_reason() {
    let mut pipeline = one_lane()
        .env(Which::BatchSender, "FED_SENDER_ID", "sender-a")
        .env(Which::BatchSender, "FED_LEASE_TTL", "3s")
        .start()
        .await
        .unwrap();
    pipeline.instance().freeze();
    pipeline.sender("a.test", "home.test").send_many(2).await;
    let carried = view::wait(&pipeline.batch_sender, LANE, "it is carried", |lane| lane["held"] == 2).await;

    // The hash gives this lane to the first of the two.
    let mut second = pipeline.batch_sender.twin().unwrap();
    second.set_env("FED_SENDER_ID", Some("sender-b"));
    second.start().await.unwrap();
    let others = |lane: &Value| lane["owner"] == "sender-a" && lane["epoch"] == carried["epoch"];
    let shown = view::wait(&second, LANE, "the second shows whose it is", others).await;
    assert_eq!((&shown["depth"], &shown["why"]), (&json!(2), &Value::Null), "{shown}");

    pipeline.batch_sender.kill9();
    let own = |lane: &Value| lane["owner"] == "sender-b" && lane["epoch"].as_u64() > carried["epoch"].as_u64();
    view::wait(&second, LANE, "the second has it", own).await;
    pipeline.instance().thaw();
    pipeline.settle(SOON).await.assert_clean_but_repeated();
    pipeline.wait_trimmed(SOON + Duration::from_secs(1)).await.unwrap();
}

/// Waits until the page says why the lane stands, in a line that has all of these words.
async fn why(sender: &Service, words: &[&str]) {
    let all = |lane: &Value| words.iter().all(|words| view::says(lane, words));
    let lane = view::wait(sender, LANE, &format!("the page says {words:?}"), all).await;
    assert!(lane["why"].as_str().is_some_and(|why| !why.contains('\n')), "{lane}");
}

/// Waits until nothing waits and nothing is said.
async fn moves(sender: &Service) {
    let moves = |lane: &Value| lane["why"].is_null() && lane["held"] == 0;
    view::wait(sender, LANE, "the lane moves again", moves).await;
}
