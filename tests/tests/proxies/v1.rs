//! The existing batcher's format through the back's proxy, each way: from our batch-sender, and as the existing one posts it.
//! Its answer comes at the end of the batch, so no proxy can hold it back; it only has to wait.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fedstream_tests::http1;
use fedstream_tests::message::Message;
use fedstream_tests::pipeline::CREDENTIAL;
use fedstream_tests::sign::Kind as Signature;
use serde_json::{Value, json};

use crate::SOON;
use crate::proxy::Kind;
use crate::site::{SOURCE, Site, pipeline};
use crate::tls::tunnel;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_goes_through_nginx_each_way() {
    each_way(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_goes_through_caddy_each_way() {
    each_way(Kind::Caddy).await;
}

async fn each_way(back: Kind) {
    const EACH: usize = 60;
    let mut site = Site::start(Kind::Nginx, back, pipeline(), vec![]).await;
    site.pipeline.batch_sender.set_env("BATCH_PROTOCOL", Some("v1"));
    site.pipeline.batch_sender.start().await.expect("it starts");
    let (mut one, mut other) = (site.sender(SOURCE), site.sender("b.test"));
    other.kind = Signature::Rfc9421;
    tokio::join!(one.send_many(EACH), other.send_many(EACH));
    site.pipeline.settle(SOON).await.assert_clean(2 * EACH);
    site.pipeline.wait_trimmed(SOON).await.expect("what is settled is purged");
    let log = site.pipeline.batch_sender.log();
    assert!(!log.contains("does not move"), "{log}");

    let mut theirs = site.outsider(&site.stranger);
    let messages = [theirs.compose(), theirs.compose()].map(|activity| theirs.signed(&activity));
    let batch = Value::from_iter(messages.iter().map(item)).to_string();
    let head = format!(
        "POST /batch HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nauthorization: Bearer {CREDENTIAL}\r\n\
         user-agent: ActivityPub-Federation-Queue-Batcher\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        batch.len()
    );
    let inside = tunnel(&site.authority, "127.0.0.1", "localhost", site.back.addr()).await;
    let answer = http1::raw(inside.addr(), (head + &batch).as_bytes(), SOON).await.expect("an answer");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let statuses = answer.json().as_array().expect("an array").iter().map(|entry| entry["status"].clone()).collect();
    assert_eq!(Value::Array(statuses), json!([200, 200]));
    let seen = site.pipeline.instance().seen();
    for (seen, sent) in seen[2 * EACH..].iter().zip(messages) {
        assert_eq!(seen.message.fingerprint(), sent.fingerprint());
        assert!(seen.signature.is_ok(), "{:?}", seen.signature);
    }
}

/// As the existing front door stores it.
fn item(message: &Message) -> Value {
    json!({
        "time": "2024-06-30T21:47:56.123456+00:00",
        "activity_id": message.activity_id(),
        "host": message.header("host"),
        "path": message.target,
        "headers": message.headers,
        "b64_body": STANDARD.encode(&message.body),
    })
}
