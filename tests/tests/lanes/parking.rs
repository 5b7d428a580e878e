//! What leaves its lane undelivered: only with evidence, only with a copy, and the rest goes on in order.

use async_nats::jetstream::stream;
use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::{becomes_true, eventually};
use fedstream_tests::pipeline::{Builder, Which};
use serde_json::json;

use crate::copies::{self, Copy};
use crate::entries::{Entries, KEY};
use crate::{LANE, SOON, accepted_comments, comment, one_lane, view};

const BROKEN: &str = r#"{"error":"internal"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activity_that_the_instance_fails_on_again_and_again_is_parked_where_a_probe_says_that_it_lives() {
    let pipeline = impatient().start().await.unwrap();
    pipeline.instance().behave_where(None, Behaviour::rejects(500, BROKEN), comment(3));
    pipeline.sender("a.test", "home.test").send_many(8).await;
    let parked = copies::wait(&pipeline, 1).await;
    pipeline.instance().wait_accepted(7, SOON).await.unwrap();
    assert_poison(&parked[0]);
    assert_eq!(accepted_comments(&pipeline), [1, 2, 4, 5, 6, 7, 8]);
    pipeline.wait_trimmed(SOON).await.unwrap();
    assert_eq!(copies::all(&pipeline).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_probe_another_lane_of_the_same_instance_is_the_witness() {
    let pipeline =
        impatient().source("b.test").env(Which::BatchReceiver, "FED_DESTINATION_PROBE", "off").start().await.unwrap();
    let poisonous = comment(3);
    pipeline
        .instance()
        .behave_where(None, Behaviour::rejects(500, BROKEN), move |seen| seen.lane == LANE && poisonous(seen));
    pipeline.sender("a.test", "home.test").send_many(5).await;
    let attempts = || pipeline.instance().seen().iter().filter(|seen| seen.status == Some(500)).count();
    becomes_true("it has failed", SOON, || attempts() > 0).await.unwrap();
    let first =
        pipeline.instance().seen().iter().find(|seen| seen.status == Some(500)).map(|seen| seen.arrived).unwrap();
    let enough = || attempts() > 5 && first.elapsed() > 2 * POISON_AFTER;
    becomes_true("it has failed often and long enough", SOON, enough).await.unwrap();
    // For as long as nobody speaks for the instance, all of them may be its own fault.
    assert_eq!(copies::all(&pipeline).await.len(), 0);
    pipeline.sender("b.test", "home.test").send_many(1).await;
    let parked = copies::wait(&pipeline, 1).await;
    assert_poison(&parked[0]);
    pipeline.instance().wait_accepted(5, SOON).await.unwrap();
    pipeline.wait_trimmed(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_fails_on_everything_costs_no_activity_its_place() {
    let pipeline = impatient().source("b.test").start().await.unwrap();
    pipeline.instance().behave(Behaviour::rejects(500, BROKEN));
    pipeline.instance().set_probe_status(500);
    for source in ["a.test", "b.test"] {
        pipeline.sender(source, "home.test").send_many(4).await;
    }
    becomes_true("it fails", SOON, || pipeline.instance().arrivals() > 0).await.unwrap();
    let first = pipeline.instance().seen()[0].arrived;
    // Twice of both bounds.
    let long_enough = || first.elapsed() > 2 * POISON_AFTER && pipeline.instance().arrivals() > 2 * 2 * 3;
    becomes_true("it has failed for long enough", SOON, long_enough).await.unwrap();
    assert_eq!(copies::all(&pipeline).await.len(), 0);
    pipeline.instance().behave_well();
    pipeline.instance().set_probe_status(200);
    pipeline.settle(SOON).await.assert_clean(8);
    assert_eq!(copies::all(&pipeline).await.len(), 0);
    pipeline.wait_trimmed(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rejected_leaves_a_copy_with_the_answer_and_the_rest_keeps_its_order() {
    const GONE: &str = "{\"error\":\"couldnt_find_community\",\n \"at\":\"Ünïcode\"}";
    let mut pipeline = one_lane().without(Which::BatchSender).start().await.unwrap();
    for (number, status) in [(4, 400), (5, 403), (17, 410)] {
        pipeline.instance().behave_where(None, Behaviour::rejects(status, GONE), comment(number));
    }
    // It has failed before it is refused.
    pipeline.instance().behave_where(Some(1), Behaviour::busy(503, None), |_| true);
    pipeline.sender("a.test", "home.test").send_many(20).await;
    pipeline.batch_sender.start().await.unwrap();
    let report = pipeline.settle(SOON).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.delivered, report.rejected), (17, 3), "{report}");

    let parked = copies::wait(&pipeline, 3).await;
    let sent = pipeline.ledger.submissions();
    for (copy, (number, status)) in parked.iter().zip([(4, "400"), (5, "403"), (17, "410")]) {
        let original = &sent[number - 1];
        assert_eq!(copy.reason(), "rejected");
        assert_eq!(copy.header("Fed-Activity-Id"), original.id);
        assert_eq!(copy.header("Fed-Parked-Status"), status);
        assert_eq!(copy.header("Fed-Parked-Answer"), GONE.replace('\n', " "), "one line, in its own letters");
        assert_eq!(copy.header("Fed-Parked-Sequence"), number.to_string());
        assert_eq!(fedstream_tests::message::sha256_hex(copy.body()), original.body_sha256);
        assert_eq!(copy.attempts(), 1, "{copy:?}");
        assert_eq!(copy.time("Fed-Parked-First-Attempt"), copy.time("Fed-Parked-Last-Attempt"));
    }
    pipeline.wait_trimmed(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_no_copy_can_be_stored_nothing_is_trimmed_and_the_lane_says_why_and_then_goes_on() {
    // Small windows, so that a lane that can't settle its head soon stands.
    let pipeline = one_lane()
        .env(Which::BatchSender, "HTTP_BATCH_SIZE", "5")
        .env(Which::BatchSender, "FED_WINDOW_ITEMS", "10")
        .start()
        .await
        .unwrap();
    let jetstream = pipeline.broker.jetstream().await.unwrap();
    let config = jetstream.get_stream(copies::STREAM).await.unwrap().get_info().await.unwrap().config;
    jetstream.delete_stream(copies::STREAM).await.unwrap();
    pipeline.instance().behave_where(None, Behaviour::rejects(403, "no"), comment(1));
    pipeline.sender("a.test", "home.test").send_many(40).await;

    let lane = view::wait_why(&pipeline.batch_sender, LANE, "the copy of sequence 1 can't be parked").await;
    assert!(view::says(&lane, "sequence 1 is being parked"), "{lane}");
    assert_eq!(lane["floor"], 0, "{lane}");
    // What was read is delivered; the rest waits behind what can't be settled.
    pipeline.instance().wait_accepted(14, SOON).await.unwrap();
    assert_eq!(pipeline.depth().await, Some(40), "nothing is trimmed");

    jetstream.create_stream(stream::Config { subjects: vec!["fed.parked.>".into()], ..config }).await.unwrap();
    let report = pipeline.settle(SOON).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.delivered, report.rejected), (39, 1), "{report}");
    let parked = copies::wait(&pipeline, 1).await;
    assert_eq!((parked[0].reason(), parked[0].number()), ("rejected", 1));
    pipeline.wait_trimmed(SOON).await.unwrap();
    view::wait(&pipeline.batch_sender, LANE, "it moves again", |lane| lane["why"].is_null()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lemmy_profile_tells_known_expired_and_unprocessed_ones_from_refused_ones() {
    let mut pipeline = one_lane().without(Which::BatchSender).start().await.unwrap();
    let expired = r#"{"error":"unknown","message":"Http Signature is expired, checked Date header"}"#;
    let away = r#"{"error":"unknown","message":"Timeout occurred while waiting for a slot to become available"}"#;
    for (number, times, answer) in [
        (2, None, r#"{"error":"unknown","message":""}"#),
        (3, None, expired),
        (4, None, r#"{"error":"inbox_timeout"}"#),
        (5, Some(2), away),
        (6, None, r#"{"error":"cannot_receive_page"}"#),
    ] {
        pipeline.instance().behave_where(times, Behaviour::rejects(400, answer), comment(number));
    }
    Entries::of(&pipeline).await.set(KEY, &json!({"profile": "lemmy"})).await;
    pipeline.sender("a.test", "home.test").send_many(8).await;
    pipeline.batch_sender.start().await.unwrap();
    let parked = copies::wait(&pipeline, 3).await;
    let told: Vec<_> = parked.iter().map(|copy| (copy.header("Fed-Parked-Sequence"), copy.reason())).collect();
    assert_eq!(told, [("3", "expired"), ("4", "unprocessed"), ("6", "rejected")]);
    assert_eq!(parked[0].header("Fed-Parked-Answer"), expired);
    pipeline.instance().wait_accepted(4, SOON).await.unwrap();
    assert_eq!(accepted_comments(&pipeline), [1, 5, 7, 8], "2 was there already; 5 came when its database did");
    pipeline.wait_trimmed(SOON).await.unwrap();
    assert_eq!(copies::all(&pipeline).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_parks_the_head_of_a_lane_by_its_sequence_and_nothing_else_with_it() {
    let pipeline = one_lane().start().await.unwrap();
    pipeline.instance().behave_where(None, Behaviour::busy(503, None), comment(2));
    pipeline.sender("a.test", "home.test").send_many(6).await;
    let entries = Entries::of(&pipeline).await;
    view::wait_why(&pipeline.batch_sender, LANE, "and is tried again ").await;
    entries.set(KEY, &json!({"park": 2})).await;
    let parked = copies::wait(&pipeline, 1).await;
    assert_eq!((parked[0].reason(), parked[0].header("Fed-Parked-Sequence")), ("operator", "2"));
    assert_eq!(parked[0].header("Fed-Parked-Status"), "503");
    assert!(parked[0].attempts() > 0, "{parked:?}");
    pipeline.instance().wait_accepted(5, SOON).await.unwrap();
    assert_eq!(accepted_comments(&pipeline), [1, 3, 4, 5, 6]);
    let done = async || entries.get(KEY).await.filter(|entry| entry["park"].is_null());
    eventually("the wish is no wish about another second activity", SOON, done).await.unwrap();
    pipeline.wait_trimmed(SOON).await.unwrap();
    assert_eq!(copies::all(&pipeline).await.len(), 1);
}

/// In a test nobody waits two minutes for evidence.
const POISON_AFTER: std::time::Duration = std::time::Duration::from_secs(2);

fn impatient() -> Builder {
    one_lane().env(Which::BatchSender, "FED_POISON_ATTEMPTS", "3").env(
        Which::BatchSender,
        "FED_POISON_AFTER",
        &format!("{}s", POISON_AFTER.as_secs()),
    )
}

fn assert_poison(copy: &Copy) {
    assert_eq!((copy.reason(), copy.header("Fed-Parked-Status")), ("poison", "500"), "{copy:?}");
    assert!(copy.attempts() >= 3, "{copy:?}");
    let lasted = copy.time("Fed-Parked-Last-Attempt") - copy.time("Fed-Parked-First-Attempt");
    assert!(lasted >= POISON_AFTER, "{lasted}: {copy:?}");
    assert!(copy.header("Fed-Parked-Answer").contains("500"), "{copy:?}");
}
