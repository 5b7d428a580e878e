//! The clocks of a process: none of them is the true time of the simulation.

use fedstream_lane::Moment;

/// A monotonic clock with its own zero and a slightly wrong rate, and a wall clock that is slightly off.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it shows at the true zero.
    pub zero: u64,
    /// How much too fast it goes, in millionths; a crystal is good to 100, and a bad virtual machine to a few thousand.
    pub drift_ppm: i64,
    /// How far the wall clock is off, milliseconds.
    pub wall_off_ms: i64,
}

impl Clock {
    /// What the monotonic clock shows.
    pub fn at(&self, true_ms: u64) -> Moment {
        Moment(self.zero + true_ms.saturating_add_signed(self.drift(true_ms)))
    }

    /// When it will show that, at the earliest.
    pub fn true_ms(&self, moment: Moment) -> u64 {
        let shown = moment.0.saturating_sub(self.zero);
        let mut true_ms = shown.saturating_add_signed(-self.drift(shown)).saturating_sub(2);
        while self.at(true_ms) < moment {
            true_ms += 1;
        }
        true_ms
    }

    /// What the wall clock shows at a true moment.
    pub fn wall(&self, true_ms: u64) -> u64 {
        true_ms.saturating_add_signed(self.wall_off_ms)
    }

    fn drift(&self, ms: u64) -> i64 {
        i64::try_from(ms).unwrap_or(i64::MAX) / 1000 * self.drift_ppm / 1000
    }
}
