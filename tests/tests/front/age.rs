//! What would wait past its signature is not taken: a request that is too old itself, a lane that stands still, a lane that
//! an operator paused. Each is told from the others, and passes.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use async_nats::jetstream::kv::Store;
use fedstream_tests::broker::{self, Broker};
use fedstream_tests::eventually::eventually;
use fedstream_tests::http1::{self, Response};
use fedstream_tests::pipeline::{Builder, Pipeline, Which};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::inbox::Inbox;
use crate::request::{Request, activity, assert_come_back, detail, kind};

/// Under load the machine may take this long over what needs no time.
const SOON: Duration = Duration::from_secs(10);

const MINUTE: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_own_signature_is_too_old_is_refused_alone() {
    let pipeline = front_only().start().await.unwrap();
    let inbox = Inbox::of(&pipeline.broker).await;
    let front = pipeline.front();
    let signed = |ago: u64| good().key("https://a.test/k").with("Date", &date(ago));
    let expires = |ahead: u64| {
        let at = SystemTime::now() + Duration::from_secs(ahead);
        let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let signature = format!(r#"keyId="https://a.test/k",headers="(expires) host",expires={at},signature="AAAA""#);
        good().with("Signature", &signature).with("Date", &date(0))
    };

    // 55 minutes from its date, and 5 of them must be left.
    for request in [signed(51 * MINUTE), signed(600 * MINUTE), expires(4 * MINUTE), expires(0)] {
        let answer = request.send(front).await;
        assert_eq!((answer.status, kind(&answer).as_str()), (503, "signature-too-old"), "{answer:?}");
        assert_eq!(answer.retry_after(), None, "signed anew it is welcome at once: {answer:?}");
        assert_eq!(answer.json()["lane"], "home.test/a.test");
        assert!(detail(&answer).contains("sign it anew"), "{answer:?}");
    }
    assert_eq!(inbox.last().await, 0);
    for request in [signed(48 * MINUTE), expires(6 * MINUTE), good()] {
        let answer = request.send(front).await;
        assert_eq!(answer.status, 204, "the lane takes what is fresh: {answer:?}");
    }
    assert_eq!(inbox.last().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_whose_oldest_waits_too_long_is_closed_until_it_is_trimmed_and_no_other_is() {
    let mut pipeline = front_only().env(Which::InboxReceiver, "FED_LANE_AGE_MAX", "2s").start().await.unwrap();
    let inbox = Inbox::of(&pipeline.broker).await;
    let front = pipeline.front();
    let began = Instant::now();
    assert_eq!(good().send(front).await.status, 204);
    let refusal = eventually("the lane is too old", SOON, async || refused(good(), front).await).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2), "after {:?}", began.elapsed());
    assert_come_back(&refusal, "lane-too-old");
    assert_eq!(refusal.json()["lane"], "home.test/a.test");
    let said = detail(&refusal);
    assert!(said.contains("its oldest activity has waited 2s, the limit is 2s"), "{said}");

    let before = inbox.last().await;
    for _ in 0..20 {
        assert_come_back(&good().send(front).await, "lane-too-old");
    }
    assert_eq!(inbox.last().await, before, "nothing of it is stored");
    assert_eq!(Request::new("b.test", "home.test").send(front).await.status, 204, "another lane");
    let row = lane_row(&pipeline, "home.test/a.test").await;
    assert_eq!((&row["too_old"], &row["paused"], &row["waiting"]), (&true.into(), &false.into(), &before.into()));
    assert!(row["oldest_s"].as_u64().is_some_and(|age| age >= 2), "{row}");
    assert!(row["since_start"]["refused"]["lane-too-old"].as_u64().is_some_and(|count| count > 20), "{row}");

    // A front door that was restarted knows it from the stream.
    assert_eq!(pipeline.inbox_receiver.terminate(SOON).await.unwrap(), Some(0));
    pipeline.inbox_receiver.start().await.unwrap();
    assert_come_back(&good().send(front).await, "lane-too-old");

    inbox.purge().await;
    let trimmed = Instant::now();
    eventually("the lane is open", SOON, async || stored(good(), front).await).await.unwrap();
    println!("open again {} ms after the trim", trimmed.elapsed().as_millis());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_tell_the_age_holds_nobody_and_closes_the_lane_in_the_end() {
    // The permission is missing: the question is never answered, a publish is.
    let account = r#"authorization { users = [ { user: fed, password: fed,
        permissions: { publish: { allow: ">", deny: "$JS.API.STREAM.MSG.GET.>" } } } ] }
        no_auth_user: fed"#;
    let options = broker::Options { lines: vec![account.into()], ..broker::Options::default() };
    let pipeline =
        front_only().broker(options).env(Which::InboxReceiver, "FED_LANE_AGE_MAX", "4s").start().await.unwrap();
    let front = pipeline.front();
    let began = Instant::now();
    assert_eq!(good().send(front).await.status, 204);
    assert!(began.elapsed() < Duration::from_secs(3), "after {:?}", began.elapsed());
    eventually("the readiness page says so", SOON, async || note(&pipeline, "lane-age").await).await.unwrap();

    let refusal = eventually("it is refused in the end", SOON, async || refused(good(), front).await).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(4), "after {:?}", began.elapsed());
    assert_come_back(&refusal, "lane-too-old");
    assert!(detail(&refusal).contains("the broker has not told how old it is"), "{refusal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_permissions_that_the_documents_name_are_enough() {
    // nats/README.md, in create mode.
    let allowed = [
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.*",
        "$JS.API.STREAM.CREATE.*",
        "$JS.API.STREAM.UPDATE.*",
        "fed.inbox.>",
        "$JS.API.STREAM.MSG.GET.FED_INBOX",
        "$JS.API.CONSUMER.CREATE.KV_fed_lanes",
        "$JS.API.CONSUMER.CREATE.KV_fed_lanes.>",
        "$JS.API.CONSUMER.DELETE.KV_fed_lanes.>",
    ];
    let users = format!(
        "authorization {{ users = [ {{ user: all, password: all }}, {{ user: front, password: front,
        permissions: {{ publish: {allowed:?}, subscribe: \"_INBOX.>\" }} }} ] }}"
    );
    let options = broker::Options { lines: vec![users, "no_auth_user: all".into()], ..broker::Options::default() };
    let pipeline = front_only()
        .broker(options)
        .env(Which::InboxReceiver, "NATS_USER", "front")
        .env(Which::InboxReceiver, "NATS_PASSWORD", "front")
        .env(Which::InboxReceiver, "FED_LANE_AGE_MAX", "1s")
        .start()
        .await
        .unwrap();
    let front = pipeline.front();
    assert_eq!(good().send(front).await.status, 204);
    let refusal = eventually("the lane is too old", SOON, async || refused(good(), front).await).await.unwrap();
    assert!(detail(&refusal).contains("its oldest activity has waited"), "{refusal:?}");
    bucket(&pipeline.broker).await.put(LANE, r#"{"paused":true}"#.into()).await.unwrap();
    let paused = async || refused(good(), front).await.filter(|answer| kind(answer) == "lane-paused");
    eventually("the lane is paused", SOON, paused).await.unwrap();
    for name in ["lane-age", "lane-settings"] {
        assert_eq!(note(&pipeline, name).await, None, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_comes_before_what_is_wrong_with_its_lane() {
    let pipeline = front_only()
        .env(Which::InboxReceiver, "FED_LANE_AGE_MAX", "1s")
        .env(Which::InboxReceiver, "FED_LANE_MESSAGES_MAX", "1")
        .start()
        .await
        .unwrap();
    let front = pipeline.front();
    assert_eq!(good().send(front).await.status, 204);
    // Full it is at once, and that is said as long as it is young.
    eventually("the lane is too old", SOON, async || {
        refused(good(), front).await.filter(|answer| kind(answer) == "lane-too-old")
    })
    .await
    .unwrap();
    let nameless = || good().body(r#"{"type":"Like","actor":"https://a.test/u/bob"}"#);
    let old = date(60 * MINUTE);
    for (request, expected) in [
        (good().body("[]").with("Date", &old), "not-an-activity"),
        (nameless().with("Date", &old), "activity-without-id"),
        (good().with("Date", &old), "signature-too-old"),
        (good(), "lane-too-old"),
    ] {
        let answer = request.send(front).await;
        assert_eq!(kind(&answer), expected, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_lane_is_closed_and_opened_again_without_a_restart() {
    let pipeline = front_only().start().await.unwrap();
    let inbox = Inbox::of(&pipeline.broker).await;
    let (front, bucket) = (pipeline.front(), bucket(&pipeline.broker).await);
    let set = async |key: &str, json: &'static str| bucket.put(key, json.into()).await.expect("an entry");
    assert_eq!(good().send(front).await.status, 204);

    set(LANE, r#"{"paused":true}"#).await;
    let began = Instant::now();
    let refusal = eventually("the lane is paused", SOON, async || refused(good(), front).await).await.unwrap();
    println!("paused after {} ms", began.elapsed().as_millis());
    assert_come_back(&refusal, "lane-paused");
    assert_eq!((detail(&refusal).as_str(), refusal.retry_after()), ("lane home.test/a.test is paused", Some(10)));
    assert_eq!(Request::new("b.test", "home.test").send(front).await.status, 204, "another lane");
    let row = lane_row(&pipeline, "home.test/a.test").await;
    assert_eq!((&row["paused"], &row["too_old"]), (&true.into(), &false.into()), "{row}");
    assert!(pipeline.inbox_receiver.is_ready().await, "a lane in trouble takes nobody out of service");

    // What can't be read changes nothing, and is shown.
    set(LANE, r#"{"paused":"no"}"#).await;
    let note = eventually("it is shown", SOON, async || note(&pipeline, "lane-settings").await).await.unwrap();
    assert!(note.contains(LANE) && note.contains("paused"), "{note}");
    let before = inbox.last().await;
    assert_come_back(&good().send(front).await, "lane-paused");
    assert_eq!(inbox.last().await, before);

    set(LANE, r#"{"paused":false}"#).await;
    let began = Instant::now();
    eventually("the lane is open", SOON, async || stored(good(), front).await).await.unwrap();
    println!("open after {} ms", began.elapsed().as_millis());

    // All lanes but those that say otherwise.
    set("default", r#"{"paused":true}"#).await;
    let other = || Request::new("b.test", "home.test");
    let refusal = eventually("the others are paused", SOON, async || refused(other(), front).await).await.unwrap();
    assert_come_back(&refusal, "lane-paused");
    assert_eq!(good().send(front).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_has_a_signature_window_of_its_own() {
    let pipeline = front_only().start().await.unwrap();
    let inbox = Inbox::of(&pipeline.broker).await;
    let (front, bucket) = (pipeline.front(), bucket(&pipeline.broker).await);
    let dated = |ago: u64| good().with("Date", &date(ago));
    assert_eq!(dated(4 * MINUTE).send(front).await.status, 204);

    // Half of a short window is margin enough.
    bucket.put(LANE, r#"{"signature_window_s":360}"#.into()).await.unwrap();
    let request = || dated(4 * MINUTE);
    let refusal = eventually("the window is shorter", SOON, async || refused(request(), front).await).await.unwrap();
    assert_eq!((refusal.status, kind(&refusal).as_str()), (503, "signature-too-old"), "{refusal:?}");
    assert_eq!(dated(2 * MINUTE).send(front).await.status, 204);
    let last = inbox.get(inbox.last().await).await;
    let time = |name: &str| OffsetDateTime::parse(last.header(name), &Rfc3339).unwrap();
    let left = time("Fed-Deadline") - time("Fed-Received-At");
    assert!((235..=241).contains(&left.whole_seconds()), "6 minutes from its date: {left}");

    bucket.delete(LANE).await.unwrap();
    eventually("it is the front door's again", SOON, async || stored(request(), front).await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_bucket_the_door_is_open_and_what_was_paused_stays_paused() {
    let mut pipeline = front_only()
        .env(Which::InboxReceiver, "FED_STREAMS", "bind")
        .without(Which::InboxReceiver)
        .start()
        .await
        .unwrap();
    let inbox = Inbox::of(&pipeline.broker).await;
    inbox.create(|_| ()).await;
    pipeline.inbox_receiver.start().await.unwrap();
    let front = pipeline.front();
    assert_eq!(good().send(front).await.status, 204);
    assert!(note(&pipeline, "lane-settings").await.is_some_and(|note| note.contains("fed_lanes")));

    // It comes later, and is followed without a restart.
    inbox.create_bucket("KV_fed_lanes").await;
    bucket(&pipeline.broker).await.put(LANE, r#"{"paused":true}"#.into()).await.unwrap();
    let refusal = eventually("the lane is paused", SOON * 2, async || refused(good(), front).await).await.unwrap();
    assert_come_back(&refusal, "lane-paused");
    let quiet = async || note(&pipeline, "lane-settings").await.is_none().then_some(());
    eventually("nothing is to be said of it", SOON, quiet).await.unwrap();

    inbox.delete_bucket("KV_fed_lanes").await;
    let note = eventually("it is shown", SOON * 2, async || note(&pipeline, "lane-settings").await).await.unwrap();
    assert!(note.contains("the settings last seen are in force"), "{note}");
    assert_come_back(&good().send(front).await, "lane-paused");
    assert_eq!(Request::new("b.test", "home.test").send(front).await.status, 204, "another lane");
}

/// The key of a.test's lane in the bucket.
const LANE: &str = "inbox.home_test.a_test";

async fn bucket(broker: &Broker) -> Store {
    broker.jetstream().await.expect("the broker").get_key_value("fed_lanes").await.expect("the bucket")
}

/// This note on the front door's readiness page, if it is there.
async fn note(pipeline: &Pipeline, name: &str) -> Option<String> {
    let page = http1::get(pipeline.inbox_receiver.admin(), "/readyz").await.expect("the page");
    assert_eq!(page.status, 200, "it stays in service: {page:?}");
    let page = page.json();
    let note = page["notes"].as_array()?.iter().find(|note| note["name"] == name)?;
    note["note"].as_str().map(str::to_owned)
}

fn good() -> Request {
    Request::new("a.test", "home.test").body(activity("a.test").to_string())
}

/// Now, less so many seconds.
fn date(seconds_ago: u64) -> String {
    httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(seconds_ago))
}

async fn refused(request: Request, front: SocketAddr) -> Option<Response> {
    Some(request.send(front).await).filter(|answer| answer.status != 204)
}

async fn stored(request: Request, front: SocketAddr) -> Option<()> {
    (request.send(front).await.status == 204).then_some(())
}

/// This lane on the front door's `/lanes`.
async fn lane_row(pipeline: &Pipeline, lane: &str) -> Value {
    let page = http1::get(pipeline.inbox_receiver.admin(), "/lanes").await.expect("the page").json();
    let rows = page["lanes"].as_array().expect("lanes").clone();
    rows.into_iter().find(|row| row["lane"] == lane).unwrap_or_else(|| panic!("{lane}: {page}"))
}

/// Two sources, and nothing behind the broker: what is stored stays until a test takes it.
fn front_only() -> Builder {
    Pipeline::builder().source("a.test").source("b.test").without(Which::BatchSender).without(Which::BatchReceiver)
}
