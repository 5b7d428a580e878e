//! Batches that are not let in: status, problem type, the life's id on each answer, and nothing at the instance.

mod support;

use anyhow::Result;
use bytes::Bytes;
use fedstream_wire::protocol::Protocol;
use fedstream_wire::v2::{Batch, BatchItem};
use http::Request;
use http_body_util::Full;
use support::{Instance, Receiver, batch};

type Sent = Request<Full<Bytes>>;

/// Sends what `make` makes of a good batch, and expects this refusal with these words.
async fn refused(
    more: &[(&str, &str)],
    make: impl Fn(&Receiver, Batch) -> Sent,
    status: u16,
    kind: &str,
    words: &str,
) -> Result<Receiver> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, more).await?;
    let gate = receiver.gate().await?;
    let reply = receiver.send(make(&receiver, batch(Some(gate), 1, 0, &[1, 2]))).await?;
    assert_eq!(reply.status, status, "{kind}");
    assert_eq!(reply.gate()?, gate, "{kind}");
    assert_eq!(reply.headers.contains_key("retry-after"), status == 503, "{kind}");
    let problem = reply.problem().await?;
    assert_eq!(problem["type"], format!("urn:fedstream:problem:{kind}"));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(words)), "{problem}");
    assert!(instance.is_idle(), "{kind}");
    Ok(receiver)
}

fn with_header(receiver: &Receiver, batch: &Batch, name: &'static str, value: &str) -> Sent {
    let mut request = receiver.request(batch.encode());
    request.headers_mut().insert(name, value.parse().expect("value"));
    request
}

/// The second activity altered.
fn altered(receiver: &Receiver, mut batch: Batch, alter: impl Fn(&mut BatchItem)) -> Sent {
    alter(&mut batch.items[1]);
    receiver.request(batch.encode())
}

#[tokio::test]
async fn only_posts_are_taken() -> Result<()> {
    let get = |receiver: &Receiver, _| {
        Request::get(format!("http://{}/batch", receiver.address)).body(Full::default()).expect("request")
    };
    let receiver = refused(&[], get, 405, "method-not-allowed", "posted").await?;
    let reply = receiver.send(get(&receiver, batch(None, 1, 0, &[]))).await?;
    assert_eq!(reply.headers["allow"], "POST");
    let header = |name: &str| reply.headers.get(name).and_then(|value| value.to_str().ok());
    let found = Protocol::of_probe(reply.status.as_u16(), header("accept-post"), header("fed-gate"));
    assert_eq!(found, Some(Protocol::V2), "a sender needs to post nothing to find out");
    let elsewhere = Request::get(format!("http://{}/", receiver.address)).body(Full::default())?;
    let reply = receiver.send(elsewhere).await?;
    assert_eq!(reply.status, 404);
    reply.gate().map(drop)
}

#[tokio::test]
async fn a_wrong_or_missing_credential_is_401() -> Result<()> {
    let wrong = |receiver: &Receiver, batch| with_header(receiver, &batch, "authorization", "Bearer s3cre");
    refused(&[], wrong, 401, "unauthorized", "another secret").await?;
    let missing = |receiver: &Receiver, batch: Batch| {
        let mut request = receiver.request(batch.encode());
        request.headers_mut().remove("authorization");
        request
    };
    let receiver = refused(&[], missing, 401, "unauthorized", "missing").await?;
    let reply = receiver.send(missing(&receiver, batch(None, 1, 0, &[]))).await?;
    assert_eq!(reply.headers["www-authenticate"], "Bearer");
    Ok(())
}

#[tokio::test]
async fn a_client_address_that_is_not_allowed_is_503() -> Result<()> {
    let rules = [("HTTP_ALLOWED_IPS", "127.0.0.1,192.0.2.7"), ("HTTP_TRUSTED_PROXIES", "127.0.0.1")];
    let forwarded = |receiver: &Receiver, batch| with_header(receiver, &batch, "x-forwarded-for", "192.0.2.8");
    refused(&rules, forwarded, 503, "client-not-allowed", "192.0.2.8").await.map(drop)
}

#[tokio::test]
async fn another_type_or_encoding_is_415_and_names_what_is_accepted() -> Result<()> {
    let form = |receiver: &Receiver, batch| with_header(receiver, &batch, "content-type", "text/plain");
    refused(&[], form, 415, "unsupported-media-type", "application/cbor-seq, application/json").await?;
    let brotli = |receiver: &Receiver, batch| with_header(receiver, &batch, "content-encoding", "br");
    refused(&[], brotli, 415, "unsupported-media-type", "zstd, gzip").await.map(drop)
}

