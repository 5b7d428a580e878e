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
//!
//! A 500 is another matter than no answer: one activity that the remote can't stand gets it each time, while the remote takes
//! all others. So of one lane any number of them in a row counts once. They open it where several lanes are failed on, and
//! where one lane alone is, that lane's own pauses are enough.

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
    /// A remote that asks to be left alone is, for as long as this at most, milliseconds.
    pub busy_max_ms: u64,
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
            busy_max_ms: 60 * 60 * 1000, // what asks for more has made a mistake, or will be asked once an hour
            probe_max_ms: 120_000,       // twice the longest attempt (`attempt::Limits::attempt`)
            remotes_max: 10_000,
        }
    }
}

/// May this remote be asked now?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Go,
    /// Yes, and by you alone: report what came of it, with this.
    Probe(Probe),
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

impl Admission {
    /// What is to be handed to [`Breaker::report`].
    #[must_use]
    pub fn probe(self) -> Option<Probe> {
        if let Self::Probe(probe) = self { Some(probe) } else { None }
    }
}

/// Says whose probe it is: a request that was on its way before must not end another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe(u64);

/// What was heard of a remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It answers.
    Alive,
    /// It does not, or says that it is ill.
    Failed,
    /// It answers, and failed on what this lane sent (500): its own fault, or the activity's. Lanes are told apart by any
    /// number that the caller gives them.
    Fault(u64),
    /// It asks to be left alone for so long, milliseconds.
    Busy(u64),
    /// It was not asked after all: somebody else may.
    NotAsked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failing {
    in_a_row: u32,
    /// The lane that it failed on last, where that was the last that was heard of it.
    fault: Option<u64>,
    opened: Backoff,
    /// What the remote asked for. Only time ends it: an answer to a request from before says nothing against it.
    busy_until: Option<Moment>,
    probe: Option<(Probe, Moment)>,
    heard: Moment,
}

impl Failing {
    /// Until when nobody asks; none where it is closed.
    fn until(&self) -> Option<Moment> {
        self.opened.until().max(self.busy_until)
    }

    /// The probe is over, if it is this one.
    fn give_back(&mut self, probe: Option<Probe>) -> bool {
        let mine = probe.is_some() && self.probe.map(|(probe, _)| probe) == probe;
        if mine {
            self.probe = None;
        }
        mine
    }
}

/// What is known of failing remotes.
#[derive(Clone, Debug)]
pub struct Breaker {
    limits: Limits,
    failing: HashMap<InstanceName, Failing>,
    probes: u64,
}

