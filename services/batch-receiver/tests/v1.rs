//! Batches of the existing batcher's format, sent as its own sender sends them: nothing is settled but by a whole
//! answer that names each activity at its place.

mod support;

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fedstream_lane::Origin;
use fedstream_wire::encoding::Encoding;
use fedstream_wire::v1::OWNER_HEADER;
use fedstream_wire::v2::{self, Batch};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use support::{DONE, Instance, Receiver, SECRET, batch, delivered, soon};

/// The existing sender, as far as a receiver can tell: what it sends, and what it makes of an answer.
#[derive(Clone)]
struct Sender {
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What its process would do now.
#[derive(Debug, PartialEq)]
enum Then {
    /// All messages are acknowledged; the statuses.
    Acks(Vec<u64>),
    /// All messages are given back, and it begins anew; the statuses it had seen.
    GivesBack(Vec<u64>),
}

impl Sender {
    fn to(receiver: SocketAddr) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { url: format!("http://{receiver}/batch"), client }
    }

    fn request(&self, items: &[Value]) -> Request<Full<Bytes>> {
        Request::post(&self.url)
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {SECRET}"))
            .body(Full::new(json!(items).to_string().into()))
            .expect("a request")
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        Ok(soon("the answer", self.client.request(request)).await??)
    }

    /// Posts a batch, and checks every entry of the answer against the batch.
    async fn post(&self, items: &[Value]) -> Result<Then> {
        let response = self.send(self.request(items)).await?;
        ensure!(response.status().is_success(), "the sender ends: {}", response.status());
        ensure!(response.headers()["content-type"] == "application/json");
        let body = soon("the answer's body", response.into_body().collect()).await??.to_bytes();
        let answer: Vec<Value> = serde_json::from_slice(&body)?;
        ensure!(answer.len() <= items.len(), "too long");
        let mut statuses = Vec::new();
        for (entry, item) in answer.iter().zip(items) {
            ensure!(entry["activity_id"] == item["activity_id"], "{entry} is not about {item}");
            ensure!(entry["time"].as_str().is_some_and(|time| time.len() == 32 && time.ends_with("+00:00")), "{entry}");
            ensure!(entry["headers"].is_array() && entry.get("content_type").is_some() && entry.get("body").is_some());
            statuses.push(entry["status"].as_u64().context("a status")?);
        }
        let good = |status: &u64| !matches!(status, 408 | 429 | 500..600);
        if statuses.len() == items.len() && statuses.iter().all(good) {
            return Ok(Then::Acks(statuses));
        }
        ensure!(statuses.last().is_some_and(|last| !good(last)), "shorter, and nothing says why: {statuses:?}");
        Ok(Then::GivesBack(statuses))
    }
}

/// An activity of a.example, whose body is its number.
fn item(number: u64) -> Value {
    json!({
        "time": "2024-06-30T21:47:56.123456+00:00",
        "activity_id": format!("https://a.example/{number}"),
        "host": "b.example",
        "path": "/inbox",
        "headers": [
            ["Host", "b.example"],
            ["cOnTeNt-TyPe", "application/activity+json"],
            ["Connection", "keep-alive"],
            ["Content-Length", "7"],
            ["Signature", "keyId=\"https://a.example/u/a#main-key\",signature=\"x\""],
        ],
        "b64_body": STANDARD.encode(number.to_string()),
    })
}

fn items(numbers: &[u64]) -> Vec<Value> {
    numbers.iter().map(|number| item(*number)).collect()
}

async fn start(more: &[(&str, &str)]) -> Result<(Instance, Receiver, Sender)> {
    let instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, more).await?;
    let sender = Sender::to(receiver.address);
    Ok((instance, receiver, sender))
}

/// Sends in the background.
fn posting(sender: &Sender, items: Vec<Value>) -> tokio::task::JoinHandle<Result<Then>> {
    let sender = sender.clone();
    tokio::spawn(async move { sender.post(&items).await })
}

