//! The evidence that an activity is poison: the instance fails on it again and again, and takes others meanwhile.
//!
//! DESIGN section 8: 500 or 501 five times over at least two minutes, while the instance is known to answer between the
//! last two of these attempts. An outage gives no such evidence, and never parks.

use crate::{Moment, Seq};

/// What speaks against one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Evidence {
    pub(super) seq: Seq,
    /// How often it failed, up to the number that is enough.
    attempts: u32,
    first: Moment,
    /// It failed long enough after the first time.
    lasted: bool,
    /// The instance answered others between the last two attempts: one that came up for a moment in an outage is no evidence.
    alive: bool,
}

impl Evidence {
    /// A first failure.
    pub(super) fn new(seq: Seq, now: Moment) -> Self {
        Self { seq, attempts: 1, first: now, lasted: false, alive: false }
    }

    /// One more.
    pub(super) fn again(&mut self, now: Moment, alive: bool, enough: u32, after_ms: u64) {
        self.attempts = self.attempts.saturating_add(1).min(enough);
        self.lasted |= now >= self.first.after_ms(after_ms);
        self.alive = alive;
    }

    /// Is it enough?
    pub(super) fn is_enough(&self, enough: u32) -> bool {
        self.attempts >= enough && self.lasted && self.alive
    }
}

/// Is this status one that an activity itself may be the cause of?
pub(super) fn is_fault(status: Option<u16>) -> bool {
    matches!(status, Some(500 | 501))
}
