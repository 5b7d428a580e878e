//! Refusals made before the credential was right, told now and then: whoever reaches the port can send as many as they like, and the log is the
//! operator's.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines about the same kind of refusal.
const QUIET: Duration = Duration::from_secs(10);

/// What was said of each kind. The kinds are this service's own, so they are few.
#[derive(Debug, Default)]
pub struct Strangers {
    told: Mutex<HashMap<&'static str, Told>>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    left_out: u64,
}

impl Strangers {
    /// One more was refused. How many of its kind were left out since the last line, if it is time for another.
    #[must_use]
    pub fn refused(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = told.get_mut(kind) else {
            told.insert(kind, Told { at: now, left_out: 0 });
            return Some(0);
        };
        if now.duration_since(last.at) < QUIET {
            last.left_out += 1;
            return None;
        }
        last.at = now;
        Some(std::mem::take(&mut last.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_kind_is_told_every_ten_seconds_with_a_count_of_the_others() {
        let (strangers, start) = (Strangers::default(), Instant::now());
        let at = |kind, after| strangers.refused(kind, start + after);
        assert_eq!(at("unauthorized", Duration::ZERO), Some(0));
        assert_eq!(at("unauthorized", Duration::ZERO), None);
        assert_eq!(at("client-not-allowed", Duration::ZERO), Some(0), "another kind");
        assert_eq!(at("unauthorized", QUIET - Duration::from_millis(1)), None);
        assert_eq!(at("unauthorized", QUIET), Some(2));
        assert_eq!(at("unauthorized", QUIET * 2), Some(0));
    }
}
