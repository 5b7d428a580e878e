//! A bucket as leases, members and settings use it: read a key, write it by compare-and-set, and nothing else.
//!
//! Each request has a time limit of the caller's, and none is made without a connection: the library would queue it
//! and send it after the reconnect, long after whoever asked gave up. (A write that was sent and not acked may be
//! stored all the same; whoever writes must recognise its own.)

use std::time::Duration;

use async_nats::jetstream::kv::{Operation, Store, UpdateError, UpdateErrorKind};
use bytes::Bytes;

use crate::definitions::Definition;
use crate::streams::{self, StreamNeed};
use crate::{Broker, Created, headers};

/// What a message carries that the stream's `max_age` does not count for (`Nats-TTL`, ADR-43). Only this word does it: of a
/// number of seconds the shorter of the two counts.
const FOR_GOOD: [(&str, &str); 1] = [("Nats-TTL", "never")];

/// A key's entry, or the marker that an expired or deleted one left.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// What a compare-and-set compares with; 0 where there is neither entry nor marker.
    pub revision: u64,
    /// The value; none of a marker.
    pub value: Option<Bytes>,
}

/// Why a write is not known to have happened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The revision is not the one that was expected. Not written.
    #[error("another one wrote it first")]
    Raced,
    /// No answer, no connection, no bucket. It may be written, now or later.
    #[error("{0}")]
    Unavailable(String),
}

/// A bucket that was found fit.
#[derive(Clone)]
pub(crate) struct Bucket {
    broker: Broker,
    store: Store,
    /// Which bucket of that name it is.
    pub created: Created,
}

impl Bucket {
    /// Makes the bucket where that is ours to do, checks it and opens it.
    pub async fn open(broker: &Broker, definition: &'static Definition) -> Result<Self, streams::Error> {
        let facts = Box::pin(streams::ensure(broker, &StreamNeed::plain(definition))).await?; // boxed: several kB, as below
        let store = Box::pin(broker.context().get_key_value(bucket_name(definition))).await.map_err(|error| {
            streams::Error::Unavailable { stream: definition.name.clone(), cause: error.to_string() }
        })?;
        Ok(Self { broker: broker.clone(), store, created: facts.created })
    }

    /// How long an entry stands after its last write; zero where it stands for ever.
    pub fn ttl(&self) -> Duration {
        self.store.stream.cached_info().config.max_age
    }

    /// Whether an entry can stand beyond the TTL ([`Bucket::put_for_good_if`]), a restart of the broker included: without
    /// markers it removes at its start whatever is older than `max_age`, that one too (seen with 2.15.1).
    pub fn keeps_for_good(&self) -> bool {
        let config = &self.store.stream.cached_info().config;
        config.allow_message_ttl && config.subject_delete_marker_ttl.is_some_and(|ttl| !ttl.is_zero())
    }

    /// The library's handle, for watches.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Reads a key. On a cluster a replica that is behind may answer: the revision tells, and a write compares it.
    pub async fn get(&self, key: &str, within: Duration) -> Result<Found, String> {
        self.connected()?;
        let entry = tokio::time::timeout(within, Box::pin(self.store.entry(key))).await.map_err(|_| no_answer())?;
        Ok(match entry.map_err(|error| error.to_string())? {
            None => Found { revision: 0, value: None },
            Some(entry) => {
                let value = (entry.operation == Operation::Put).then_some(entry.value);
                Found { revision: entry.revision, value }
            }
        })
    }

    /// Writes a key if its revision is this one; answers the new revision.
    pub async fn put_if(&self, key: &str, value: Bytes, revision: u64, within: Duration) -> Result<u64, Refused> {
        self.connected().map_err(Refused::Unavailable)?;
        match tokio::time::timeout(within, Box::pin(self.store.update(key, value, revision))).await {
            Ok(result) => result.map_err(|error| refused(&error)),
            Err(_) => Err(Refused::Unavailable(no_answer())),
        }
    }

    /// As [`Bucket::put_if`], and it stands until it is written again: the bucket's TTL does not count for it. (The library
    /// writes no key with a TTL of its own over another.)
    pub async fn put_for_good_if(
        &self,
        key: &str,
        value: Bytes,
        revision: u64,
        within: Duration,
    ) -> Result<u64, Refused> {
        self.connected().map_err(Refused::Unavailable)?;
        let expected = [("Nats-Expected-Last-Subject-Sequence", revision.to_string())];
        let expected = expected.iter().map(|(name, value)| (*name, value.as_str()));
        let headers = headers::to_map(expected.chain(FOR_GOOD));
        let headers = headers.map_err(|error| Refused::Unavailable(error.to_string()))?;
        let subject = format!("{}{key}", self.store.put_prefix.as_ref().unwrap_or(&self.store.prefix));
        let context = self.broker.context();
        let acked = async { context.publish_with_headers(subject, headers, value).await?.await };
        match tokio::time::timeout(within, Box::pin(acked)).await {
            Ok(result) => result.map(|ack| ack.sequence).map_err(|error| refused(&UpdateError::from(error))),
            Err(_) => Err(Refused::Unavailable(no_answer())),
        }
    }

    /// Deletes a key if its revision is this one; watchers see it at once.
    pub async fn delete_if(&self, key: &str, revision: u64, within: Duration) -> Result<(), Refused> {
        self.connected().map_err(Refused::Unavailable)?;
        match tokio::time::timeout(within, Box::pin(self.store.delete_expect_revision(key, Some(revision)))).await {
            Ok(result) => result.map_err(|error| refused(&error)),
            Err(_) => Err(Refused::Unavailable(no_answer())),
        }
    }

    fn connected(&self) -> Result<(), String> {
        if self.broker.connected() { Ok(()) } else { Err("there is no connection to the broker".to_owned()) }
    }
}

/// `KV_fed_leases` is the bucket `fed_leases`.
pub(crate) fn bucket_name(definition: &Definition) -> &str {
    definition.name.strip_prefix("KV_").unwrap_or(&definition.name)
}

fn no_answer() -> String {
    "no answer in time".to_owned()
}

fn refused(error: &UpdateError) -> Refused {
    match error.kind() {
        UpdateErrorKind::WrongLastRevision => Refused::Raced,
        _ => Refused::Unavailable(error.to_string()),
    }
}
