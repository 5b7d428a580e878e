//! The table of DESIGN section 4, row by row: status, type, headers, and nothing stored.

use std::time::Duration;

use fedstream_tests::eventually::eventually;
use fedstream_tests::http1::{self, Connection, Response};
use fedstream_tests::pipeline::{Pipeline, Which};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::inbox::Inbox;
use crate::request::{PATIENCE, Request, activity, assert_come_back, detail, kind};

const BODY_MAX: usize = 4096;

/// Under load the machine may take this long over what needs no time.
const SOON: Duration = Duration::from_secs(10);

/// What one request must be answered; `None`: it is stored.
struct Row {
    name: &'static str,
    request: Request,
    refusal: Option<(u16, &'static str)>,
}

fn refused(name: &'static str, status: u16, kind: &'static str, request: Request) -> Row {
    Row { name, request, refusal: Some((status, kind)) }
}

fn stored(name: &'static str, request: Request) -> Row {
    Row { name, request, refusal: None }
}

fn good() -> Request {
    Request::new("a.test", "home.test")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_of_the_table_has_its_status_and_type_and_stores_nothing() {
    let pipeline = front_only().start().await.unwrap();
    let inbox = Inbox::of(&pipeline.broker).await;
    let rows = [who_and_where(), what_it_is(), how_large(), what_it_says()].into_iter().flatten();
    let mut expected = 0;
    for row in rows {
        let answer = row.request.send(pipeline.front()).await;
        match row.refusal {
            None => {
                expected += 1;
                assert_eq!(answer.status, 204, "{}: {answer:?}", row.name);
            }
            Some((status, name)) => check_refusal(row.name, &answer, status, name),
        }
        assert_eq!(inbox.last().await, expected, "{}: stored", row.name);
    }
    assert_eq!(inbox.messages().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_fault_in_the_order_of_the_table_decides() {
    let pipeline = front_only().start().await.unwrap();
    let padding = "x".repeat(17 * 1024);
    let mut request = good()
        .method("PUT")
        .target("/outbox")
        .replace("Host", "away.test")
        .replace("Content-Type", "text/plain")
        .with("Content-Encoding", "br")
        .with("X-Padding", &padding)
        .key("https://stranger.test/k")
        .body("x".repeat(BODY_MAX + 1));
    type Repair = fn(Request) -> Request;
    let repairs: [(&str, Repair); 10] = [
        ("method-not-allowed", |r| r.method("POST")),
        ("destination-not-configured", |r| r.replace("Host", "home.test")),
        ("source-not-configured", |r| r.without("Signature").key("https://a.test/k")),
        ("not-an-inbox", |r| r.target("/u/bob/inbox")),
        ("unsupported-media-type", |r| r.replace("Content-Type", "application/ld+json")),
        ("content-encoding", |r| r.without("Content-Encoding")),
        ("headers-too-large", |r| r.without("X-Padding")),
        ("body-too-large", |r| r.body("[]")),
        ("not-an-activity", |r| r.body(r#"{"type":"Like"}"#)),
        ("activity-without-id", |r| r.body(activity("a.test").to_string())),
    ];
    for (expected, repair) in repairs {
        let answer = request.send(pipeline.front()).await;
        assert_eq!(kind(&answer), expected, "{answer:?}");
        request = repair(request);
    }
    assert_eq!(request.send(pipeline.front()).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activity_without_an_id_is_stored_under_a_made_one_where_that_is_wanted() {
    let mut pipeline = Pipeline::builder()
        .source("a.test")
        .env(Which::InboxReceiver, "FED_ACTIVITY_WITHOUT_ID", "accept")
        .without(Which::BatchSender)
        .start()
        .await
        .unwrap();
    let inbox = Inbox::of(&pipeline.broker).await;
    let mut sender = pipeline.sender("a.test", "home.test");
    let mut activity = sender.compose();
    let mut json: serde_json::Value = serde_json::from_slice(&activity.body).unwrap();
    json.as_object_mut().unwrap().remove("id");
    activity.body = json.to_string().into();
    let message = sender.signed(&activity);

    assert_eq!(sender.send_verbatim(&message).await.status, 204);
    let made = inbox.get(1).await;
    assert_eq!(made.header("Fed-Activity-Id"), format!("urn:fedstream:{}", made.header("Nats-Msg-Id")));
    assert_eq!(made.body, activity.body, "the body is as it was");
    let again = http1::raw(pipeline.front(), &message.to_bytes(), PATIENCE).await.unwrap();
    assert_eq!((again.status, inbox.last().await), (204, 1), "sent again it is the same activity");

    pipeline.batch_sender.start().await.unwrap();
    pipeline.settle(SOON).await.assert_clean(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_who_the_trusted_proxy_saw_and_nobody_else() {
    let mut pipeline = Pipeline::builder()
        .source("a.test")
        .env(Which::InboxReceiver, "FED_OPEN_FRONT", "no")
        .env(Which::InboxReceiver, "HTTP_ALLOWED_IPS", "192.0.2.0/24,2001:db8::7")
        .env(Which::InboxReceiver, "HTTP_TRUSTED_PROXIES", "127.0.0.1,198.51.100.1")
        .without(Which::BatchSender)
        .without(Which::BatchReceiver)
        .start()
        .await
        .unwrap();
    let inbox = Inbox::of(&pipeline.broker).await;
    let mut expected = 0;
    // Lines of X-Forwarded-For, and whether the client behind them may send.
    let cases: [(&[&str], bool); 10] = [
        (&[], false),
        (&["192.0.2.7"], true),
        (&["2001:db8::7"], true),
        (&["203.0.113.1, 192.0.2.7"], true),
        (&["192.0.2.7, 203.0.113.1"], false),
        (&["192.0.2.7", "203.0.113.1"], false),
        (&["203.0.113.1", "192.0.2.7"], true),
        (&["192.0.2.7, 198.51.100.1"], true),
        (&["192.0.2.7, 198.51.100.2"], false),
        (&["192.0.2.7, unknown"], false),
    ];
    for (lines, allowed) in cases {
        let request = lines.iter().fold(good(), |request, line| request.with("X-Forwarded-For", line));
        let answer = request.with("X-Forwarded-Proto", "http").send(pipeline.front()).await;
        if allowed {
            expected += 1;
            assert_eq!(answer.status, 204, "{lines:?}: {answer:?}");
        } else {
            check_refusal("client", &answer, 503, "client-not-allowed");
        }
        assert_eq!(inbox.last().await, expected, "{lines:?}");
    }
    let one = inbox.get(1).await;
    assert_eq!(one.header("Fed-Scheme"), "http", "the proxy's word");
    assert!(!one.http().iter().any(|(name, _)| name.starts_with("x-forwarded")), "{:?}", one.http());

    // Without a proxy that is trusted the header is anybody's word.
    assert_eq!(pipeline.inbox_receiver.terminate(SOON).await.unwrap(), Some(0));
    pipeline.inbox_receiver.set_env("HTTP_TRUSTED_PROXIES", None);
    pipeline.inbox_receiver.start().await.unwrap();
    let answer = good().with("X-Forwarded-For", "192.0.2.7").send(pipeline.front()).await;
    check_refusal("untrusted", &answer, 503, "client-not-allowed");
    assert!(detail(&answer).contains("127.0.0.1"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_flight_and_connections_are_bounded_and_free_again() {
    let pipeline = Pipeline::builder()
        .source("a.test")
        .env(Which::InboxReceiver, "FED_BODY_MAX", "64KiB")
        .env(Which::InboxReceiver, "FED_INFLIGHT_BYTES", "64KiB")
        .env(Which::InboxReceiver, "FED_CONNECTIONS_MAX", "4")
        .without(Which::BatchSender)
        .without(Which::BatchReceiver)
        .start()
        .await
        .unwrap();
    let inbox = Inbox::of(&pipeline.broker).await;
    let large = || {
        let mut json = activity("a.test");
        json["padding"] = "x".repeat(40 * 1024).into();
        good().body(json.to_string())
    };

    // One sender stops in the middle of its body, with 40 KiB sent.
    let first = large().to_bytes();
    let mut slow = TcpStream::connect(pipeline.front()).await.unwrap();
    slow.write_all(&first[..first.len() - 1]).await.unwrap();
    let refusal = async || Some(large().send(pipeline.front()).await).filter(|answer| answer.status != 204);
    let refusal = eventually("what is being stored leaves no room", SOON, refusal).await.unwrap();
    assert_come_back(&refusal, "in-flight-full");
    assert!(detail(&refusal).contains("FED_INFLIGHT_BYTES"), "{refusal:?}");
    let before = inbox.last().await;
    assert_come_back(&large().send(pipeline.front()).await, "in-flight-full");
    assert_eq!(good().send(pipeline.front()).await.status, 204, "a small one has room");
    assert_eq!(inbox.last().await, before + 1);

    slow.write_all(&first[first.len() - 1..]).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(PATIENCE, slow.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 204");
    assert_eq!(large().send(pipeline.front()).await.status, 204, "there is room again");
    drop(slow);

    // Four kept connections take all four slots; a fifth sender waits for one of them to end.
    let mut kept = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::open(pipeline.front()).await.unwrap();
        let request = good().to_bytes();
        let exchange = tokio::time::timeout(PATIENCE, connection.exchange(&request));
        assert_eq!(exchange.await.unwrap().unwrap().status, 204);
        assert!(connection.reusable());
        kept.push(connection);
    }
    let fifth = good().to_bytes();
    let mut fifth = Box::pin(http1::raw(pipeline.front(), &fifth, PATIENCE));
    let unanswered = tokio::time::timeout(Duration::from_millis(300), &mut fifth).await;
    assert!(unanswered.is_err(), "{unanswered:?}");
    kept.pop();
    assert_eq!(fifth.await.unwrap().status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_given_up_and_nothing_of_it_is_stored() {
    let pipeline = front_only().env(Which::InboxReceiver, "FED_BODY_TIMEOUT", "300ms").start().await.unwrap();
    let inbox = Inbox::of(&pipeline.broker).await;
    let whole = good().to_bytes();
    let answer = http1::raw(pipeline.front(), &whole[..whole.len() - 1], PATIENCE).await.unwrap();
    assert_come_back(&answer, "body-timeout");
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");

    // A body that ends early has nobody to be told; it must not be stored either.
    let mut stream = TcpStream::connect(pipeline.front()).await.unwrap();
    stream.write_all(&whole[..whole.len() - 1]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
    assert_eq!(inbox.last().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_path_is_refused_where_all_paths_are_inboxes() {
    let pipeline = front_only().env(Which::InboxReceiver, "FED_INBOX_PATHS", "*").start().await.unwrap();
    let answer = good().target("*").send(pipeline.front()).await;
    check_refusal("a target of *", &answer, 503, "not-an-inbox");
    assert_eq!(good().target("/anything?x").send(pipeline.front()).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_wrote_is_cut_before_it_is_told_or_traced() {
    let long = "y".repeat(3000);
    let roomy = front_only().env(Which::InboxReceiver, "FED_BODY_MAX", "64KiB");
    let pipeline = roomy.traced().start().await.unwrap();
    let answer = good().target(&format!("/{long}")).send(pipeline.front()).await;
    check_refusal("a long target", &answer, 503, "not-an-inbox");
    assert!(detail(&answer).len() < 300, "{answer:?}");

    let body = format!(r#"{{"id":"{long}\n","type":"{long}","actor":"https://a.test/u/bob"}}"#);
    let answer = good().body(body).send(pipeline.front()).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let traces = pipeline.traces.as_ref().unwrap();
    let described = |span: &fedstream_tests::otlp_sink::Span| span.attributes.contains_key("activitypub.activity.id");
    let both = |spans: &[_]| spans.iter().filter(|span| described(span)).count() == 2;
    traces.until("the request's span and the publish", SOON, both).await.unwrap();
    for span in traces.spans() {
        assert!(span.attributes.values().all(|value| value.len() <= 1024), "{}", span.name);
    }
    let log = pipeline.inbox_receiver.log();
    assert!(!log.contains(&long[..1025]), "nor is it logged");
    assert!(log.contains("anyone can post as anyone") && log.contains("ten minutes"), "the open front is told: {log}");
}

/// 405 and the 503s about people and places: no Retry-After, for an operator has to act.
fn who_and_where() -> Vec<Row> {
    let mut rows = vec![
        refused("GET", 405, "method-not-allowed", good().method("GET")),
        refused("PUT", 405, "method-not-allowed", good().method("PUT")),
        refused("a method nobody knows", 405, "method-not-allowed", good().method("BREW")),
        refused("an unknown destination", 503, "destination-not-configured", good().replace("Host", "away.test")),
        refused(
            "a destination's other port",
            503,
            "destination-not-configured",
            good().replace("Host", "home.test:81"),
        ),
        refused("no Host", 503, "destination-not-found", good().without("Host")),
        refused("an empty Host", 503, "destination-not-found", good().replace("Host", "")),
        refused("an unknown actor", 503, "source-not-configured", Request::new("stranger.test", "home.test")),
        refused("an unknown key", 503, "source-not-configured", good().key("https://stranger.test/u/a#main-key")),
    ];
    for target in ["/", "/outbox", "/inbox/", "/inboxes", "/inbox/x", "/users/inbox.json"] {
        rows.push(refused("a path that is no inbox", 503, "not-an-inbox", good().target(target)));
    }
    for key in ["main-key", "acct:bob@a.test", "https://", "https://a.test@stranger.test/k", "mailto:a.test"] {
        rows.push(refused("a key that is no URL", 503, "source-not-found", good().key(key)));
    }
    for actor in ["", r#","actor":7"#, r#","actor":"bob""#, r#","actor":["https://a.test/u/bob"]"#, r#","actor":{}"#] {
        let body = format!(r#"{{"id":"https://a.test/odd","type":"Like"{actor}}}"#);
        rows.push(refused("an actor that names nobody", 503, "source-not-found", good().body(body)));
    }
    rows.push(stored("a key of a known source", good().key("https://A.test:443/u/a#main-key")));
    rows.push(stored("an inbox of a user, with a query", good().target("/u/bob/inbox?shared=1")));
    rows
}

/// 415.
fn what_it_is() -> Vec<Row> {
    let mut rows = vec![refused("no type", 415, "unsupported-media-type", good().without("Content-Type"))];
    for wrong in ["application/json", "text/html", "application/activity+jsonx", "*/*", ""] {
        rows.push(refused("another type", 415, "unsupported-media-type", good().replace("Content-Type", wrong)));
    }
    for right in [
        "application/activity+json; charset=utf-8",
        "APPLICATION/Activity+Json",
        r#"application/ld+json; profile="https://www.w3.org/ns/activitystreams""#,
    ] {
        rows.push(stored("parameters and case", good().replace("Content-Type", right)));
    }
    for encoding in ["gzip", "br", "identity"] {
        rows.push(refused("an encoding", 415, "content-encoding", good().with("Content-Encoding", encoding)));
    }
    rows
}

/// 413 and 431.
fn how_large() -> Vec<Row> {
    let of = |bytes: usize| {
        let mut json = activity("a.test");
        let without_padding = json.to_string().len() + r#","padding":"""#.len();
        json["padding"] = "x".repeat(bytes - without_padding).into();
        good().body(json.to_string())
    };
    let many = |count: usize| (0..count - 3).fold(good(), |request, n| request.with(&format!("X-{n}"), "1"));
    vec![
        refused("a byte too many", 413, "body-too-large", of(BODY_MAX + 1)),
        refused("a byte too many in chunks", 413, "body-too-large", of(BODY_MAX + 1).chunked(1000)),
        refused("far too many", 413, "body-too-large", of(3 * BODY_MAX)),
        refused("a length that does not come", 413, "body-too-large", good().with("Content-Length", "10000000000")),
        stored("exactly the limit", of(BODY_MAX)),
        stored("exactly the limit, when asked for it", of(BODY_MAX).with("Expect", "100-continue")),
        stored("exactly the limit in chunks", of(BODY_MAX).chunked(1000)),
        refused("over 16 KiB of headers", 431, "headers-too-large", good().with("X-Long", &"v".repeat(16 * 1024))),
        refused("101 headers", 431, "headers-too-large", many(101)),
        stored("100 headers", many(100)),
        stored("nearly 16 KiB of headers", good().with("X-Long", &"v".repeat(16_000))),
    ]
}

/// 400, and the 503 for an activity without an id.
fn what_it_says() -> Vec<Row> {
    let mut rows = vec![
        refused("two hosts", 400, "two-hosts", good().with("Host", "home.test")),
        refused("a target of another host", 400, "two-hosts", good().target("http://away.test/inbox")),
        refused(
            "Connection naming what is signed",
            400,
            "connection-names-signed-header",
            good().key("https://a.test/k").with("Digest", "SHA-256=x").with("Connection", "Digest"),
        ),
        stored("Connection naming something else", good().with("X-Hop", "1").with("Connection", "X-Hop")),
    ];
    for broken in ["", "{", "<html>", r#"{"id":"x"} {}"#, "\u{feff}{}"] {
        rows.push(refused("not JSON", 400, "not-an-activity", good().body(broken)));
    }
    rows.push(refused("not UTF-8", 400, "not-an-activity", good().body(b"{\"id\":\"\xff\"}".to_vec())));
    for other in ["[]", r#"[{"id":"x"}]"#, r#""x""#, "7", "null"] {
        rows.push(refused("not an object", 400, "not-an-activity", good().body(other)));
    }
    for id in ["", r#""id":null,"#, r#""id":7,"#, r#""id":"","#, r#""id":["x"],"#] {
        let body = format!(r#"{{{id}"type":"Like","actor":"https://a.test/u/bob"}}"#);
        rows.push(refused("no id", 503, "activity-without-id", good().body(body)));
    }
    rows
}

fn check_refusal(name: &str, answer: &Response, status: u16, expected: &str) {
    assert_eq!((answer.status, kind(answer).as_str()), (status, expected), "{name}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{name}: {answer:?}");
    assert!(!detail(answer).is_empty(), "{name}: {answer:?}");
    assert_eq!(answer.json()["status"], status, "{name}");
    assert_eq!(answer.retry_after(), None, "{name}: it does not pass by itself");
    assert_eq!(answer.header("allow"), (status == 405).then_some("POST"), "{name}");
}

/// Without what lies behind the broker.
fn front_only() -> fedstream_tests::pipeline::Builder {
    Pipeline::builder()
        .source("a.test")
        .env(Which::InboxReceiver, "FED_BODY_MAX", &BODY_MAX.to_string())
        .without(Which::BatchSender)
        .without(Which::BatchReceiver)
}