#[tokio::test]
async fn a_batch_is_delivered_in_order_and_answered_at_the_end() -> Result<()> {
    let (mut instance, _receiver, sender) = start(&[]).await?;
    let posted = posting(&sender, items(&[1, 2, 3]));
    instance.takes(1).await?;
    let second = instance.asked().await?;
    assert_eq!((second.body.as_str(), second.target.as_str()), ("2", "/inbox"));
    assert_eq!(second.headers["content-length"], "1", "its own, not the one of the front door's connection");
    assert_eq!(second.headers["content-type"], "application/activity+json");
    assert!(!second.headers.contains_key("connection"));
    assert!(!posted.is_finished(), "nothing is said before all is over");
    second.answer_with(400, &[("content-type", "application/json")], r#"{"error":"unknown","message":""}"#);
    instance.takes(3).await?;
    assert_eq!(soon("the end", posted).await???, Then::Acks(vec![202, 400, 202]));
    assert_eq!(instance.most_at_once(), 1);
    assert_eq!(sender.post(&[]).await?, Then::Acks(vec![]));
    Ok(())
}

#[tokio::test]
async fn the_answer_has_what_the_instance_said() -> Result<()> {
    let (mut instance, _receiver, sender) = start(&[]).await?;
    let asking = async { soon("the answer", sender.send(sender.request(&items(&[1, 2])))).await? };
    let instance = async {
        let headers =
            [("content-type", "application/json"), ("content-length", "8"), ("x-twice", "1"), ("x-twice", "2")];
        instance.asked().await?.answer_with(404, &headers, "{\"a\":\"\"}");
        instance.asked().await?.answer(200);
        anyhow::Ok(())
    };
    let (response, asked) = tokio::join!(asking, instance);
    asked?;
    let body = response?.into_body().collect().await?.to_bytes();
    let answer: Value = serde_json::from_slice(&body)?;
    assert_eq!((&answer[0]["content_type"], &answer[0]["body"]), (&json!("application/json"), &json!("{\"a\":\"\"}")));
    let headers = answer[0]["headers"].as_array().context("headers")?;
    let twice: Vec<_> = headers.iter().filter(|pair| pair[0] == "x-twice").collect();
    assert_eq!(twice, [&json!(["x-twice", "1"]), &json!(["x-twice", "2"])]);
    assert_eq!((&answer[1]["content_type"], &answer[1]["body"]), (&Value::Null, &Value::Null));
    Ok(())
}

#[tokio::test]
async fn after_a_status_that_is_not_tolerable_nothing_is_begun_and_the_array_ends() -> Result<()> {
    let (mut instance, _receiver, sender) = start(&[("FED_PROFILE", "lemmy")]).await?;
    let database = r#"{"error":"unknown","message":"Timeout occurred while waiting for a slot to become available"}"#;
    for (status, body, said) in
        [(408, "", 408), (429, "", 429), (500, "", 500), (503, "", 503), (301, "", 503), (400, database, 503)]
    {
        let posted = posting(&sender, items(&[1, 2, 3]));
        instance.takes(1).await?;
        instance.asked().await?.answer_with(status, &[], body);
        assert_eq!(soon("the end", posted).await???, Then::GivesBack(vec![202, said]), "{status}");
        assert!(instance.is_idle());
    }
    Ok(())
}

#[tokio::test]
async fn an_instance_that_does_not_answer_is_502() -> Result<()> {
    let (listening, address) = support::listener().await?;
    drop(listening);
    let receiver = Receiver::start(address, &[]).await?;
    assert_eq!(Sender::to(receiver.address).post(&items(&[1, 2])).await?, Then::GivesBack(vec![502]));
    Ok(())
}

#[tokio::test]
async fn what_a_profile_calls_over_stays_what_the_instance_said() -> Result<()> {
    let (mut instance, _receiver, sender) = start(&[("FED_PROFILE", "lemmy")]).await?;
    let bodies = [
        r#"{"error":"unknown","message":""}"#,
        r#"{"error":"unknown","message":"Http Signature is expired, checked Date header"}"#,
        r#"{"error":"inbox_timeout"}"#,
    ];
    let posted = posting(&sender, items(&[1, 2, 3]));
    for body in bodies {
        instance.asked().await?.answer_with(400, &[], body);
    }
    assert_eq!(soon("the end", posted).await???, Then::Acks(vec![400, 400, 400]));
    Ok(())
}

#[tokio::test]
async fn two_batches_of_a_lane_take_turns_and_other_lanes_do_not_wait() -> Result<()> {
    let (mut instance, receiver, sender) = start(&[]).await?;
    let first = posting(&sender, items(&[1, 2]));
    let held = instance.asked().await?;
    let second = posting(&sender, items(&[3]));
    let waits = async {
        while receiver.page("/lanes").await?.1["feeders"][0]["batches"] != 2 {}
        anyhow::Ok(())
    };
    soon("the second batch to wait", waits).await??;
    let mut other = item(9);
    other["headers"][4][1] = "keyId=\"https://c.example/k\"".into();
    let third = posting(&sender, vec![other]);
    instance.takes(9).await?;
    assert_eq!(soon("the other lane", third).await???, Then::Acks(vec![202]));
    assert!(instance.is_idle(), "3 waits for the whole batch before it");
    held.answer(202);
    instance.takes(2).await?;
    instance.takes(3).await?;
    assert_eq!(soon("the first", first).await???, Then::Acks(vec![202, 202]));
    assert_eq!(soon("the second", second).await???, Then::Acks(vec![202]));
    Ok(())
}

#[tokio::test]
async fn a_batch_that_does_not_get_its_turn_in_time_is_503() -> Result<()> {
    let (mut instance, _receiver, sender) = start(&[("FED_WAIT_MAX", "50ms")]).await?;
    let first = posting(&sender, items(&[1]));
    let held = instance.asked().await?;
    let response = sender.send(sender.request(&items(&[2]))).await?;
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"1".parse()?));
    held.answer(202);
    assert_eq!(soon("the first", first).await???, Then::Acks(vec![202]));
    assert!(instance.is_idle());
    Ok(())
}

