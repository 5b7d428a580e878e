//! The gates of all lanes in one life of this process, and the pure [`ReceiveGate`] made fit for many tasks: a lock
//! that is never held across an await, and a signal to everybody who waits that something changed.
//!
//! A gate is never taken away while the process lives: with it would go the lane's epoch, and a late batch of an
//! owner long replaced would be let in again. So the number of lanes is bounded instead.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fedstream_lane::{Answer, Epoch, GateId, GateLimits, Head, Lane, Moment, ReceiveGate, Refusal, Seq, Step, Visit};
use serde_json::{Value, json};
use tokio::sync::watch;

/// All gates.
#[derive(Debug)]
pub struct Gates {
    id: GateId,
    limits: GateLimits,
    lanes_max: usize,
    lanes: Mutex<HashMap<Lane, Arc<LaneGate>>>,
}

/// Why a batch is not begun.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The gate says so.
    #[error("the gate refused")]
    Refused(Refusal),
    /// A lane too many.
    #[error("{0} lanes are known, and FED_LANES_MAX allows no more")]
    TooManyLanes(usize),
}

/// A batch that was let in.
#[derive(Debug)]
pub struct Admitted {
    /// Its lane's gate.
    pub gate: Arc<LaneGate>,
    /// Is its owner a new one?
    pub adopted: bool,
}

impl Gates {
    /// No lane yet, in a life of its own.
    #[must_use]
    pub fn new(limits: GateLimits, lanes_max: usize) -> Self {
        Self { id: random_id(), limits, lanes_max, lanes: Mutex::default() }
    }

    /// This life of the process.
    #[must_use]
    pub fn id(&self) -> GateId {
        self.id
    }

    /// Lets a batch in, or says why not. A batch that is refused leaves nothing behind.
    ///
    /// # Errors
    /// The gate's refusal, or no room for another lane.
    pub fn admit(&self, lane: &Lane, head: &Head) -> Result<Admitted, Error> {
        let mut lanes = lock(&self.lanes);
        let known = lanes.get(lane).cloned();
        let gate = known.clone().unwrap_or_else(|| Arc::new(LaneGate::new(self.id, self.limits)));
        let adopted = gate.admit(head).map_err(Error::Refused)?;
        if known.is_none() {
            if lanes.len() >= self.lanes_max {
                return Err(Error::TooManyLanes(self.lanes_max));
            }
            lanes.insert(lane.clone(), gate.clone());
        }
        Ok(Admitted { gate, adopted })
    }

    /// What is known of each lane, for `/lanes`.
    #[must_use]
    pub fn page(&self) -> Value {
        let mut lanes: Vec<_> = lock(&self.lanes).iter().map(|(lane, gate)| (lane.clone(), gate.clone())).collect();
        lanes.sort_by(|a, b| a.0.cmp(&b.0));
        let lanes: Vec<Value> = lanes.iter().map(|(lane, gate)| gate.page(lane)).collect();
        json!({ "gate": self.id.to_string(), "lanes": lanes })
    }
}

/// The gate of one lane.
#[derive(Debug)]
pub struct LaneGate {
    gate: Mutex<ReceiveGate>,
    changed: watch::Sender<()>,
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
    fn new(id: GateId, limits: GateLimits) -> Self {
        Self { gate: Mutex::new(ReceiveGate::new(id, limits)), changed: watch::Sender::new(()) }
    }

    /// Signals every change from now on: taken before [`LaneGate::step`], none is missed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What to do with an item now.
    #[must_use]
    pub fn step(self: &Arc<Self>, now: Moment, visit: &Visit<'_>) -> Turn {
        match lock(&self.gate).step(now, visit) {
            Step::Deliver => Turn::Deliver(AtInstance { gate: Some(self.clone()) }),
            Step::Answer(answer) => Turn::Answer(answer),
            Step::Wait { until } => Turn::Wait(until),
            Step::Gap { last } => Turn::Gap(last),
            Step::Stale(epoch) => Turn::Stale(epoch),
        }
    }

    /// Says whether the head brought a new epoch.
    fn admit(&self, head: &Head) -> Result<bool, Refusal> {
        let adopted = {
            let mut gate = lock(&self.gate);
            let before = gate.epoch();
            gate.admit(head)?;
            gate.epoch() != before
        };
        // A new epoch ends the waiting of the old one's batches, a higher floor that of its own.
        self.changed.send_replace(());
        Ok(adopted)
    }

