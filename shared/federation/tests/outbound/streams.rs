//! What is in the streams, read by a plain client.

use std::num::NonZeroU16;
use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use federation::stored::StoredDelivery;
use federation::{JetStreamOptions, JetStreamPublisher, NatsSettings};
use fedstream_tests::broker::Broker;

use crate::support::PATIENCE;

pub const PARTITIONS: NonZeroU16 = NonZeroU16::new(4).unwrap();

pub async fn publisher(broker: &Broker) -> JetStreamPublisher {
    publisher_that_waits(broker, PATIENCE).await
}

/// For where no ack is to come: for every other test a busy machine must have all the time that it needs.
pub async fn publisher_that_waits(broker: &Broker, ack_timeout: Duration) -> JetStreamPublisher {
    let settings = NatsSettings { url: broker.url(), connect_timeout: PATIENCE, ..NatsSettings::default() };
    let options = JetStreamOptions { partitions: PARTITIONS, ack_timeout };
    JetStreamPublisher::connect(settings, options).await.expect("a fit broker")
}

/// One message, as a program in any language sees it.
#[derive(Debug)]
pub struct Found {
    pub subject: String,
    pub headers: async_nats::HeaderMap,
    pub payload: bytes::Bytes,
}

impl Found {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(async_nats::HeaderValue::as_str)
    }

    pub fn delivery(&self) -> StoredDelivery {
        StoredDelivery::read(|name| self.header(name), &self.payload).expect("a delivery")
    }
}

pub async fn all(broker: &Broker, stream: &str) -> Vec<Found> {
    let jetstream = broker.jetstream().await.expect("a connection");
    let mut stream: Stream = jetstream.get_stream(stream).await.expect("the stream");
    let state = stream.info().await.expect("an answer").state.clone();
    let mut found = Vec::new();
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.expect("a message");
        found.push(Found { subject: message.subject.to_string(), headers: message.headers, payload: message.payload });
    }
    found
}
