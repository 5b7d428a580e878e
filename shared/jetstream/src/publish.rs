//! A message into its lane: stored, or refused by a limit that has a name.
//!
//! This is where "full" is decided, and the broker decides it: atomically, exact under any number of publishers.
//! Nothing here counts first.
//!
//! A refusal for a limit means: not stored. [`Refused::TimedOut`] does not: the message may be in the stream, or stay
//! queued in the client and be stored after the next reconnect. So every message carries a `Nats-Msg-Id`, and whoever
//! tries again does so under the same one.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use async_nats::jetstream::context::{ContextBuilder, PublishError, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use fedstream_lane::{LaneName, Seq};

use crate::{Broker, Definition, definitions, headers};

/// The header by which the broker knows a repeated submission.
pub const MSG_ID: &str = "Nats-Msg-Id";

/// The library's own limit on waiting for an ack. Above any the caller gives: theirs is the one that counts, since
/// it runs while waiting for a permit too.
const LIBRARY_TIMEOUT: Duration = Duration::from_secs(600);

/// What the broker acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where it is; of a duplicate, where the first one was stored.
    pub sequence: Seq,
    /// It was stored before.
    pub duplicate: bool,
}

/// Which bound of the whole stream is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamLimit {
    /// `max_msgs`.
    Messages,
    /// `max_bytes`.
    Bytes,
}

/// Whose storage is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// The account's limit.
    Account,
    /// The server's (2.10 says so of a full account too).
    Server,
}

/// Why a message is not known to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The lane holds as many messages as it may. Not stored.
    LaneFull,
    /// The stream does. Not stored.
    StreamFull(StreamLimit),
    /// The broker's storage does. Not stored.
    StorageFull(Storage),
    /// It will never fit: body or headers. Not stored.
    TooLarge,
    /// No stream takes this subject. Not stored. (An R3 failover shows it for a moment too.)
    StreamMissing,
    /// There is no connection now. Nothing was sent.
    NotConnected,
    /// No ack in time. It may be stored, now or later.
    TimedOut,
    /// The broker knows the id and has no message for it: a 2.10 cluster remembers ids that it refused. Not stored.
    DuplicateNotStored,
    /// Anything else, in the broker's or the library's words.
    Other(String),
}

impl Refused {
    /// The limit or state that refused it, in an operator's words.
    #[must_use]
    pub fn limit(&self) -> &str {
        match self {
            Self::LaneFull => "the lane holds as many activities as it may (max_msgs_per_subject)",
            Self::StreamFull(StreamLimit::Messages) => "the stream holds as many activities as it may (max_msgs)",
            Self::StreamFull(StreamLimit::Bytes) => "the stream holds as many bytes as it may (max_bytes)",
            Self::StorageFull(Storage::Account) => "the account's storage on the broker is full",
            Self::StorageFull(Storage::Server) => "the broker's storage is full (max_file_store, or the disk)",
            Self::TooLarge => "the activity is larger than the broker takes (max_payload, max_msg_size)",
            Self::StreamMissing => "no stream takes the activity",
            Self::NotConnected => "there is no connection to the broker",
            Self::TimedOut => "the broker did not acknowledge in time",
            Self::DuplicateNotStored => "the broker calls it a duplicate of an activity that it does not have",
            Self::Other(cause) => cause,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.limit())
    }
}

impl std::error::Error for Refused {}

/// Stores messages in lanes, and copies of what leaves them in FED_PARKED.
#[derive(Clone)]
pub struct Publisher {
    broker: Broker,
    context: jetstream::Context,
}

impl Publisher {
    /// A publisher over the broker's connection.
    #[must_use]
    pub fn new(broker: &Broker) -> Self {
        let context = ContextBuilder::new().timeout(LIBRARY_TIMEOUT).build(broker.client().clone());
        Self { broker: broker.clone(), context }
    }

