//! One lane's gate: the pure [`ReceiveGate`] made fit for many tasks, with a lock that is never held across an await,
//! and a signal to everybody who waits that something changed.
//!
//! Every waiting batch of the lane hears every signal and asks again. They are few, since a sender has a few POSTs of a
//! lane in flight, and asking is a lock and a comparison; telling the right one alone would be a second order to keep.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use fedstream_lane::{
    Answer, Epoch, GateId, GateLimits, Head, Lane, Moment, Profile, ReceiveGate, Refusal, Seq, Step, Visit,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::evidence::FaultyHead;
use crate::gates::lock;
use crate::verdict::Verdict;

/// The gate of one lane.
#[derive(Debug)]
pub struct LaneGate {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// Batches that wait for their turn, or for an earlier one.
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct State {
    gate: ReceiveGate,
    /// Of the batch that was let in last.
    profile: Profile,
    last_outcome: Option<LastOutcome>,
}

/// What the instance said last, for the page.
#[derive(Debug)]
struct LastOutcome {
    seq: Seq,
    outcome: &'static str,
    status: Option<u16>,
    at: SystemTime,
}

/// An item's wait for an earlier batch. It is counted from when the item began to wait, and anew whenever the lane has
/// moved: while an earlier batch is being delivered it is on its way, however long that takes.
#[derive(Debug)]
pub struct Patience {
    since: Moment,
    last: Option<Seq>,
}

impl Patience {
    /// The item begins to wait.
    #[must_use]
    pub fn from(now: Moment) -> Self {
        Self { since: now, last: None }
    }

    fn seen(&mut self, last: Seq, now: Moment) -> Moment {
        if self.last.replace(last).is_some_and(|before| before != last) {
            self.since = now;
        }
        self.since
    }
}

/// Counts a batch as waiting for as long as it is kept.
#[derive(Debug)]
pub struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Is an owner's epoch in force?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// Nothing of an earlier one is at the instance.
    InForce,
    /// Not before the item at the instance has its outcome.
    Coming,
    /// A later owner is known.
    Stale(Epoch),
}

/// What to do with an item now; [`Step`] with the duty to finish what was begun.
#[derive(Debug)]
pub enum Turn {
    /// Take it to the instance.
    Deliver(AtInstance),
    /// Its outcome is known.
    Answer(Answer),
    /// Ask again when the gate changed, or at that moment.
    Wait(Option<Moment>),
    /// An earlier batch did not come in time.
    Gap(Seq),
    /// A later owner is known.
    Stale(Epoch),
}

impl LaneGate {
    /// A gate that knows nothing, in the process's life `id`.
    #[must_use]
    pub fn new(id: GateId, limits: GateLimits) -> Self {
        let state = State { gate: ReceiveGate::new(id, limits), profile: Profile::default(), last_outcome: None };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()), waiting: AtomicUsize::new(0) }
    }

    /// Signals every change from now on: taken before [`LaneGate::step`], none is missed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The caller waits.
    #[must_use]
    pub fn waiting(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(&self.waiting)
    }

    /// What to do with an item now. Since when it waits is in `patience`, whatever the visit says.
    #[must_use]
    pub fn step(self: &Arc<Self>, now: Moment, patience: &mut Patience, visit: &Visit<'_>) -> Turn {
        let (step, moved) = {
            let gate = &mut lock(&self.state).gate;
            let before = gate.last();
            let step = gate.step(now, &Visit { since: patience.seen(before, now), ..*visit });
            (step, gate.last() != before)
        };
        if moved {
            // A remembered outcome moves the lane without the instance: the next batch may have waited for it.
            self.changed.send_replace(());
        }
        match step {
            Step::Deliver => Turn::Deliver(AtInstance { gate: Some(self.clone()) }),
            Step::Answer(answer) => Turn::Answer(answer),
            Step::Wait { until } => Turn::Wait(until),
            Step::Gap { last } => Turn::Gap(last),
            Step::Stale(epoch) => Turn::Stale(epoch),
        }
    }

    /// Is this epoch in force now? If it is coming, ask again when the gate changed.
    #[must_use]
    pub fn adoption(&self, epoch: Epoch) -> Adoption {
        let gate = &lock(&self.state).gate;
        match gate.epoch() {
            Some(known) if epoch < known => Adoption::Stale(known),
            _ if gate.has_coming() => Adoption::Coming,
            _ => Adoption::InForce,
        }
    }

    /// May a batch come in? Says whether its head brought a new epoch.
    ///
    /// # Errors
    /// The gate's refusal.
    pub fn admit(&self, head: &Head, profile: Profile) -> Result<bool, Refusal> {
        let adopted = {
            let state = &mut *lock(&self.state);
            let before = state.gate.epoch();
            state.gate.admit(head)?;
            state.profile = profile;
            state.gate.epoch() != before
        };
        // A new epoch ends the waiting of the old one's batches, a higher floor that of its own.
        self.changed.send_replace(());
        Ok(adopted)
    }

    fn finished(&self, verdict: Option<&Verdict>) {
        {
            let state = &mut *lock(&self.state);
            if let (Some((_, seq)), Some(verdict)) = (state.gate.at_instance(), verdict) {
                let (outcome, status) = (verdict.name(), verdict.status());
                state.last_outcome = Some(LastOutcome { seq, outcome, status, at: SystemTime::now() });
            }
            state.gate.finished(verdict.and_then(Verdict::answer).cloned());
        }
        self.changed.send_replace(());
    }

    /// What is known of the lane.
    #[must_use]
    pub fn page(&self, lane: &Lane, faulty: Option<FaultyHead>) -> Value {
        let State { gate, profile, last_outcome } = &*lock(&self.state);
        let faulty = faulty.map(|head| json!({ "seq": head.seq.0, "attempts": head.attempts, "alive": head.alive }));
        json!({
            "lane": lane.to_string(),
            "profile": profile.as_str(),
            "epoch": gate.epoch().map(|epoch| epoch.0),
            "origin": gate.origin().map(ToString::to_string),
            "last": gate.last().0,
            "at_instance": gate.at_instance().map(|(_, seq)| seq.0),
            "waiting_batches": self.waiting.load(Ordering::Relaxed),
            "last_outcome": last_outcome.as_ref().map(LastOutcome::page),
            "faulty_head": faulty,
            "remembered": gate.memory().len(),
        })
    }
}

