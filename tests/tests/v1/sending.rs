//! What goes to a receiver that knows v1 only, and what does not.

use async_nats::jetstream::kv::Store;
use fedstream_tests::load::Load;
use fedstream_tests::pipeline::{Pipeline, Which};
use serde_json::{Value, json};

use crate::{SOON, begin_anew, former, near_half, wait_lane, wait_protocol, wait_why};

/// More than one batch.
const SOME: usize = 150;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_finds_an_existing_receiver_and_all_goes_by_it_in_order_and_unaltered() {
    let pipeline = near_half().start().await.unwrap();
    let former = former(&pipeline).await;
    let load = Load::on(&pipeline, &[("a.test", "home.test")]);
    pipeline.instance().wait_accepted(SOME, SOON).await.unwrap();
    let sent = load.stop().await;
    pipeline.settle(SOON).await.assert_clean(sent);
    pipeline.wait_trimmed(SOON).await.unwrap();

    let batches = former.batches();
    for batch in &batches {
        assert!(!batch.overlaps, "one at a time");
        assert_eq!(batch.head.header("content-type"), Some("application/json"), "no activity was posted to find out");
        assert_eq!(batch.head.header("authorization"), Some("Bearer test-credential"));
        assert_eq!(batch.head.header("content-encoding"), None);
        assert!(batch.head.header("user-agent").is_some_and(|agent| agent.starts_with("fedstream/")));
    }
    assert_eq!(batches.iter().filter_map(|batch| batch.items).sum::<usize>(), sent);
    wait_protocol(&pipeline, "v1").await;
    let log = pipeline.batch_sender.log();
    assert_eq!(log.matches("was asked which batch format it takes").count(), 1, "{log}");
    assert!(former.gets() < 10, "{}: an answer that fits needs no question", former.gets());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_away_when_it_is_asked_is_asked_again_and_the_lane_says_so() {
    let pipeline = near_half().start().await.unwrap();
    pipeline.sender("a.test", "home.test").send_many(5).await;
    wait_why(&pipeline, "error sending request").await;
    let former = former(&pipeline).await;
    pipeline.settle(SOON).await.assert_clean(5);
    assert_eq!(former.batches().iter().filter(|batch| batch.items.is_none()).count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_asks_nobody_and_v2_towards_an_existing_receiver_stands_and_loses_nothing() {
    let mut pipeline = near_half().env(Which::BatchSender, "BATCH_PROTOCOL", "v2").start().await.unwrap();
    let former = former(&pipeline).await;
    pipeline.sender("a.test", "home.test").send_many(5).await;
    wait_why(&pipeline, "the batch-receiver answered 422").await;
    pipeline.batch_sender.set_env("BATCH_PROTOCOL", Some("v1"));
    begin_anew(&mut pipeline.batch_sender).await;
    pipeline.settle(SOON).await.assert_clean(5);
    assert_eq!(former.gets(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activity_that_v1_cannot_carry_stays_and_goes_when_the_receiver_is_replaced() {
    let mut pipeline = near_half().start().await.unwrap();
    let mut former = former(&pipeline).await;
    send_three_and_one_with_a_query_and_three(&pipeline).await;
    let lane = wait_why(&pipeline, "can't go to a v1 batch-receiver: its target has a query").await;
    assert!(lane["why"].as_str().unwrap().contains("fedctl park"), "{lane}");
    pipeline.instance().wait_accepted(3, SOON).await.unwrap();
    assert_eq!(pipeline.instance().arrivals(), 3, "nothing overtakes it");

    former.go_down().await;
    pipeline.batch_receiver.start().await.unwrap();
    pipeline.settle(SOON).await.assert_clean(7);
    wait_protocol(&pipeline, "v2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activity_that_v1_cannot_carry_can_be_parked() {
    let pipeline = near_half().start().await.unwrap();
    let _former = former(&pipeline).await;
    send_three_and_one_with_a_query_and_three(&pipeline).await;
    let lane = wait_why(&pipeline, "can't go to a v1 batch-receiver").await;
    let head = lane["floor"].as_u64().unwrap() + 1;
    set(&pipeline, &json!({"park": head})).await;
    pipeline.instance().wait_accepted(6, SOON).await.unwrap();
    wait_lane(&pipeline, "it is parked, and the lane moves", |lane| lane["parked"] == 1 && lane["why"].is_null()).await;
    assert_eq!(pipeline.instance().arrivals(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_stays_below_its_bound_in_base64_and_all() {
    const BOUND: usize = 64 * 1024;
    let pipeline = near_half()
        .env(Which::BatchSender, "FED_V1_BATCH_BYTES", "64KiB")
        .env(Which::BatchSender, "FED_BATCH_BYTES", "1MiB")
        .start()
        .await
        .unwrap();
    // They wait when it comes up: full batches.
    let mut sender = pipeline.sender("a.test", "home.test");
    sender.text_bytes = 4096;
    sender.send_many(40).await;
    let former = former(&pipeline).await;
    pipeline.settle(SOON).await.assert_clean(40);
    let largest = former.batches().iter().map(|batch| batch.bytes).max().unwrap();
    assert!((BOUND / 2..=BOUND).contains(&largest), "{largest}");
}

async fn send_three_and_one_with_a_query_and_three(pipeline: &Pipeline) {
    let mut sender = pipeline.sender("a.test", "home.test");
    for target in ["/inbox", "/inbox?x=1", "/inbox"] {
        sender.target = target.to_owned();
        sender.send_many(if target == "/inbox" { 3 } else { 1 }).await;
    }
}

/// Writes the lane's settings.
pub async fn set(pipeline: &Pipeline, settings: &Value) {
    let jetstream = pipeline.broker.jetstream().await.expect("the broker");
    let lanes: Store = jetstream.get_key_value("fed_lanes").await.expect("the bucket");
    lanes.put("inbox.home_test.a_test", settings.to_string().into()).await.expect("an entry");
}
