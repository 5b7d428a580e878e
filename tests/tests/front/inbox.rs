//! The inbox stream, looked at straight from the broker.

use std::collections::BTreeMap;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Config, Info, Stream};
use async_nats::jetstream::{self, Context};
use fedstream_tests::broker::{self, Broker};
use fedstream_tests::pipeline::INBOX_STREAM;
use serde_json::Value;

/// A handle with a connection of its own.
pub struct Inbox {
    jetstream: Context,
}

/// One stored activity, with the headers that the broker sees.
pub struct Stored {
    pub subject: String,
    pub headers: BTreeMap<String, Vec<String>>,
    pub body: bytes::Bytes,
}

impl Inbox {
    pub async fn of(broker: &Broker) -> Self {
        Self { jetstream: broker.jetstream().await.expect("the broker") }
    }

    /// Makes the stream as nats/streams.json has it, with this changed: for `FED_STREAMS=bind`.
    pub async fn create(&self, change: impl FnOnce(&mut Config)) {
        let mut config = definition("queues", INBOX_STREAM);
        change(&mut config);
        self.jetstream.create_stream(config).await.expect("a stream");
    }

    /// Makes a bucket's stream as nats/streams.json has it.
    pub async fn create_bucket(&self, stream: &str) {
        self.jetstream.create_stream(definition("buckets", stream)).await.expect("a bucket");
    }

    pub async fn delete_bucket(&self, stream: &str) {
        self.jetstream.delete_stream(stream).await.expect("deleted");
    }

    pub async fn update(&self, change: impl FnOnce(&mut Config)) {
        let mut config = self.info().await.config;
        change(&mut config);
        self.jetstream.update_stream(config).await.expect("an updated stream");
    }

    pub async fn delete(&self) {
        self.jetstream.delete_stream(INBOX_STREAM).await.expect("deleted");
    }

    pub async fn purge(&self) {
        self.stream().await.purge().await.expect("purged");
    }

    /// How many messages it holds.
    pub async fn messages(&self) -> u64 {
        self.info().await.state.messages
    }

    /// The last sequence given out: it grows by one with each stored message, whatever is purged.
    pub async fn last(&self) -> u64 {
        self.info().await.state.last_sequence
    }

    pub async fn info(&self) -> Info {
        self.stream().await.get_info().await.expect("the stream's state")
    }

    pub async fn get(&self, sequence: u64) -> Stored {
        let message = self.stream().await.get_raw_message(sequence).await.expect("a stored message");
        Stored::from(message)
    }

    async fn stream(&self) -> Stream<Info> {
        self.jetstream.get_stream(INBOX_STREAM).await.expect("the stream")
    }
}

impl From<StreamMessage> for Stored {
    fn from(message: StreamMessage) -> Self {
        let values = |values: &[async_nats::HeaderValue]| values.iter().map(ToString::to_string).collect();
        Self {
            subject: message.subject.to_string(),
            headers: message.headers.iter().map(|(name, all)| (name.to_string(), values(all))).collect(),
            body: message.payload,
        }
    }
}

impl Stored {
    /// The only value of a header.
    pub fn header(&self, name: &str) -> &str {
        match self.headers.get(name).map(Vec::as_slice) {
            Some([one]) => one,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// The HTTP headers as they are stored.
    pub fn http(&self) -> Vec<(String, String)> {
        serde_json::from_str(self.header("Fed-Http")).expect("a JSON array of pairs")
    }
}

/// A stream of nats/streams.json: FED_INBOX is one of its `queues`.
fn definition(kind: &str, name: &str) -> Config {
    let path = broker::repository().join("nats/streams.json");
    let text = std::fs::read_to_string(path).expect("nats/streams.json");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let streams = all[kind].as_array().expect("an array");
    let found = streams.iter().find(|stream| stream["name"] == name).expect("its definition");
    serde_json::from_value::<jetstream::stream::Config>(found.clone()).expect("a stream's configuration")
}
