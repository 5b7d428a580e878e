//! A stream is made or bound, read back, and refused when it is dangerous.
//!
//! Only two things of an existing stream are ever changed, and only by the service that owns them: messages a lane
//! and bytes. Everything else that differs is either harmless or refused by name ([`crate::safety`]); nothing
//! dangerous is put right silently.

use async_nats::jetstream::ErrorCode;

use crate::definitions::{Bounds, Definition};
use crate::safety::{self, Fault};
use crate::{Broker, Created, StreamsMode, api, lanes};

/// What a service needs of a stream.
#[derive(Clone, Debug)]
pub struct StreamNeed {
    /// The stream.
    pub definition: &'static Definition,
    /// The bounds that this service sets, where it owns them; `None` leaves them as they are.
    pub bounds: Option<Bounds>,
    /// How many lanes this service may read at once; 0 when it reads none.
    pub lanes_max: u32,
    /// The largest message, headers included, that this service stores; 0 when it stores none.
    pub message_bytes_max: u64,
}

impl StreamNeed {
    /// The stream as it is defined, and nothing more.
    #[must_use]
    pub fn plain(definition: &'static Definition) -> Self {
        Self { definition, bounds: None, lanes_max: 0, message_bytes_max: 0 }
    }
}

/// What is known of a stream that was found fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFacts {
    /// Its name.
    pub name: String,
    /// Which stream of that name it is.
    pub created: Created,
    /// Messages that one lane may hold; `None` when unlimited (archives).
    pub messages_per_lane: Option<u64>,
    /// Bytes that it may hold; `None` when unlimited.
    pub bytes_max: Option<u64>,
    /// Copies of each message.
    pub replicas: usize,
}

/// Why a service can't run on a stream. One line each.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It exists and is dangerous.
    #[error("stream {stream} is unsafe: {fault}")]
    Unsafe {
        /// The stream's name.
        stream: String,
        /// The field, and what would happen.
        fault: Fault,
    },
    /// It does not exist, and is not ours to make.
    #[error("stream {stream} is missing, and FED_STREAMS=bind leaves it to others to make it")]
    Missing {
        /// The stream's name.
        stream: String,
    },
    /// The broker refused to make or change it.
    #[error("the broker refuses stream {stream}: {cause}{}", hint(cause))]
    Refused {
        /// The stream's name.
        stream: String,
        /// The broker's reason.
        cause: async_nats::jetstream::Error,
    },
    /// The broker does not answer.
    #[error("the broker says nothing about stream {stream}: {cause}")]
    Unavailable {
        /// The stream's name.
        stream: String,
        /// The library's words.
        cause: String,
    },
}

fn hint(cause: &async_nats::jetstream::Error) -> &'static str {
    match cause.error_code() {
        ErrorCode::STORAGE_RESOURCES_EXCEEDED => {
            " (max_file_store of the broker is below the sum of the streams' max_bytes)"
        }
        ErrorCode::STREAM_SUBJECT_OVERLAP => " (another stream already holds its subjects)",
        ErrorCode::CLUSTER_NO_PEERS => " (a node of the cluster is not there yet, or there are fewer than replicas)",
        _ => "",
    }
}

/// A cluster that is starting, or has just lost a node, refuses what it takes a moment later.
fn may_pass(cause: &async_nats::jetstream::Error) -> bool {
    let passing = [
        ErrorCode::CLUSTER_INCOMPLETE,
        ErrorCode::CLUSTER_NO_PEERS,
        ErrorCode::CLUSTER_NOT_ASSIGNED,
        ErrorCode::CLUSTER_NOT_AVAILABLE,
        ErrorCode::CLUSTER_NOT_LEADER,
    ];
    passing.contains(&cause.error_code())
}

impl Error {
    /// The process exit code that says the same: 69 where waiting may help, 78 where somebody has to act.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Missing { .. } | Self::Unavailable { .. } => 69,
            Self::Refused { cause, .. } if may_pass(cause) => 69,
            Self::Unsafe { .. } | Self::Refused { .. } => 78,
        }
    }

    fn from_api(stream: &str, error: api::Error) -> Self {
        let stream = stream.to_owned();
        match error {
            api::Error::Missing => Self::Missing { stream },
            api::Error::Refused(cause) => Self::Refused { stream, cause },
            other => Self::Unavailable { stream, cause: other.to_string() },
        }
    }
}