impl LastOutcome {
    fn page(&self) -> Value {
        let micros = self.at.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_micros()).ok());
        json!({
            "seq": self.seq.0,
            "outcome": self.outcome,
            "status": self.status,
            "at": micros.and_then(fedstream_wire::from_micros).map(fedstream_wire::rfc3339),
        })
    }
}

/// The lane's one item that is at the instance. Whatever becomes of the task that has it, the gate hears of its end:
/// a gate that waits for ever would hold the lane for ever.
#[derive(Debug)]
#[must_use = "dropped, it says that the item has no outcome"]
pub struct AtInstance {
    gate: Option<Arc<LaneGate>>,
}

impl AtInstance {
    /// For tests that have no gate.
    #[cfg(test)]
    pub fn of_no_gate() -> Self {
        Self { gate: None }
    }

    /// What became of the item.
    pub fn finish(mut self, verdict: &Verdict) {
        if let Some(gate) = self.gate.take() {
            gate.finished(Some(verdict));
        }
    }
}

impl Drop for AtInstance {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.finished(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_lane::{Final, MemoryLimits, MsgId, Origin};

    const ID: GateId = GateId(7);

    fn gate() -> Arc<LaneGate> {
        let memory = MemoryLimits { items: 10, bytes: 10_000 };
        let gate = Arc::new(LaneGate::new(ID, GateLimits { memory, wait_max_ms: 50 }));
        assert_eq!(admit(&gate, 1), Ok(true));
        gate
    }

    fn admit(gate: &LaneGate, epoch: u64) -> Result<bool, Refusal> {
        let origin = Origin { site: "near".into(), created_us: 1 };
        gate.admit(&Head { gate: Some(ID), origin, epoch: Epoch(epoch), floor: Seq(0) }, Profile::Lemmy)
    }

    fn delivered() -> Verdict {
        Verdict::Final(Answer { outcome: Final::Delivered, status: 202, body: None })
    }

    fn step_after(gate: &Arc<LaneGate>, now: u64, patience: &mut Patience, prev: u64, seq: u64) -> Turn {
        let msg_id = MsgId::new(format!("m{seq}"));
        let (now, since) = (Moment(now), Moment(0));
        gate.step(now, patience, &Visit { epoch: Epoch(1), prev: Seq(prev), seq: Seq(seq), msg_id: &msg_id, since })
    }

    fn step(gate: &Arc<LaneGate>, seq: u64) -> Turn {
        step_after(gate, 0, &mut Patience::from(Moment(0)), 0, seq)
    }

    #[test]
    fn an_item_whose_task_vanishes_frees_the_instance_and_wakes_the_others() {
        let gate = gate();
        let Turn::Deliver(at_instance) = step(&gate, 1) else { panic!("free") };
        let changes = gate.changes();
        assert!(matches!(step(&gate, 1), Turn::Wait(None)));
        drop(at_instance);
        assert!(changes.has_changed().expect("the gate is there"));
        let Turn::Deliver(at_instance) = step(&gate, 1) else { panic!("free again") };
        at_instance.finish(&delivered());
        assert!(matches!(step(&gate, 1), Turn::Answer(Answer { outcome: Final::Duplicate, status: 202, .. })));
    }

    #[test]
    fn a_new_owner_wakes_those_who_wait() {
        let gate = gate();
        let changes = gate.changes();
        assert_eq!(admit(&gate, 2), Ok(true));
        assert!(changes.has_changed().expect("the gate is there"));
        assert!(matches!(step(&gate, 1), Turn::Stale(Epoch(2))));
    }

    #[test]
    fn a_remembered_outcome_wakes_those_who_wait_for_it() {
        let gate = gate();
        let Turn::Deliver(at_instance) = step(&gate, 1) else { panic!("free") };
        admit(&gate, 2).expect("a new owner, whose last is its floor");
        at_instance.finish(&delivered());
        let changes = gate.changes();
        let (msg_id, mut patience) = (MsgId::new("m1"), Patience::from(Moment(0)));
        let visit = Visit { epoch: Epoch(2), prev: Seq(0), seq: Seq(1), msg_id: &msg_id, since: Moment(0) };
        assert!(matches!(gate.step(Moment(0), &mut patience, &visit), Turn::Answer(_)));
        assert!(changes.has_changed().expect("the gate is there"));
    }

    #[test]
    fn the_wait_for_an_earlier_batch_is_counted_anew_while_the_lane_moves() {
        let gate = gate();
        let patience = &mut Patience::from(Moment(0));
        assert!(matches!(step_after(&gate, 0, patience, 2, 3), Turn::Wait(Some(Moment(50)))));
        let Turn::Deliver(at_instance) = step(&gate, 1) else { panic!("free") };
        assert!(matches!(step_after(&gate, 60, patience, 2, 3), Turn::Wait(None)), "an earlier batch is there");
        at_instance.finish(&delivered());
        assert!(matches!(step_after(&gate, 70, patience, 2, 3), Turn::Wait(Some(Moment(120)))), "and gets on");
        let Turn::Deliver(at_instance) = step_after(&gate, 80, &mut Patience::from(Moment(80)), 1, 2) else {
            panic!("free")
        };
        at_instance.finish(&Verdict::unanswered("it has to be tried again"));
        assert!(matches!(step_after(&gate, 119, patience, 2, 3), Turn::Wait(Some(Moment(120)))), "that is no progress");
        assert!(matches!(step_after(&gate, 120, patience, 2, 3), Turn::Gap(Seq(1))));
    }

    #[test]
    fn a_new_epoch_is_in_force_once_the_instance_is_free() {
        let gate = gate();
        let Turn::Deliver(at_instance) = step(&gate, 1) else { panic!("free") };
        admit(&gate, 2).expect("second");
        assert_eq!(gate.adoption(Epoch(1)), Adoption::Stale(Epoch(2)));
        assert_eq!(gate.adoption(Epoch(2)), Adoption::Coming);
        at_instance.finish(&delivered());
        assert_eq!(gate.adoption(Epoch(2)), Adoption::InForce);
    }

    #[test]
    fn the_page_tells_what_the_lane_does() {
        let gate = gate();
        let Turn::Deliver(at_instance) = step(&gate, 4) else { panic!("free") };
        let waiting = gate.waiting();
        let lane = Lane { destination: "b.example".parse().expect("name"), source: "a.example".parse().expect("name") };
        let page = || gate.page(&lane, Some(FaultyHead { seq: Seq(4), attempts: 2, alive: true }));
        assert_eq!((&page()["at_instance"], &page()["waiting_batches"]), (&4.into(), &1.into()));
        assert_eq!(page()["last_outcome"], Value::Null);
        drop(waiting);
        at_instance.finish(&Verdict::Retry { status: Some(500), retry_after_s: None, cause: String::new() });
        let page = page();
        assert_eq!((&page["waiting_batches"], &page["profile"]), (&0.into(), &"lemmy".into()));
        assert_eq!(page["faulty_head"], json!({ "seq": 4, "attempts": 2, "alive": true }));
        let last = &page["last_outcome"];
        assert_eq!((&last["seq"], &last["outcome"], &last["status"]), (&4.into(), &"retry".into(), &500.into()));
        assert!(last["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{last}");
    }
}
