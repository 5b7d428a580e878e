//! What batch-receiver counts of batches of the existing batcher's format.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::becomes_true;
use fedstream_tests::http1;
use fedstream_tests::message::Message;
use fedstream_tests::metrics_page::MetricsPage;
use fedstream_tests::pipeline::{CREDENTIAL, Which};
use serde_json::json;

use crate::{SOON, one_lane, until};

const BATCHES: &str = "fedstream_replay_batches_total";
const OUTCOMES: &str = "fedstream_replay_outcomes_total";

/// A batch of one activity.
fn batch(to: SocketAddr, activity: &Message) -> Vec<u8> {
    let body = json!([{
        "time": "2024-06-30T21:47:56.123456+00:00",
        "activity_id": "https://a.test/1",
        "host": "home.test",
        "path": "/inbox",
        "headers": activity.headers,
        "b64_body": STANDARD.encode(&activity.body),
    }])
    .to_string();
    let head = format!(
        "POST /batch HTTP/1.1\r\nhost: {to}\r\ncontent-type: application/json\r\n\
         authorization: Bearer {CREDENTIAL}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_a_stranger_made_up_has_no_name_and_a_sender_that_gives_up_is_counted() {
    let pipeline = one_lane().without(Which::InboxReceiver).without(Which::BatchSender).start().await.unwrap();
    let (receiver, to) = (&pipeline.batch_receiver, pipeline.batch_address());
    let page = MetricsPage::of(receiver).await.unwrap();
    assert_eq!(page.sum(BATCHES, &[("result", "v1")]), Some(0.0), "there, so that the first one is seen");

    let mut sender = pipeline.sender("a.test", "home.test");
    let activity = sender.compose();
    let genuine = sender.signed(&activity);
    let mut forged = genuine.clone();
    for (_, value) in &mut forged.headers {
        *value = value.replace("a.test", "stranger.test");
    }
    for (activity, lane, outcome) in [(&forged, "other", "rejected"), (&genuine, "home.test/a.test", "delivered")] {
        let answer = http1::raw(to, &batch(to, activity), SOON).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = until(receiver, OUTCOMES, &[("lane", lane), ("outcome", outcome)], 1.0).await;
        assert!(!page.values_of("lane").contains("home.test/stranger.test"), "{page}");
    }

    pipeline.instance().behave(Behaviour::Hang);
    let posting = tokio::spawn(async move { http1::raw(to, &batch(to, &genuine), SOON).await });
    becomes_true("the activity is at the instance", SOON, || pipeline.instance().arrivals() == 3).await.unwrap();
    posting.abort();
    until(receiver, BATCHES, &[("result", "v1")], 3.0).await;
}
