//! How long to leave a failing destination alone.

use crate::Moment;

/// Exponential backoff with jitter, bounded, reset by progress. Failures while it runs count as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backoff {
    min_ms: u64,
    max_ms: u64,
    retry_after_max_ms: u64,
    failures: u32,
    until: Option<Moment>,
}

impl Backoff {
    /// Waits `min_ms` after the first failure and twice as long after each further one, to `max_ms`; a Retry-After
    /// is honoured up to `retry_after_max_ms`.
    #[must_use]
    pub fn new(min_ms: u64, max_ms: u64, retry_after_max_ms: u64) -> Self {
        Self { min_ms: min_ms.max(1), max_ms: max_ms.max(min_ms).max(1), retry_after_max_ms, failures: 0, until: None }
    }

    /// A backoff whose delays are over as they begin: for a model, which fires every timer and whose clock stands still.
    #[must_use]
    pub fn over_at_once() -> Self {
        Self { min_ms: 0, max_ms: 0, retry_after_max_ms: 0, failures: 0, until: None }
    }

    /// A failure at `now`. `jitter` (0 to 1000) takes up to half of the delay off, so that lanes that failed together
    /// don't come back together.
    pub fn failed(&mut self, now: Moment, retry_after_ms: Option<u64>, jitter: u16) {
        if !self.is_due(now) {
            return;
        }
        let doubled = self.min_ms.saturating_mul(1 << self.failures.min(32));
        let full = doubled.min(self.max_ms);
        let jittered = full - full / 2 * u64::from(jitter.min(1000)) / 1000;
        let asked = retry_after_ms.unwrap_or(0).min(self.retry_after_max_ms);
        if self.failures == 0 || doubled < self.max_ms {
            self.failures += 1; // beyond the longest delay one more makes no difference, and a model's states stay few
        }
        self.until = Some(now.after_ms(jittered.max(asked)));
    }

    /// Something was settled: the next failure starts from the shortest delay. A delay that was asked for goes on.
    pub fn progressed(&mut self) {
        self.failures = 0;
    }

    /// As if nothing had failed.
    pub fn reset(&mut self) {
        self.failures = 0;
        self.until = None;
    }

    /// May the next attempt start at `now`?
    #[must_use]
    pub fn is_due(&self, now: Moment) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    /// When the next attempt may start, where that is not now.
    #[must_use]
    pub fn until(&self) -> Option<Moment> {
        self.until
    }

    /// Failures in a row, counted up to the longest delay.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(backoff: &mut Backoff, now: u64, retry_after: Option<u64>, jitter: u16) -> u64 {
        backoff.failed(Moment(now), retry_after, jitter);
        backoff.until().expect("failed").0 - now
    }

    #[test]
    fn it_doubles_to_its_bound_and_progress_resets_it() {
        let mut backoff = Backoff::new(100, 1000, 5000);
        let mut now = 0;
        let mut delays = vec![];
        for _ in 0..6 {
            let d = delay(&mut backoff, now, None, 0);
            now += d;
            delays.push(d);
        }
        assert_eq!(delays, [100, 200, 400, 800, 1000, 1000]);
        backoff.progressed();
        assert_eq!(backoff.until(), Some(Moment(now)), "what was asked for goes on");
        assert_eq!(delay(&mut backoff, now, None, 0), 100);
    }

    #[test]
    fn jitter_shortens_by_at_most_half_and_retry_after_is_bounded() {
        assert_eq!(delay(&mut Backoff::new(100, 1000, 5000), 0, None, 1000), 50);
        assert_eq!(delay(&mut Backoff::new(100, 1000, 5000), 0, Some(3000), 0), 3000);
        assert_eq!(delay(&mut Backoff::new(100, 1000, 5000), 0, Some(u64::MAX), 0), 5000);
    }

    #[test]
    fn failures_within_one_backoff_count_once() {
        let mut backoff = Backoff::new(100, 1000, 5000);
        backoff.failed(Moment(0), None, 0);
        backoff.failed(Moment(50), None, 0);
        assert_eq!((backoff.failures(), backoff.until()), (1, Some(Moment(100))));
    }
}
