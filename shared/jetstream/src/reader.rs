//! A lane, read in order, from the stream it was opened for and from no other.
//!
//! Underneath is async-nats' ordered pull consumer, from the lane's first message: what was settled is purged, so the
//! first message is the next one. That consumer heals itself, and three of its habits are guarded against here:
//!
//! - **It may heal onto a stream that was deleted and made anew.** Each consumer it makes has another name
//!   (`<first>_1`, `<first>_2`, ..), each message names its consumer, and a consumer dies with its stream. So whenever
//!   the name is a new one, also on the first message, the stream's creation time is confirmed before the message is
//!   handed out; else [`identity::Error::MadeAnew`].
//! - **After a reconnect it may take 15 s to heal**, once it stayed silent for good. A reader ends with
//!   [`Error::Reconnected`] on each new connection, and with [`Error::Silent`] when the lane has a message that it
//!   does not bring.
//! - **It keeps its consumer on the server for 30 s** (fixed in the library) when it is dropped: [`LaneReader::close`]
//!   deletes it.
//!
//! After any error a reader is finished: close it, settle what is known, open another. It drops nothing silently and
//! never acknowledges: what leaves the lane leaves by [`crate::purge`].

use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::{self, ErrorCode, stream};
use bytes::Bytes;
use fedstream_lane::Seq;
use futures::StreamExt;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::identity;
use crate::{Broker, Created, Headers};

/// How a lane is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderOptions {
    /// Messages asked for at once; the library would prefetch 500.
    pub max_batch: u16,
    /// How long one request waits at the broker. Half of it is the heartbeat: a lost consumer shows after two, or by a look.
    pub max_expires: Duration,
    /// After how long without a message the reader looks whether it should have brought one. Where there was none, the
    /// next looks come later and later, up to three times as late.
    pub idle_check: Duration,
}

/// A lane that was quiet for long is seldom the one whose consumer was lost, and each look is two questions to the broker.
const IDLE_CHECKS: u32 = 3;

impl Default for ReaderOptions {
    fn default() -> Self {
        // A quiet lane costs the broker a request and two heartbeats in 20 s; a lost consumer is noticed by the looks before that.
        Self { max_batch: 64, max_expires: Duration::from_secs(20), idle_check: Duration::from_secs(5) }
    }
}

/// A message of the lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its place in the stream; growing within the lane.
    pub seq: Seq,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
    /// When the broker stored it, by the broker's clock.
    pub stored_at: OffsetDateTime,
    /// How many more the lane held when this one was sent.
    pub pending: u64,
}

/// Why a reader ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream is not the one the reader was opened for, it is missing, or it can't be told.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The connection was made again.
    #[error("the connection to the broker was made again")]
    Reconnected,
    /// The lane has a message that the consumer does not bring.
    #[error("the consumer brings nothing, and the lane has sequence {waiting}")]
    Silent {
        /// The first message that should have come.
        waiting: Seq,
    },
    /// A sequence at or below one that was handed out.
    #[error("sequence {seq} came after {last}")]
    OutOfOrder {
        /// The one that came.
        seq: Seq,
        /// The one before.
        last: Seq,
    },
    /// The library or the broker gave up.
    #[error("the lane can't be read: {0}")]
    Broken(String),
}

impl Error {
    /// Whether another stream stands in the place of the one that was read.
    #[must_use]
    pub fn is_made_anew(&self) -> bool {
        matches!(self, Self::Identity(identity::Error::MadeAnew { .. }))
    }
}

/// One lane, read from its first message on.
pub struct LaneReader {
    broker: Broker,
    stream: stream::Stream<()>,
    stream_name: String,
    subject: String,
    created: Created,
    options: ReaderOptions,
    messages: Ordered,
    generation: watch::Receiver<u64>,
    /// The consumer whose stream is confirmed, or the first one's name before any message came.
    consumer: String,
    confirmed: bool,
    last: Seq,
    quiet_since: Instant,
    /// Looks since the last message that found nothing.
    looks: u32,
    /// Whether the last look found a message that had not come.
    suspected: bool,
    /// A message that came and is not handed out yet: `next` may be cancelled while it confirms.
    held: Option<jetstream::Message>,
}

impl LaneReader {
    /// Makes a consumer on the lane's subject.
    ///
    /// # Errors
    /// The stream is not the one created at `created`, or the broker makes no consumer.
    pub async fn open(
        broker: &Broker,
        stream: &str,
        subject: &str,
        created: Created,
        options: ReaderOptions,
    ) -> Result<Self, Error> {
        let broken = |cause: String| Error::Broken(cause);
        let generation = broker.generation(); // first: a reconnect while it opens ends it too
        identity::confirm(broker, stream, created).await?;
        let handle = broker.context().get_stream_no_info(stream).await.map_err(|error| broken(error.to_string()))?;
        let config = OrderedConfig {
            filter_subject: subject.to_owned(),
            deliver_policy: DeliverPolicy::All,
            max_batch: i64::from(options.max_batch),
            max_expires: options.max_expires,
            ..OrderedConfig::default()
        };
        let consumer = handle.create_consumer(config).await.map_err(|error| broken(error.to_string()))?;
        let name = consumer.cached_info().name.clone();
        let messages = consumer.messages().await.map_err(|error| broken(error.to_string()))?;
        Ok(Self {
            broker: broker.clone(),
            stream: handle,
            stream_name: stream.to_owned(),
            subject: subject.to_owned(),
            created,
            options,
            messages,
            generation,
            consumer: name,
            confirmed: false,
            last: Seq(0),
            quiet_since: Instant::now(),
            looks: 0,
            suspected: false,
            held: None,
        })
    }

