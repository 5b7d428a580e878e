//! The first message of a lane: what has waited longest.
//!
//! Asked of the stream's leader in JetStream's own JSON, not by a direct get. A direct get hands the headers to the
//! library's connection, which ends at a header that is no UTF-8: one foreign message at the head of one lane would cut
//! the connection of all lanes at each question. It may also be answered by a replica that lags, and needs
//! `allow_direct`. The price is the broker's work on one base64 of the body, so whoever asks keeps the answer.

use async_nats::jetstream::context::RequestErrorKind;
use async_nats::jetstream::{ErrorCode, response::Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fedstream_lane::{AnyLane, LaneName, Seq};
use serde::Deserialize;
use time::OffsetDateTime;

use crate::{Broker, Definition, Headers, definitions};

/// The first message of a lane, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oldest {
    /// Its sequence: that of the lane's head.
    pub seq: Seq,
    /// When the broker stored it, by the broker's clock.
    pub stored_at: OffsetDateTime,
    /// Its headers; those that are no text are read as far as they are.
    pub headers: Headers,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is connected, or there is no such stream: nothing can be stored either.
    #[error("the broker or the stream is away")]
    Away,
    /// The broker does not tell; a permission that is missing looks like a timeout.
    #[error("the broker does not tell the oldest activity of a lane: {0}")]
    Unknown(String),
}

/// The JSON of a stored message; its body is skipped.
#[derive(Deserialize)]
struct Answer {
    message: Raw,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    seq: u64,
    #[serde(with = "time::serde::rfc3339")]
    time: OffsetDateTime,
    #[serde(default)]
    hdrs: String,
}

/// The first message of a lane; `None` when the lane is empty.
///
/// # Errors
/// See [`Error`].
pub async fn of<L: LaneName>(broker: &Broker, lane: &L) -> Result<Option<Oldest>, Error> {
    first(broker, definitions::queue_of::<L>(), lane.subject()).await
}

/// As [`of`], of a lane whose kind is known only now.
///
/// # Errors
/// See [`Error`].
pub async fn of_any(broker: &Broker, lane: &AnyLane) -> Result<Option<Oldest>, Error> {
    first(broker, definitions::queue_of_kind(lane.kind()), lane.subject()).await
}

async fn first(broker: &Broker, queue: &Definition, lane: String) -> Result<Option<Oldest>, Error> {
    if !broker.connected() {
        return Err(Error::Away); // a request would wait for the reconnect
    }
    let subject = format!("STREAM.MSG.GET.{}", queue.name);
    let question = serde_json::json!({ "seq": 1, "next_by_subj": lane });
    let answer: Response<Answer> =
        broker.context().request(subject, &question).await.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Error::Away,
            _ => Error::Unknown(error.to_string()),
        })?;
    match answer {
        Response::Ok(Answer { message }) => Ok(Some(Oldest {
            seq: Seq(message.seq),
            stored_at: message.time,
            // Unreadable headers are none: the caller falls back to the broker's time.
            headers: Headers::from_block(&STANDARD.decode(message.hdrs).unwrap_or_default()),
        })),
        Response::Err { error } => match error.error_code() {
            ErrorCode::NO_MESSAGE_FOUND => Ok(None),
            ErrorCode::STREAM_NOT_FOUND => Err(Error::Away),
            _ => Err(Error::Unknown(error.to_string())),
        },
    }
}
