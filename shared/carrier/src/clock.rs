//! Whether the wall clock was set, or went on while the machine stood still: deadlines are on it, a window's time is not.

use time::OffsetDateTime;
use tokio::time::Instant;

/// Smaller steps are what NTP does; a deadline keeps minutes of distance from what the instance accepts.
const STEP_MIN_MS: i64 = 1_000;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    wall: OffsetDateTime,
    at: Instant,
}

impl WallClock {
    /// Now.
    #[must_use]
    pub fn new() -> Self {
        Self { wall: OffsetDateTime::now_utc(), at: Instant::now() }
    }

    /// By how many milliseconds the wall clock is ahead of where it would be; none where it goes as it should.
    pub fn step(&mut self) -> Option<i64> {
        self.step_at(OffsetDateTime::now_utc(), Instant::now())
    }

    fn step_at(&mut self, wall: OffsetDateTime, at: Instant) -> Option<i64> {
        let by_wall = (wall - self.wall).whole_milliseconds();
        let by_timer = at.saturating_duration_since(self.at).as_millis();
        let ahead = i64::try_from(by_wall.saturating_sub_unsigned(by_timer)).unwrap_or(i64::MAX);
        if ahead.unsigned_abs() < STEP_MIN_MS.unsigned_abs() {
            return None;
        }
        *self = Self { wall, at };
        Some(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_step_is_told_once_and_a_drift_is_none() {
        let mut clock = WallClock::new();
        let (wall, at) = (clock.wall, clock.at);
        let after = |ms: i64| wall + time::Duration::milliseconds(ms);
        assert_eq!(clock.step_at(after(10_900), at + Duration::from_secs(10)), None);
        assert_eq!(
            clock.step_at(after(3_620_000), at + Duration::from_secs(20)),
            Some(3_600_000),
            "a suspended machine"
        );
        assert_eq!(clock.step_at(after(3_630_000), at + Duration::from_secs(30)), None);
        assert_eq!(clock.step_at(after(40_000), at + Duration::from_secs(40)), Some(-3_600_000), "and set back");
    }
}
