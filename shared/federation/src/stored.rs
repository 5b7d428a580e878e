//! The stored outbound message: one delivery, or one backfill job, in JetStream.
//!
//! ```text
//!   subject   fed.outbox.<remote>.<partition> | fed.backfill.<remote>.<owner> | fed.event.delivery_failed.<remote>
//!   headers   Nats-Msg-Id (a repeat is one message), Fed-Version, and what people look for
//!   payload   the event's JSON
//! ```
//!
//! The payload alone says what is to be done, so that a program in any language can publish one; the headers beside
//! `Nats-Msg-Id` are for people, tools and traces, and none of them is needed. The activity's bytes are taken out of the
//! payload as they stand there: nothing is parsed and written again between the application and the remote.
//!
//! It is here and not in `shared/wire` because nobody but this crate and the delivery-worker, which links it, reads it, and
//! because it knows URLs and UUIDs, which the inbound services have no use for.

use std::sync::Arc;

use bytes::Bytes;
use fedstream_wire::rfc3339;
use fedstream_wire::stored::{label, redrive};
use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Url;
use uuid::Uuid;

use crate::activity::{self, Activity};
use crate::trace::Trace;
use crate::{FederationEvent, message_id};

/// `Fed-Version` of what this crate writes, and the only one it reads. A message without one is read as this.
pub const VERSION: &str = "1";

/// Names of the NATS headers of a stored outbound message.
pub mod header {
    pub use fedstream_wire::stored::header::{
        ACTIVITY_ID, ACTIVITY_TYPE, ACTOR, INBOX, MSG_ID, REDRIVE, REQUESTED_AT, TRACEPARENT, TRACESTATE, VERSION,
    };
}

/// A message that this version can't read. It is parked, never dropped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Written by another version.
    #[error("Fed-Version is {0:?}, this program reads {VERSION:?}")]
    Version(String),
    /// Not the JSON of an event.
    #[error("the payload is no event: {0}")]
    NoEvent(#[from] serde_json::Error),
    /// An event, and not the one that belongs on this subject.
    #[error("the event is a {found}, here stands {expected}")]
    Kind {
        /// Its `type`.
        found: String,
        /// What is read here.
        expected: &'static str,
    },
    /// Its activity can't be sent.
    #[error(transparent)]
    Activity(#[from] activity::Error),
}

/// A message as it is published: headers in a fixed order, no value with a control character in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `Nats-Msg-Id` first.
    pub headers: Vec<(&'static str, String)>,
    /// The event's JSON.
    pub payload: Bytes,
}

impl Message {
    /// The message of an event, for this subject.
    ///
    /// # Errors
    /// The activity can't be sent.
    pub fn of(subject: &str, event: &FederationEvent, at: OffsetDateTime, trace: &Trace) -> Result<Self, Error> {
        let mut headers = vec![(header::MSG_ID, message_id::of(subject, event)), (header::VERSION, VERSION.to_owned())];
        let (inbox, actor) = match event {
            FederationEvent::DeliveryRequested { inbox, activity, signing_actor_id }
            | FederationEvent::DeliveryFailed { inbox, activity, signing_actor_id, .. } => {
                let activity = Activity::from_value(activity)?;
                headers.push((header::ACTIVITY_ID, label(activity.id())));
                headers.extend(activity.kind().map(|kind| (header::ACTIVITY_TYPE, label(kind))));
                (inbox.as_str(), signing_actor_id)
            }
            FederationEvent::BackfillRequested { owner_user_id, follower_inbox_url } => {
                (follower_inbox_url.as_str(), owner_user_id)
            }
        };
        headers.push((header::INBOX, label(inbox)));
        headers.push((header::ACTOR, actor.to_string()));
        headers.push((header::REQUESTED_AT, rfc3339(at)));
        headers.extend(trace.parent.clone().map(|parent| (header::TRACEPARENT, parent)));
        headers.extend(trace.state.as_deref().map(|state| (header::TRACESTATE, label(state))));
        Ok(Self { headers, payload: Bytes::from(serde_json::to_vec(event)?) })
    }

    /// Its `Nats-Msg-Id`.
    #[must_use]
    pub fn msg_id(&self) -> &str {
        self.headers.first().map_or("", |(_, id)| id)
    }
}

/// What the headers of a message say beside its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Particulars {
    /// Its `Nats-Msg-Id`, where it has one.
    pub msg_id: Option<String>,
    /// When the application asked for it.
    pub requested_at: Option<OffsetDateTime>,
    /// Its sequence in FED_PARKED, where it was parked and published again.
    pub redrive: Option<u64>,
    /// The trace it belongs to.
    pub trace: Trace,
}

