//! What all lanes know of the remotes together: which of them are down, how fast one that is back may be asked, and how many
//! requests are under way at all.
//!
//! ```text
//!   enter ─▶ breaker ─┬─ open: come back later, nothing is sent
//!                     ├─ somebody probes: wait for what they hear
//!                     └─ go ─▶ ramp (of one that is just back) ─▶ one of FED_DELIVERIES_MAX ─▶ a turn ─▶ what was heard
//! ```
//!
//! It decides neither order nor when a lane tries again: that is the window's. It is this process' knowledge only; with two
//! workers a dead remote costs two probes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use federation::breaker::{Admission, Breaker, Limits, Probe, Report};
use fedstream_lane::{InstanceName, Moment};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

use crate::ramp::Ramp;

/// Remotes on their ramp at a time: some 100 bytes each. One that has little to get stays on it for long.
const RAMPS_MAX: usize = 10_000;

/// The remotes of a process.
pub struct Remotes {
    known: Mutex<Known>,
    /// Counts probes that were heard of.
    probed: watch::Sender<u64>,
    turns: Semaphore,
    ramp_ms: u64,
    began: Instant,
}

struct Known {
    breaker: Breaker,
    ramps: HashMap<InstanceName, Ramp>,
}

/// Whether a request may go.
pub enum Entry<'r> {
    /// It may; what it hears is to be reported.
    Turn(Turn<'r>),
    /// The remote does not answer, and is not asked before so long.
    Closed(Duration),
}

/// One request to one remote. Dropped without a report, it was not made.
pub struct Turn<'r> {
    remotes: &'r Remotes,
    remote: &'r InstanceName,
    probe: Option<Probe>,
    report: Option<Report>,
    _turn: Option<SemaphorePermit<'r>>,
}

impl Remotes {
    /// Nobody is down. At most `at_a_time` requests, and `ramp` between the first two to a remote that is back.
    #[must_use]
    pub fn new(breaker: Limits, at_a_time: usize, ramp: Duration) -> Self {
        Self {
            known: Mutex::new(Known { breaker: Breaker::new(breaker), ramps: HashMap::new() }),
            probed: watch::Sender::new(0),
            turns: Semaphore::new(at_a_time),
            ramp_ms: millis(ramp),
            began: Instant::now(),
        }
    }

    /// Waits until a request to this remote may go, unless that is long.
    pub async fn enter<'r>(&'r self, remote: &'r InstanceName) -> Entry<'r> {
        let mut turn = loop {
            let mut probed = self.probed.subscribe(); // before the question: what is heard after it wakes us
            let now = self.now();
            let admission = self.known().breaker.ask(now, remote);
            match admission {
                Admission::Open { until } => {
                    return Entry::Closed(Duration::from_millis(until.0.saturating_sub(now.0)));
                }
                Admission::Probing { until } => {
                    tokio::select! {
                        Ok(()) = probed.changed() => {}
                        () = self.sleep_until(until) => {}
                    }
                }
                Admission::Go | Admission::Probe(_) => break self.turn(remote, admission.probe()),
            }
        };
        if turn.probe.is_none() {
            let slot = self.known().ramps.get_mut(remote).map(|ramp| ramp.slot(self.now()));
            if let Some(slot) = slot {
                self.sleep_until(slot).await;
            }
        }
        turn._turn = self.turns.acquire().await.ok(); // never closed
        Entry::Turn(turn)
    }

    fn turn<'r>(&'r self, remote: &'r InstanceName, probe: Option<Probe>) -> Turn<'r> {
        Turn { remotes: self, remote, probe, report: None, _turn: None }
    }

