//! Refusals, counted and told: the first of its kind at once, its repeats as one line a minute. A sender that is refused tries
//! again for ever, and what it is refused for must not drown in its own repeats.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::refusal::Refusal;

/// Between two lines about the same thing.
const QUIET: Duration = Duration::from_secs(60);

/// Different things that are told apart at once. Names come from outside, so there is a bound.
const SUBJECTS_MAX: usize = 1024;

/// Counts of refusals since start, and what was said about them.
#[derive(Debug, Default)]
pub struct Tally {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stored: u64,
    duplicates: u64,
    refused: BTreeMap<&'static str, u64>,
    told: HashMap<(&'static str, String), Told>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    since: u64,
}

impl Tally {
    /// Counts a stored activity, or one that was stored before.
    pub fn stored(&self, duplicate: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.stored += u64::from(!duplicate);
        state.duplicates += u64::from(duplicate);
    }

    /// Counts a refusal and, if it is news, logs it with what would help.
    pub fn refused(&self, refusal: &Refusal) {
        let (status, kind) = refusal.status_and_kind();
        let Some(repeats) = self.count(kind, refusal.subject(), Instant::now()) else {
            tracing::debug!(status = status.as_u16(), kind, reason = refusal.detail(), "refused");
            return;
        };
        let remedy = refusal.remedy().unwrap_or_default();
        tracing::warn!(status = status.as_u16(), kind, reason = refusal.detail(), remedy, repeats, "refused");
    }

    /// What has happened since start.
    pub fn counts(&self) -> serde_json::Value {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        serde_json::json!({ "stored": state.stored, "duplicates": state.duplicates, "refused": state.refused })
    }

    /// The untold repeats, if it is time to tell.
    fn count(&self, kind: &'static str, subject: String, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state.refused.entry(kind).or_default() += 1;
        let key = (kind, subject);
        if let Some(told) = state.told.get_mut(&key) {
            if now.duration_since(told.at) < QUIET {
                told.since += 1;
                return None;
            }
            told.at = now;
            return Some(std::mem::take(&mut told.since));
        }
        if state.told.len() >= SUBJECTS_MAX {
            state.told.retain(|_, told| now.duration_since(told.at) < QUIET);
        }
        if state.told.len() >= SUBJECTS_MAX {
            return None;
        }
        state.told.insert(key, Told { at: now, since: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_repeats_are_summed_up() {
        let (tally, start) = (Tally::default(), Instant::now());
        assert_eq!(tally.count("source", "a".into(), start), Some(0));
        assert_eq!(tally.count("source", "a".into(), start), None);
        assert_eq!(tally.count("source", "b".into(), start), Some(0));
        assert_eq!(tally.count("source", "a".into(), start + QUIET), Some(1));
        assert_eq!(tally.counts()["refused"]["source"], 4);
    }

    #[test]
    fn names_from_outside_are_bounded() {
        let (tally, start) = (Tally::default(), Instant::now());
        for n in 0..SUBJECTS_MAX {
            assert_eq!(tally.count("source", n.to_string(), start), Some(0));
        }
        assert_eq!(tally.count("source", "one more".into(), start), None);
        assert_eq!(tally.count("source", "one more".into(), start + QUIET), Some(0), "old ones made room");
    }
}
