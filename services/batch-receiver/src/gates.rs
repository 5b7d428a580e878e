//! The gates of all lanes in one life of this process.
//!
//! A gate is never taken away while the process lives: with it would go the lane's epoch, and a late batch of an
//! owner long replaced would be let in again. So the number of lanes is bounded instead.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fedstream_lane::{GateId, GateLimits, Head, Lane, Profile, Refusal};
use serde_json::{Value, json};

use crate::evidence::FaultyHead;
use crate::lane_gate::LaneGate;

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
    /// Is it the lane's first in this life?
    pub first: bool,
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

    /// Lets a batch in, or says why not. A batch that is refused leaves nothing behind. `profile` is what its answers
    /// will be read by, for the page.
    ///
    /// # Errors
    /// The gate's refusal, or no room for another lane.
    pub fn admit(&self, lane: &Lane, head: &Head, profile: Profile) -> Result<Admitted, Error> {
        let mut lanes = lock(&self.lanes);
        let known = lanes.get(lane).cloned();
        let gate = known.clone().unwrap_or_else(|| Arc::new(LaneGate::new(self.id, self.limits)));
        let adopted = gate.admit(head, profile).map_err(Error::Refused)?;
        let first = known.is_none();
        if first {
            if lanes.len() >= self.lanes_max {
                return Err(Error::TooManyLanes(self.lanes_max));
            }
            lanes.insert(lane.clone(), gate.clone());
        }
        Ok(Admitted { gate, adopted, first })
    }

    /// What is known of each lane, for `/lanes`; `faulty` knows its faulty head.
    #[must_use]
    pub fn page(&self, faulty: impl Fn(&Lane) -> Option<FaultyHead>) -> Value {
        let mut lanes: Vec<_> = lock(&self.lanes).iter().map(|(lane, gate)| (lane.clone(), gate.clone())).collect();
        lanes.sort_by(|a, b| a.0.cmp(&b.0));
        let lanes: Vec<Value> = lanes.iter().map(|(lane, gate)| gate.page(lane, faulty(lane))).collect();
        json!({ "gate": self.id.to_string(), "lanes": lanes })
    }
}

/// A number that no other life of a receiver has. The standard library keys its hash maps from the operating system's
/// randomness; a hash of nothing under such keys is 64 bits of it.
fn random_id() -> GateId {
    GateId(RandomState::new().build_hasher().finish())
}

/// The lock, whatever happened under it before.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic in the pure machine is a bug of one step; the other lanes and the next step go on.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_lane::{Epoch, MemoryLimits, Origin, Seq};

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

    fn admit(gates: &Gates, source: &str, head: &Head) -> Result<Admitted, Error> {
        gates.admit(&lane(source), head, Profile::Lemmy)
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
            let refusal = admit(&gates, source, &unknowing).expect_err("unknowing");
            assert_eq!(refusal, Error::Refused(Refusal::NewGate(gates.id())));
        }
        let tells = |admitted: Result<Admitted, Error>| admitted.map(|admitted| (admitted.adopted, admitted.first));
        assert_eq!(tells(admit(&gates, "a.example", &head(&gates, 1))), Ok((true, true)));
        assert_eq!(tells(admit(&gates, "a.example", &head(&gates, 1))), Ok((false, false)));
        assert_eq!(tells(admit(&gates, "a.example", &head(&gates, 2))), Ok((true, false)));
        assert_eq!(admit(&gates, "c.example", &head(&gates, 1)).expect_err("second lane"), Error::TooManyLanes(1));
        assert_eq!(gates.page(|_| None)["lanes"].as_array().map(Vec::len), Some(1));
    }
}
