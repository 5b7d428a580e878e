//! The streams and buckets, read from `nats/streams.json`: the same data that tests and manifests use.
//!
//! A bucket is a stream by another name (`KV_<bucket>`), and is written as one. What a stream is for decides what is
//! dangerous in its configuration ([`Kind`]), and that is the group it stands in.

use std::sync::LazyLock;
use std::time::Duration;

use fedstream_lane::{BackfillLane, Lane, LaneKind, LaneName, OutboxLane};
use serde::Deserialize;
use serde_json::Value;

/// The file, compiled in: a service needs no data directory.
const STREAMS_JSON: &str = include_str!("../../../nats/streams.json");

static DEFINITIONS: LazyLock<Definitions> = LazyLock::new(|| {
    // Not input: the file is part of the program, and a test below reads it.
    serde_json::from_str(STREAMS_JSON).expect("nats/streams.json is valid")
});

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Lanes: nothing leaves but by purge, and a full lane refuses.
    Queue,
    /// What is kept for a while: the oldest leaves first.
    Archive,
    /// Keys and values.
    Bucket,
}

/// How much a stream may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Messages of one subject, that is of one lane.
    pub messages_per_lane: u64,
    /// Bytes of the whole stream.
    pub bytes: u64,
}

/// One stream or bucket, as `nats/streams.json` has it.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The stream's name; for a bucket `KV_<bucket>`.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// Its configuration in the JSON of JetStream's API.
    pub config: Value,
}

impl Definition {
    /// The subjects it must hold.
    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        self.config["subjects"].as_array().into_iter().flatten().filter_map(Value::as_str)
    }

    /// The configuration to make it with: its own bounds, or others.
    #[must_use]
    pub fn with_bounds(&self, bounds: Option<Bounds>, replicas: usize) -> Value {
        let mut config = self.config.clone();
        config["num_replicas"] = replicas.into();
        if let Some(bounds) = bounds {
            config["max_msgs_per_subject"] = bounds.messages_per_lane.into();
            config["max_bytes"] = bounds.bytes.into();
        }
        config
    }

    /// The bucket with another TTL. Tests use it to see entries expire; a duplicate window longer than the TTL would be
    /// refused by the broker.
    #[must_use]
    pub fn with_ttl(&self, ttl: Duration) -> Self {
        let mut changed = self.clone();
        let nanos = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        changed.config["max_age"] = nanos.into();
        changed.config["duplicate_window"] = nanos.into();
        changed
    }
}

struct Definitions(Vec<Definition>);

impl<'de> Deserialize<'de> for Definitions {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Groups {
            queues: Vec<Value>,
            archives: Vec<Value>,
            buckets: Vec<Value>,
        }
        let groups = Groups::deserialize(deserializer)?;
        let mut all = Vec::new();
        for (kind, configs) in
            [(Kind::Queue, groups.queues), (Kind::Archive, groups.archives), (Kind::Bucket, groups.buckets)]
        {
            for config in configs {
                let name = config["name"].as_str().ok_or_else(|| serde::de::Error::missing_field("name"))?.to_owned();
                all.push(Definition { name, kind, config });
            }
        }
        Ok(Self(all))
    }
}

/// Every stream and bucket.
#[must_use]
pub fn all() -> &'static [Definition] {
    &DEFINITIONS.0
}

/// Inbound lanes: FED_INBOX.
#[must_use]
pub fn inbox() -> &'static Definition {
    named("FED_INBOX")
}

/// Outbound lanes: FED_OUTBOX.
#[must_use]
pub fn outbox() -> &'static Definition {
    named("FED_OUTBOX")
}

/// The queue that holds these lanes: FED_INBOX or FED_OUTBOX.
#[must_use]
pub fn queue_of<L: LaneName>() -> &'static Definition {
    named(&format!("FED_{}", L::KIND.to_ascii_uppercase()))
}

/// The queue that holds lanes of this kind.
#[must_use]
pub fn queue_of_kind(kind: LaneKind) -> &'static Definition {
    match kind {
        LaneKind::Inbox => queue_of::<Lane>(),
        LaneKind::Outbox => queue_of::<OutboxLane>(),
        LaneKind::Backfill => queue_of::<BackfillLane>(),
    }
}

/// Backfill jobs: FED_BACKFILL.
#[must_use]
pub fn backfill() -> &'static Definition {
    named("FED_BACKFILL")
}

/// What left its lane undelivered: FED_PARKED.
#[must_use]
pub fn parked() -> &'static Definition {
    named("FED_PARKED")
}

/// Announcements for the application: FED_EVENTS.
#[must_use]
pub fn events() -> &'static Definition {
    named("FED_EVENTS")
}

/// Owners and epochs of lanes: bucket fed_leases.
#[must_use]
pub fn leases() -> &'static Definition {
    named("KV_fed_leases")
}

/// Settings of lanes: bucket fed_lanes.
#[must_use]
pub fn lanes() -> &'static Definition {
    named("KV_fed_lanes")
}

/// Resume points of backfill jobs: bucket fed_cursors.
#[must_use]
pub fn cursors() -> &'static Definition {
    named("KV_fed_cursors")
}

fn named(name: &str) -> &'static Definition {
    // Not input either: the names are this file's own, and the test below asks for each.
    all().iter().find(|definition| definition.name == name).expect("nats/streams.json defines it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safety::{self, Need};

    #[test]
    fn every_stream_of_the_design_is_defined_and_passes_our_own_check() {
        let defined = [inbox(), outbox(), backfill(), parked(), events(), leases(), lanes(), cursors()];
        assert_eq!(defined.len(), all().len());
        for definition in defined {
            let config = serde_json::from_value(definition.config.clone()).expect("a stream's configuration");
            let subjects: Vec<_> = definition.subjects().collect();
            let need =
                Need { kind: definition.kind, subjects: &subjects, lanes_max: 1_000, message_bytes_max: 1 << 20 };
            assert_eq!(safety::check(&config, &need), Ok(()), "{}", definition.name);
        }
    }

    #[test]
    fn each_kind_of_lane_has_its_queue() {
        assert_eq!(queue_of::<Lane>().name, inbox().name);
        assert_eq!(queue_of::<OutboxLane>().name, outbox().name);
        let holds_all = |kind: &str, definition: &Definition| definition.subjects().eq([format!("fed.{kind}.>")]);
        assert!(holds_all(Lane::KIND, inbox()) && holds_all(OutboxLane::KIND, outbox()));
        for kind in LaneKind::ALL {
            assert!(holds_all(kind.as_str(), queue_of_kind(kind)), "{kind}");
        }
    }

    #[test]
    fn the_sum_of_the_bounds_stays_below_the_file_store_of_server_conf() {
        let sum: u64 = all().iter().filter_map(|definition| definition.config["max_bytes"].as_u64()).sum();
        assert!(sum < 16_000_000_000, "{sum}"); // max_file_store in nats/server.conf
    }
}