impl Particulars {
    fn read<'h>(get: impl Fn(&'static str) -> Option<&'h str>) -> Result<Self, Error> {
        if let Some(version) = get(header::VERSION).filter(|version| *version != VERSION) {
            return Err(Error::Version(version.chars().take(40).collect()));
        }
        let text = |name| get(name).map(str::to_owned);
        Ok(Self {
            msg_id: text(header::MSG_ID),
            requested_at: get(header::REQUESTED_AT).and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok()),
            redrive: redrive(&get),
            trace: Trace { parent: text(header::TRACEPARENT), state: text(header::TRACESTATE) },
        })
    }

    /// Since when it is tried: since the application asked for it, or, where that is not said, since the broker has it
    /// (`stored_at`); one that was given up and published again, since the broker has it once more, else it would be given up
    /// again at once.
    #[must_use]
    pub fn tried_since(&self, stored_at: OffsetDateTime) -> OffsetDateTime {
        self.requested_at.filter(|_| self.redrive.is_none()).unwrap_or(stored_at)
    }
}

/// A delivery as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDelivery {
    /// Where it goes.
    pub inbox: Url,
    /// The activity, in the bytes that were published.
    pub activity: Arc<Activity>,
    /// Whose key signs it.
    pub signing_actor_id: Uuid,
    /// What the headers say.
    pub particulars: Particulars,
}

impl StoredDelivery {
    /// Reads a message of `fed.outbox.>`; `get` looks a NATS header up.
    ///
    /// # Errors
    /// Says what keeps it from being read.
    pub fn read<'h>(get: impl Fn(&'static str) -> Option<&'h str>, payload: &Bytes) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Event<'p> {
            inbox: Url,
            #[serde(borrow)]
            activity: &'p RawValue,
            signing_actor_id: Uuid,
        }
        let particulars = Particulars::read(get)?;
        expect("DeliveryRequested", payload)?;
        let event: Event<'_> = serde_json::from_slice(payload)?;
        let activity = Activity::from_json(payload.slice_ref(event.activity.get().as_bytes()))?;
        let activity = Arc::new(activity);
        Ok(Self { inbox: event.inbox, activity, signing_actor_id: event.signing_actor_id, particulars })
    }

    /// The event that says that it was given up.
    #[must_use]
    pub fn failed(&self, error: String) -> FederationEvent {
        FederationEvent::DeliveryFailed {
            inbox: self.inbox.clone(),
            activity: self.activity.to_value(),
            signing_actor_id: self.signing_actor_id,
            error,
        }
    }
}

/// A backfill job as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBackfill {
    /// Whose history.
    pub owner_user_id: Uuid,
    /// Where it goes.
    pub follower_inbox: Url,
    /// What the headers say.
    pub particulars: Particulars,
}

impl StoredBackfill {
    /// Reads a message of `fed.backfill.>`; `get` looks a NATS header up.
    ///
    /// # Errors
    /// Says what keeps it from being read.
    pub fn read<'h>(get: impl Fn(&'static str) -> Option<&'h str>, payload: &Bytes) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Event {
            owner_user_id: Uuid,
            follower_inbox_url: Url,
        }
        let particulars = Particulars::read(get)?;
        expect("BackfillRequested", payload)?;
        let event: Event = serde_json::from_slice(payload)?;
        Ok(Self { owner_user_id: event.owner_user_id, follower_inbox: event.follower_inbox_url, particulars })
    }

    /// The event that says that it was given up.
    #[must_use]
    pub fn failed(&self, cause: &str) -> FederationEvent {
        FederationEvent::backfill_failed(self.owner_user_id, self.follower_inbox.clone(), cause)
    }
}