#[tokio::test]
async fn a_sender_that_goes_ends_nothing_at_the_instance_and_begins_nothing_more() -> Result<()> {
    let (mut instance, _receiver, sender) = start(&[]).await?;
    let gone = Sender::to(sender.url["http://".len()..].trim_end_matches("/batch").parse()?);
    let posted = posting(&gone, items(&[1, 2]));
    let held = instance.asked().await?;
    posted.abort();
    drop((soon("its end", posted).await?, gone));
    let next = posting(&sender, items(&[3]));
    held.answer(202);
    instance.takes(3).await?;
    assert_eq!(soon("the next batch", next).await???, Then::Acks(vec![202]), "the turn was given back");
    assert!(instance.is_idle() && instance.most_at_once() == 1, "2 was never begun");
    Ok(())
}

#[tokio::test]
async fn at_shutdown_what_is_begun_is_finished_and_the_rest_is_told_apart() -> Result<()> {
    let (mut instance, receiver, sender) = start(&[]).await?;
    let posted = posting(&sender, items(&[1, 2, 3]));
    let held = instance.asked().await?;
    receiver.stop.cancel();
    held.answer(202);
    assert_eq!(soon("the end", posted).await???, Then::GivesBack(vec![202, 503]));
    receiver.stopped().await?;
    assert!(instance.is_idle());
    Ok(())
}

#[tokio::test]
async fn a_lane_that_one_format_feeds_is_closed_to_the_other() -> Result<()> {
    let (mut instance, receiver, sender) = start(&[]).await?;
    let gate = receiver.gate().await?;
    let v2: Batch = batch(Some(gate), 1, 0, &[1]);
    let mut reply = receiver.post(&v2).await?;
    instance.takes(1).await?;
    assert_eq!(reply.lines().await?, [delivered(1), DONE]);
    let response = sender.send(sender.request(&items(&[2]))).await?;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    let problem: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
    assert_eq!(problem["type"], "urn:fedstream:problem:other-origin");
    let detail = problem["detail"].as_str().context("a detail")?;
    assert!(detail.contains("b.example/a.example is fed by v2 batches"), "{detail}");
    let fed = &receiver.page("/lanes").await?.1["feeders"];
    let expected =
        json!([{"lane": "b.example/a.example", "fed_by": "v2", "batches": 0, "refused_of_another_feeder": 1}]);
    assert_eq!(fed, &expected);

    let (mut instance, receiver, sender) = start(&[]).await?;
    let posted = posting(&sender, items(&[1]));
    let held = instance.asked().await?;
    let v2 = Batch { header: v2::BatchHeader { gate: Some(receiver.gate().await?), ..v2.header }, ..v2 };
    let reply = receiver.post(&v2).await?;
    assert_eq!(reply.status, StatusCode::CONFLICT);
    assert!(reply.problem().await?["detail"].as_str().context("a detail")?.contains("is fed by v1 batches"));
    held.answer(202);
    assert_eq!(soon("the end", posted).await???, Then::Acks(vec![202]));
    assert!(instance.is_idle());
    Ok(())
}

#[tokio::test]
async fn a_sender_of_ours_that_changes_its_format_does_not_wait_for_the_lane_to_be_quiet() -> Result<()> {
    let (mut instance, receiver, sender) = start(&[]).await?;
    let v2 = batch(Some(receiver.gate().await?), 8, 0, &[2]);
    let owner = |epoch| {
        let Origin { site, created_us } = &v2.header.origin;
        format!("{} {site} {created_us} {epoch}", v2.header.lane.subject())
    };
    let v1 = |owner: String| -> Result<_> {
        let mut request = sender.request(&items(&[1]));
        request.headers_mut().insert(OWNER_HEADER, owner.parse()?);
        let sending = sender.clone();
        Ok(tokio::spawn(async move { sending.send(request).await }))
    };
    let posted = v1(owner(7))?;
    let held = instance.asked().await?;
    assert_eq!(receiver.post(&v2).await?.status, StatusCode::CONFLICT, "its v1 batch is not over");
    held.answer(202);
    assert_eq!(soon("the end", posted).await???.status(), 200);
    let mut reply = receiver.post(&v2).await?;
    instance.takes(2).await?;
    assert_eq!(reply.lines().await?, [delivered(2), DONE]);
    for late in [owner(7), owner(8), owner(9).replace("b_example", "c_example"), "?".to_owned()] {
        let refused = soon("the refusal", v1(late.clone())?).await???;
        assert_eq!(refused.status(), StatusCode::CONFLICT, "{late}");
    }
    let posted = v1(owner(9))?;
    instance.takes(1).await?;
    assert_eq!(soon("the end", posted).await???.status(), 200);
    let late = soon("the refusal", v1(owner(8))?).await???;
    assert_eq!(late.status(), StatusCode::CONFLICT, "a later owner feeds it");
    let problem: Value = serde_json::from_slice(&late.into_body().collect().await?.to_bytes())?;
    assert_eq!((&problem["type"], &problem["epoch"]), (&json!("urn:fedstream:problem:stale-epoch"), &json!(9)));
    assert!(instance.is_idle());
    Ok(())
}

