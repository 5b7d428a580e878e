//! What all lanes know of the remotes together: which of them are down, how fast one that is back may be asked, and how many
//! requests are under way at all.
//!
//! ```text
//!   enter ─▶ breaker ─┬─ open: come back later, nothing is sent
//!                     ├─ somebody probes, or asks one that nothing was heard of: wait for what they hear
//!                     └─ go ─▶ ramp (of one that is just back) ─▶ one of FED_DELIVERIES_MAX ─▶ a turn ─▶ what was heard
//! ```
//!
//! A remote that fails, or takes long to answer, has its requests counted apart ([`Room`]): many that hang at once are no
//! reason for the others to wait. So has one that nothing was heard of yet ([`crate::strangers`]), which after a start is everybody,
//! and it is asked by one request at a time.
//!
//! It decides neither order nor when a lane tries again: that is the window's. It is this process' knowledge only; with two
//! workers a dead remote costs two probes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use federation::breaker::{Admission, Breaker, Limits, Probe, Report};
use federation::room::{Place, Room};
use fedstream_carrier::FarSide;
use fedstream_lane::{InstanceName, Moment};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::ramp::Ramp;
use crate::strangers::{Meeting, Strangers};

/// Remotes on their ramp at a time: some 100 bytes each. One that has little to get stays on it for long.
const RAMPS_MAX: usize = 10_000;

/// The remotes of a process.
pub struct Remotes {
    known: Mutex<Known>,
    /// Counts probes that were heard of.
    probed: watch::Sender<u64>,
    room: Room,
    ramp_ms: u64,
    /// A probe that waits for room says so this often: well before it counts as lost.
    probe_waits: Duration,
    began: Instant,
}

struct Known {
    breaker: Breaker,
    ramps: HashMap<InstanceName, Ramp>,
    strangers: Strangers,
}

impl Known {
    /// Whether a request may go now; and what it is to its remote, where that is for it to say.
    fn ask(&mut self, now: Moment, remote: &InstanceName) -> (Admission, Meeting) {
        let admission = self.breaker.ask(now, remote);
        let meeting = if admission == Admission::Go { self.strangers.meet(remote) } else { Meeting::Known };
        (admission, meeting)
    }
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
    /// It is the only one.
    meets: bool,
    report: Option<Report>,
    place: Option<Place<'r>>,
}

impl Remotes {
    /// Nobody is down. At most `at_a_time` requests, and `ramp` between the first two to a remote that is back.
    #[must_use]
    pub fn new(breaker: Limits, at_a_time: usize, ramp: Duration) -> Self {
        let probe_waits = Duration::from_millis(breaker.probe_max_ms / 2);
        let breaker = Breaker::new(breaker);
        Self {
            known: Mutex::new(Known { breaker, ramps: HashMap::new(), strangers: Strangers::default() }),
            probed: watch::Sender::new(0),
            room: Room::new(at_a_time),
            ramp_ms: millis(ramp),
            probe_waits,
            began: Instant::now(),
        }
    }