/// Whether the payload is an event of this type: said before a missing field is, which would only confuse.
fn expect(expected: &'static str, payload: &Bytes) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Event {
        #[serde(rename = "type")]
        kind: String,
    }
    let found = serde_json::from_slice::<Event>(payload)?.kind;
    if found == expected { Ok(()) } else { Err(Error::Kind { found: label(&found), expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::{BackfillLane, PARTITIONS, failed_subject, lane_of, remote_of};
    use fedstream_lane::LaneName;

    const ACTOR: Uuid = Uuid::from_u128(0x7f9c_24e8_3b12_4fef_91e1_4c1d_2f1a_0b77);

    fn at() -> OffsetDateTime {
        fedstream_wire::from_micros(1_795_319_944_000_110).expect("time")
    }

    fn trace() -> Trace {
        Trace { parent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()), state: None }
    }

    fn inbox() -> Url {
        "https://mastodon.social/inbox".parse().expect("a URL")
    }

    fn requested() -> FederationEvent {
        FederationEvent::DeliveryRequested {
            inbox: inbox(),
            activity: serde_json::json!({ "id": "https://our.example/a/1\r\nNats-Rollup: all", "type": "Like" }),
            signing_actor_id: ACTOR,
        }
    }

    fn text_of(subject: &str, message: &Message) -> String {
        let headers: String = message.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        format!("{subject}\n{headers}\n{}\n", String::from_utf8_lossy(&message.payload))
    }

    fn read(message: &Message) -> Result<StoredDelivery, Error> {
        let get = |name| message.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str());
        StoredDelivery::read(get, &message.payload)
    }

    fn without_headers(payload: &'static [u8]) -> Result<StoredDelivery, Error> {
        StoredDelivery::read(|_| None, &Bytes::from_static(payload))
    }

    #[test]
    fn the_messages_are_the_golden_ones() {
        let remote = remote_of(&inbox()).expect("an instance");
        let lane = lane_of(&inbox(), ACTOR, PARTITIONS).expect("a lane");
        let backfill = FederationEvent::BackfillRequested {
            owner_user_id: ACTOR,
            follower_inbox_url: "https://mastodon.social/users/bob/inbox".into(),
        };
        let FederationEvent::DeliveryRequested { inbox, activity, signing_actor_id } = requested() else {
            panic!("it is one");
        };
        let failed =
            FederationEvent::DeliveryFailed { inbox, activity, signing_actor_id, error: "410 Gone".to_owned() };
        let jobs = BackfillLane { remote: remote.clone(), owner: ACTOR };
        for (subject, event, golden) in [
            (lane.subject(), requested(), include_str!("../tests/golden/delivery-requested.txt")),
            (jobs.subject(), backfill, include_str!("../tests/golden/backfill-requested.txt")),
            (failed_subject(&remote), failed, include_str!("../tests/golden/delivery-failed.txt")),
        ] {
            let message = Message::of(&subject, &event, at(), &trace()).expect("a message");
            assert_eq!(text_of(&subject, &message), golden);
            assert!(message.headers.iter().all(|(_, value)| !value.contains(char::is_control)), "{message:?}");
        }
    }

    #[test]
    fn a_delivery_reads_back_with_its_particulars() {
        let message = Message::of("fed.outbox.a.0", &requested(), at(), &trace()).expect("a message");
        let read = read(&message).expect("a delivery");
        assert_eq!((&read.inbox, read.signing_actor_id), (&inbox(), ACTOR));
        assert_eq!(read.particulars.requested_at, Some(at()));
        assert_eq!(read.particulars.trace, trace());
        assert_eq!(read.particulars.msg_id.as_deref(), Some(message.msg_id()));
    }

    #[test]
    fn what_was_published_again_is_tried_since_it_came_back_and_not_since_it_was_asked_for() {
        let back = at() + time::Duration::days(5);
        let mut message = Message::of("fed.outbox.a.0", &requested(), at(), &trace()).expect("a message");
        assert_eq!(read(&message).expect("a delivery").particulars.tried_since(back), at());
        message.headers.push((header::REDRIVE, "17".to_owned()));
        let particulars = read(&message).expect("a delivery").particulars;
        assert_eq!((particulars.redrive, particulars.tried_since(back)), (Some(17), back));
        assert_eq!(Particulars::default().tried_since(back), back, "nobody says when it was asked for");
    }

    #[test]
    fn a_payload_alone_is_enough_and_the_activity_goes_out_as_it_stands_there() {
        let read = without_headers(
            b"{\"type\":\"DeliveryRequested\", \"more\":1, \"activity\": {\"z\": 1.50, \"id\":\"x\", \"a\":\"\\u00e9\"} ,\
              \"signing_actor_id\":\"7f9c24e8-3b12-4fef-91e1-4c1d2f1a0b77\",\"inbox\":\"https://a.example/inbox\"}",
        );
        let read = read.expect("a delivery");
        assert_eq!(read.activity.body().as_ref(), b"{\"z\": 1.50, \"id\":\"x\", \"a\":\"\\u00e9\"}");
        assert_eq!(read.particulars, Particulars::default());
    }

    #[test]
    fn what_cant_be_read_says_why() {
        let mut other = Message::of("fed.outbox.a.0", &requested(), at(), &trace()).expect("a message");
        other.headers[1].1 = "2".into();
        assert!(matches!(read(&other), Err(Error::Version(version)) if version == "2"));
        for payload in [&b"{}"[..], b"[]", b"", b"{\"type\":\"DeliveryRequested\"}", b"\xff"] {
            assert!(matches!(without_headers(payload), Err(Error::NoEvent(_))));
        }
        let kind = without_headers(b"{\"type\":\"BackfillRequested\"}");
        assert_eq!(
            kind.expect_err("another").to_string(),
            "the event is a BackfillRequested, here stands DeliveryRequested"
        );
        let list = without_headers(
            b"{\"type\":\"DeliveryRequested\",\"inbox\":\"https://a.example/inbox\",\"activity\":[],\
              \"signing_actor_id\":\"7f9c24e8-3b12-4fef-91e1-4c1d2f1a0b77\"}",
        );
        assert!(matches!(list, Err(Error::Activity(_))));
    }
}
