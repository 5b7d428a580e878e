//! How much a TCP connection may have on its way: a model of slow start, after a pause as at the beginning.
//!
//! ```text
//!   ten segments ── each acknowledged byte allows one more ──▶ twice as many every round trip
//!        ▲                                                             │
//!        └──────────────── nothing sent for a second ◀─────────────────┘
//! ```
//!
//! It grows up to what Linux allows a socket by default, and a loss does not shrink it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::link::SEGMENT_BYTES;
use crate::nap;

/// RFC 6928.
const INITIAL_BYTES: usize = 10 * SEGMENT_BYTES;
/// The largest send buffer that Linux gives by default (tcp_wmem).
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// RFC 6298: a retransmission timer is at least this, and so is the pause after which a window is forgotten.
const IDLE: Duration = Duration::from_secs(1);

/// The window of one direction.
pub struct Window {
    size: usize,
    in_flight: usize,
    /// When which bytes will have been acknowledged.
    due: VecDeque<(Instant, usize)>,
    last_sent: Instant,
}

impl Default for Window {
    fn default() -> Self {
        Self { size: INITIAL_BYTES, in_flight: 0, due: VecDeque::new(), last_sent: Instant::now() }
    }
}

impl Window {
    /// Waits until something of `wanted` bytes may leave, says how much, and counts it as sent.
    pub fn wait_for_room(&mut self, wanted: usize, round_trip: Duration) -> usize {
        loop {
            let now = Instant::now();
            if let Some(room) = self.room(wanted, now, round_trip) {
                return room;
            }
            let next = self.due.front().map_or(now, |(at, _)| *at);
            nap::until(next);
        }
    }

    fn room(&mut self, wanted: usize, now: Instant, round_trip: Duration) -> Option<usize> {
        while self.due.front().is_some_and(|(at, _)| *at <= now) {
            let (_, bytes) = self.due.pop_front().unwrap_or((now, 0));
            self.in_flight -= bytes;
            self.size = (self.size + bytes).min(BYTES_MAX);
        }
        if self.in_flight == 0 && now.saturating_duration_since(self.last_sent) > IDLE.max(2 * round_trip) {
            self.size = INITIAL_BYTES;
        }
        let taken = wanted.min(self.size.saturating_sub(self.in_flight));
        if taken == 0 && wanted > 0 {
            return None;
        }
        self.in_flight += taken;
        self.due.push_back((now + round_trip, taken));
        self.last_sent = now;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(300);

    #[test]
    fn it_doubles_each_round_trip_and_starts_again_after_a_pause() {
        let (mut window, start) = (Window::default(), Instant::now());
        assert_eq!(window.room(1 << 20, start, ROUND_TRIP), Some(INITIAL_BYTES));
        assert_eq!(window.room(1 << 20, start, ROUND_TRIP), None);
        let later = start + ROUND_TRIP;
        assert_eq!(window.room(1 << 20, later, ROUND_TRIP), Some(2 * INITIAL_BYTES));
        let much_later = later + ROUND_TRIP + 2 * IDLE;
        assert_eq!(window.room(1 << 20, much_later, ROUND_TRIP), Some(INITIAL_BYTES));
    }
}
