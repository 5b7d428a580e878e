//! The broker's users of `deploy/nats/delivery-worker.conf`: the worker can do all it does with the rights it has.

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::broker::{Options, repository};
use fedstream_tests::outbound::{Outbound, Outboxes};

use crate::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_delivers_parks_tells_and_backfills_with_the_rights_it_has() {
    let outboxes = Outboxes::start(30).await.unwrap();
    let outbound = Outbound::with(1)
        .broker(Options { lines: users(), ..Options::default() })
        .env("NATS_USER", "delivery-worker")
        .env("NATS_PASSWORD", "s3cret")
        .env("NATS_INBOX_PREFIX", "_INBOX_delivery-worker")
        .env("FED_OUTBOX_URL_TEMPLATE", outboxes.template())
        .env("FED_BACKFILL_PAUSE", "10ms");
    let mut outbound = outbound.start().await.unwrap();
    let mut other = outbound.worker.twin().unwrap();
    other.start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    outbound.remotes[0].behave_where(None, Behaviour::rejects(410, "gone"), |seen| seen.id.ends_with("/1"));
    outbound.publish_many(0, &actor, 3).await.unwrap();
    outbound.request_backfill(0, &actor).await.unwrap();
    outbound.wait_empty("FED_BACKFILL", SOON).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    assert_eq!((outbound.depth("FED_PARKED").await, outbound.depth("FED_EVENTS").await), (Some(2), Some(2)));
    outbound.worker.terminate(SOON).await.unwrap();
    outbound.publish_many(0, &actor, 1).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    for log in [outbound.worker.log(), other.log()] {
        let complaint = log.lines().find(|line| line.to_lowercase().contains("permissions violation"));
        assert_eq!(complaint, None);
    }
}

/// The file with passwords, and a user of the test's own who may do everything.
fn users() -> Vec<String> {
    let text = std::fs::read_to_string(repository().join("deploy/nats/delivery-worker.conf")).expect("a file");
    let text = ["DELIVERY_WORKER", "APPLICATION"].iter().fold(text, |text, name| {
        let variable = format!("$FED_{name}_PASSWORD");
        assert!(text.contains(&variable), "{variable}");
        text.replace(&variable, "\"s3cret\"")
    });
    let text = text.replacen("users = [", "users = [\n    { user: \"test\", password: \"test\" }", 1);
    vec![text, "no_auth_user: test".to_owned()]
}
