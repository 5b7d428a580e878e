//! Settings of lanes: checked, watched, and never worse than the last valid ones.

use std::sync::Arc;

use fedstream_jetstream::lane_settings::{self, Error, Key, Snapshot};
use fedstream_jetstream::{Broker, LaneSettings, LaneSettingsWatch, NatsSettings, StreamsMode};
use tokio::sync::watch;

use crate::server::{Server, eventually, lane, within};

fn key() -> Key {
    Key::Lane(lane("a.example"))
}

fn items(count: u32) -> LaneSettings {
    LaneSettings { batch_items: Some(count), ..LaneSettings::default() }
}

async fn store(broker: &Broker, key: &Key, settings: &LaneSettings) {
    lane_settings::store(broker, key, settings).await.expect("stored");
}

/// What somebody writes who does not use our tools.
async fn write_raw(broker: &Broker, key: &str, json: &str) {
    let bucket = broker.context().get_key_value("fed_lanes").await.expect("the bucket");
    bucket.put(key, json.to_owned().into()).await.expect("stored");
}

async fn until(
    snapshot: &mut watch::Receiver<Arc<Snapshot>>,
    what: &str,
    is_so: impl FnMut(&Arc<Snapshot>) -> bool,
) -> Arc<Snapshot> {
    within(what, snapshot.wait_for(is_so)).await.expect("the watch runs").clone()
}

async fn until_items(watch: &LaneSettingsWatch, count: Option<u32>) {
    let mut snapshot = watch.snapshot();
    until(&mut snapshot, "the settings", |now| now.for_lane(&lane("a.example")).batch_items == count).await;
}

#[tokio::test]
async fn settings_apply_without_a_restart_and_a_removed_entry_is_the_default_again() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let watch = LaneSettingsWatch::start(&broker).await.expect("the bucket is made");
    assert_eq!(watch.for_lane(&lane("a.example")), LaneSettings::default());
    store(&broker, &Key::Default, &items(5)).await;
    until_items(&watch, Some(5)).await;
    store(&broker, &key(), &items(7)).await;
    until_items(&watch, Some(7)).await;
    assert_eq!(watch.for_lane(&lane("b.example")).batch_items, Some(5));
    assert!(lane_settings::remove(&broker, &key()).await.expect("removed"));
    assert!(!lane_settings::remove(&broker, &key()).await.expect("nothing there"));
    until_items(&watch, Some(5)).await;
    lane_settings::remove(&broker, &Key::Default).await.expect("removed");
    until_items(&watch, None).await;
}

#[tokio::test]
async fn everything_that_stands_there_is_in_force_when_the_watch_has_started() {
    let server = Server::start().await;
    let broker = server.connect().await;
    for n in 0..100 {
        store(&broker, &Key::Lane(lane(&format!("{n}.example"))), &items(n + 1)).await;
    }
    let watch = LaneSettingsWatch::start(&broker).await.expect("started");
    for n in 0..100 {
        assert_eq!(watch.for_lane(&lane(&format!("{n}.example"))).batch_items, Some(n + 1));
    }
}

#[tokio::test]
async fn an_invalid_entry_is_refused_visibly_and_the_last_valid_one_stays_even_over_a_restart() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let watch = LaneSettingsWatch::start(&broker).await.expect("started");
    store(&broker, &key(), &items(7)).await;
    until_items(&watch, Some(7)).await;
    write_raw(&broker, &key().to_string(), r#"{"batch_items":0,"colour":"red"}"#).await;
    write_raw(&broker, "outbox.a", "{}").await;
    let refused = until(&mut watch.snapshot(), "refusals", |now| now.refusals().len() == 3).await.refusals();
    let fields: Vec<_> = refused.iter().map(|refusal| (refusal.key.as_str(), refusal.field.as_str())).collect();
    let name = key().to_string();
    assert!(fields.contains(&(&name, "batch_items")) && fields.contains(&(&name, "colour")), "{fields:?}");
    assert!(fields.contains(&("outbox.a", "key")), "{fields:?}");
    assert_eq!(watch.for_lane(&lane("a.example")), items(7));

    let later = LaneSettingsWatch::start(&broker).await.expect("started"); // another process
    assert_eq!((later.for_lane(&lane("a.example")), later.refusals().len()), (items(7), 3));

    let error = lane_settings::update(&broker, &key(), |_| ()).await.expect_err("nothing valid to change");
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    store(&broker, &key(), &items(8)).await;
    until_items(&watch, Some(8)).await;
    assert_eq!(watch.refusals().len(), 1);
}