    fn heard(&self, remote: &InstanceName, probe: Option<Probe>, report: Report) {
        let now = self.now();
        let mut known = self.known();
        known.breaker.report(now, remote, probe, report, fastrand::u16(..=1000));
        match report {
            Report::Alive if probe.is_some() => {
                tracing::info!(%remote, "a remote answers again");
                if known.ramps.len() >= RAMPS_MAX {
                    known.ramps.clear(); // they are met as any other, once
                }
                known.ramps.insert(remote.clone(), Ramp::new(now, self.ramp_ms));
            }
            Report::Alive => {
                if known.ramps.get_mut(remote).is_some_and(Ramp::answered) {
                    known.ramps.remove(remote);
                }
            }
            Report::Failed | Report::Busy(_) => {
                if let Some(ramp) = known.ramps.get_mut(remote) {
                    ramp.failed();
                }
            }
            Report::NotAsked => {}
        }
        drop(known);
        if probe.is_some() {
            self.probed.send_modify(|count| *count += 1);
        }
    }

    fn now(&self) -> Moment {
        Moment(millis(self.began.elapsed()))
    }

    async fn sleep_until(&self, moment: Moment) {
        tokio::time::sleep_until(self.began + Duration::from_millis(moment.0)).await;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// What the request heard.
    pub fn heard(mut self, report: Report) {
        self.report = Some(report);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.remotes.heard(self.remote, self.probe, self.report.unwrap_or(Report::NotAsked));
    }
}

/// A length of time as the window and the breaker count it.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        failures: 1,
        open_min_ms: 1_000,
        open_max_ms: 1_000,
        busy_max_ms: 1_000,
        probe_max_ms: 60_000,
        remotes_max: 10,
    };

    fn remote() -> InstanceName {
        "a.example".parse().expect("a name")
    }

    async fn turn<'r>(remotes: &'r Remotes, remote: &'r InstanceName) -> Turn<'r> {
        match remotes.enter(remote).await {
            Entry::Turn(turn) => turn,
            Entry::Closed(left) => panic!("closed for {left:?}"),
        }
    }

    async fn is_closed(remotes: &Remotes, remote: &InstanceName) -> bool {
        matches!(remotes.enter(remote).await, Entry::Closed(_))
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_remote_costs_one_probe_whose_result_holds_for_all_its_lanes() {
        let (remotes, a) = (Remotes::new(LIMITS, 10, Duration::ZERO), remote());
        turn(&remotes, &a).await.heard(Report::Failed);
        assert!(is_closed(&remotes, &a).await);
        tokio::time::advance(Duration::from_secs(2)).await;
        let probe = turn(&remotes, &a).await;
        assert!(probe.probe.is_some());
        let (other, ()) = tokio::join!(is_closed(&remotes, &a), async { probe.heard(Report::Failed) });
        assert!(other, "the lane that waited for the probe makes none of its own");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_was_called_off_leaves_its_place_to_the_next() {
        let (remotes, a) = (Remotes::new(LIMITS, 10, Duration::ZERO), remote());
        turn(&remotes, &a).await.heard(Report::Failed);
        tokio::time::advance(Duration::from_secs(2)).await;
        drop(turn(&remotes, &a).await);
        assert!(turn(&remotes, &a).await.probe.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_remote_that_is_back_is_asked_a_pause_apart() {
        let (remotes, a) = (Remotes::new(LIMITS, 10, Duration::from_millis(500)), remote());
        turn(&remotes, &a).await.heard(Report::Failed);
        tokio::time::advance(Duration::from_secs(2)).await;
        turn(&remotes, &a).await.heard(Report::Alive);
        let back = Instant::now();
        let turns = tokio::join!(turn(&remotes, &a), turn(&remotes, &a), turn(&remotes, &a));
        assert!(back.elapsed() >= Duration::from_millis(1_500), "{:?}", back.elapsed());
        drop(turns);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_one_of_the_turns_of_the_process() {
        let (remotes, a) = (Remotes::new(LIMITS, 1, Duration::ZERO), remote());
        let first = turn(&remotes, &a).await;
        let waited = tokio::time::timeout(Duration::from_secs(60), remotes.enter(&a)).await;
        assert!(waited.is_err());
        drop(first);
        turn(&remotes, &a).await.heard(Report::Alive);
    }
}
