//! How often a delivery is tried, and how far apart.

use std::time::Duration;

use fedstream_lane::{Backoff, Moment};

/// The rule of one delivery's attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Attempts, the first included. k-ap's `delivery_max_attempts`.
    pub attempts_max: u32,
    /// Between the first and the second; twice as long each time. k-ap's `delivery_initial_delay_secs`.
    pub delay_min: Duration,
    /// And at most.
    pub delay_max: Duration,
    /// A remote's Retry-After counts up to here.
    pub retry_after_max: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            // With the delays below some three hours: longer than a deployment of the remote, shorter than anybody
            // expects a process to live. An outage of days needs the broker.
            attempts_max: 15,
            delay_min: Duration::from_secs(2),
            delay_max: Duration::from_secs(30 * 60),
            retry_after_max: Duration::from_secs(60 * 60),
        }
    }
}

impl Rules {
    /// The backoff of one delivery.
    #[must_use]
    pub fn backoff(&self) -> Backoff {
        Backoff::new(millis(self.delay_min), millis(self.delay_max), millis(self.retry_after_max))
    }

    /// From the first attempt to the last, where each one fails at once.
    #[must_use]
    pub fn total(&self) -> Duration {
        let pauses = self.attempts_max.saturating_sub(1);
        let mut total = Duration::ZERO;
        let mut pause = self.delay_min.min(self.delay_max);
        for made in 0..pauses {
            if pause.is_zero() || pause >= self.delay_max {
                return total.saturating_add(pause.saturating_mul(pauses - made));
            }
            total = total.saturating_add(pause);
            pause = pause.saturating_mul(2).min(self.delay_max);
        }
        total
    }

    /// How many attempts would have been made in this time: what waits in line behind one that fails is not tried for as
    /// long again, or the last of a hundred would be given up days after the first.
    #[must_use]
    pub fn attempts_within(&self, waited: Duration) -> u32 {
        let mut backoff = self.backoff();
        let mut now = Moment(0);
        let mut attempts = 0;
        while attempts < self.attempts_max {
            backoff.failed(now, None, 0);
            match backoff.until() {
                Some(until) if until.0 <= millis(waited) => now = until,
                _ => break,
            }
            attempts += 1;
        }
        attempts
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_in_line_counts_as_the_attempts_that_fit_into_it() {
        let seconds = Duration::from_secs;
        let rules =
            Rules { attempts_max: 5, delay_min: seconds(1), delay_max: seconds(4), retry_after_max: seconds(60) };
        // 1, 2, 4 and 4 seconds apart
        for (waited, attempts) in [(0, 0), (1, 1), (2, 1), (3, 2), (7, 3), (11, 4), (15, 5), (1000, 5)] {
            assert_eq!(rules.attempts_within(seconds(waited)), attempts, "{waited}");
        }
        assert_eq!(rules.total(), seconds(11));
        assert_eq!(Rules { attempts_max: 1, ..rules }.total(), Duration::ZERO);
        assert_eq!(Rules { attempts_max: u32::MAX, ..rules }.total(), seconds(3 + 4 * (u64::from(u32::MAX) - 3)));
    }

    #[test]
    fn the_usual_rule_gives_up_within_hours() {
        let rules = Rules::default();
        assert_eq!(rules.attempts_within(Duration::from_secs(5 * 60 * 60)), rules.attempts_max);
        assert!(rules.attempts_within(Duration::from_secs(60 * 60)) < rules.attempts_max);
    }
}