/// Makes the stream where that is ours to do, sets the bounds that are ours, reads it back, and checks it.
///
/// # Errors
/// It is missing, dangerous, refused, or the broker does not answer.
pub async fn ensure(broker: &Broker, need: &StreamNeed) -> Result<StreamFacts, Error> {
    let name = &need.definition.name;
    let found = match api::stream_info(broker, name).await {
        Ok(found) => found,
        Err(api::Error::Missing) if broker.settings().streams == StreamsMode::Create => {
            let config = need.definition.with_bounds(need.bounds, broker.settings().replicas);
            api::stream_create(broker, name, &config)
                .await
                .or_else(already_made)
                .map_err(|e| Error::from_api(name, e))?;
            tracing::info!(stream = %name, "stream made");
            return observe(broker, need).await;
        }
        Err(error) => return Err(Error::from_api(name, error)),
    };
    let facts = checked(&found, need)?; // before the update: a dangerous stream is not touched
    match need.bounds {
        Some(bounds) if broker.settings().streams == StreamsMode::Create && facts.differ(bounds) => {
            set_bounds(broker, need, found, bounds).await
        }
        _ => Ok(facts),
    }
}

/// Reads the stream and checks it; changes nothing.
///
/// # Errors
/// It is missing, dangerous, or the broker does not answer.
pub async fn observe(broker: &Broker, need: &StreamNeed) -> Result<StreamFacts, Error> {
    let name = &need.definition.name;
    let found = api::stream_info(broker, name).await.map_err(|error| Error::from_api(name, error))?;
    checked(&found, need)
}

impl StreamFacts {
    fn differ(&self, bounds: Bounds) -> bool {
        self.messages_per_lane != Some(bounds.messages_per_lane) || self.bytes_max != Some(bounds.bytes)
    }
}

/// Sends the configuration back as it came, with our bounds in it.
async fn set_bounds(
    broker: &Broker,
    need: &StreamNeed,
    found: api::StreamInfo,
    mut bounds: Bounds,
) -> Result<StreamFacts, Error> {
    let name = &need.definition.name;
    let now = u64::try_from(found.info.config.max_messages_per_subject).unwrap_or(u64::MAX);
    if bounds.messages_per_lane < now && !may_be_lowered(broker, name, bounds.messages_per_lane).await? {
        tracing::warn!(
            stream = %name, limit = now, wanted = bounds.messages_per_lane,
            "the limit of a lane is not lowered now: the broker would delete what full lanes hold beyond it; \
             it will be at a start that finds no lane above half of it"
        );
        bounds.messages_per_lane = now;
    }
    let mut config = found.raw_config;
    config["max_msgs_per_subject"] = bounds.messages_per_lane.into();
    config["max_bytes"] = bounds.bytes.into();
    api::stream_update(broker, name, &config).await.map_err(|error| Error::from_api(name, error))?;
    tracing::info!(stream = %name, messages_per_lane = bounds.messages_per_lane, bytes = bounds.bytes, "bounds set");
    observe(broker, need).await
}

/// Measured on 2.15.1: lowering `max_msgs_per_subject` deletes the oldest messages of each longer lane, discard new
/// or not (lowering `max_bytes` deletes nothing). There is no conditional update, so a lane must not be able to grow
/// past the new limit between this question and the update: half of it is to spare.
async fn may_be_lowered(broker: &Broker, stream: &str, wanted: u64) -> Result<bool, Error> {
    let longest = lanes::longest(broker, stream)
        .await
        .map_err(|error| Error::Unavailable { stream: stream.to_owned(), cause: error.to_string() })?;
    Ok(longest.is_none_or(|(_, messages)| messages <= wanted / 2))
}

/// Another service made it at the same moment: what it made is read back and checked like any other.
fn already_made(error: api::Error) -> Result<(), api::Error> {
    match error {
        api::Error::Refused(cause) if cause.error_code() == ErrorCode::STREAM_NAME_EXIST => Ok(()),
        other => Err(other),
    }
}

fn checked(found: &api::StreamInfo, need: &StreamNeed) -> Result<StreamFacts, Error> {
    let config = &found.info.config;
    let subjects: Vec<_> = need.definition.subjects().collect();
    let safety_need = safety::Need {
        kind: need.definition.kind,
        subjects: &subjects,
        lanes_max: need.lanes_max,
        message_bytes_max: need.message_bytes_max,
    };
    safety::check(config, &safety_need).map_err(|fault| Error::Unsafe { stream: config.name.clone(), fault })?;
    let limit = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0); // -1 and 0: no limit
    Ok(StreamFacts {
        name: config.name.clone(),
        created: Created::new(found.info.created),
        messages_per_lane: limit(config.max_messages_per_subject),
        bytes_max: limit(config.max_bytes),
        replicas: config.num_replicas,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(err_code: u64) -> Error {
        let cause = serde_json::json!({ "code": 400, "err_code": err_code, "description": "no" });
        let cause = serde_json::from_value(cause).expect("an error of the broker's API");
        Error::Refused { stream: "FED_INBOX".to_owned(), cause }
    }

    #[test]
    fn a_cluster_that_is_starting_is_asked_again_and_a_stream_in_the_way_is_not() {
        assert_eq!(refused(ErrorCode::CLUSTER_NO_PEERS.0).exit_code(), 69);
        assert_eq!(refused(ErrorCode::STREAM_SUBJECT_OVERLAP.0).exit_code(), 78);
    }
}
