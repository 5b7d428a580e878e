//! The circuit breaker: a remote that is down is asked by one request at a time, ever more rarely.
//!
//! ```text
//!              failures in a row                    its time has come
//!   closed ───────────────────────▶ open ◀──────── probing: one request goes, the others wait
//!     ▲                               │ time passes   │
//!     └───────────────────────────────┴───────────────┘ an answer
//! ```
//!
//! Pure: time comes in as an argument, jitter as a number. A remote is known here only while it fails, so the many that are
//! well cost nothing; of the failing ones at most so many are, and the one that was heard of least recently is forgotten
//! (which costs a few attempts more). Order and retries are not decided here: this only says whether now is the time.

use std::collections::HashMap;

use fedstream_lane::{Backoff, InstanceName, Moment};

/// When it opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failures in a row that open it.
    pub failures: u32,
    /// For how long it opens first, milliseconds; twice as long after each probe that failed.
    pub open_min_ms: u64,
    /// And at most.
    pub open_max_ms: u64,
    /// A probe of which nothing was heard for so long is not waited for any more: whoever made it is gone.
    pub probe_max_ms: u64,
    /// Failing remotes that are known at a time.
    pub remotes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            failures: 5,
            open_min_ms: 10_000,
            open_max_ms: 15 * 60 * 1000, // a remote that is back is found a quarter of an hour later, at worst
            probe_max_ms: 120_000,       // longer than any attempt with its redirects
            remotes_max: 10_000,
        }
    }
}

/// May this remote be asked now?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Go,
    /// Yes, and by you alone: report what came of it.
    Probe,
    /// Not before this moment.
    Open {
        /// When the next probe may go.
        until: Moment,
    },
    /// Somebody is finding out.
    Probing {
        /// When their probe counts as lost.
        until: Moment,
    },
}

/// What was heard of a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It answers.
    Alive,
    /// It does not, or says that it is ill.
    Failed,
    /// It asks to be left alone for so long, milliseconds.
    Busy(u64),
    /// It was not asked after all: somebody else may.
    NotAsked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failing {
    in_a_row: u32,
    opened: Backoff,
    probe_until: Option<Moment>,
    heard: Moment,
}

/// What is known of failing remotes.
#[derive(Clone, Debug)]
pub struct Breaker {
    limits: Limits,
    failing: HashMap<InstanceName, Failing>,
}

