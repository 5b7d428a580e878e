//! What the front's proxy sends where: wanted inbox POSTs to fedstream, everything else to the real instance.

use fedstream_tests::http1;
use fedstream_tests::message::Message;

use crate::SOON;
use crate::proxy::Kind;
use crate::site::{NAME, SOURCE, Site, WANTED, pipeline};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_sends_only_wanted_inbox_posts_to_fedstream() {
    only_wanted_inbox_posts(Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caddy_sends_only_wanted_inbox_posts_to_fedstream() {
    only_wanted_inbox_posts(Kind::Caddy).await;
}

async fn only_wanted_inbox_posts(kind: Kind) {
    let mut site = Site::start(kind, Kind::Nginx, pipeline(), vec![]).await;
    site.pipeline.batch_sender.start().await.expect("it starts");
    site.real.set_probe_status(203);
    site.sender(SOURCE).send_many(1).await;

    // Another address, also one that says it is not; another path; another method.
    let mut stranger = site.outsider(&site.stranger);
    assert!(stranger.send_one().await.status < 300);
    let activity = stranger.compose();
    let mut forged = stranger.signed(&activity);
    forged.headers.push(("X-Forwarded-For".to_owned(), WANTED.to_owned()));
    assert!(stranger.send_verbatim(&forged).await.status < 300);
    let mut insider = site.outsider(&site.wanted);
    insider.target = "/api/v3/inboxes".to_owned();
    assert!(insider.send_one().await.status < 300);
    let page = format!("GET /u/bob/inbox HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n");
    let page = http1::raw(site.wanted.addr(), page.as_bytes(), SOON).await.expect("an answer");
    assert_eq!(page.status, 203, "the real instance's own answer");

    // Where the sender says that somebody else sent it, only the proxy's word counts.
    let mut sender = site.sender(SOURCE);
    let activity = sender.compose();
    let mut odd = sender.signed(&activity);
    odd.headers.push(("X-Forwarded-For".to_owned(), "203.0.113.9".to_owned()));
    assert_eq!(sender.send_verbatim(&odd).await.status, 204);

    site.pipeline.settle(SOON).await.assert_clean(2);
    let real = site.real.seen();
    let targets: Vec<&str> = real.iter().map(|seen| seen.message.target.as_str()).collect();
    assert_eq!(targets, ["/inbox", "/inbox", "/api/v3/inboxes"]);
    for seen in real {
        assert_eq!(seen.lane, format!("{NAME}/{SOURCE}"), "Host is unchanged");
        assert!(seen.signature.is_ok(), "as any request that came straight: {:?}", seen.signature);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunked_bodies_pass_and_compressed_ones_are_refused_with_the_reason() {
    for kind in [Kind::Nginx, Kind::Caddy] {
        let mut site = Site::start(kind, Kind::Nginx, pipeline(), vec![]).await;
        site.pipeline.batch_sender.start().await.expect("it starts");
        let mut sender = site.sender(SOURCE);
        let activity = sender.compose();
        let signed = sender.signed(&activity);

        let answer = http1::raw(site.wanted.addr(), &chunked(&signed), SOON).await.expect("an answer");
        assert_eq!(answer.status, 204, "{kind:?}: {answer:?}");
        site.pipeline.instance().wait_accepted(1, SOON).await.unwrap();
        let seen = site.pipeline.instance().seen().remove(0);
        assert_eq!(seen.message.fingerprint(), signed.fingerprint(), "{kind:?}");
        assert!(seen.signature.is_ok(), "{kind:?}: {:?}", seen.signature);

        let mut compressed = signed.clone();
        compressed.headers.push(("content-encoding".to_owned(), "gzip".to_owned()));
        let answer = http1::raw(site.wanted.addr(), &compressed.to_bytes(), SOON).await.expect("an answer");
        assert_eq!(answer.status, 415, "{kind:?}: {answer:?}");
        let why = answer.json()["detail"].as_str().unwrap_or_default().to_lowercase();
        assert!(why.contains("encoding"), "{kind:?}: {why}");
    }
}

/// The same request with a body in chunks instead of a length.
fn chunked(message: &Message) -> Vec<u8> {
    let (first, second) = message.body.split_at(message.body.len() / 2);
    let mut body = Vec::new();
    for part in [first, second, &[]] {
        body.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    let mut framed = message.clone();
    framed.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
    framed.headers.push(("transfer-encoding".to_owned(), "chunked".to_owned()));
    framed.headers.push(("connection".to_owned(), "close".to_owned()));
    framed.body = body.into();
    framed.to_bytes()
}
