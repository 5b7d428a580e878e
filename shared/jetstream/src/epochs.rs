//! The fencing token of a lane: taken by compare-and-set, and growing even if the bucket is lost.
//!
//! An epoch is max(the one before + 1, unix milliseconds, what the far side is known to have seen). The clock is only
//! there so that a bucket that was deleted, or an entry that expired, does not start again at 1; where the clock goes
//! back, the far side's `stale-epoch` says which one to take at least.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use fedstream_lane::Epoch;
use serde::{Deserialize, Serialize};

use crate::streams::{self, StreamNeed};
use crate::{Broker, definitions};

/// Each lost race means that somebody else won one, so this many in a row is not contention.
const RACES_MAX: u32 = 64;

/// What stands in the bucket.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    epoch: u64,
    owner: String,
    taken_at: String,
}

/// Why there is no epoch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket is missing, dangerous, or the broker does not answer.
    #[error(transparent)]
    Bucket(#[from] streams::Error),
    /// The entry can't be read or written.
    #[error("no epoch for lane {lane}: {cause}")]
    Failed {
        /// The lane's key.
        lane: String,
        /// The library's words.
        cause: String,
    },
    /// Others kept taking it first.
    #[error("no epoch for lane {lane}: {RACES_MAX} others took one at the same moment")]
    Contended {
        /// The lane's key.
        lane: String,
    },
}

/// Takes a new epoch for a lane: higher than every one taken before, and at least `at_least`.
///
/// Makes the bucket where that is ours to do.
///
/// # Errors
/// See [`Error`]. An epoch whose ack was lost is simply never used: take another.
pub async fn take(broker: &Broker, lane_key: &str, owner: &str, at_least: Epoch) -> Result<Epoch, Error> {
    let failed = |cause: String| Error::Failed { lane: lane_key.to_owned(), cause };
    let bucket = open(broker).await?;
    for race in 0..RACES_MAX {
        let (revision, previous) = last(&bucket, lane_key).await.map_err(failed)?;
        let epoch = next(previous, unix_ms(), at_least);
        let entry = Entry { epoch: epoch.0, owner: owner.to_owned(), taken_at: now_text() };
        let json = serde_json::to_vec(&entry).map_err(|error| failed(error.to_string()))?;
        match bucket.update(lane_key, json.into(), revision).await {
            Ok(_) => return Ok(epoch),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                // Spread, so that many takers of one lane don't meet again at once.
                let pause_ms = fastrand::u64(0..=u64::from(race.min(10)));
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    Err(Error::Contended { lane: lane_key.to_owned() })
}

async fn open(broker: &Broker) -> Result<Store, Error> {
    let definition = definitions::leases();
    streams::ensure(broker, &StreamNeed::plain(definition)).await?;
    let bucket = definition.name.trim_start_matches("KV_");
    broker.context().get_key_value(bucket).await.map_err(|error| {
        Error::Bucket(streams::Error::Unavailable { stream: definition.name.clone(), cause: error.to_string() })
    })
}

/// The revision to compare with, and the epoch before. An entry that expired or was deleted left a marker with a
/// revision of its own.
async fn last(bucket: &Store, lane_key: &str) -> Result<(u64, Option<Epoch>), String> {
    let Some(entry) = bucket.entry(lane_key).await.map_err(|error| error.to_string())? else {
        return Ok((0, None));
    };
    if entry.operation != Operation::Put {
        return Ok((entry.revision, None));
    }
    let known: Entry =
        serde_json::from_slice(&entry.value).map_err(|error| format!("the entry in the bucket: {error}"))?;
    Ok((entry.revision, Some(Epoch(known.epoch))))
}

fn next(previous: Option<Epoch>, unix_ms: u64, at_least: Epoch) -> Epoch {
    let after_previous = previous.map_or(0, |epoch| epoch.0.saturating_add(1));
    Epoch(after_previous.max(unix_ms).max(at_least.0))
}

fn unix_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

fn now_text() -> String {
    time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_passes_the_one_before_the_clock_and_the_far_side() {
        assert_eq!(next(None, 1_000, Epoch(0)), Epoch(1_000));
        assert_eq!(next(Some(Epoch(1_000)), 1_000, Epoch(0)), Epoch(1_001));
        assert_eq!(next(Some(Epoch(5_000)), 1_000, Epoch(0)), Epoch(5_001)); // a clock that went back
        assert_eq!(next(Some(Epoch(10)), 1_000, Epoch(9_000)), Epoch(9_000));
    }
}
