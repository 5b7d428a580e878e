//! The one place where the lane machine's milliseconds and the runtime's instants meet.

use fedstream_lane::Moment;
use std::time::Duration;
use tokio::time::Instant;

/// Milliseconds since the process began to serve.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    zero: Instant,
}

impl Clock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { zero: Instant::now() }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment(u64::try_from(self.zero.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When a timer for this moment is due: never before [`Clock::now`] has reached it.
    #[must_use]
    pub fn due(&self, moment: Moment) -> Instant {
        // Bounded, since an instant may not be able to hold whatever the configuration asked for.
        self.zero
            .checked_add(Duration::from_millis(moment.0))
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400))
    }
}