#[tokio::test]
async fn a_type_with_a_charset_and_a_compressed_body_are_taken() -> Result<()> {
    let (mut instance, _receiver, sender) = start(&[]).await?;
    for encoding in [Encoding::Identity, Encoding::Zstd, Encoding::Gzip] {
        let (used, body) = encoding.compress(json!(items(&[1, 2, 3])).to_string().into_bytes());
        assert_eq!(used, encoding);
        let mut request = sender.request(&[]);
        *request.body_mut() = Full::new(body.into());
        request.headers_mut().insert("content-type", "Application/JSON; charset=utf-8".parse()?);
        if let Some(name) = used.name() {
            request.headers_mut().insert("content-encoding", name.parse()?);
        }
        let sending = sender.clone();
        let sent = tokio::spawn(async move { sending.send(request).await });
        for number in [1, 2, 3] {
            instance.takes(number).await?;
        }
        assert_eq!(soon("the answer", sent).await???.status(), 200);
    }
    Ok(())
}

/// Further variables, the batch, the status of the refusal, and words in it.
type Case<'a> = (&'a [(&'a str, &'a str)], Vec<Value>, u16, &'a str);

#[tokio::test]
async fn what_is_not_let_in_is_refused_whole_and_named() -> Result<()> {
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut items = items(&[1, 2]);
        change(&mut items[1]);
        items
    };
    let cases: [Case<'_>; 9] = [
        (
            &[],
            changed(&|item| item["host"] = "internal:8080".into()),
            403,
            "FED_DESTINATIONS has no entry internal:8080",
        ),
        (&[], changed(&|item| item["headers"][0][1] = "c.example".into()), 403, "item 2: its Host (c.example)"),
        (&[], changed(&|item| item["path"] = "/api/v3/admin".into()), 403, "FED_INBOX_PATHS"),
        (&[], changed(&|item| item["host"] = "a b".into()), 400, "item 2: host"),
        (&[], changed(&|item| item["b64_body"] = "?".into()), 400, "item 2: b64_body"),
        (&[], changed(&|item| item["headers"] = Value::Null), 400, "item 2: headers"),
        (&[], changed(&|item| item["headers"][1][1] = "a\r\nb: c".into()), 400, "item 2: the header"),
        (&[("FED_BATCH_ITEMS_MAX", "1")], items(&[1, 2]), 413, "at most 1"),
        (
            &[("FED_BODY_MAX", "1")],
            changed(&|item| item["b64_body"] = "MTI=".into()),
            413,
            "item 2: its body has 2 bytes",
        ),
    ];
    for (more, items, status, words) in cases {
        let (mut instance, _receiver, sender) = start(more).await?;
        let response = sender.send(sender.request(&items)).await?;
        assert_eq!(response.status().as_u16(), status, "{words}");
        let problem = response.into_body().collect().await?.to_bytes();
        assert!(String::from_utf8_lossy(&problem).contains(words), "{words}: {problem:?}");
        assert!(instance.is_idle(), "{words}");
    }
    Ok(())
}

#[tokio::test]
async fn the_credential_and_the_address_are_asked_for_as_before() -> Result<()> {
    let (mut instance, _receiver, sender) = start(&[]).await?;
    let mut wrong = sender.request(&items(&[1]));
    wrong.headers_mut().insert("authorization", "Bearer s3cre".parse()?);
    assert_eq!(sender.send(wrong).await?.status(), 401);
    let mut get = sender.request(&[]);
    *get.method_mut() = http::Method::GET;
    let answer = sender.send(get).await?;
    assert_eq!((answer.status().as_u16(), &answer.headers()["allow"]), (405, &"POST".parse()?));
    assert!(instance.is_idle());
    let (mut instance, _receiver, sender) = start(&[("HTTP_ALLOWED_IPS", "192.0.2.1")]).await?;
    assert_eq!(sender.send(sender.request(&items(&[1]))).await?.status(), 503);
    assert!(instance.is_idle());
    Ok(())
}
