//! Which lanes have something in them, and how much: one question to the broker about the stream's subjects.
//!
//! For looking (discovery of lanes, the name in a refusal), never for deciding whether there is room: only the
//! broker's own limits are exact.

use fedstream_lane::{Lane, LaneKind, LaneName};
use futures::StreamExt;

use crate::{Broker, definitions};

/// The broker did not tell.
#[derive(Debug, thiserror::Error)]
#[error("the subjects of stream {stream} can't be listed: {cause}")]
pub struct Error {
    stream: String,
    cause: String,
}

/// The inbound lanes that hold something: subject and number of messages, in no order.
///
/// # Errors
/// The broker does not answer, or the stream is missing.
pub async fn backlog(broker: &Broker) -> Result<Vec<(String, u64)>, Error> {
    backlog_of::<Lane>(broker).await
}

/// As [`backlog`], of one kind of lanes.
///
/// # Errors
/// As [`backlog`].
pub async fn backlog_of<L: LaneName>(broker: &Broker) -> Result<Vec<(String, u64)>, Error> {
    subjects(broker, &definitions::queue_of::<L>().name, &format!("fed.{}.>", L::KIND)).await
}

/// As [`backlog`], of a kind of lanes that is known only now.
///
/// # Errors
/// As [`backlog`].
pub async fn backlog_of_kind(broker: &Broker, kind: LaneKind) -> Result<Vec<(String, u64)>, Error> {
    subjects(broker, &definitions::queue_of_kind(kind).name, &format!("fed.{kind}.>")).await
}

/// How many messages one lane holds.
///
/// # Errors
/// As [`backlog`].
pub async fn depth<L: LaneName>(broker: &Broker, lane: &L) -> Result<u64, Error> {
    let found = subjects(broker, &definitions::queue_of::<L>().name, &lane.subject()).await?;
    Ok(found.into_iter().map(|(_, messages)| messages).sum())
}

/// The longest inbound lane. (Bytes of a lane are not to be had from the broker; messages are.)
///
/// # Errors
/// The broker does not answer, or the stream is missing.
pub async fn largest(broker: &Broker) -> Result<Option<(String, u64)>, Error> {
    longest(broker, &definitions::inbox().name).await
}

/// The subject of a stream that holds the most messages.
pub(crate) async fn longest(broker: &Broker, stream: &str) -> Result<Option<(String, u64)>, Error> {
    Ok(subjects(broker, stream, ">").await?.into_iter().max_by_key(|(_, messages)| *messages))
}

pub(crate) async fn subjects(broker: &Broker, stream: &str, filter: &str) -> Result<Vec<(String, u64)>, Error> {
    let fail = |cause: String| Error { stream: stream.to_owned(), cause };
    let handle = broker.context().get_stream_no_info(stream).await.map_err(|error| fail(error.to_string()))?;
    let mut pages = handle.info_with_subjects(filter).await.map_err(|error| fail(error.to_string()))?;
    let mut found = Vec::new();
    while let Some(item) = pages.next().await {
        let (subject, messages) = item.map_err(|error| fail(error.to_string()))?;
        found.push((subject, messages as u64));
    }
    Ok(found)
}