#[tokio::test]
async fn what_is_not_valid_is_never_stored() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let error = lane_settings::store(&broker, &key(), &items(0)).await.expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the settings of inbox.a_example.sender_example are refused: batch_items: is 0, must be 1 to 1000 (a receiver \
         takes 1,000 (its FED_BATCH_ITEMS_MAX))"
    );
    assert_eq!(lane_settings::load(&broker, &key()).await.expect("an answer"), None);
    store(&broker, &key(), &items(3)).await;
    lane_settings::update(&broker, &key(), |settings| settings.rate_per_s = Some(0)).await.expect_err("refused");
    assert_eq!(lane_settings::load(&broker, &key()).await.expect("an answer"), Some(items(3)));
}

#[tokio::test]
async fn changes_at_the_same_moment_are_all_made() {
    let server = Server::start().await;
    let broker = server.connect().await;
    store(&broker, &key(), &items(1)).await;
    let changes = (0..8).map(|_| {
        let broker = broker.clone();
        async move {
            lane_settings::update(&broker, &key(), |settings| {
                settings.batch_items = settings.batch_items.map(|items| items + 1);
            })
            .await
        }
    });
    for changed in futures::future::join_all(changes).await {
        changed.expect("changed");
    }
    let listed = lane_settings::list(&broker).await.expect("an answer");
    assert_eq!(listed, [(key(), Ok(items(9)))]);
}

#[tokio::test]
async fn the_watch_survives_a_broker_restart_and_keeps_what_is_in_force_meanwhile() {
    let mut server = Server::start().await;
    let broker = server.connect().await;
    store(&broker, &key(), &items(7)).await;
    let watch = LaneSettingsWatch::start(&broker).await.expect("started");
    server.kill().await;
    let mut snapshot = watch.snapshot();
    until(&mut snapshot, "unknown", |now| now.unknown().is_some()).await;
    assert_eq!(watch.for_lane(&lane("a.example")), items(7));
    server.start_again().await;
    until(&mut snapshot, "known", |now| now.unknown().is_none()).await;
    assert_eq!(watch.for_lane(&lane("a.example")), items(7));
    eventually("stored", async || lane_settings::store(&broker, &key(), &items(8)).await.ok()).await;
    until_items(&watch, Some(8)).await;
}

#[tokio::test]
async fn the_watch_survives_a_bucket_that_is_deleted_and_made_anew() {
    let server = Server::start().await;
    let broker = server.connect().await;
    store(&broker, &key(), &items(7)).await;
    let watch = LaneSettingsWatch::start(&broker).await.expect("started");
    broker.context().delete_key_value("fed_lanes").await.expect("deleted");
    until_items(&watch, None).await; // made again by the watch, and empty
    store(&broker, &key(), &items(8)).await;
    until_items(&watch, Some(8)).await;
}

#[tokio::test]
async fn in_bind_mode_a_missing_bucket_is_an_error_that_names_it() {
    let server = Server::start().await;
    let settings = NatsSettings { streams: StreamsMode::Bind, ..server.settings() };
    let broker = Broker::connect(settings, "test").await.expect("a broker");
    let error = LaneSettingsWatch::start(&broker).await.err().expect("no bucket");
    assert!(error.to_string().starts_with("stream KV_fed_lanes is missing"), "{error}");
}
