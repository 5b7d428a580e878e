//! Epochs grow: among takers, over restarts, and when the bucket is gone.

use std::collections::BTreeSet;

use fedstream_jetstream::{Broker, NatsSettings, StreamsMode, epochs};
use fedstream_lane::Epoch;
use futures::future::join_all;

use crate::server::Server;

async fn take(broker: &Broker, at_least: u64) -> Epoch {
    epochs::take(broker, "inbox.a_example.b_example", "me", Epoch(at_least)).await.expect("an epoch")
}

#[tokio::test]
async fn eight_takers_at_once_get_eight_epochs() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let brokers = join_all((0..8).map(|_| server.connect())).await;
    let first = take(&broker, 0).await;
    let taken = join_all(brokers.iter().map(|broker| take(broker, 0))).await;
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 8, "{taken:?}");
    assert!(taken.iter().all(|epoch| *epoch > first));
    assert!(take(&broker, 0).await > taken.into_iter().max().expect("eight"));
}

#[tokio::test]
async fn an_epoch_passes_what_the_far_side_knows_and_stays_above_it() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let far = take(&broker, 0).await.0 + 1_000_000_000;
    assert_eq!(take(&broker, far).await, Epoch(far));
    assert_eq!(take(&broker, 0).await, Epoch(far + 1));
}

#[tokio::test]
async fn epochs_grow_after_the_entry_and_after_the_whole_bucket_are_deleted() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let first = take(&broker, 0).await;
    let bucket = broker.context().get_key_value("fed_leases").await.expect("the bucket");
    bucket.delete("inbox.a_example.b_example").await.expect("deleted");
    let second = take(&broker, 0).await;
    assert!(second > first);
    broker.context().delete_key_value("fed_leases").await.expect("deleted");
    assert!(take(&broker, 0).await > second);
}

#[tokio::test]
async fn in_bind_mode_a_missing_bucket_is_an_error_that_names_it() {
    let server = Server::start().await;
    let settings = NatsSettings { streams: StreamsMode::Bind, ..server.settings() };
    let broker = Broker::connect(settings, "test").await.expect("a broker");
    let error = epochs::take(&broker, "inbox.a.b", "me", Epoch(0)).await.expect_err("no bucket");
    assert_eq!(
        error.to_string(),
        "stream KV_fed_leases is missing, and FED_STREAMS=bind leaves it to others to make it"
    );
}