impl Breaker {
    /// With nobody failing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, failing: HashMap::new(), probes: 0 }
    }

    /// Whether a request to this remote may go now. [`Admission::Probe`] is given to one at a time.
    pub fn ask(&mut self, now: Moment, remote: &InstanceName) -> Admission {
        let Some(failing) = self.failing.get_mut(remote) else { return Admission::Go };
        let Some(until) = failing.until() else { return Admission::Go };
        if now < until {
            return Admission::Open { until };
        }
        match failing.probe {
            Some((_, until)) if now < until => Admission::Probing { until },
            _ => {
                self.probes += 1;
                let probe = Probe(self.probes);
                failing.probe = Some((probe, now.after_ms(self.limits.probe_max_ms)));
                Admission::Probe(probe)
            }
        }
    }

    /// This probe has not gone yet, or goes now: the time after which it counts as lost begins anew, where it does not already.
    pub fn begins(&mut self, now: Moment, remote: &InstanceName, probe: Probe) {
        if let Some((current, until)) = self.failing.get_mut(remote).and_then(|failing| failing.probe.as_mut())
            && *current == probe
        {
            *until = now.after_ms(self.limits.probe_max_ms);
        }
    }

    /// What a request came to, and the probe that it was. `jitter` (0 to 1000) spreads the probes of many remotes.
    ///
    /// Of a request that was let through before it opened, a failure is old news; that the remote answers, or asks to be
    /// left alone, is heard from everybody.
    pub fn report(&mut self, now: Moment, remote: &InstanceName, probe: Option<Probe>, report: Report, jitter: u16) {
        let busy_ms = match report {
            Report::Alive => return self.alive(now, remote),
            Report::NotAsked => {
                if let Some(failing) = self.failing.get_mut(remote) {
                    failing.give_back(probe);
                }
                return;
            }
            Report::Failed | Report::Fault(_) => None,
            Report::Busy(ms) => Some(ms.min(self.limits.busy_max_ms)),
        };
        self.make_room(remote);
        let limits = self.limits;
        let failing = self.failing.entry(remote.clone()).or_insert_with(|| Failing {
            in_a_row: 0,
            fault: None,
            opened: Backoff::new(limits.open_min_ms, limits.open_max_ms, 0),
            busy_until: None,
            probe: None,
            heard: now,
        });
        failing.heard = now;
        let fault = if let Report::Fault(lane) = report { Some(lane) } else { None };
        let once_more = fault.is_some() && failing.fault == fault;
        failing.fault = fault;
        let closed = failing.until().is_none();
        let probed = failing.give_back(probe);
        if probed || closed && !once_more {
            failing.in_a_row = failing.in_a_row.saturating_add(1);
            if failing.in_a_row >= limits.failures {
                failing.opened.failed(now, None, jitter);
            }
        }
        if let Some(ms) = busy_ms {
            failing.busy_until = failing.busy_until.max(Some(now.after_ms(ms)));
        }
    }

    fn alive(&mut self, now: Moment, remote: &InstanceName) {
        let Some(failing) = self.failing.get_mut(remote) else { return };
        if failing.busy_until.is_none_or(|until| now >= until) {
            self.failing.remove(remote);
            return;
        }
        (failing.in_a_row, failing.fault) = (0, None);
        failing.opened.reset();
        failing.probe = None;
    }

    /// Whether what was heard of it last is that it fails.
    #[must_use]
    pub fn is_failing(&self, remote: &InstanceName) -> bool {
        self.failing.contains_key(remote)
    }

    /// Whether nobody may ask it now. It changes nothing: who asks is to [`Breaker::ask`].
    #[must_use]
    pub fn is_open(&self, now: Moment, remote: &InstanceName) -> bool {
        self.failing.get(remote).and_then(Failing::until).is_some_and(|until| now < until)
    }

    /// Remotes that are not asked now, or by one request only.
    #[must_use]
    pub fn down(&self) -> usize {
        self.failing.values().filter(|failing| failing.until().is_some()).count()
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

    const LIMITS: Limits =
        Limits { failures: 3, open_min_ms: 100, open_max_ms: 400, busy_max_ms: 1000, probe_max_ms: 50, remotes_max: 2 };

    fn name(text: &str) -> InstanceName {
        text.parse().expect("a name")
    }

    /// One that is open from `now` on for 100 ms.
    fn open(now: Moment, remote: &InstanceName) -> Breaker {
        let mut breaker = Breaker::new(LIMITS);
        for _ in 0..3 {
            assert_eq!(breaker.ask(now, remote), Admission::Go);
            breaker.report(now, remote, None, Report::Failed, 0);
        }
        breaker
    }

    fn probe(breaker: &mut Breaker, now: Moment, remote: &InstanceName) -> Option<Probe> {
        let admission = breaker.ask(now, remote);
        assert!(admission.probe().is_some(), "{admission:?} is no probe");
        admission.probe()
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_answer_closes_it() {
        let a = name("a.example");
        let mut breaker = Breaker::new(LIMITS);
        for _ in 0..10 {
            breaker.report(Moment(0), &a, None, Report::Failed, 0);
            breaker.report(Moment(0), &a, None, Report::Failed, 0);
            breaker.report(Moment(0), &a, None, Report::Alive, 0);
        }
        assert_eq!((breaker.ask(Moment(0), &a), breaker.failing()), (Admission::Go, 0));
        let mut breaker = open(Moment(0), &a);
        assert_eq!(breaker.ask(Moment(99), &a), Admission::Open { until: Moment(100) });
        assert_eq!((breaker.is_open(Moment(99), &a), breaker.is_open(Moment(100), &a)), (true, false));
        assert_eq!(breaker.ask(Moment(99), &name("b.example")), Admission::Go);
    }

    #[test]
    fn an_activity_that_a_remote_fails_on_does_not_close_it_to_others_and_two_lanes_of_them_do() {
        let a = name("a.example");
        let mut breaker = Breaker::new(LIMITS);
        for _ in 0..100 {
            breaker.report(Moment(0), &a, None, Report::Fault(7), 0);
        }
        assert_eq!((breaker.ask(Moment(0), &a), breaker.down()), (Admission::Go, 0));
        breaker.report(Moment(0), &a, None, Report::Fault(8), 0);
        assert_eq!(breaker.ask(Moment(0), &a), Admission::Go);
        breaker.report(Moment(0), &a, None, Report::Fault(7), 0);
        assert_eq!((breaker.ask(Moment(0), &a), breaker.down()), (Admission::Open { until: Moment(100) }, 1));
    }

    #[test]
    fn a_probe_that_meets_a_fault_is_a_probe_that_failed() {
        let a = name("a.example");
        let mut breaker = open(Moment(0), &a);
        let first = probe(&mut breaker, Moment(100), &a);
        breaker.report(Moment(110), &a, first, Report::Fault(7), 0);
        let second = probe(&mut breaker, Moment(310), &a);
        breaker.report(Moment(311), &a, second, Report::Fault(7), 0);
        assert_eq!(breaker.ask(Moment(312), &a), Admission::Open { until: Moment(711) });
    }

    #[test]
    fn a_single_probe_goes_and_what_it_hears_decides() {
        let a = name("a.example");
        let mut breaker = open(Moment(0), &a);
        let first = probe(&mut breaker, Moment(100), &a);
        assert_eq!(breaker.ask(Moment(101), &a), Admission::Probing { until: Moment(150) });
        breaker.report(Moment(110), &a, first, Report::Failed, 0);
        assert_eq!(breaker.ask(Moment(111), &a), Admission::Open { until: Moment(310) }, "twice as long");
        let second = probe(&mut breaker, Moment(310), &a);
        breaker.report(Moment(311), &a, second, Report::Alive, 0);
        assert_eq!(breaker.ask(Moment(311), &a), Admission::Go);
    }

    #[test]
    fn a_probe_that_is_never_heard_of_again_is_followed_by_another() {
        let a = name("a.example");
        let mut breaker = open(Moment(0), &a);
        let lost = probe(&mut breaker, Moment(100), &a);
        assert_eq!(breaker.ask(Moment(149), &a), Admission::Probing { until: Moment(150) });
        probe(&mut breaker, Moment(150), &a);
        breaker.report(Moment(151), &a, lost, Report::Failed, 0);
        assert_eq!(breaker.ask(Moment(152), &a), Admission::Probing { until: Moment(200) }, "late, and not its turn");
    }

    #[test]
    fn the_time_of_a_probe_begins_when_it_goes() {
        let a = name("a.example");
        let mut breaker = open(Moment(0), &a);
        let waits = breaker.ask(Moment(100), &a).probe().expect("a probe");
        breaker.begins(Moment(140), &a, waits);
        assert_eq!(breaker.ask(Moment(189), &a), Admission::Probing { until: Moment(190) });
        probe(&mut breaker, Moment(190), &a);
        breaker.begins(Moment(200), &a, waits);
        assert_eq!(breaker.ask(Moment(201), &a), Admission::Probing { until: Moment(240) }, "it is another's");
    }

    #[test]
    fn a_probe_that_was_not_made_leaves_its_place_to_the_next() {
        let a = name("a.example");
        let mut breaker = open(Moment(0), &a);
        let first = probe(&mut breaker, Moment(100), &a);
        breaker.report(Moment(101), &a, first, Report::NotAsked, 0);
        probe(&mut breaker, Moment(102), &a);
    }

    #[test]
    fn what_was_on_its_way_before_ends_nobody_elses_probe() {
        let a = name("a.example");
        for late in [Report::Failed, Report::NotAsked] {
            let mut breaker = open(Moment(0), &a);
            probe(&mut breaker, Moment(100), &a);
            breaker.report(Moment(101), &a, None, late, 0);
            assert_eq!(breaker.ask(Moment(102), &a), Admission::Probing { until: Moment(150) }, "{late:?}");
        }
    }

    #[test]
    fn a_busy_remote_is_left_alone_for_as_long_as_it_asks_within_bounds() {
        let a = name("a.example");
        for (asked, until) in [(300, 300), (900, 900), (u64::MAX, 1000)] {
            let mut breaker = Breaker::new(LIMITS);
            breaker.report(Moment(0), &a, None, Report::Busy(asked), 0);
            assert_eq!(breaker.ask(Moment(1), &a), Admission::Open { until: Moment(until) });
        }
    }

    #[test]
    fn what_a_busy_remote_asked_for_is_heard_while_it_is_open_and_no_late_answer_takes_it_back() {
        let a = name("a.example");
        let mut breaker = open(Moment(0), &a);
        breaker.report(Moment(10), &a, None, Report::Busy(500), 0);
        assert_eq!(breaker.ask(Moment(11), &a), Admission::Open { until: Moment(510) });
        breaker.report(Moment(12), &a, None, Report::Alive, 0);
        assert_eq!(breaker.ask(Moment(13), &a), Admission::Open { until: Moment(510) });
        breaker.report(Moment(510), &a, None, Report::Alive, 0);
        assert_eq!((breaker.ask(Moment(510), &a), breaker.failing()), (Admission::Go, 0));
    }

    #[test]
    fn the_remote_that_was_heard_of_least_recently_is_forgotten() {
        let mut breaker = Breaker::new(LIMITS);
        for (at, remote) in [(0, "a.example"), (1, "b.example"), (2, "a.example"), (3, "c.example")] {
            breaker.report(Moment(at), &name(remote), None, Report::Failed, 0);
        }
        assert_eq!(breaker.failing(), 2);
        assert!(!breaker.failing.contains_key(&name("b.example")));
    }

    /// What a test knows of a remote beside the breaker.
    #[derive(Clone, Copy, Default)]
    struct Known {
        probe: Option<(Probe, Moment)>,
        busy_until: Option<Moment>,
    }

    /// What happens, and after how long. One remote has most of it, failures are frequent and pauses short: else it is never
    /// open with a probe on its way and somebody late.
    fn step() -> impl Strategy<Value = (bool, u8, bool, u64, usize, u64)> {
        let pause = prop_oneof![5 => 0u64..10, 2 => 0u64..120];
        let which = prop_oneof![10 => Just(0usize), 1 => 1usize..3];
        (any::<bool>(), 0u8..8, any::<bool>(), pause, which, 0u64..1500)
    }

    proptest! {
        /// Whatever is reported, by the probe or by requests from before: never two probes at a time, never a request before
        /// the end of what the remote asked for, never more remotes than the bound, and there is always a moment at which
        /// somebody may go.
        #[test]
        fn one_probe_at_a_time_and_never_stuck(
            steps in prop::collection::vec(step(), 1..300)
        ) {
            let names = ["a.example", "b.example", "c.example"].map(name);
            let mut breaker = Breaker::new(LIMITS);
            let mut now = Moment(0);
            let mut known = [Known::default(); 3];
            for (what, heard, by_probe, pause, which, busy_ms) in steps {
                now = now.after_ms(pause);
                let remote = &names[which];
                let of = &mut known[which];
                let probing = of.probe.filter(|(_, until)| now < *until).is_some();
                let busy = of.busy_until.is_some_and(|until| now < until);
                if what {
                    let admission = breaker.ask(now, remote);
                    prop_assert!(!(probing || busy) || !matches!(admission, Admission::Go | Admission::Probe(_)),
                        "{admission:?} beside a probe ({probing}) or before its time ({busy})");
                    match admission {
                        Admission::Probe(probe) => of.probe = Some((probe, now.after_ms(LIMITS.probe_max_ms))),
                        Admission::Open { until } | Admission::Probing { until } => {
                            prop_assert!(until > now && until <= now.after_ms(LIMITS.open_max_ms.max(LIMITS.busy_max_ms)));
                        }
                        Admission::Go => {}
                    }
                } else {
                    let probe = of.probe.filter(|_| by_probe).map(|(probe, _)| probe);
                    let report = match heard {
                        0 => Report::Alive,
                        1 => Report::NotAsked,
                        2 => Report::Busy(busy_ms),
                        3 | 4 => Report::Fault(busy_ms % 2),
                        _ => Report::Failed,
                    };
                    breaker.report(now, remote, probe, report, 500);
                    if probe.is_some() || report == Report::Alive {
                        of.probe = None;
                    }
                    if matches!(report, Report::Busy(_)) {
                        of.busy_until = of.busy_until.max(Some(now.after_ms(busy_ms.min(LIMITS.busy_max_ms))));
                    }
                }
                prop_assert!(breaker.failing() <= LIMITS.remotes_max);
                for (name, of) in names.iter().zip(&mut known) {
                    if !breaker.failing.contains_key(name) {
                        prop_assert!(of.busy_until.is_none_or(|until| now >= until) || breaker.failing() == LIMITS.remotes_max,
                            "forgotten before its time, with room");
                        *of = Known::default();
                    }
                }
            }
        }
    }
}
