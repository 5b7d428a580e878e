//! How a remote that is back is met: one request at a time, first with a pause between two, then ever faster.
//!
//! What waited for it may be a day's activities on several lanes. A small instance that just came up, with every other
//! instance at its door, would go down again. Pure: time comes in as an argument.

use fedstream_lane::Moment;

/// Below this a pause makes no difference: a request takes longer.
const PAUSE_MIN_MS: u64 = 10;

/// The pace at one remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ramp {
    first_ms: u64,
    pause_ms: u64,
    next: Moment,
}

impl Ramp {
    /// It answered just now; so long between two requests at first.
    #[must_use]
    pub fn new(now: Moment, pause_ms: u64) -> Self {
        Self { first_ms: pause_ms, pause_ms, next: now.after_ms(pause_ms) }
    }

    /// When the next request may go; it is taken.
    pub fn slot(&mut self, now: Moment) -> Moment {
        let at = self.next.max(now);
        self.next = at.after_ms(self.pause_ms);
        at
    }

    /// It answered: the pauses are a tenth shorter (some 40 answers from half a second to none). Answers whether that is
    /// the end of the ramp.
    pub fn answered(&mut self) -> bool {
        self.pause_ms = self.pause_ms * 9 / 10;
        self.pause_ms < PAUSE_MIN_MS
    }

    /// It failed: slower again.
    pub fn failed(&mut self) {
        self.pause_ms = (self.pause_ms * 2).min(self.first_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_a_pause_apart_whichever_lane_asks() {
        let mut ramp = Ramp::new(Moment(1_000), 500);
        assert_eq!([0, 0, 0].map(|_| ramp.slot(Moment(1_000))), [Moment(1_500), Moment(2_000), Moment(2_500)]);
        assert_eq!(ramp.slot(Moment(9_000)), Moment(9_000));
    }

    #[test]
    fn answers_make_it_faster_to_the_end_and_a_failure_slower_to_the_first_pause() {
        let mut ramp = Ramp::new(Moment(0), 500);
        let answers = (1..).find(|_| ramp.answered()).expect("it ends");
        assert!((30..50).contains(&answers), "{answers}");
        for _ in 0..10 {
            ramp.failed();
        }
        assert_eq!(ramp.pause_ms, 500);
    }
}
