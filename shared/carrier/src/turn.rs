//! A lane's turn in this process: since when it has it, whether it could do without, and whether it was told to end.

use std::time::Duration;

use fedstream_service::shutdown::CancellationToken;
use tokio::time::Instant;

/// A lane with something in it that is due within this time is carried at least as long before it makes room. What is overdue
/// when it is read has a minute more, and would never be given up if its lane had shorter turns than that.
pub const OVERDUE_TURN: Duration = Duration::from_secs(2 * 60);

/// A lane that was told to drain is counted on to leave for so long: it waits for what is in flight, which takes seconds. One
/// that stands beyond it (nothing of it can be trimmed or parked) keeps its place, and another one makes room.
const DRAIN_MAX: Duration = Duration::from_secs(2 * 60);

/// The turn of one lane.
#[derive(Debug)]
pub struct Turn {
    since: Instant,
    /// Tells the lane's task to drain and to give the lane back.
    leave: CancellationToken,
    told: Option<Instant>,
}

impl Turn {
    /// It begins now. `leave` is what the lane's task listens to.
    pub fn begin(now: Instant, leave: CancellationToken) -> Self {
        Self { since: now, leave, told: None }
    }

    /// Since when.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Tells the lane to drain and to be given back.
    pub fn end(&mut self, now: Instant) {
        self.told.get_or_insert(now);
        self.leave.cancel();
    }

    /// It was told to, or the service leaves.
    pub fn is_ending(&self) -> bool {
        self.leave.is_cancelled()
    }

    /// Its place is about to be free.
    pub fn ends_soon(&self, now: Instant) -> bool {
        self.told.is_some_and(|told| now.saturating_duration_since(told) < DRAIN_MAX)
    }

    /// Whether a lane whose far side is closed may make room: what may be due in it is looked at first.
    pub fn was_of_use(&self, now: Instant, may_be_due: bool) -> bool {
        !may_be_due || now.saturating_duration_since(self.since) >= OVERDUE_TURN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lane_with_what_may_be_due_has_a_turn_of_two_minutes_and_another_one_may_go_at_once() {
        let now = Instant::now();
        let turn = Turn::begin(now, CancellationToken::new());
        assert!(turn.was_of_use(now, false));
        assert!(!turn.was_of_use(now + OVERDUE_TURN - SECOND, true));
        assert!(turn.was_of_use(now + OVERDUE_TURN, true));
    }

    #[test]
    fn a_lane_that_does_not_leave_though_it_was_told_to_is_not_counted_on_for_ever() {
        let (now, leave) = (Instant::now(), CancellationToken::new());
        let mut turn = Turn::begin(now, leave.clone());
        assert!(!turn.is_ending() && !turn.ends_soon(now), "nobody told it");
        turn.end(now);
        assert!(leave.is_cancelled() && turn.is_ending() && turn.ends_soon(now + DRAIN_MAX - SECOND));
        turn.end(now + SECOND);
        assert!(turn.is_ending() && !turn.ends_soon(now + DRAIN_MAX), "it counts from the first time");
    }
}
