//! Entries in the buckets `fed_lanes` and `fed_leases`, written as any program might: unchecked.

use async_nats::jetstream::kv::Store;
use fedstream_tests::pipeline::Pipeline;
use serde_json::Value;

/// The key of the lane that most tests look at.
pub const KEY: &str = "inbox.home_test.a_test";

/// A bucket.
pub struct Entries(Store);

impl Entries {
    /// Settings of lanes. A service has made the bucket by the time that it is ready.
    pub async fn of(pipeline: &Pipeline) -> Self {
        Self::in_bucket(pipeline, "fed_lanes").await
    }

    /// Leases and members.
    pub async fn leases(pipeline: &Pipeline) -> Self {
        Self::in_bucket(pipeline, "fed_leases").await
    }

    async fn in_bucket(pipeline: &Pipeline, name: &str) -> Self {
        let jetstream = pipeline.broker.jetstream().await.expect("the broker");
        Self(jetstream.get_key_value(name).await.expect("the bucket"))
    }

    /// Writes an entry.
    pub async fn set(&self, key: &str, settings: &Value) {
        self.0.put(key, settings.to_string().into()).await.expect("an entry");
    }

    /// What stands there.
    pub async fn get(&self, key: &str) -> Option<Value> {
        let entry = self.0.get(key).await.expect("the bucket")?;
        serde_json::from_slice(&entry).ok()
    }
}
