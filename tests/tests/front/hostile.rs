//! What strangers write: it reaches the destination as it is, or is refused, and the broker never takes it for a command.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use fedstream_tests::eventually::becomes_true;
use fedstream_tests::http1::{self, Response};
use fedstream_tests::message::Message;
use fedstream_tests::pipeline::{Pipeline, Which};
use fedstream_tests::sender::{Activity, Sender};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;

use crate::inbox::{Inbox, Stored};
use crate::request::{PATIENCE, Request, as_version, assert_come_back, kind};

const BODY_MAX: usize = 1 << 20;
const SOON: Duration = Duration::from_secs(20);

/// The only NATS headers that a stored activity has (DESIGN section 3).
const OURS: [&str; 11] = [
    "Nats-Msg-Id",
    "Fed-Version",
    "Fed-Activity-Id",
    "Fed-Activity-Type",
    "Fed-Received-At",
    "Fed-Target",
    "Fed-Scheme",
    "Fed-Http",
    "Fed-Deadline",
    "traceparent",
    "tracestate",
];

/// Headers that are commands to the broker, or would pass for ours.
const COMMANDS: [(&str, &str); 12] = [
    ("Nats-Rollup", "all"),
    ("Nats-Msg-Id", "taken"),
    ("Nats-Expected-Last-Sequence", "999"),
    ("Nats-Expected-Stream", "OTHER"),
    ("Nats-Expected-Last-Subject-Sequence", "999"),
    ("Nats-Trace-Only", "true"),
    ("Nats-Trace-Dest", "fed.inbox.home_test.b_test"),
    ("Nats-TTL", "1s"),
    ("Nats-Schedule", "@every 1s"),
    ("Fed-Target", "/elsewhere"),
    ("Fed-Activity-Id", "https://b.test/1"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
];

/// A request as it goes out, and as the destination must see it.
struct Probe {
    name: &'static str,
    seen: Message,
    sent: Sent,
}

enum Sent {
    Bytes(Vec<u8>),
    Http2,
}

impl Probe {
    /// Goes out as it must arrive.
    fn plain(name: &'static str, seen: Message) -> Self {
        Self::written(name, seen, |bytes| bytes)
    }

    fn written(name: &'static str, seen: Message, write: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Self {
        let sent = Sent::Bytes(write(seen.to_bytes()));
        Self { name, seen, sent }
    }

    async fn send(&self, front: SocketAddr) -> Response {
        match &self.sent {
            Sent::Bytes(bytes) => http1::raw(front, bytes, PATIENCE).await.expect("an answer"),
            Sent::Http2 => http2(front, &self.seen).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_write_arrives_as_it_is_and_is_no_command_to_the_broker() {
    let mut pipeline = Pipeline::builder()
        .source("a.test")
        .destination("home.test")
        .destination("port.test:8443")
        .without(Which::BatchSender)
        .start()
        .await
        .unwrap();
    let inbox = Inbox::of(&pipeline.broker).await;
    let mut sender = pipeline.sender("a.test", "home.test");
    let probes = [headers(&mut sender), bodies(&sender), names_and_targets(&mut sender), versions(&mut sender)];
    let probes: Vec<Probe> = probes.into_iter().flatten().collect();

    for (probe, sequence) in probes.iter().zip(1..) {
        let answer = probe.send(pipeline.front()).await;
        assert_eq!(answer.status, 204, "{}: {answer:?}", probe.name);
        assert_eq!(inbox.last().await, sequence, "{}: stored once", probe.name);
        check_stored(probe, &inbox.get(sequence).await);
    }
    assert_eq!(inbox.messages().await, probes.len() as u64, "nothing was rolled up");

    pipeline.batch_sender.start().await.unwrap();
    let arrived = || pipeline.instance().arrivals() >= probes.len();
    becomes_true("all of it arrives", SOON, arrived).await.unwrap();
    pipeline.wait_trimmed(SOON).await.unwrap();
    let seen = pipeline.instance().seen();
    assert_eq!(seen.len(), probes.len());
    for probe in &probes {
        let found = seen.iter().find(|seen| seen.message.body == probe.seen.body).expect(probe.name);
        assert!(found.signature.is_ok(), "{}: {:?}", probe.name, found.signature);
        assert_eq!(found.message.target, probe.seen.target, "{}", probe.name);
        assert_eq!(
            found.message.fingerprint(),
            probe.seen.fingerprint(),
            "{}: {:#?}",
            probe.name,
            found.message.headers
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_hosts_make_no_lane_even_where_any_name_is_taken() {
    let pipeline = Pipeline::builder()
        .source("*")
        .destination("*")
        .env(Which::InboxReceiver, "FED_LANES_MAX", "2")
        .without(Which::BatchSender)
        .without(Which::BatchReceiver)
        .start()
        .await
        .unwrap();
    let (inbox, front) = (Inbox::of(&pipeline.broker).await, pipeline.front());
    let good = || Request::new("a.test", "home.test");
    let no_hosts = [
        "..",
        ".",
        "*",
        ">",
        "*.test",
        "home.*",
        "home.>",
        "fed.inbox.>",
        "home..test",
        ".home.test",
        "a b.test",
        "home\ttest",
        "home.test:0",
        "home.test:99999",
        "home.test:",
        "home.test:x",
        "home.test/x",
        "bob@home.test",
        "[::1",
        "$JS.API.>",
        "home.test\u{ff}",
        "\u{e9}.test",
    ];
    for host in no_hosts {
        let answer = good().replace("Host", host).send(front).await;
        assert_eq!((answer.status, kind(&answer).as_str()), (503, "destination-not-found"), "{host:?}: {answer:?}");
        if !host.contains('/') {
            let answer = good().key(&format!("https://{host}/u/bob#main-key")).send(front).await;
            assert_eq!((answer.status, kind(&answer).as_str()), (503, "source-not-found"), "{host:?}: {answer:?}");
        }
    }
    assert_eq!(inbox.last().await, 0);

    // Two lanes is all that `*` may make here, however they are spelt.
    for (source, host) in [("a.test", "home.test"), ("b.test", "xn--bcher-kva.test:8443"), ("a.test", "HOME.test.:443")]
    {
        assert_eq!(Request::new(source, host).send(front).await.status, 204, "{host}");
    }
    let third = Request::new("c.test", "home.test").send(front).await;
    assert_eq!((third.status, kind(&third).as_str()), (503, "too-many-lanes"), "{third:?}");
    assert_eq!(inbox.get(1).await.subject, "fed.inbox.home_test.a_test");
    assert_eq!(inbox.get(2).await.subject, "fed.inbox.xn--bcher-kva_test=3A8443.b_test");
    assert_eq!(inbox.get(3).await.subject, "fed.inbox.home_test.a_test");
    assert_eq!(inbox.last().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_or_too_little_is_refused_in_our_words() {
    let pipeline = Pipeline::builder()
        .source("a.test")
        .without(Which::BatchSender)
        .without(Which::BatchReceiver)
        .start()
        .await
        .unwrap();
    let (inbox, front) = (Inbox::of(&pipeline.broker).await, pipeline.front());
    let sender = pipeline.sender("a.test", "home.test");
    let good = || Request::new("a.test", "home.test");
    let sixty_four_kb = (0..64).fold(good(), |request, n| request.with(&format!("X-{n}"), &"v".repeat(1000)));
    let cases = [
        ("64 kB of headers", sixty_four_kb.to_bytes(), 431, "headers-too-large"),
        ("one header of 64 kB", good().with("X", &"v".repeat(64_000)).to_bytes(), 431, "headers-too-large"),
        ("an empty body", good().body("").to_bytes(), 400, "not-an-activity"),
        ("a byte over the limit", sender.signed(&of_size(BODY_MAX + 1)).to_bytes(), 413, "body-too-large"),
        ("HTTP/1.0 without Host", good().without("Host").version("1.0").to_bytes(), 503, "destination-not-found"),
        ("a target with another host", good().target("http://other.test/inbox").to_bytes(), 400, "two-hosts"),
        ("a target of *", good().target("*").to_bytes(), 503, "not-an-inbox"),
        // RFC 3986 has no > in a target: the HTTP library says so before we are asked.
        ("a target with >", good().target("/>/inbox").to_bytes(), 400, ""),
    ];
    for (name, bytes, status, expected) in cases {
        let answer = http1::raw(front, &bytes, PATIENCE).await.unwrap();
        assert_eq!((answer.status, kind(&answer).as_str()), (status, expected), "{name}: {answer:?}");
    }
    let foreign = Message { headers: vec![("host".into(), "away.test".into())], ..sender.signed(&of_size(500)) };
    let answer = http2(front, &foreign).await;
    assert_eq!((answer.status, kind(&answer).as_str()), (503, "destination-not-configured"), "{answer:?}");
    assert_eq!(inbox.last().await, 0);

    // Where rollup was allowed by hand, the first thing a stranger would try; the front refuses before the broker is asked.
    inbox.update(|config| config.allow_rollup = true).await;
    let tried =
        async || Some(good().with("Nats-Rollup", "all").send(front).await).filter(|answer| answer.status != 204);
    let refused =
        fedstream_tests::eventually::eventually("the stream is seen to be unsafe", SOON, tried).await.unwrap();
    assert_come_back(&refused, "stream-unsafe");
    assert_eq!(inbox.messages().await, inbox.last().await, "nothing was rolled up meanwhile");
}

/// Commands, high bytes, repetition, and as much as fits.
fn headers(sender: &mut Sender) -> Vec<Probe> {
    let mut with = |name, added: &[(&str, &str)]| {
        let activity = sender.compose();
        let mut message = sender.signed(&activity);
        message.headers.extend(added.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Probe::plain(name, message)
    };
    let high = "\u{80}\u{e9}\u{ff}".repeat(4_800);
    vec![
        with("all commands at once", &COMMANDS),
        with("a command twice", &[("nats-rollup", "sub"), ("NATS-ROLLUP", "all")]),
        with("values above 0x7F", &[("X-Name", "\u{e9}t\u{e9} \u{80}\u{ff}"), ("X-Quote", "\"\\\u{ff}\"\t{}[]")]),
        with("14 kB of values above 0x7F", &[("X-High", &high)]),
        with("repeated headers", &[("X-A", "2"), ("x-b", "b"), ("X-A", "1"), ("x-a", "3"), ("X-A", "1")]),
        with("empty values", &[("X-Empty", ""), ("X-Empty", "")]),
    ]
}

/// Ids that try to leave their header, and the largest body.
fn bodies(sender: &Sender) -> Vec<Probe> {
    let signed = |name, activity: &Activity| Probe::plain(name, sender.signed(activity));
    let of = |id: &str, kind: &str| {
        let body = json!({ "id": id, "type": kind, "actor": "http://a.test/u/bob" }).to_string();
        Activity { id: id.to_owned(), body: body.into() }
    };
    vec![
        signed("an id with a header in it", &of("x\r\nNats-Rollup: all\r\n\r\nbody", "Like")),
        signed("an id with a NUL, and a type with a line break", &of("x\0\u{85}\u{2028}", "Like\r\nNats-TTL: 1s")),
        signed("an id of 100 kB", &of(&"i".repeat(100_000), &"t".repeat(100_000))),
        signed("a body of exactly the limit", &of_size(BODY_MAX)),
    ]
}

/// Spellings of hosts, and targets that a URL library would change.
fn names_and_targets(sender: &mut Sender) -> Vec<Probe> {
    let mut to = |name, host: &str, target: &str| {
        sender.destination = host.to_owned();
        sender.target = target.to_owned();
        let activity = sender.compose();
        Probe::plain(name, sender.signed(&activity))
    };
    let mut probes = vec![
        to("upper case", "HOME.Test", "/inbox"),
        to("the scheme's own port", "home.test:443", "/inbox"),
        to("the other scheme's port", "home.test:80", "/inbox"),
        to("a trailing dot", "home.test.", "/inbox"),
        to("a port of its own", "Port.test:8443", "/inbox"),
        to("a target that looks like a host", "home.test", "//evil.test/inbox"),
        to("a target with dots", "home.test", "/../../inbox"),
        to("a target with wildcards", "home.test", "/*/%3E/fed.inbox.%3E/inbox?a=*&b=%3E"),
    ];
    let absolute = to("absolute-form", "home.test", "/inbox?x=1");
    let bytes = absolute.seen.to_bytes();
    let line = b"POST /inbox?x=1 ".len();
    let bytes = [b"POST http://home.test/inbox?x=1 ", &bytes[line..]].concat();
    probes.push(Probe { sent: Sent::Bytes(bytes), ..absolute });
    sender.destination = "home.test".to_owned();
    sender.target = "/inbox".to_owned();
    probes
}

/// HTTP/1.0 with a Host, and HTTP/2.
fn versions(sender: &mut Sender) -> Vec<Probe> {
    let mut signed = || {
        let activity = sender.compose();
        sender.signed(&activity)
    };
    let mut second = signed();
    second
        .headers
        .extend([("nats-rollup", "all"), ("x-a", "2"), ("x-a", "1")].map(|(n, v)| (n.to_owned(), v.to_owned())));
    vec![
        Probe::written("HTTP/1.0", signed(), |bytes| as_version(&bytes, "1.0")),
        Probe { name: "HTTP/2", seen: second, sent: Sent::Http2 },
    ]
}

/// An activity whose body has exactly so many bytes.
fn of_size(bytes: usize) -> Activity {
    let id = format!("http://a.test/activities/{:016x}", fastrand::u64(..));
    let head = format!(r#"{{"id":"{id}","type":"Create","actor":"http://a.test/u/bob","padding":""#);
    let body = format!("{head}{}\"}}", "x".repeat(bytes - head.len() - 2));
    assert_eq!(body.len(), bytes);
    Activity { id, body: body.into() }
}

/// What the broker was given: our headers, once each; theirs inside one of them; the body as it came.
fn check_stored(probe: &Probe, stored: &Stored) {
    let name = probe.name;
    let names: BTreeSet<&str> = stored.headers.keys().map(String::as_str).collect();
    let strangers: Vec<_> = names.iter().filter(|name| !OURS.contains(name)).collect();
    assert!(strangers.is_empty(), "{name}: {strangers:?}");
    assert!(stored.headers.values().all(|values| values.len() == 1), "{name}: {:?}", stored.headers);
    let id = stored.header("Nats-Msg-Id");
    assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}: {id}");
    assert_eq!(stored.header("Fed-Target"), probe.seen.target, "{name}");
    assert!(stored.header("Fed-Activity-Id").len() <= 1024, "{name}");
    assert_eq!(stored.body, probe.seen.body, "{name}");
    assert!(
        !stored.headers.contains_key("traceparent"),
        "{name}: a stranger's trace is not ours, and we have none here"
    );

    let host = probe.seen.header("host").expect("a host");
    let lane = if host.starts_with("Port") { "port_test=3A8443" } else { "home_test" };
    assert_eq!(stored.subject, format!("fed.inbox.{lane}.a_test"), "{name}");
    let http = stored.http();
    assert_eq!(http[0], ("host".to_owned(), host), "{name}");
    let mut expected: Vec<(String, String)> =
        probe.seen.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    expected.retain(|(name, _)| name != "content-length");
    let mut found = http;
    // Stable: the values of one name keep their order.
    for pairs in [&mut expected, &mut found] {
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
    }
    assert_eq!(found, expected, "{name}");
}

/// The request over HTTP/2 with prior knowledge, its host as `:authority`.
async fn http2(front: SocketAddr, message: &Message) -> Response {
    let stream = TcpStream::connect(front).await.expect("a connection");
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    let driver = tokio::spawn(connection);
    let uri = format!("http://{}{}", message.header("host").expect("a host"), message.target);
    let mut request = http::Request::post(uri);
    for (name, value) in message.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::clone(&message.body))).expect("a request");
    let answer =
        tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("an answer");
    let (parts, body) = answer.into_parts();
    let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let body = body.collect().await.expect("a body").to_bytes();
    driver.abort();
    Response { status: parts.status.as_u16(), headers, body }
}
