//! What is set for a lane while it runs shows in the batches that come, without a restart.

use fedstream_tests::eventually::{becomes_true, eventually};
use fedstream_tests::pipeline::{Builder, Pipeline, Which};
use serde_json::{Value, json};

use crate::entries::{Entries, KEY};
use crate::{LANE, SOON, batches, one_lane, view};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_size_of_batches_and_the_rate_of_a_lane_change_while_it_runs() {
    // At debug it says of a lane that it comes back to, too, that it carries it.
    let builder = few_in_flight().env(Which::BatchSender, "LOG_LEVEL", "info,fedstream_carrier=debug");
    let pipeline = builder.start().await.unwrap();
    let entries = Entries::of(&pipeline).await;
    let mut sender = pipeline.sender("a.test", "home.test");
    sender.send_many(1).await;
    pipeline.settle(SOON).await;
    for most in [7, 3] {
        let begun = batches::done(&pipeline.batch_receiver).len();
        set(&pipeline, &entries, &json!({"batch_items": most})).await;
        backlog(&pipeline, 40).await;
        let sizes: Vec<u64> = batches::done(&pipeline.batch_receiver)[begun..].iter().map(|done| done.items).collect();
        // A batch that forms while the backlog comes may be smaller.
        assert_eq!(sizes.iter().max(), Some(&most), "{sizes:?}");
    }

    const RATE: u64 = 40;
    let begun = batches::done(&pipeline.batch_receiver).len();
    set(&pipeline, &entries, &json!({"batch_items": 10, "rate_per_s": RATE})).await;
    sender.send_many(80).await;
    all_done(&pipeline).await;
    let (items, took) = batches::pace(&batches::done(&pipeline.batch_receiver)[begun..]);
    let rate = f64::from(u32::try_from(items).unwrap()) / took.as_secs_f64();
    println!("{items} activities in {} ms: {rate:.1} a second", took.as_millis());
    assert!((RATE as f64 * 0.6..=RATE as f64 * 1.1).contains(&rate), "{rate} a second");

    // Of the default, the lane takes what it has not set itself.
    entries.set("default", &json!({"rate_per_s": 10_000, "linger_ms": 7})).await;
    changed(&pipeline, "linger_ms: Some(7)").await;
    set(&pipeline, &entries, &json!({"batch_items": 5})).await;
    backlog(&pipeline, 40).await;
    pipeline.report().assert_clean(1 + 40 + 40 + 80 + 40);
    assert_eq!(pipeline.batch_sender.log().matches("the lane is carried").count(), 1, "one owner all along");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_window_and_the_linger_of_a_lane_change_while_it_runs() {
    let pipeline = one_lane().start().await.unwrap();
    let entries = Entries::of(&pipeline).await;
    let mut sender = pipeline.sender("a.test", "home.test");
    sender.send_many(1).await;
    pipeline.settle(SOON).await;

    // Nothing is answered, so a window fills and stays so.
    pipeline.instance().freeze();
    set(&pipeline, &entries, &json!({"batch_items": 2, "window_batches": 3, "linger_ms": 10_000})).await;
    sender.send_many(30).await;
    for (window, posts, in_flight) in [
        (json!({"batch_items": 2, "window_batches": 3, "linger_ms": 10_000}), 3, 5),
        (json!({"batch_items": 2, "window_batches": 5, "linger_ms": 10_000}), 5, 9),
        (json!({"batch_items": 2, "window_batches": 9, "window_items": 14, "linger_ms": 10_000}), 7, 13),
    ] {
        entries.set(KEY, &window).await;
        // One of them was the first, and went by itself.
        full(&pipeline, posts, in_flight).await;
    }
    pipeline.instance().thaw();
    pipeline.settle(SOON).await.assert_clean(31);

    // With a linger what comes after a batch in flight is gathered; without one it goes by itself.
    let told = || batches::done(&pipeline.batch_receiver).iter().map(|done| done.items).sum::<u64>();
    becomes_true("the log has every batch until here", SOON, || told() == 31).await.unwrap();
    let begun = batches::done(&pipeline.batch_receiver).len();
    set(&pipeline, &entries, &json!({"linger_ms": 10_000})).await;
    pipeline.instance().freeze();
    sender.send_many(1).await;
    full(&pipeline, 1, 1).await;
    sender.send_many(5).await;
    let held = |lane: &Value| lane["held"] == 6;
    let lane = view::wait(&pipeline.batch_sender, LANE, "all are read", held).await;
    assert_eq!(lane["posts"], 1, "{lane}");
    pipeline.instance().thaw();
    pipeline.settle(SOON).await.assert_clean(37);
    set(&pipeline, &entries, &json!({"linger_ms": 0})).await;
    pipeline.instance().freeze();
    for posts in 1..=3 {
        sender.send_many(1).await;
        full(&pipeline, posts, posts).await;
    }
    pipeline.instance().thaw();
    pipeline.settle(SOON).await.assert_clean(40);
    let sizes = || batches::done(&pipeline.batch_receiver)[begun..].iter().map(|done| done.items).collect::<Vec<_>>();
    becomes_true("the last batch is done", SOON, || sizes().len() >= 5).await.unwrap();
    assert_eq!(sizes(), [1, 5, 1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_invalid_entry_the_page_shows_field_and_reason_and_the_last_valid_one_stays_in_force() {
    let mut pipeline = few_in_flight().start().await.unwrap();
    let entries = Entries::of(&pipeline).await;
    entries.set(KEY, &json!({"batch_items": 6})).await;
    entries.set(KEY, &json!({"batch_items": 0, "colour": "red"})).await;
    entries.set("nonsense", &json!({})).await;
    let expected = [
        "inbox.home_test.a_test: batch_items: is 0, must be 1 to 1000",
        "inbox.home_test.a_test: colour: no such setting",
        "nonsense: key: ",
    ];
    refused(&pipeline, &expected).await;
    backlog(&pipeline, 40).await;
    let largest = || batches::done(&pipeline.batch_receiver).iter().map(|done| done.items).max();
    assert_eq!(largest(), Some(6));

    // Who starts after it finds the valid one before it.
    assert_eq!(pipeline.batch_sender.terminate(SOON).await.unwrap(), Some(0));
    pipeline.batch_sender.start().await.unwrap();
    refused(&pipeline, &expected).await;
    backlog(&pipeline, 40).await;
    assert_eq!(largest(), Some(6));

    entries.set(KEY, &json!({"batch_items": 9})).await;
    refused(&pipeline, &expected[2..]).await;
    backlog(&pipeline, 40).await;
    assert_eq!(largest(), Some(9));
    pipeline.report().assert_clean(120);
}

/// Changes the lane's own settings, and waits until its owner says that they hold.
async fn set(pipeline: &Pipeline, entries: &Entries, settings: &Value) {
    let said = said(pipeline);
    entries.set(KEY, settings).await;
    let heard = || self::said(pipeline) > said;
    becomes_true(format!("{settings} holds"), SOON, heard).await.expect("the owner hears of it");
}

/// Waits until the owner said of its settings that they have this in them.
async fn changed(pipeline: &Pipeline, words: &str) {
    let heard = || {
        let log = pipeline.batch_sender.log();
        log.lines().any(|line| line.contains("the lane's settings changed") && line.contains(words))
    };
    becomes_true(format!("the owner says {words}"), SOON, heard).await.expect("it hears of it");
}

fn said(pipeline: &Pipeline) -> usize {
    pipeline.batch_sender.log().matches("the lane's settings changed").count()
}

/// Two batches in flight at most: what comes while the instance stands still waits, and makes full batches then.
fn few_in_flight() -> Builder {
    one_lane().env(Which::BatchSender, "FED_WINDOW_BATCHES", "2")
}

/// Hands in so many while the instance stands still, and lets them go at once.
async fn backlog(pipeline: &Pipeline, count: usize) {
    pipeline.instance().freeze();
    pipeline.sender("a.test", "home.test").send_many(count).await;
    pipeline.instance().thaw();
    all_done(pipeline).await;
}

async fn all_done(pipeline: &Pipeline) {
    pipeline.settle(SOON).await;
    // The last line of the last batch follows its last outcome.
    let done = || batches::done(&pipeline.batch_receiver).iter().map(|done| done.items).sum::<u64>();
    let all = u64::try_from(pipeline.ledger.accepted()).unwrap_or(u64::MAX);
    becomes_true("every batch is done", SOON, || done() >= all).await.expect("all are delivered");
}

/// Waits until so many batches with so many activities are in flight.
async fn full(pipeline: &Pipeline, posts: u64, in_flight: u64) {
    let what = format!("{in_flight} activities in {posts} batches in flight");
    let full = |lane: &Value| lane["posts"] == posts && lane["in_flight"] == in_flight;
    view::wait(&pipeline.batch_sender, LANE, &what, full).await;
}

/// Waits until the page shows these refusals, by their beginnings, and no other.
async fn refused(pipeline: &Pipeline, expected: &[&str]) {
    let mut last = None;
    let shown = eventually(format!("{expected:?} are shown"), SOON, async || {
        let page = view::page(&pipeline.batch_sender).await?;
        let refused = page["settings_refused"].as_array()?.clone();
        let shown = |beginning: &&str| refused.iter().filter_map(Value::as_str).any(|line| line.starts_with(beginning));
        let all = refused.len() == expected.len() && expected.iter().all(shown);
        last = Some(refused);
        all.then_some(())
    });
    let shown = shown.await;
    shown.unwrap_or_else(|timeout| panic!("{timeout}: {last:?}"));
}
