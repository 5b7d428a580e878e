//! The few requests to JetStream's API that are made in its own JSON.
//!
//! Not through the library's `stream::Config`: it knows only the fields of the server versions it was built for, and
//! an update sent from it would silently reset the others. Here an update is what the server said, with the bounds
//! changed.

use async_nats::jetstream::response::Response;
use async_nats::jetstream::{ErrorCode, context::RequestErrorKind, stream};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::Broker;

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No stream of that name.
    #[error("no such stream")]
    Missing,
    /// The broker understood and said no.
    #[error("{0}")]
    Refused(async_nats::jetstream::Error),
    /// Nobody answers JetStream requests: it is off, or off for this account.
    #[error("nobody answers: JetStream is off on this broker, or for this user's account")]
    NoJetStream,
    /// No answer in time. A refused permission looks the same.
    #[error("no answer in time (a permission that is missing looks like this too)")]
    TimedOut,
    /// Anything else, in the library's words.
    #[error("{0}")]
    Other(String),
}

/// A stream as the broker describes it: read by the library, and its configuration as it was sent.
pub struct StreamInfo {
    /// What the library understood.
    pub info: stream::Info,
    /// `config`, unread.
    pub raw_config: Value,
}

/// `$JS.API.STREAM.INFO.<stream>`.
pub async fn stream_info(broker: &Broker, stream: &str) -> Result<StreamInfo, Error> {
    let mut raw = request(broker, &format!("STREAM.INFO.{stream}"), &Value::Object(serde_json::Map::new())).await?;
    let info = serde_json::from_value(raw.clone()).map_err(|error| Error::Other(error.to_string()))?;
    Ok(StreamInfo { info, raw_config: raw.get_mut("config").map(Value::take).unwrap_or_default() })
}

/// `$JS.API.STREAM.CREATE.<stream>`. One that exists with the same configuration is not an error.
pub async fn stream_create(broker: &Broker, stream: &str, config: &Value) -> Result<(), Error> {
    request(broker, &format!("STREAM.CREATE.{stream}"), config).await.map(drop)
}

/// `$JS.API.STREAM.UPDATE.<stream>`.
pub async fn stream_update(broker: &Broker, stream: &str, config: &Value) -> Result<(), Error> {
    request(broker, &format!("STREAM.UPDATE.{stream}"), config).await.map(drop)
}

/// A stored message as the leader tells it. Not a direct get: that hands the headers to the library's connection, which
/// ends at one that is no UTF-8.
pub struct RawMessage {
    /// Its subject.
    pub subject: String,
    /// Its sequence.
    pub sequence: u64,
    /// Its header block, as it travels.
    pub headers: Vec<u8>,
    /// Its body.
    pub payload: Vec<u8>,
}

/// `$JS.API.STREAM.MSG.GET.<stream>`: the message at `sequence`, or the first of `subject` from there on.
pub async fn message(
    broker: &Broker,
    stream: &str,
    sequence: u64,
    subject: Option<&str>,
) -> Result<Option<RawMessage>, Error> {
    let mut question = serde_json::json!({ "seq": sequence });
    if let Some(subject) = subject {
        question["next_by_subj"] = subject.into();
    }
    let answer = match request(broker, &format!("STREAM.MSG.GET.{stream}"), &question).await {
        Err(Error::Refused(error)) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => return Ok(None),
        other => other?,
    };
    let message = &answer["message"];
    let bytes = |field: &str| STANDARD.decode(message[field].as_str().unwrap_or_default());
    let odd = |error: base64::DecodeError| Error::Other(format!("a message that can't be read: {error}"));
    Ok(Some(RawMessage {
        subject: message["subject"].as_str().unwrap_or_default().to_owned(),
        sequence: message["seq"].as_u64().unwrap_or_default(),
        headers: bytes("hdrs").map_err(odd)?,
        payload: bytes("data").map_err(odd)?,
    }))
}

async fn request(broker: &Broker, subject: &str, payload: &Value) -> Result<Value, Error> {
    let answer: Response<Value> =
        broker.context().request(subject.to_owned(), payload).await.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Error::NoJetStream,
            RequestErrorKind::TimedOut => Error::TimedOut,
            _ => Error::Other(error.to_string()),
        })?;
    match answer {
        Response::Ok(value) => Ok(value),
        Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Err(Error::Missing),
        Response::Err { error } => Err(Error::Refused(error)),
    }
}
