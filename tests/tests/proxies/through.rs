//! Through both proxies: order, bytes, signatures, and outcomes that come one by one.

use std::collections::BTreeSet;
use std::time::Duration;

use fedstream_tests::eventually::eventually;
use fedstream_tests::http1;
use fedstream_tests::pipeline::{Pipeline, Which};
use fedstream_tests::sign::Kind as Signature;

use crate::SOON;
use crate::proxy::Kind;
use crate::site::{SOURCE, Site, pipeline};
use crate::tls::{terminate, tunnel};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_bytes_and_signatures_hold_through_nginx() {
    everything_arrives_as_it_was_sent(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_bytes_and_signatures_hold_through_caddy() {
    everything_arrives_as_it_was_sent(Kind::Caddy).await;
}

async fn everything_arrives_as_it_was_sent(kind: Kind) {
    const EACH: usize = 60;
    let mut site = Site::start(kind, kind, pipeline(), vec![]).await;
    site.pipeline.batch_sender.start().await.expect("it starts");
    let (mut one, mut other) = (site.sender(SOURCE), site.sender("b.test"));
    other.kind = Signature::Rfc9421;
    tokio::join!(one.send_many(EACH), other.send_many(EACH));

    let targets = [
        "/inbox?shared=1",
        "/users/%40bob/inbox",
        "/users/%40bob%2fx/inbox?a=%20b&a='",
        "/./a//inbox",
        "/a/../inbox",
        "/u/o'hara/inbox",
    ];
    for target in targets {
        one.target = target.to_owned();
        assert_eq!(one.send_one().await.status, 204, "{target}");
    }
    // Just below FED_BODY_MAX; a note has its text twice.
    other.text_bytes = 480 * 1024;
    assert_eq!(other.send_one().await.status, 204);
    other.text_bytes = 600 * 1024;
    let too_large = other.compose();
    let refused = other.try_once(&too_large).await.expect("an answer");
    assert_eq!(refused.status, 413);
    assert!(refused.json()["detail"].is_string(), "fedstream says why: {refused:?}");

    site.pipeline.settle(SOON).await.assert_clean(2 * EACH + targets.len() + 1);
    site.pipeline.wait_trimmed(SOON).await.expect("what is settled is purged");
    assert_eq!(site.real.arrivals(), 0, "nothing of it is the real instance's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_come_one_by_one_through_nginx() {
    let mut site = slow_instance(Kind::Nginx).await;
    assert_streamed(&mut site.pipeline).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_come_one_by_one_through_caddy() {
    let mut site = slow_instance(Kind::Caddy).await;
    assert_streamed(&mut site.pipeline).await;
}

async fn slow_instance(back: Kind) -> Site {
    let site = Site::start(Kind::Nginx, back, pipeline(), vec![]).await;
    site.sender(SOURCE).send_many(BACKLOG).await;
    site
}

/// Into one batch, or two.
pub const BACKLOG: usize = 20;

/// Of an instance that takes its time: the lane gets shorter while the batch is still being delivered.
pub async fn assert_streamed(pipeline: &mut Pipeline) {
    let depths = depths_of_a_slow_delivery(pipeline).await;
    let between = depths.iter().filter(|depth| (1..BACKLOG as u64).contains(depth)).count();
    assert!(between >= 4, "the lane was seen at {depths:?}\n{}", pipeline.batch_sender.log_tail());
}

/// Starts batch-sender in front of [`BACKLOG`] activities, and says which lengths the lane was seen at on its way to 0.
pub async fn depths_of_a_slow_delivery(pipeline: &mut Pipeline) -> BTreeSet<u64> {
    pipeline.instance().set_service_time(Duration::from_millis(100));
    pipeline.batch_sender.start().await.expect("it starts in front of a backlog");
    let mut depths = BTreeSet::new();
    let empty = eventually("the lane is empty", SOON, async || {
        let depth = pipeline.depth().await?;
        depths.insert(depth);
        (depth == 0).then_some(())
    });
    if let Err(timeout) = empty.await {
        panic!("{timeout}: {depths:?}");
    }
    pipeline.settle(SOON).await.assert_clean(BACKLOG);
    depths
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_back_shows_nothing_but_the_batch_endpoint() {
    for kind in [Kind::Nginx, Kind::Caddy] {
        let site = Site::start(Kind::Nginx, kind, pipeline(), vec![]).await;
        let inside = tunnel(&site.authority, "127.0.0.1", "localhost", site.back.addr()).await;
        for (request, status) in [
            ("GET / HTTP/1.1", 404),
            ("GET /readyz HTTP/1.1", 404),
            ("GET /lanes HTTP/1.1", 404),
            ("POST /batches HTTP/1.1", 404),
            ("POST /inbox HTTP/1.1", 404),
            ("GET /batch HTTP/1.1", 405),
            ("POST /batch HTTP/1.1", 401),
            // A body of unknown length goes through, to be judged at the far end.
            ("POST /batch HTTP/1.1\r\ntransfer-encoding: chunked", 401),
        ] {
            let body = if request.ends_with("chunked") { "3\r\nabc\r\n0\r\n\r\n" } else { "" };
            let length = if body.is_empty() { "content-length: 0\r\n" } else { "" };
            let bytes = format!("{request}\r\nhost: localhost\r\n{length}connection: close\r\n\r\n{body}");
            let answer = http1::raw(inside.addr(), bytes.as_bytes(), SOON).await.expect("an answer");
            assert_eq!(answer.status, status, "{kind:?}: {request}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_whose_certificate_is_of_another_authority_gets_nothing_and_the_log_says_so() {
    let mut site = Site::start(Kind::Nginx, Kind::Nginx, pipeline(), vec![]).await;
    let other = crate::tls::Authority::new();
    let path = other.file().display().to_string();
    site.pipeline.service(Which::BatchSender).set_env("BATCH_RECEIVER_CA_FILE", Some(&path));
    site.pipeline.batch_sender.start().await.expect("it starts");
    site.sender(SOURCE).send_many(1).await;
    let said = async || site.pipeline.batch_sender.log().contains("invalid peer certificate").then_some(());
    eventually("the log says that the certificate is not trusted", SOON, said).await.unwrap();
    assert_eq!(site.pipeline.instance().arrivals(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_behind_tls_of_its_own_authority_is_reached() {
    let mut site = Site::start(Kind::Nginx, Kind::Nginx, pipeline(), vec![]).await;
    let tls = terminate(&site.authority.issue("127.0.0.1"), site.pipeline.instance().addr()).await;
    let (domain, authority) = (tls.addr().to_string(), site.authority.file().display().to_string());
    let receiver = site.pipeline.service(Which::BatchReceiver);
    receiver.set_env("OVERRIDE_DESTINATION_PROTOCOL", Some("https"));
    receiver.set_env("OVERRIDE_DESTINATION_DOMAIN", Some(&domain));
    receiver.set_env("OVERRIDE_DESTINATION_CA_FILE", Some(&authority));
    receiver.restart().await.expect("it starts again");
    site.pipeline.batch_sender.start().await.expect("it starts");
    site.sender(SOURCE).send_many(3).await;
    site.pipeline.settle(SOON).await.assert_clean(3);
}
