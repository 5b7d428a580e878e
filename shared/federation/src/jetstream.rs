//! Events into NATS JetStream: stored before `publish` returns.
//!
//! | event | stored in | under |
//! |---|---|---|
//! | `DeliveryRequested` | FED_OUTBOX | `fed.outbox.<remote>.<partition of the actor>` |
//! | `BackfillRequested` | FED_BACKFILL | `fed.backfill.<remote>.<owner>` |
//! | `DeliveryFailed` | FED_EVENTS | `fed.event.delivery_failed.<remote>` |
//!
//! An error means: not known to be stored, the caller still has it. Publishing it again is harmless, whatever became of the
//! first one: the id is made of the event ([`message_id`](crate::message_id)), and the broker knows it for ten minutes. For the
//! same reason **an activity can't be sent once more within these minutes by publishing it once more**, after it was given up
//! or on purpose (Follow, Undo, Follow with one `id`): it would be taken for a repeat, which the log says (info). It needs an
//! `id` of its own, or [`JetStreamPublisher::store_again`].
//!
//! **A full lane is no error.** It belongs to a remote that has been dead for long, and nothing the caller could do would help.
//! The delivery is parked (FED_PARKED, reason `remote-full`), acked before `publish` returns, and `DeliveryFailed` is
//! published. If that is not acked, a warning is all that is left of it: an error would have the caller publish again, and what
//! is parked would be delivered besides. Everything else that is full (the stream, the storage) is the caller's to know.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use async_trait::async_trait;
use fedstream_jetstream::parked::header as parked;
use fedstream_jetstream::{
    Broker, Definition, NatsSettings, Publisher, Refused, StreamNeed, broker, definitions, streams,
};
use fedstream_lane::{LaneName, OutboxLane, ParkReason};
use fedstream_wire::rfc3339;
use time::OffsetDateTime;
use tracing::Instrument;
use url::Url;

use crate::activity::ACTIVITY_BYTES_MAX;
use crate::lanes::{self, BackfillLane, PARTITIONS, failed_subject, lane_of, remote_of};
use crate::stored::{self, Message, header};
use crate::trace::Trace;
use crate::{EventPublisher, FederationEvent, message_id};

/// The word under which a delivery is parked that found its lane full.
pub const REMOTE_FULL: &str = ParkReason::RemoteFull.as_str();

/// A healthy broker answers in milliseconds, and the application's own request waits.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// What stands around an activity in a message: the event's other fields, and headers (64 KiB at most).
const AROUND_BYTES: u64 = 80 * 1024;

/// How a publisher is set up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Lanes of one remote. **The same in every publisher of this broker, and not to be changed lightly**: with another
    /// number actors move to other lanes, and overtake what is in their old ones until those are empty.
    pub partitions: NonZeroU16,
    /// How long a publish waits for the broker's ack.
    pub ack_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { partitions: PARTITIONS, ack_timeout: ACK_TIMEOUT }
    }
}

