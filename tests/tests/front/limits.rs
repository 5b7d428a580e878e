//! Full is what the broker says is full, exactly, and it passes.

use std::time::Duration;

use fedstream_tests::http1::Response;
use fedstream_tests::pipeline::{Builder, Pipeline, Which};
use fedstream_tests::sender::{Activity, Sender};
use tokio::task::JoinSet;

use crate::inbox::Inbox;
use crate::request::{PATIENCE, assert_come_back, detail};

const SENDERS: usize = 50;
const DRAINED: Duration = Duration::from_secs(20);

/// One of the senders, and its one activity.
struct Attempt {
    sender: Sender,
    activity: Activity,
    answer: Response,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_lane_refuses_exactly_at_its_limit_under_50_senders_and_takes_them_after_it_drains() {
    const LIMIT: usize = 20;
    let mut pipeline = two_sources().env(Which::InboxReceiver, "FED_LANE_MESSAGES_MAX", "20").start().await.unwrap();
    let inbox = Inbox::of(&pipeline.broker).await;
    let mut other = pipeline.sender("b.test", "home.test");

    let (attempts, ()) = tokio::join!(all_at_once(&pipeline, "a.test"), other.send_many(LIMIT / 2));
    let (accepted, refused) = split(attempts);
    assert_eq!(accepted.len(), LIMIT);
    for attempt in &refused {
        assert_come_back(&attempt.answer, "lane-full");
        let said = detail(&attempt.answer);
        assert!(said.contains("max_msgs_per_subject") && said.contains("its limit is 20"), "{said}");
        assert_eq!(attempt.answer.json()["lane"], "home.test/a.test");
        assert_eq!(attempt.answer.retry_after(), Some(10));
    }
    assert_eq!(inbox.messages().await, 30);

    // While it is full: what it has, it knows; and other lanes go on.
    let again = accepted[0].sender.signed(&accepted[0].activity).to_bytes();
    let known = fedstream_tests::http1::raw(pipeline.front(), &again, PATIENCE).await.unwrap();
    assert_eq!(known.status, 204, "{known:?}");
    other.send_many(LIMIT / 2).await;
    assert_eq!(inbox.messages().await, 40);

    pipeline.batch_sender.start().await.unwrap();
    let refused_count = refused.len();
    send_again(refused).await;
    pipeline.settle(DRAINED).await.assert_clean(LIMIT + LIMIT + refused_count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_names_its_limit_and_the_largest_lane_and_takes_all_after_it_drains() {
    const LIMIT: u64 = 64 * 1024;
    let mut pipeline = two_sources().env(Which::InboxReceiver, "FED_STREAM_BYTES_MAX", "64KiB").start().await.unwrap();
    let inbox = Inbox::of(&pipeline.broker).await;
    let mut small = pipeline.sender("b.test", "home.test");
    small.send_many(2).await;

    let (accepted, refused) = split(all_at_once(&pipeline, "a.test").await);
    assert!(accepted.len() > 2 && !refused.is_empty(), "{} accepted", accepted.len());
    let activity = small.compose();
    let other_lane = Attempt { answer: small.try_once(&activity).await.unwrap(), sender: small, activity };
    for attempt in refused.iter().chain([&other_lane]) {
        assert_come_back(&attempt.answer, "stream-full");
        let said = detail(&attempt.answer);
        assert!(said.contains("max_bytes") && said.contains("the largest lane is home.test/a.test with"), "{said}");
    }
    let state = inbox.info().await.state;
    assert_eq!(state.messages as usize, accepted.len() + 2, "what was refused is not stored");
    assert!(state.bytes <= LIMIT && state.bytes > LIMIT - 8 * 1024, "{} bytes", state.bytes);

    pipeline.batch_sender.start().await.unwrap();
    let mut refused = refused;
    refused.push(other_lane);
    send_again(refused).await;
    pipeline.settle(DRAINED).await.assert_clean(2 + SENDERS + 1);
}

/// Nothing drains until the batch-sender is started.
fn two_sources() -> Builder {
    Pipeline::builder().source("a.test").source("b.test").without(Which::BatchSender)
}

/// One try each of 50 senders of one source, all at the same time.
async fn all_at_once(pipeline: &Pipeline, source: &str) -> Vec<Attempt> {
    let mut sending = JoinSet::new();
    for _ in 0..SENDERS {
        let mut sender = pipeline.sender(source, "home.test");
        sending.spawn(async move {
            let activity = sender.compose();
            let answer = sender.try_once(&activity).await.expect("an answer");
            Attempt { sender, activity, answer }
        });
    }
    sending.join_all().await
}

fn split(attempts: Vec<Attempt>) -> (Vec<Attempt>, Vec<Attempt>) {
    attempts.into_iter().partition(|attempt| attempt.answer.status == 204)
}

/// Sends each until it is stored.
async fn send_again(refused: Vec<Attempt>) {
    let mut sending = JoinSet::new();
    for mut attempt in refused {
        sending.spawn(async move { attempt.sender.send(&attempt.activity).await });
    }
    for answer in sending.join_all().await {
        assert_eq!(answer.status, 204, "{answer:?}");
    }
}