impl Breaker {
    /// With nobody failing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, failing: HashMap::new() }
    }

    /// Whether a request to this remote may go now. [`Admission::Probe`] is given to one at a time.
    pub fn ask(&mut self, now: Moment, remote: &InstanceName) -> Admission {
        let Some(failing) = self.failing.get_mut(remote) else { return Admission::Go };
        let Some(until) = failing.opened.until() else { return Admission::Go };
        if now < until {
            return Admission::Open { until };
        }
        match failing.probe_until {
            Some(until) if now < until => Admission::Probing { until },
            _ => {
                failing.probe_until = Some(now.after_ms(self.limits.probe_max_ms));
                Admission::Probe
            }
        }
    }

    /// What a request came to. `jitter` (0 to 1000) spreads the probes of many remotes.
    pub fn report(&mut self, now: Moment, remote: &InstanceName, report: Report, jitter: u16) {
        let busy_ms = match report {
            Report::Alive => {
                self.failing.remove(remote);
                return;
            }
            Report::NotAsked => {
                if let Some(failing) = self.failing.get_mut(remote) {
                    failing.probe_until = None;
                }
                return;
            }
            Report::Failed => None,
            Report::Busy(ms) => Some(ms),
        };
        self.make_room(remote);
        let limits = self.limits;
        let failing = self.failing.entry(remote.clone()).or_insert_with(|| Failing {
            in_a_row: 0,
            opened: Backoff::new(limits.open_min_ms, limits.open_max_ms, limits.open_max_ms),
            probe_until: None,
            heard: now,
        });
        failing.in_a_row = failing.in_a_row.saturating_add(1);
        failing.heard = now;
        if failing.in_a_row >= limits.failures || busy_ms.is_some() {
            // While it is open already, a request that was under way then changes nothing (see `Backoff::failed`).
            failing.opened.failed(now, busy_ms, jitter);
        }
        failing.probe_until = None;
    }

    /// Failing remotes that are known.
    #[must_use]
    pub fn failing(&self) -> usize {
        self.failing.len()
    }

    fn make_room(&mut self, remote: &InstanceName) {
        if self.failing.len() < self.limits.remotes_max.max(1) || self.failing.contains_key(remote) {
            return;
        }
        // By name among equals, so that a test sees the same each time.
        let oldest = self.failing.iter().min_by_key(|(name, failing)| (failing.heard, *name));
        if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
            self.failing.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { failures: 3, open_min_ms: 100, open_max_ms: 400, probe_max_ms: 50, remotes_max: 2 };

    fn name(text: &str) -> InstanceName {
        text.parse().expect("a name")
    }

    /// One that is open from `now` on for 100 ms.
    fn open(now: Moment, remote: &InstanceName) -> Breaker {
        let mut breaker = Breaker::new(LIMITS);
        for _ in 0..3 {
            assert_eq!(breaker.ask(now, remote), Admission::Go);
            breaker.report(now, remote, Report::Failed, 0);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_answer_closes_it() {
        let a = name("a.example");
        let mut breaker = Breaker::new(LIMITS);
        for _ in 0..10 {
            breaker.report(Moment(0), &a, Report::Failed, 0);
            breaker.report(Moment(0), &a, Report::Failed, 0);
            breaker.report(Moment(0), &a, Report::Alive, 0);
        }
        assert_eq!((breaker.ask(Moment(0), &a), breaker.failing()), (Admission::Go, 0));
        let mut breaker = open(Moment(0), &a);
        assert_eq!(breaker.ask(Moment(99), &a), Admission::Open { until: Moment(100) });
        assert_eq!(breaker.ask(Moment(99), &name("b.example")), Admission::Go);
    }

    #[test]
    fn a_single_probe_goes_and_what_it_hears_decides() {
        let a = name("a.example");
        let mut breaker = open(Moment(0), &a);
        assert_eq!(breaker.ask(Moment(100), &a), Admission::Probe);
        assert_eq!(breaker.ask(Moment(101), &a), Admission::Probing { until: Moment(150) });
        breaker.report(Moment(110), &a, Report::Failed, 0);
        assert_eq!(breaker.ask(Moment(111), &a), Admission::Open { until: Moment(310) }, "twice as long");
        assert_eq!(breaker.ask(Moment(310), &a), Admission::Probe);
        breaker.report(Moment(311), &a, Report::Alive, 0);
        assert_eq!(breaker.ask(Moment(311), &a), Admission::Go);
    }

    #[test]
    fn a_probe_that_is_never_heard_of_again_is_followed_by_another() {
        let a = name("a.example");
        let mut breaker = open(Moment(0), &a);
        assert_eq!(breaker.ask(Moment(100), &a), Admission::Probe);
        assert_eq!(breaker.ask(Moment(149), &a), Admission::Probing { until: Moment(150) });
        assert_eq!(breaker.ask(Moment(150), &a), Admission::Probe);
    }

    #[test]
    fn a_probe_that_was_not_made_leaves_its_place_to_the_next() {
        let a = name("a.example");
        let mut breaker = open(Moment(0), &a);
        assert_eq!(breaker.ask(Moment(100), &a), Admission::Probe);
        breaker.report(Moment(101), &a, Report::NotAsked, 0);
        assert_eq!(breaker.ask(Moment(102), &a), Admission::Probe);
    }

    #[test]
    fn a_busy_remote_is_left_alone_for_as_long_as_it_asks_within_bounds() {
        let a = name("a.example");
        let mut breaker = Breaker::new(LIMITS);
        breaker.report(Moment(0), &a, Report::Busy(300), 0);
        assert_eq!(breaker.ask(Moment(1), &a), Admission::Open { until: Moment(300) });
        let mut breaker = Breaker::new(LIMITS);
        breaker.report(Moment(0), &a, Report::Busy(u64::MAX), 0);
        assert_eq!(breaker.ask(Moment(1), &a), Admission::Open { until: Moment(400) });
    }

    #[test]
    fn the_remote_that_was_heard_of_least_recently_is_forgotten() {
        let mut breaker = Breaker::new(LIMITS);
        for (at, remote) in [(0, "a.example"), (1, "b.example"), (2, "a.example"), (3, "c.example")] {
            breaker.report(Moment(at), &name(remote), Report::Failed, 0);
        }
        assert_eq!(breaker.failing(), 2);
        assert!(!breaker.failing.contains_key(&name("b.example")));
    }

    proptest! {
        /// Whatever is reported: never two probes at a time, never more remotes than the bound, and there is always a
        /// moment at which somebody may go.
        #[test]
        fn one_probe_at_a_time_and_never_stuck(steps in prop::collection::vec((0u8..5, 0u64..120, 0usize..3), 1..200)) {
            let names = ["a.example", "b.example", "c.example"].map(name);
            let mut breaker = Breaker::new(LIMITS);
            let mut now = Moment(0);
            let mut probes = [None::<Moment>; 3];
            for (what, pause, which) in steps {
                now = now.after_ms(pause);
                let remote = &names[which];
                match what {
                    0 => match breaker.ask(now, remote) {
                        Admission::Probe => {
                            prop_assert!(probes[which].is_none_or(|until| now >= until), "two probes");
                            probes[which] = Some(now.after_ms(LIMITS.probe_max_ms));
                        }
                        Admission::Open { until } | Admission::Probing { until } => {
                            prop_assert!(until > now && until <= now.after_ms(LIMITS.open_max_ms));
                        }
                        Admission::Go => {}
                    },
                    1 => { breaker.report(now, remote, Report::Failed, 500); probes[which] = None; }
                    2 => { breaker.report(now, remote, Report::Alive, 500); probes[which] = None; }
                    3 => { breaker.report(now, remote, Report::NotAsked, 500); probes[which] = None; }
                    _ => { breaker.report(now, remote, Report::Busy(70), 500); probes[which] = None; }
                }
                prop_assert!(breaker.failing() <= LIMITS.remotes_max);
                for forgotten in 0..3 {
                    if !breaker.failing.contains_key(&names[forgotten]) { probes[forgotten] = None; }
                }
            }
        }
    }
}
