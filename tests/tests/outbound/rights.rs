//! The broker's users of `deploy/nats/delivery-worker.conf`: each can do all it does with the rights it has.

use async_nats::ConnectOptions;
use async_nats::jetstream::consumer::pull;
use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::broker::{Options, PASSWORD, deployed_users};
use fedstream_tests::outbound::{Outbound, Outboxes};
use fedstream_tests::tool::Tool;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_delivers_parks_tells_and_backfills_with_the_rights_it_has() {
    let outboxes = Outboxes::start(30).await.unwrap();
    let outbound = Outbound::with(1)
        .broker(Options { lines: users(), ..Options::default() })
        .env("NATS_USER", "delivery-worker")
        .env("NATS_PASSWORD", PASSWORD)
        .env("NATS_INBOX_PREFIX", "_INBOX_delivery-worker")
        .env("FED_OUTBOX_URL_TEMPLATE", outboxes.template())
        .env("FED_BACKFILL_PAUSE", "10ms");
    let mut outbound = outbound.start().await.unwrap();
    let mut other = outbound.worker.twin().unwrap();
    other.start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    // One that is live, and one of the history.
    let unwanted = |id: &str| id.ends_with("/1") || id.ends_with("/000000000001");
    outbound.remotes[0].behave_where(None, Behaviour::rejects(410, "gone"), move |seen| unwanted(&seen.id));
    outbound.publish_many(0, &actor, 3).await.unwrap();
    outbound.request_backfill(0, &actor).await.unwrap();
    outbound.wait_empty("FED_BACKFILL", SOON).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    assert_eq!((outbound.depth("FED_PARKED").await, outbound.depth("FED_EVENTS").await), (Some(2), Some(2)));
    outbound.remotes[0].behave_well();
    let fedctl = Tool::at(&outbound.broker)
        .env("NATS_USER", "fedctl")
        .env("NATS_PASSWORD", PASSWORD)
        .env("NATS_INBOX_PREFIX", "_INBOX_fedctl");
    assert!(fedctl.says("lanes").await.contains("outbox"));
    fedctl.says("set outbox rate_per_s=1000").await;
    assert!(fedctl.says("redrive --all --reason rejected").await.ends_with("2 of 2 went back\n"));
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    assert_eq!(outbound.depth("FED_PARKED").await, Some(0));
    outbound.worker.terminate(SOON).await.unwrap();
    outbound.publish_many(0, &actor, 1).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    for log in [outbound.worker.log(), other.log()] {
        let complaint = log.lines().find(|line| line.to_lowercase().contains("permissions violation"));
        assert_eq!(complaint, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_publishes_and_hears_of_what_failed_with_the_rights_it_has() {
    let outbound = Outbound::with(1).broker(Options { lines: users(), ..Options::default() }).start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    let remote = &outbound.remotes[0];
    remote.behave_next(1, Behaviour::rejects(410, "gone"));

    let login = ConnectOptions::with_user_and_password("application".to_owned(), PASSWORD.to_owned());
    let client = login.custom_inbox_prefix("_INBOX_application").connect(outbound.broker.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client.clone());
    let id = outbound.publish(&jetstream, 0, &actor).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    // As it hears of what failed, in any language: a pull consumer, and an ack.
    let consumer = jetstream.create_consumer_on_stream(pull::Config::default(), "FED_EVENTS").await.unwrap();
    let told = consumer.fetch().max_messages(1).expires(SOON).messages().await.unwrap().next().await.unwrap().unwrap();
    told.double_ack().await.unwrap();
    let told: Value = serde_json::from_slice(&told.payload).unwrap();
    assert_eq!((&told["type"], &told["activity"]["id"]), (&json!("DeliveryFailed"), &json!(id)));
}

fn users() -> Vec<String> {
    deployed_users("delivery-worker.conf").expect("a file")
}
