//! What left its lane undelivered, as a tool sees it: listed, read, and published again.
//!
//! Whoever carries a lane parks (`shared/carrier`, its `park` module, writes the copies), and a publisher that finds an
//! outbound lane full (`remote-full`); here is the way back. A copy is the message as it was stored,
//! headers and body, and beside that why it left ([`header`]). Everything is asked of the stream's leader, one message at
//! a time: a tool's pace, no consumer to clean up, and a foreign message among the copies hurts nobody.

mod errand;
mod list;
mod redrive;

use bytes::Bytes;
use fedstream_lane::{AnyLane, LaneKind, ParkReason, Seq};
use fedstream_wire::stored::header as stored;

use crate::{Headers, api};

pub use errand::Errand;
pub use list::{Filter, LIST_MAX, Page, list, read};
pub use redrive::{Error as RedriveError, Redriven, redrive};

/// Headers that a copy has beside those of the original.
pub mod header {
    /// Why it left: a word of [`fedstream_lane::ParkReason`].
    pub const REASON: &str = "Fed-Parked-Reason";
    /// When, RFC 3339.
    pub const AT: &str = "Fed-Parked-At";
    /// How often it was posted.
    pub const ATTEMPTS: &str = "Fed-Parked-Attempts";
    /// When first, RFC 3339.
    pub const FIRST_ATTEMPT: &str = "Fed-Parked-First-Attempt";
    /// When last, RFC 3339.
    pub const LAST_ATTEMPT: &str = "Fed-Parked-Last-Attempt";
    /// Its sequence in the lane's stream.
    pub const SEQUENCE: &str = "Fed-Parked-Sequence";
    /// The original's `Nats-Msg-Id`.
    pub const MSG_ID: &str = "Fed-Parked-Msg-Id";
    /// The far side's last status.
    pub const STATUS: &str = "Fed-Parked-Status";
    /// The beginning of the far side's last answer, or why the message can't be read.
    pub const ANSWER: &str = "Fed-Parked-Answer";
}

/// Why nothing is known of a copy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker or the stream is away, or a permission is missing.
    #[error("FED_PARKED can't be read: {0}")]
    Unavailable(String),
}

/// A copy, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Its sequence in FED_PARKED: what a re-drive names.
    pub seq: Seq,
    /// The lane that it left, or was too full for it.
    pub lane: AnyLane,
    /// Why; none where the word is not known here.
    pub reason: Option<ParkReason>,
    /// Its headers: those of the original, and those of [`header`].
    pub headers: Headers,
    /// Where it should have gone; none of an inbound one: its headers have that.
    pub errand: Option<Errand>,
    /// Bytes of the body.
    pub body_bytes: usize,
}

impl Parked {
    /// The activity's `id`, for people.
    #[must_use]
    pub fn activity_id(&self) -> &str {
        let of_event = || self.errand.as_ref()?.activity_id.as_deref();
        self.headers.get(stored::ACTIVITY_ID).or_else(of_event).unwrap_or_default()
    }

    /// When it left its lane, RFC 3339.
    #[must_use]
    pub fn parked_at(&self) -> &str {
        self.headers.get(header::AT).unwrap_or_default()
    }

    /// How often it was posted.
    #[must_use]
    pub fn attempts(&self) -> Option<u32> {
        self.number(header::ATTEMPTS)
    }

    /// The instance's last status.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.number(header::STATUS)
    }

    /// The beginning of the instance's last answer, or why the message can't be read.
    #[must_use]
    pub fn answer(&self) -> Option<&str> {
        self.headers.get(header::ANSWER)
    }

    fn number<N: std::str::FromStr>(&self, name: &str) -> Option<N> {
        self.headers.get(name)?.parse().ok()
    }
}

/// A copy with all that it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedMessage {
    /// What the list shows.
    pub parked: Parked,
    /// The original body.
    pub body: Bytes,
    /// Whether every header is text: else a re-drive would not publish what was stored.
    whole: bool,
}

impl ParkedMessage {
    /// A message of FED_PARKED; none where its subject is no lane's.
    fn read(message: api::RawMessage) -> Option<Self> {
        let lane = AnyLane::from_parked_subject(&message.subject).ok()?;
        let headers = Headers::from_block(&message.headers);
        let reason = headers.get(header::REASON).and_then(|word| word.parse().ok());
        let body = Bytes::from(message.payload);
        let errand = (lane.kind() != LaneKind::Inbox).then(|| Errand::read(&headers, &body));
        let parked = Parked { seq: Seq(message.sequence), lane, reason, headers, errand, body_bytes: body.len() };
        Some(Self { parked, body, whole: std::str::from_utf8(&message.headers).is_ok() })
    }
}
