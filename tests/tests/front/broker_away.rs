//! A broker that is down, silent, full or without its stream: 503 within the publish timeout, and back again within two
//! seconds without a restart.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fedstream_tests::broker;
use fedstream_tests::eventually::eventually;
use fedstream_tests::http1::{self, Response};
use fedstream_tests::message::Message;
use fedstream_tests::pipeline::{Pipeline, Which};

use crate::inbox::Inbox;
use crate::request::{PATIENCE, Request, activity, assert_come_back, detail, kind};

const PUBLISH_TIMEOUT: Duration = Duration::from_secs(1);

/// What a busy machine may add to a time that the service keeps.
const SLACK: Duration = Duration::from_secs(1);

/// The issue's own figure.
const RECOVERED: Duration = Duration::from_secs(2);

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_it_says_503_in_time_and_stores_again_within_two_seconds() {
    let mut pipeline = Pipeline::builder()
        .source("a.test")
        .env(Which::InboxReceiver, "FED_PUBLISH_TIMEOUT", "1s")
        .start()
        .await
        .unwrap();
    let mut sender = pipeline.sender("a.test", "home.test");
    sender.send_many(5).await;
    let pids = (pipeline.inbox_receiver.pid(), pipeline.batch_sender.pid());

    // The same bytes each time: a publish that had no ack may be stored all the same, and then the first try arrives.
    let mut next = || {
        let activity = sender.compose();
        sender.signed(&activity)
    };
    let (first, second) = (next(), next());
    let front = pipeline.front();

    // Down: it is noticed, and said at once.
    pipeline.broker.kill9();
    let answer = in_time(post(front, &first)).await;
    assert!(["broker-unavailable", "publish-timeout"].contains(&kind(&answer).as_str()), "{answer:?}");
    let known = async || (kind(&in_time(post(front, &first)).await) == "broker-unavailable").then_some(());
    eventually("the front door knows", SOON, known).await.unwrap();
    assert_come_back(&in_time(post(front, &first)).await, "broker-unavailable");
    let not_ready = async || (!pipeline.inbox_receiver.is_ready().await).then_some(());
    eventually("/readyz says so", SOON, not_ready).await.unwrap();

    pipeline.broker.start_again().await.unwrap();
    let took = stores_again(async || post(front, &first).await).await;
    println!("stored again {} ms after the broker's return", took.as_millis());
    pipeline.inbox_receiver.wait_ready().await.unwrap();

    // Silent: it keeps the connection and acknowledges nothing.
    pipeline.broker.pause().unwrap();
    assert_come_back(&in_time(post(front, &second)).await, "publish-timeout");
    pipeline.broker.resume().unwrap();
    let took = stores_again(async || post(front, &second).await).await;
    println!("stored again {} ms after the broker found its voice", took.as_millis());

    // Known to the front door by now, and entered into the ledger so.
    for message in [&first, &second] {
        assert_eq!(sender.send_verbatim(message).await.status, 204);
    }
    sender.send_many(5).await;
    pipeline.settle(SOON).await.assert_clean(12);
    assert_eq!((pipeline.inbox_receiver.pid(), pipeline.batch_sender.pid()), pids, "nobody was restarted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_missing_or_was_made_dangerous_is_503_until_it_is_right_again() {
    let mut pipeline = Pipeline::builder()
        .source("a.test")
        .env(Which::InboxReceiver, "FED_STREAMS", "bind")
        .env(Which::InboxReceiver, "FED_PUBLISH_TIMEOUT", "1s")
        .without(Which::InboxReceiver)
        .without(Which::BatchSender)
        .without(Which::BatchReceiver)
        .start()
        .await
        .unwrap();
    let inbox = Inbox::of(&pipeline.broker).await;
    inbox.create(|_| {}).await;
    pipeline.inbox_receiver.start().await.unwrap();
    let front = pipeline.front();
    let send = async || Request::new("a.test", "home.test").send(front).await;
    assert_eq!(send().await.status, 204);

    inbox.delete().await;
    let answer = in_time(send()).await;
    assert_come_back(&answer, "stream-missing");
    let not_ready = async || (!pipeline.inbox_receiver.is_ready().await).then_some(());
    eventually("/readyz says that the stream is missing", SOON, not_ready).await.unwrap();
    assert_come_back(&send().await, "stream-missing");
    inbox.create(|_| {}).await;
    let took = stores_again(send).await;
    println!("stored again {} ms after the stream's return", took.as_millis());
    pipeline.inbox_receiver.wait_ready().await.unwrap();

    // Somebody changes it by hand while we run.
    inbox.update(|config| config.allow_rollup = true).await;
    let answer = async || Some(send().await).filter(|answer| answer.status != 204);
    let answer = eventually("the front door sees that the stream became dangerous", SOON, answer).await.unwrap();
    assert_come_back(&answer, "stream-unsafe");
    assert!(detail(&answer).contains("allow_rollup_hdrs"), "{answer:?}");
    inbox.update(|config| config.allow_rollup = false).await;
    eventually("it is right again", SOON, async || (send().await.status == 204).then_some(())).await.unwrap();

    // Where the streams are ours to make, a missing one is made again.
    assert_eq!(pipeline.inbox_receiver.terminate(SOON).await.unwrap(), Some(0));
    pipeline.inbox_receiver.set_env("FED_STREAMS", Some("create"));
    pipeline.inbox_receiver.start().await.unwrap();
    inbox.delete().await;
    eventually("the stream is made again", SOON, async || (send().await.status == 204).then_some(())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_account_is_503_until_there_is_room() {
    let account = "accounts { FED { users = [ { user: fed, password: fed } ], jetstream { max_file: 128KB } } }";
    let options =
        broker::Options { lines: vec![account.into(), "no_auth_user: fed".into()], ..broker::Options::default() };
    let mut pipeline = Pipeline::builder()
        .source("a.test")
        .broker(options)
        .env(Which::InboxReceiver, "FED_STREAMS", "bind")
        .env(Which::InboxReceiver, "FED_PUBLISH_TIMEOUT", "1s")
        .without(Which::InboxReceiver)
        .without(Which::BatchSender)
        .without(Which::BatchReceiver)
        .start()
        .await
        .unwrap();
    let inbox = Inbox::of(&pipeline.broker).await;
    // A stream with a bound of its own would have to lie below the account's.
    inbox.create(|config| config.max_bytes = -1).await;
    pipeline.inbox_receiver.start().await.unwrap();
    let front = pipeline.front();
    let send = async || {
        let mut json = activity("a.test");
        json["padding"] = "x".repeat(8 * 1024).into();
        Request::new("a.test", "home.test").body(json.to_string()).send(front).await
    };

    let answer = eventually("the account is full", SOON, async || Some(send().await).filter(|a| a.status != 204)).await;
    let answer = answer.unwrap();
    assert_come_back(&answer, "storage-full");
    assert!(detail(&answer).contains("the largest lane is home.test/a.test"), "{answer:?}");
    let before = inbox.last().await;
    assert_come_back(&in_time(send()).await, "storage-full");
    assert_eq!(inbox.last().await, before);
    inbox.purge().await;
    let took = stores_again(send).await;
    println!("stored again {} ms after the account had room", took.as_millis());
}

async fn post(front: SocketAddr, message: &Message) -> Response {
    http1::raw(front, &message.to_bytes(), PATIENCE).await.expect("an answer")
}

/// An answer within the publish timeout.
async fn in_time(answer: impl Future<Output = Response>) -> Response {
    let began = Instant::now();
    let answer = answer.await;
    assert!(began.elapsed() < PUBLISH_TIMEOUT + SLACK, "after {:?}: {answer:?}", began.elapsed());
    assert_eq!(answer.status, 503, "{answer:?}");
    answer
}

/// Tries until it is stored, and says how long that took.
async fn stores_again(mut send: impl AsyncFnMut() -> Response) -> Duration {
    let began = Instant::now();
    let stored = async || (send().await.status == 204).then_some(());
    eventually("it is stored again", RECOVERED + SLACK, stored).await.expect("recovery in time");
    began.elapsed()
}
