//! Sleeping in a thread of one's own: some 60 µs late, where the timers of an asynchronous runtime are a millisecond late.

use std::time::{Duration, Instant};

/// For so long.
#[expect(clippy::disallowed_methods, reason = "the threads of senders, lines and instances belong to no runtime")]
pub fn nap(time: Duration) {
    if !time.is_zero() {
        std::thread::sleep(time);
    }
}

/// Until then; not at all if that has passed.
pub fn until(then: Instant) {
    nap(then.saturating_duration_since(Instant::now()));
}