/// There is no usable broker.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No connection.
    #[error(transparent)]
    Broker(#[from] broker::Error),
    /// A stream is missing, or unsafe.
    #[error(transparent)]
    Stream(#[from] streams::Error),
}

/// Why an event is not known to be stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It never will be: its inbox names no instance.
    #[error(transparent)]
    Inbox(#[from] lanes::Error),
    /// It never will be: not a URL.
    #[error("{0:?} is no URL of an inbox")]
    InboxUrl(String),
    /// It never will be: the activity can't be sent.
    #[error(transparent)]
    Message(#[from] stored::Error),
    /// It may be later.
    #[error("the {kind} for {subject} is not known to be stored: {refused}")]
    NotStored {
        /// What it is.
        kind: &'static str,
        /// Where it should be.
        subject: String,
        /// The broker's reason.
        refused: Refused,
    },
}

/// What tells an event from an equal one that was stored before.
#[derive(Clone, Copy)]
enum Again<'a> {
    /// Nothing does: it would be a repeat.
    First,
    /// The application sends it once more, for this time.
    Time(NonZeroU32),
    /// It tells of this delivery, of all those that are equal.
    Of(&'a str),
}

fn renamed(msg_id: String, again: Again<'_>) -> String {
    match again {
        Again::First => msg_id,
        Again::Time(which) => message_id::again(&msg_id, which),
        Again::Of(delivery) => message_id::of_delivery(&msg_id, delivery),
    }
}

/// Harmless where the caller published again what it did not know to be stored. Where it meant to send the same once more,
/// nothing will go out, and this line is all that tells.
fn say_repeat(event: &FederationEvent) {
    match event {
        FederationEvent::DeliveryRequested { inbox, activity, .. } => {
            let activity = activity.get("id").and_then(serde_json::Value::as_str);
            tracing::info!(%inbox, activity, "this delivery was stored less than ten minutes ago, and is not sent once more");
        }
        FederationEvent::BackfillRequested { owner_user_id, follower_inbox_url: inbox } => {
            tracing::info!(%inbox, %owner_user_id, "this backfill was stored less than ten minutes ago, and is not made once more");
        }
        FederationEvent::DeliveryFailed { .. } => {} // told again after a crash, and told once
    }
}

/// Publishes events to NATS JetStream. Cheap to clone; all clones share a connection.
#[derive(Clone)]
pub struct JetStreamPublisher {
    publisher: Publisher,
    options: Options,
}

impl JetStreamPublisher {
    /// Connects, and makes or checks the streams that it stores in.
    ///
    /// # Errors
    /// No broker, or one that would lose what it acknowledges.
    pub async fn connect(settings: NatsSettings, options: Options) -> Result<Self, ConnectError> {
        let broker = Broker::connect(settings, "federation").await?;
        Self::new(&broker, options).await
    }

    /// Over a connection that is there already.
    ///
    /// # Errors
    /// A stream is missing, or unsafe.
    pub async fn new(broker: &Broker, options: Options) -> Result<Self, ConnectError> {
        let message_bytes_max = ACTIVITY_BYTES_MAX as u64 + AROUND_BYTES;
        broker.check_max_payload(message_bytes_max)?;
        for definition in [definitions::outbox(), definitions::backfill(), definitions::parked(), definitions::events()]
        {
            streams::ensure(broker, &StreamNeed { message_bytes_max, ..StreamNeed::plain(definition) }).await?;
        }
        Ok(Self { publisher: Publisher::new(broker), options })
    }

    /// Stores an event, as [`EventPublisher::publish`] does, with an error of its own type.
    ///
    /// # Errors
    /// It is not known to be stored.
    pub async fn store(&self, event: FederationEvent) -> Result<(), Error> {
        self.store_under(event, Again::First).await
    }

    /// Stores an event that was stored before and given up, to be delivered once more: under an id of its own, by which the
    /// broker tells it from a repeat. `again` says which time it is, from 1 on.
    ///
    /// # Errors
    /// It is not known to be stored; calling again with the same number is harmless.
    pub async fn store_again(&self, event: FederationEvent, again: NonZeroU32) -> Result<(), Error> {
        self.store_under(event, Again::Time(again)).await
    }

    /// Stores what is told of one delivery; `delivery` tells it from others of the same activity. One that was sent again, or
    /// re-driven, and failed once more is another: that is news, however soon after the first time.
    ///
    /// # Errors
    /// It is not known to be stored; calling again with the same words is harmless.
    pub async fn store_of(&self, event: FederationEvent, delivery: &str) -> Result<(), Error> {
        self.store_under(event, Again::Of(delivery)).await
    }

    async fn store_under(&self, event: FederationEvent, again: Again<'_>) -> Result<(), Error> {
        match &event {
            FederationEvent::DeliveryRequested { inbox, signing_actor_id, .. } => {
                let lane = lane_of(inbox, *signing_actor_id, self.options.partitions)?;
                self.store_delivery(&lane, event, again).await
            }
            FederationEvent::BackfillRequested { owner_user_id, follower_inbox_url } => {
                let inbox: Url = follower_inbox_url.parse().map_err(|_| Error::InboxUrl(follower_inbox_url.clone()))?;
                let subject = BackfillLane { remote: remote_of(&inbox)?, owner: *owner_user_id }.subject();
                self.put("BackfillRequested", definitions::backfill(), subject, &event, again).await
            }
            FederationEvent::DeliveryFailed { inbox, .. } => {
                let subject = failed_subject(&remote_of(inbox)?);
                self.put("DeliveryFailed", definitions::events(), subject, &event, again).await
            }
        }
    }

    async fn store_delivery(&self, lane: &OutboxLane, event: FederationEvent, again: Again<'_>) -> Result<(), Error> {
        match self.put("DeliveryRequested", definitions::outbox(), lane.subject(), &event, again).await {
            Err(Error::NotStored { refused: Refused::LaneFull, .. }) => {}
            other => return other,
        }
        // In this order: what is parked can be had back, an announcement alone could not.
        self.park(lane, &event, again).await?;
        let FederationEvent::DeliveryRequested { inbox, activity, signing_actor_id } = event else {
            return Ok(()); // nothing else comes here
        };
        let error =
            format!("the lane {lane} is full: the remote has not taken anything for long; the delivery is parked");
        tracing::warn!(%inbox, %lane, "a delivery was parked: its lane is full");
        let failed = FederationEvent::DeliveryFailed { inbox, activity, signing_actor_id, error };
        let subject = failed_subject(&lane.remote);
        if let Err(error) = self.put("DeliveryFailed", definitions::events(), subject, &failed, again).await {
            tracing::warn!(%lane, %error, "a delivery was parked, and its DeliveryFailed is not known to be stored");
        }
        Ok(())
    }

    /// A copy in FED_PARKED. Its id is that of the delivery, so that a repeat finds it there.
    async fn park(&self, lane: &OutboxLane, event: &FederationEvent, again: Again<'_>) -> Result<(), Error> {
        let now = OffsetDateTime::now_utc();
        let Message { mut headers, payload } =
            Message::of(&lane.subject(), event, now, &Trace::of(&tracing::Span::current()))?;
        let msg_id = renamed(headers.remove(0).1, again);
        headers.insert(0, (header::MSG_ID, format!("{}.{msg_id}.{REMOTE_FULL}", lane.key())));
        headers.push((parked::REASON, REMOTE_FULL.to_owned()));
        headers.push((parked::AT, rfc3339(now)));
        headers.push((parked::ATTEMPTS, "0".to_owned()));
        headers.push((parked::MSG_ID, msg_id));
        let subject = lane.parked_subject();
        let stored = self
            .publisher
            .store_in(definitions::parked(), subject.clone(), headers, payload, self.options.ack_timeout)
            .await;
        stored.map(drop).map_err(|refused| Error::NotStored { kind: "copy of a DeliveryRequested", subject, refused })
    }

    async fn put(
        &self,
        kind: &'static str,
        stream: &Definition,
        subject: String,
        event: &FederationEvent,
        again: Again<'_>,
    ) -> Result<(), Error> {
        let template = match event {
            FederationEvent::DeliveryRequested { .. } => "fed.outbox.{remote}.{partition}",
            FederationEvent::BackfillRequested { .. } => "fed.backfill.{remote}.{owner}",
            FederationEvent::DeliveryFailed { .. } => "fed.event.delivery_failed.{remote}",
        };
        let span = tracing::info_span!(
            "publish",
            otel.name = format!("publish {template}"),
            otel.kind = "producer",
            messaging.system = "nats",
            messaging.operation.name = "publish",
            messaging.operation.r#type = "send",
            messaging.destination.name = subject,
            messaging.destination.template = template,
            messaging.message.id = tracing::field::Empty,
            fedstream.seq = tracing::field::Empty,
            fedstream.duplicate = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        );
        let message = Message::of(&subject, event, OffsetDateTime::now_utc(), &Trace::of(&span))?;
        let Message { mut headers, payload } = message;
        let msg_id = renamed(headers.remove(0).1, again);
        span.record("messaging.message.id", msg_id.as_str());
        headers.insert(0, (header::MSG_ID, msg_id));
        let storing = self.publisher.store_in(stream, subject.clone(), headers, payload, self.options.ack_timeout);
        match storing.instrument(span.clone()).await {
            Ok(stored) => {
                span.record("fedstream.seq", i64::try_from(stored.sequence.0).unwrap_or(i64::MAX)); // an unsigned one would be exported as text
                span.record("fedstream.duplicate", stored.duplicate);
                if stored.duplicate {
                    span.in_scope(|| say_repeat(event));
                }
                Ok(())
            }
            Err(refused) => {
                span.record("otel.status_code", "ERROR");
                Err(Error::NotStored { kind, subject, refused })
            }
        }
    }
}

#[async_trait]
impl EventPublisher for JetStreamPublisher {
    async fn publish(&self, event: FederationEvent) -> anyhow::Result<()> {
        Ok(self.store(event).await?)
    }
}