#[tokio::test]
async fn what_is_no_batch_is_400_and_names_item_and_field() -> Result<()> {
    refused(&[], |receiver, _| receiver.request("{}"), 400, "malformed-batch", "item 0").await?;
    let target = |receiver: &Receiver, batch| altered(receiver, batch, |item| item.target = "inbox".into());
    refused(&[], target, 400, "malformed-batch", "item 2: target").await?;
    let cut = |receiver: &Receiver, batch: Batch| {
        let mut bytes = batch.encode();
        bytes.truncate(bytes.len() / 2);
        receiver.request(bytes)
    };
    refused(&[], cut, 400, "malformed-batch", "item 1").await?;
    let garbage = |receiver: &Receiver, batch| with_header(receiver, &batch, "content-encoding", "zstd");
    refused(&[], garbage, 400, "malformed-body", "not valid zstd").await.map(drop)
}

#[tokio::test]
async fn what_cannot_be_replayed_as_it_is_is_400() -> Result<()> {
    let fragment = |receiver: &Receiver, batch| altered(receiver, batch, |item| item.target = "/inbox?a#b".into());
    refused(&[], fragment, 400, "malformed-batch", "item 2: the target").await?;
    let header = |name: &'static str, value: &'static [u8]| {
        move |receiver: &Receiver, batch| {
            altered(receiver, batch, |item| item.http.push((name.into(), Bytes::from_static(value))))
        }
    };
    refused(&[], header("x", b"a\nb"), 400, "malformed-batch", "item 2: the header \"x\"").await?;
    refused(&[], header("transfer-encoding", b"chunked"), 400, "malformed-batch", "never replayed").await.map(drop)
}

#[tokio::test]
async fn a_batch_over_a_limit_is_413() -> Result<()> {
    let plain = |receiver: &Receiver, batch: Batch| receiver.request(batch.encode());
    let small = [("FED_BODY_MAX", "1KiB"), ("FED_REQUEST_BODY_MAX", "81KiB")];
    let over = |receiver: &Receiver, _| receiver.request(vec![0; 81 * 1024 + 1]);
    refused(&small, over, 413, "too-large", "FED_REQUEST_BODY_MAX").await?;
    refused(&[("FED_BATCH_ITEMS_MAX", "1")], plain, 413, "too-large", "at most 1").await?;
    let large = |receiver: &Receiver, batch| altered(receiver, batch, |item| item.body = vec![b'x'; 2000].into());
    refused(&[("FED_BODY_MAX", "1999")], large, 413, "too-large", "item 2: its body has 2000 bytes").await?;

    let inflating_to = |bytes: usize| {
        let mut body =
            (0_u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_string().into_bytes()).take(bytes).collect();
        body = fedstream_wire::encoding::Encoding::Gzip.compress(body).1;
        move |receiver: &Receiver, _: Batch| {
            let mut request = receiver.request(body.clone());
            request.headers_mut().insert("content-encoding", "gzip".parse().expect("value"));
            request
        }
    };
    let limits = [("FED_BODY_MAX", "1KiB"), ("FED_BATCH_BODY_MAX", "90000")];
    refused(&limits, inflating_to(90_001), 413, "too-large", "90000 bytes once inflated").await?;
    refused(&limits, inflating_to(90_000), 400, "malformed-batch", "item 0").await?;
    refused(&limits, |receiver, _| receiver.request(vec![0; 90_001]), 413, "too-large", "90000").await.map(drop)
}

#[tokio::test]
async fn it_relays_to_its_destinations_and_inboxes_only() -> Result<()> {
    let internal = |receiver: &Receiver, mut batch: Batch| {
        batch.header.lane.destination = "internal.example:8080".parse().expect("name");
        receiver.request(batch.encode())
    };
    refused(&[], internal, 403, "destination-not-allowed", "FED_DESTINATIONS has no entry internal.example:8080")
        .await?;
    let host =
        |receiver: &Receiver, batch| altered(receiver, batch, |item| item.http[0].1 = Bytes::from_static(b"c.example"));
    refused(&[], host, 403, "destination-not-allowed", "item 2: its Host (c.example)").await?;
    let hosts = |receiver: &Receiver, batch| {
        altered(receiver, batch, |item| item.http.push(("Host".into(), Bytes::from_static(b"b.example"))))
    };
    refused(&[], hosts, 403, "destination-not-allowed", "more than one").await?;
    let path =
        |receiver: &Receiver, batch| altered(receiver, batch, |item| item.target = "/api/v3/admin?x=/inbox".into());
    refused(&[], path, 403, "path-not-allowed", "FED_INBOX_PATHS").await.map(drop)
}