    /// Waits until a request to this remote may go, unless that is long.
    pub async fn enter<'r>(&'r self, remote: &'r InstanceName) -> Entry<'r> {
        let mut turn = loop {
            let mut probed = self.probed.subscribe(); // before the question: what is heard after it wakes us
            let now = self.now();
            let (admission, meeting) = self.known().ask(now, remote);
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
                Admission::Go | Admission::Probe(_) => match meeting {
                    Meeting::Later(over) => over.cancelled().await,
                    Meeting::First => break self.turn(remote, admission.probe(), true),
                    Meeting::Known => break self.turn(remote, admission.probe(), false),
                },
            }
        };
        if turn.probe.is_none() {
            let slot = self.known().ramps.get_mut(remote).map(|ramp| ramp.slot(self.now()));
            if let Some(slot) = slot {
                self.sleep_until(slot).await;
            }
        }
        let place = self.place(remote, &turn).await;
        turn.place = Some(place);
        Entry::Turn(turn)
    }

    /// Waits for room. A probe that waits is none that was lost, however long that takes: its own time begins when it goes.
    async fn place<'r>(&'r self, remote: &InstanceName, turn: &Turn<'r>) -> Place<'r> {
        let fails = self.known().breaker.is_failing(remote);
        let place = async {
            match turn.meets && !fails {
                true => self.room.meet().await,
                false => self.room.enter(fails).await,
            }
        };
        let Some(probe) = turn.probe else { return place.await };
        tokio::pin!(place);
        loop {
            let waited = tokio::time::timeout(self.probe_waits, &mut place).await;
            self.known().breaker.begins(self.now(), remote, probe);
            if let Ok(place) = waited {
                return place;
            }
        }
    }

    fn turn<'r>(&'r self, remote: &'r InstanceName, probe: Option<Probe>, meets: bool) -> Turn<'r> {
        Turn { remotes: self, remote, probe, meets, report: None, place: None }
    }

    /// What is known of a remote, whichever lane leads there.
    #[must_use]
    pub fn far_side(&self, remote: &InstanceName) -> FarSide {
        let (now, known) = (self.now(), self.known());
        match known.breaker.is_failing(remote) {
            false => FarSide::Well,
            true if known.breaker.is_open(now, remote) => FarSide::Closed,
            true => FarSide::Failing,
        }
    }

    /// Remotes that are not asked now, or by one request only.
    #[must_use]
    pub fn down(&self) -> usize {
        self.known().breaker.down()
    }

    fn heard(&self, remote: &InstanceName, probe: Option<Probe>, meets: bool, report: Report) {
        let now = self.now();
        let mut known = self.known();
        if matches!(report, Report::Alive | Report::Fault(_) | Report::Busy(_)) {
            known.strangers.answers(remote);
        }
        let over = if meets { known.strangers.over(remote) } else { None };
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
            Report::Failed | Report::Fault(_) | Report::Busy(_) => {
                if let Some(ramp) = known.ramps.get_mut(remote) {
                    ramp.failed();
                }
            }
            Report::NotAsked => {}
        }
        drop(known);
        if let Some(over) = over {
            over.cancel();
        }
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
    /// Makes the request that it is for.
    pub async fn during<T>(&mut self, request: impl Future<Output = T>) -> T {
        match &mut self.place {
            Some(place) => place.during(request).await,
            None => request.await,
        }
    }

    /// What the request heard.
    pub fn heard(mut self, report: Report) {
        self.report = Some(report);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.remotes.heard(self.remote, self.probe, self.meets, self.report.unwrap_or(Report::NotAsked));
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

    async fn answers(remotes: &Remotes, remote: &InstanceName) {
        turn(remotes, remote).await.heard(Report::Alive);
    }

    async fn hangs(remotes: &Remotes, remote: &InstanceName, time: Duration) {
        let mut turn = turn(remotes, remote).await;
        turn.during(tokio::time::sleep(time)).await;
        turn.heard(Report::Failed);
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
    async fn a_probe_that_waits_long_for_room_counts_and_nobody_makes_a_second_one() {
        let (remotes, a, b) = (Remotes::new(LIMITS, 1, Duration::ZERO), remote(), "b.example".parse().expect("a name"));
        for remote in [&a, &b] {
            turn(&remotes, remote).await.heard(Report::Failed);
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        let in_the_way = turn(&remotes, &b).await;
        let asks = async || match remotes.enter(&a).await {
            Entry::Turn(turn) => {
                turn.heard(Report::Failed);
                true
            }
            Entry::Closed(_) => false,
        };
        let (first, second, ()) = tokio::join!(asks(), asks(), async {
            tokio::time::sleep(Duration::from_millis(LIMITS.probe_max_ms * 5 / 2)).await;
            drop(in_the_way);
        });
        assert_eq!((first, second), (true, false), "one request of the two lanes");
        assert!(is_closed(&remotes, &a).await, "and its failure counts");
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
    async fn many_lanes_of_a_remote_that_is_back_after_hours_are_let_in_ever_faster_and_not_at_once() {
        const LANES: usize = 40;
        let (remotes, a) = (Remotes::new(LIMITS, 256, Duration::from_millis(500)), remote());
        turn(&remotes, &a).await.heard(Report::Failed);
        tokio::time::advance(Duration::from_secs(6 * 60 * 60)).await;
        let back = Instant::now();
        let asked = Mutex::new(Vec::new());
        // Each has ten deliveries that waited, and the remote takes 50 ms for one.
        let lane = async || {
            for _ in 0..10 {
                let mut turn = turn(&remotes, &a).await;
                asked.lock().expect("nobody panicked").push(back.elapsed());
                turn.during(tokio::time::sleep(Duration::from_millis(50))).await;
                turn.heard(Report::Alive);
            }
        };
        let lanes: [_; LANES] = std::array::from_fn(|_| lane());
        futures::future::join_all(lanes).await;
        let asked = asked.into_inner().expect("nobody panicked");
        let within = |from: u64, to: u64| asked.iter().filter(|at| (from..to).contains(&at.as_secs())).count();
        assert_eq!(asked.len(), 10 * LANES);
        assert!(within(0, 5) <= 11, "two a second at first: {}", within(0, 5));
        let took = asked.last().expect("many").as_secs();
        assert!(within(took - 2, took + 1) > 100, "at full speed in the end, after {took} s: {asked:?}");
        assert!(remotes.known().ramps.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn remotes_that_begin_to_hang_together_hold_the_others_up_for_seconds_only() {
        let remotes = Remotes::new(LIMITS, 8, Duration::ZERO);
        let well: InstanceName = "well.example".parse().expect("a name");
        let hanging: Vec<InstanceName> =
            (0..8).map(|number| format!("hangs{number}.example").parse().expect("a name")).collect();
        for remote in hanging.iter().chain([&well]) {
            answers(&remotes, remote).await;
        }
        let began = Instant::now();
        let hang = async |remote| hangs(&remotes, remote, Duration::from_secs(60)).await;
        let asks = async {
            tokio::time::sleep(Duration::from_millis(1)).await; // behind them
            for _ in 0..10 {
                let mut turn = turn(&remotes, &well).await;
                turn.during(tokio::time::sleep(Duration::from_millis(100))).await;
                turn.heard(Report::Alive);
            }
            began.elapsed()
        };
        let (took, _) = tokio::join!(asks, futures::future::join_all(hanging.iter().map(hang)));
        assert!(took < Duration::from_secs(10), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_one_of_the_turns_of_the_process() {
        let (remotes, a) = (Remotes::new(LIMITS, 1, Duration::ZERO), remote());
        answers(&remotes, &a).await;
        let first = turn(&remotes, &a).await;
        let waited = tokio::time::timeout(Duration::from_secs(60), remotes.enter(&a)).await;
        assert!(waited.is_err());
        drop(first);
        turn(&remotes, &a).await.heard(Report::Alive);
    }

    #[tokio::test(start_paused = true)]
    async fn a_remote_that_nothing_was_heard_of_is_asked_by_one_request_at_a_time_until_it_answers() {
        let (remotes, a) = (Remotes::new(Limits { failures: 5, ..LIMITS }, 10, Duration::ZERO), remote());
        let is_let_in = async || tokio::time::timeout(Duration::from_secs(60), turn(&remotes, &a)).await.is_ok();
        let first = turn(&remotes, &a).await;
        assert!(!is_let_in().await);
        first.heard(Report::Failed);
        let second = turn(&remotes, &a).await;
        assert!(!is_let_in().await, "that it failed is no answer");
        drop(second); // called off
        let third = turn(&remotes, &a).await;
        let (next, ()) = tokio::join!(turn(&remotes, &a), async { third.heard(Report::Fault(1)) });
        let other = tokio::time::timeout(Duration::from_secs(60), turn(&remotes, &a)).await;
        assert!(other.is_ok(), "it answers, be it well or not");
        drop((next, other));
        assert_eq!(remotes.known().strangers.asked(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_remote_that_is_well_waits_for_none_of_the_many_that_do_not_answer_after_a_start() {
        let remotes = Remotes::new(Limits { remotes_max: 1_000, ..LIMITS }, 4, Duration::ZERO);
        let name = |text: String| text.parse::<InstanceName>().expect("a name");
        let (well, late) = (name("well.example".to_owned()), name("late.example".to_owned()));
        let dead: Vec<InstanceName> = (0..20).map(|number| name(format!("dead{number}.example"))).collect();
        answers(&remotes, &well).await;
        let began = Instant::now();
        let asks = async |remote, times: u32| {
            tokio::time::sleep(Duration::from_millis(1)).await; // behind them
            for _ in 0..times {
                let mut turn = turn(&remotes, remote).await;
                turn.during(tokio::time::sleep(Duration::from_millis(100))).await;
                turn.heard(Report::Alive);
            }
            began.elapsed()
        };
        // Four lanes of each, as long as a connection is waited for.
        let lanes = dead.iter().flat_map(|remote| [remote; 4]);
        let dead = lanes.map(async |remote| {
            if let Entry::Turn(mut turn) = remotes.enter(remote).await {
                turn.during(tokio::time::sleep(Duration::from_secs(10))).await;
                turn.heard(Report::Failed);
            }
        });
        let (of_well, of_late, _) = tokio::join!(asks(&well, 20), asks(&late, 1), futures::future::join_all(dead));
        assert!(of_well < Duration::from_secs(3), "its own time: {of_well:?}");
        let once_each = Duration::from_secs(20 / 2 * 10);
        assert!(of_late < once_each, "a stranger waits for one request of each: {of_late:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_far_side_is_closed_from_the_failures_that_open_it_to_the_moment_of_its_probe() {
        let (remotes, a) = (Remotes::new(Limits { failures: 2, ..LIMITS }, 4, Duration::ZERO), remote());
        assert_eq!(remotes.far_side(&a), FarSide::Well);
        turn(&remotes, &a).await.heard(Report::Failed);
        assert_eq!(remotes.far_side(&a), FarSide::Failing);
        turn(&remotes, &a).await.heard(Report::Failed);
        assert_eq!(remotes.far_side(&a), FarSide::Closed);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(remotes.far_side(&a), FarSide::Failing);
        answers(&remotes, &a).await;
        assert_eq!(remotes.far_side(&a), FarSide::Well);
    }
}