    /// The next message of the lane; waits for one. Cancelling it loses nothing.
    ///
    /// # Errors
    /// See [`Error`]; after one the reader is finished.
    pub async fn next(&mut self) -> Result<StoredMessage, Error> {
        while self.held.is_none() {
            let look_at = self.quiet_since + self.look_after();
            tokio::select! {
                biased;
                changed = self.generation.changed() => {
                    return Err(if changed.is_ok() { Error::Reconnected } else { Error::Broken("the connection is closed".into()) });
                }
                message = self.messages.next() => match message {
                    Some(Ok(message)) => {
                        self.quiet_since = Instant::now();
                        (self.looks, self.suspected) = (0, false);
                        self.held = Some(message);
                    }
                    Some(Err(error)) => return Err(Error::Broken(error.to_string())),
                    None => return Err(Error::Broken("the consumer ended".into())),
                },
                () = tokio::time::sleep_until(look_at) => {
                    self.quiet_since = Instant::now();
                    self.look().await?;
                }
            }
        }
        self.confirm_consumer().await?;
        let Some(message) = self.held.take() else { unreachable!("held until here") };
        self.read(&message)
    }

    /// A suspicion is looked into soon.
    fn look_after(&self) -> Duration {
        let times = if self.suspected { 1 } else { (self.looks + 1).min(IDLE_CHECKS) };
        self.options.idle_check * times
    }

    /// The identity guard: a consumer whose name was not seen before may live on another stream.
    async fn confirm_consumer(&mut self) -> Result<(), Error> {
        let Some(message) = &self.held else {
            return Ok(());
        };
        let info = message.info().map_err(|error| Error::Broken(error.to_string()))?;
        if self.confirmed && info.consumer == self.consumer {
            return Ok(());
        }
        let name = info.consumer.to_owned();
        identity::confirm(&self.broker, &self.stream_name, self.created).await?;
        self.consumer = name;
        self.confirmed = true;
        Ok(())
    }

    fn read(&mut self, message: &jetstream::Message) -> Result<StoredMessage, Error> {
        let info = message.info().map_err(|error| Error::Broken(error.to_string()))?;
        let seq = Seq(info.stream_sequence);
        if seq <= self.last {
            return Err(Error::OutOfOrder { seq, last: self.last });
        }
        self.last = seq;
        Ok(StoredMessage {
            seq,
            headers: message.headers.as_ref().map(Headers::from).unwrap_or_default(),
            payload: message.payload.clone(),
            stored_at: info.published,
            pending: info.pending,
        })
    }

    /// Nothing came for a while: is it still our stream, and is there really nothing?
    ///
    /// A message found here may be one that is just on its way; one found by two looks in a row is not.
    async fn look(&mut self) -> Result<(), Error> {
        if !self.broker.connected() {
            return Ok(()); // the next connection ends this reader
        }
        identity::confirm(&self.broker, &self.stream_name, self.created).await?;
        let ask = self.stream.raw_message_builder().sequence(self.last.0 + 1).next_by_subject(self.subject.clone());
        match ask.send().await {
            Ok(message) if self.suspected => Err(Error::Silent { waiting: Seq(message.sequence) }),
            found => {
                self.suspected = found.is_ok(); // an error is "none", or no answer: look again later
                self.looks = self.looks.saturating_add(1);
                Ok(())
            }
        }
    }

    /// Deletes the consumer; without this it stays on the server for 30 s.
    ///
    /// Best effort: a consumer that the library made a moment ago, and that brought no message yet, is the next in its
    /// count and deleted too; one further on is left to its 30 s.
    pub async fn close(self) {
        let Self { broker, stream, consumer, messages, .. } = self;
        drop(messages); // first: it would make another in place of the deleted one
        if !broker.connected() {
            return;
        }
        for name in [next_name(&consumer), consumer] {
            match stream.delete_consumer(&name).await {
                Ok(_) => {}
                Err(error) => {
                    let gone = error.to_string().contains(&ErrorCode::CONSUMER_NOT_FOUND.0.to_string());
                    if !gone {
                        tracing::debug!(consumer = %name, %error, "a consumer is left to its 30 s");
                    }
                }
            }
        }
    }
}

/// The name that the library gives the consumer after this one: `x` is followed by `x_1`, `x_1` by `x_2`.
fn next_name(name: &str) -> String {
    let counted = name.rsplit_once('_').and_then(|(first, count)| Some((first, count.parse::<u64>().ok()?)));
    match counted {
        Some((first, count)) => format!("{first}_{}", count + 1),
        None => format!("{name}_1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_next_consumer_is_known() {
        assert_eq!(next_name("kZ3b"), "kZ3b_1");
        assert_eq!(next_name("kZ3b_1"), "kZ3b_2");
        assert_eq!(next_name("kZ3b_19"), "kZ3b_20");
    }
}