#[tokio::test]
async fn a_batch_that_finds_no_room_is_503_and_later_finds_some() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[("FED_BATCHES_MAX", "1")]).await?;
    let gate = receiver.gate().await?;
    let mut first = receiver.post(&batch(Some(gate), 1, 0, &[1])).await?;
    let asked = instance.asked().await?;
    let second = receiver.post(&batch(Some(gate), 1, 1, &[2])).await?;
    assert_eq!((second.status.as_u16(), &second.headers["retry-after"]), (503, &"1".parse()?));
    assert_eq!(second.problem().await?["type"], "urn:fedstream:problem:overloaded");
    asked.answer(202);
    first.lines().await?;
    let third = support::soon("room", async {
        loop {
            let reply = receiver.post(&batch(Some(gate), 1, 1, &[2])).await?;
            if reply.status == 200 {
                return anyhow::Ok(reply);
            }
        }
    });
    third.await?.map(drop)
}

#[tokio::test]
async fn a_lane_too_many_is_503() -> Result<()> {
    let mut instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[("FED_LANES_MAX", "1")]).await?;
    let gate = receiver.gate().await?;
    let mut first = receiver.post(&batch(Some(gate), 1, 0, &[1])).await?;
    instance.takes(1).await?;
    first.lines().await?;
    let mut other = batch(Some(gate), 1, 0, &[2]);
    other.header.lane.source = "c.example".parse()?;
    let reply = receiver.post(&other).await?;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.problem().await?["type"], "urn:fedstream:problem:too-many-lanes");
    Ok(())
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() -> Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[("FED_BODY_TIMEOUT", "50ms")]).await?;
    let mut stream = tokio::net::TcpStream::connect(receiver.address).await?;
    let head = "POST /batch HTTP/1.1\r\nhost: x\r\ncontent-type: application/cbor-seq\r\nauthorization: Bearer s3cret\r\ncontent-length: 9\r\n\r\nx";
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    support::soon("the answer", stream.read_to_string(&mut answer)).await??;
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("fed-gate: ") && answer.contains("body-timeout"),
        "{answer}"
    );
    Ok(())
}

#[tokio::test]
async fn a_refused_batch_is_read_away_so_that_its_sender_hears_why() -> Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let instance = Instance::start().await?;
    let receiver = Receiver::start(instance.address, &[("FED_REQUEST_BODY_MAX", "2MiB")]).await?;
    // How much is sent, with which secret; the answer, and whether the connection is used further.
    let cases: [(usize, &str, &str, bool); 4] = [
        (3 << 20, "s3cret", "HTTP/1.1 413", true),
        (5 << 20, "s3cret", "HTTP/1.1 413", false),
        (64 << 10, "wrong", "HTTP/1.1 401", true),
        (65 << 10, "wrong", "HTTP/1.1 401", false),
    ];
    for (bytes, secret, status, goes_on) in cases {
        let mut stream = tokio::net::TcpStream::connect(receiver.address).await?;
        let head = format!(
            "POST /batch HTTP/1.1\r\nhost: x\r\ncontent-type: application/cbor-seq\r\nauthorization: Bearer {secret}\r\ncontent-length: {bytes}\r\n\r\n"
        );
        let mut answer = String::new();
        let asking = async {
            stream.write_all(head.as_bytes()).await?;
            if goes_on {
                // All of it before anything is read, as simple clients do.
                stream.write_all(&vec![b'x'; bytes]).await?;
                stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
            }
            stream.read_to_string(&mut answer).await
        };
        support::soon("the answer", asking).await??;
        assert!(answer.starts_with(status), "{bytes}: {answer}");
        assert_eq!(answer.contains("HTTP/1.1 404"), goes_on, "{bytes}: {answer}");
    }
    Ok(())
}

#[test]
fn a_wrong_configuration_is_one_line_and_exit_code_64() -> Result<()> {
    let run = |pairs: &[(&str, &str)]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_batch-receiver"));
        command.env_clear().envs(pairs.iter().copied()).output()
    };
    let open = run(&[("FED_DESTINATIONS", "b.example")])?;
    let error = String::from_utf8(open.stderr)?;
    assert_eq!((open.status.code(), error.lines().count()), (Some(64), 1), "{error}");
    assert!(error.contains("HTTP_BATCH_AUTHORIZATION") && error.contains("FED_OPEN_RECEIVER=yes"), "{error}");

    let scheme = run(&[("FED_DESTINATIONS", "b.example"), ("HTTP_BATCH_AUTHORIZATION", "Bearer ")])?;
    let error = String::from_utf8(scheme.stderr)?;
    assert_eq!((scheme.status.code(), error.lines().count()), (Some(64), 1), "{error}");
    assert!(error.contains("HTTP_BATCH_AUTHORIZATION: has no secret in it"), "{error}");

    let secret = run(&[("HTTP_BATCH_AUTHORIZATION", "hunter\u{7}2")])?;
    let error = String::from_utf8(secret.stderr)?;
    assert!(secret.status.code() == Some(64) && !error.contains("hunter"), "{error}");
    Ok(())
}