    /// Stores a message in its lane, and waits for the ack for at most `timeout`.
    ///
    /// `headers` must have a `Nats-Msg-Id`.
    ///
    /// # Errors
    /// See [`Refused`]; at once when there is no connection.
    pub async fn store<L: LaneName>(
        &self,
        lane: &L,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Stored, Refused> {
        self.publish(&definitions::queue_of::<L>().name, lane.subject(), headers, body, timeout).await
    }

    /// Stores a message on any subject of one of the streams: an outbound delivery, a backfill job, an announcement.
    ///
    /// `headers` must have a `Nats-Msg-Id`.
    ///
    /// # Errors
    /// See [`Refused`]; at once when there is no connection.
    pub async fn store_in(
        &self,
        stream: &Definition,
        subject: String,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Stored, Refused> {
        self.publish(&stream.name, subject, headers, body, timeout).await
    }

    /// Stores the copy of what leaves its lane undelivered, under `msg_id`: `<lane>.<sequence>.<reason>`.
    ///
    /// A `Nats-Msg-Id` among `headers` (that of the original) is replaced.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn park(
        &self,
        lane: &impl LaneName,
        msg_id: &str,
        mut headers: Vec<(&'static str, String)>,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Stored, Refused> {
        headers.retain(|(name, _)| *name != MSG_ID);
        headers.push((MSG_ID, msg_id.to_owned()));
        self.publish(&definitions::parked().name, lane.parked_subject(), headers, body, timeout).await
    }

    async fn publish(
        &self,
        stream: &str,
        subject: String,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Stored, Refused> {
        assert!(headers.iter().any(|(name, _)| *name == MSG_ID), "without an id a repeat would be stored twice");
        let headers = headers::to_map(headers).map_err(|error| Refused::Other(error.to_string()))?;
        if !self.broker.connected() {
            return Err(Refused::NotConnected); // else it would be queued, and stored long after our answer
        }
        let acked = async { self.context.publish_with_headers(subject, headers, body).await?.await };
        match tokio::time::timeout(timeout, acked).await {
            Ok(Ok(ack)) => read_ack(&ack, stream),
            Ok(Err(error)) => Err(read_error(&error)),
            Err(_) => Err(Refused::TimedOut),
        }
    }
}

/// An ack counts when it comes from our stream and names a message in it.
fn read_ack(ack: &PublishAck, stream: &str) -> Result<Stored, Refused> {
    if ack.stream != stream {
        return Err(Refused::Other(format!("stream {} took the activity, not {stream}", ack.stream)));
    }
    if ack.sequence == 0 {
        return Err(Refused::DuplicateNotStored);
    }
    Ok(Stored { sequence: Seq(ack.sequence), duplicate: ack.duplicate })
}

fn read_error(error: &PublishError) -> Refused {
    let answer = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    classify(error.kind(), answer.map(jetstream::Error::error_code), &error.to_string())
}

/// Which refusal it is, from the library's kind, the broker's code and, where the code says too little, its text.
#[must_use]
pub fn classify(kind: PublishErrorKind, code: Option<ErrorCode>, text: &str) -> Refused {
    match kind {
        PublishErrorKind::StreamNotFound => return Refused::StreamMissing,
        // A broken pipe is a reply that will never come: what was sent may be stored all the same.
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => return Refused::TimedOut,
        PublishErrorKind::MaxPayloadExceeded => return Refused::TooLarge,
        _ => {}
    }
    match code {
        // One code for three limits; the text is the only difference.
        Some(ErrorCode::STREAM_STORE_FAILED) if text.contains("messages per subject") => Refused::LaneFull,
        Some(ErrorCode::STREAM_STORE_FAILED) if text.contains("maximum messages") => {
            Refused::StreamFull(StreamLimit::Messages)
        }
        Some(ErrorCode::STREAM_STORE_FAILED) if text.contains("maximum bytes") => {
            Refused::StreamFull(StreamLimit::Bytes)
        }
        Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM) => Refused::TooLarge,
        Some(ErrorCode::STREAM_NOT_FOUND) => Refused::StreamMissing,
        Some(ErrorCode::ACCOUNT_RESOURCES_EXCEEDED) => Refused::StorageFull(Storage::Account),
        Some(ErrorCode::INSUFFICIENT_RESOURCES | ErrorCode::STORAGE_RESOURCES_EXCEEDED) => {
            Refused::StorageFull(Storage::Server)
        }
        _ => Refused::Other(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u64, text: &str) -> Refused {
        classify(PublishErrorKind::Other, Some(ErrorCode(code)), text)
    }

    #[test]
    fn each_limit_of_the_broker_has_its_own_name() {
        assert_eq!(refused(10_077, "maximum messages per subject exceeded (code 503, ..)"), Refused::LaneFull);
        assert_eq!(refused(10_077, "maximum messages exceeded"), Refused::StreamFull(StreamLimit::Messages));
        assert_eq!(refused(10_077, "maximum bytes exceeded"), Refused::StreamFull(StreamLimit::Bytes));
        assert_eq!(refused(10_023, "insufficient resources"), Refused::StorageFull(Storage::Server));
        assert_eq!(refused(10_047, "insufficient storage resources available"), Refused::StorageFull(Storage::Server));
        assert_eq!(refused(10_002, "resource limits exceeded for account"), Refused::StorageFull(Storage::Account));
        assert_eq!(refused(10_054, "message size exceeds maximum allowed"), Refused::TooLarge);
        assert_eq!(refused(10_097, "header size exceeds maximum allowed of 64k"), Refused::TooLarge);
        assert_eq!(refused(10_077, "disk on fire"), Refused::Other("disk on fire".into()));
        assert_eq!(refused(10_070, "wrong last msg ID"), Refused::Other("wrong last msg ID".into()));
    }

    #[test]
    fn what_the_library_says_itself_is_told_apart_too() {
        for (kind, expected) in [
            (PublishErrorKind::StreamNotFound, Refused::StreamMissing),
            (PublishErrorKind::TimedOut, Refused::TimedOut),
            (PublishErrorKind::MaxPayloadExceeded, Refused::TooLarge),
            (PublishErrorKind::BrokenPipe, Refused::TimedOut),
            (PublishErrorKind::MaxAckPending, Refused::Other("x".into())),
        ] {
            assert_eq!(classify(kind, None, "x"), expected);
        }
    }

    #[test]
    fn a_duplicate_counts_only_with_a_sequence_and_from_our_own_stream() {
        let ack = |sequence: u64, duplicate: bool| -> PublishAck {
            let json = serde_json::json!({ "stream": "FED_INBOX", "seq": sequence, "duplicate": duplicate });
            serde_json::from_value(json).expect("an ack")
        };
        assert_eq!(read_ack(&ack(7, false), "FED_INBOX"), Ok(Stored { sequence: Seq(7), duplicate: false }));
        assert_eq!(read_ack(&ack(7, true), "FED_INBOX"), Ok(Stored { sequence: Seq(7), duplicate: true }));
        assert_eq!(read_ack(&ack(0, true), "FED_INBOX"), Err(Refused::DuplicateNotStored));
        assert!(matches!(read_ack(&ack(7, false), "FED_PARKED"), Err(Refused::Other(_))));
    }
}
