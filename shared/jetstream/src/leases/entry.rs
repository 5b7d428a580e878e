//! What stands in the bucket under a lane's key, and how its epoch grows.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fedstream_lane::Epoch;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The JSON of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The highest epoch that was taken.
    pub epoch: u64,
    /// Who took it, in an operator's words (`FED_SENDER_ID`). Two processes may share it by mistake.
    pub owner: String,
    /// Which process took it, in which of its sessions: drawn at random, so that it never takes another's entry for its own.
    #[serde(default)]
    pub nonce: String,
    /// The nonce is a session's: the entry stands for as long as that one lives, and beyond. Without it (an older version's)
    /// it stands until it expires, and says nothing of any session.
    #[serde(default)]
    pub session: bool,
    /// When, for people.
    pub taken_at: String,
    /// The owner gave it up: the next one need not wait for the TTL.
    #[serde(default)]
    pub released: bool,
}

impl Entry {
    pub fn read(value: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(value).map_err(|error| format!("the entry in the bucket: {error}"))
    }

    pub fn write(&self) -> Bytes {
        // Numbers, strings and a flag always serialise.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// An epoch is max(the one before + 1, unix milliseconds, what the far side is known to have seen).
///
/// The clock is only there so that a bucket that was deleted, or an entry that expired, does not start again at 1; where
/// the clock goes back, the far side's `stale-epoch` says which one to take at least.
pub(crate) fn next_epoch(previous: Option<Epoch>, unix_ms: u64, at_least: Epoch) -> Epoch {
    let after_previous = previous.map_or(0, |epoch| epoch.0.saturating_add(1));
    Epoch(after_previous.max(unix_ms).max(at_least.0))
}

pub(crate) fn unix_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn now_text() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_passes_the_one_before_the_clock_and_the_far_side() {
        assert_eq!(next_epoch(None, 1_000, Epoch(0)), Epoch(1_000));
        assert_eq!(next_epoch(Some(Epoch(1_000)), 1_000, Epoch(0)), Epoch(1_001));
        assert_eq!(next_epoch(Some(Epoch(5_000)), 1_000, Epoch(0)), Epoch(5_001)); // a clock that went back
        assert_eq!(next_epoch(Some(Epoch(10)), 1_000, Epoch(9_000)), Epoch(9_000));
    }

    #[test]
    fn an_entry_without_a_nonce_is_nobodys_of_no_session_and_not_released() {
        let entry = Entry::read(br#"{"epoch":7,"owner":"a","taken_at":"then"}"#).expect("an entry");
        assert_eq!((entry.nonce.as_str(), entry.released, entry.session), ("", false, false));
        assert_eq!(Entry::read(&entry.write()), Ok(entry));
    }
}