    fn finished(&self, answer: Option<Answer>) {
        lock(&self.gate).finished(answer);
        self.changed.send_replace(());
    }

    fn page(&self, lane: &Lane) -> Value {
        let gate = lock(&self.gate);
        json!({
            "lane": lane.to_string(),
            "epoch": gate.epoch().map(|epoch| epoch.0),
            "origin": gate.origin().map(ToString::to_string),
            "last": gate.last().0,
            "at_instance": gate.at_instance().map(|(_, seq)| seq.0),
            "remembered": gate.memory().len(),
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

    /// The item's final outcome, or none: it will be tried again.
    pub fn finish(mut self, answer: Option<Answer>) {
        if let Some(gate) = self.gate.take() {
            gate.finished(answer);
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

/// A number that no other life of a receiver has. The standard library keys its hash maps from the operating system's
/// randomness; a hash of nothing under such keys is 64 bits of it.
fn random_id() -> GateId {
    GateId(RandomState::new().build_hasher().finish())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in the pure machine is a bug of one step; the other lanes and the next step go on.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_lane::{Final, MemoryLimits, MsgId, Origin};

    fn gates(lanes_max: usize) -> Gates {
        Gates::new(GateLimits { memory: MemoryLimits { items: 10, bytes: 10_000 }, wait_max_ms: 50 }, lanes_max)
    }

    fn lane(source: &str) -> Lane {
        Lane { destination: "b.example".parse().expect("name"), source: source.parse().expect("name") }
    }

    fn head(gates: &Gates, epoch: u64) -> Head {
        let origin = Origin { site: "near".into(), created_us: 1 };
        Head { gate: Some(gates.id()), origin, epoch: Epoch(epoch), floor: Seq(0) }
    }

    fn step(gate: &Arc<LaneGate>, seq: u64) -> Turn {
        let msg_id = MsgId::new("m");
        gate.step(Moment(0), &Visit { epoch: Epoch(1), prev: Seq(0), seq: Seq(seq), msg_id: &msg_id, since: Moment(0) })
    }

    #[test]
    fn each_life_has_an_id_of_its_own() {
        assert_ne!(gates(1).id(), gates(1).id());
    }

    #[test]
    fn a_refused_batch_takes_no_room() {
        let gates = gates(1);
        let unknowing = Head { gate: None, ..head(&gates, 1) };
        for source in ["a.example", "c.example"] {
            let refusal = gates.admit(&lane(source), &unknowing).expect_err("unknowing");
            assert_eq!(refusal, Error::Refused(Refusal::NewGate(gates.id())));
        }
        assert!(gates.admit(&lane("a.example"), &head(&gates, 1)).expect("first").adopted);
        assert!(!gates.admit(&lane("a.example"), &head(&gates, 1)).expect("again").adopted);
        assert_eq!(gates.admit(&lane("c.example"), &head(&gates, 1)).expect_err("second lane"), Error::TooManyLanes(1));
        assert_eq!(gates.page()["lanes"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn an_item_whose_task_vanishes_frees_the_instance_and_wakes_the_others() {
        let gates = gates(1);
        let gate = gates.admit(&lane("a.example"), &head(&gates, 1)).expect("admitted").gate;
        let Turn::Deliver(at_instance) = step(&gate, 1) else { panic!("free") };
        let changes = gate.changes();
        assert!(matches!(step(&gate, 1), Turn::Wait(None)));
        drop(at_instance);
        assert!(changes.has_changed().expect("the gate is there"));
        let Turn::Deliver(at_instance) = step(&gate, 1) else { panic!("free again") };
        at_instance.finish(Some(Answer { outcome: Final::Delivered, status: 202, body: None }));
        assert!(matches!(step(&gate, 1), Turn::Answer(Answer { outcome: Final::Duplicate, status: 202, .. })));
    }

    #[test]
    fn a_new_owner_wakes_those_who_wait() {
        let gates = gates(1);
        let gate = gates.admit(&lane("a.example"), &head(&gates, 1)).expect("first").gate;
        let changes = gate.changes();
        assert!(gates.admit(&lane("a.example"), &head(&gates, 2)).expect("second").adopted);
        assert!(changes.has_changed().expect("the gate is there"));
        assert!(matches!(step(&gate, 1), Turn::Stale(Epoch(2))));
    }
}
