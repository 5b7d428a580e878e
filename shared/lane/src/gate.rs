//! The far side of a lane: which activity may go to the instance now.
//!
//! ```text
//!             admit: gate id, origin, epoch          step, for each item, also after every wait
//!   POST ───▶ NewGate / StaleEpoch / OtherOrigin     Stale ◀── a newer epoch was seen
//!             else the floor is noted ──────────────▶ Wait  ◀── another item is at the instance
//!                                                     Wait, then Gap ◀── an earlier batch is missing
//!                                                     Answer ◀── its outcome is remembered, or vouched for
//!                                                     Deliver ──▶ at the instance ──finished──▶ remembered
//! ```
//!
//! One item of a lane is at the instance at a time, whichever POST it came in. An adoption of a new epoch, or a
//! higher floor, takes effect once that item has its outcome. Nothing here is stored: a restart is a new gate id,
//! and what was sent to the old one is void.

use crate::guard::{self, Guard};
use crate::{Answer, Epoch, Final, GateId, Memory, MemoryLimits, Moment, MsgId, Origin, Seq, invariants};

/// Bounds of one gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GateLimits {
    /// What is remembered of the lane.
    pub memory: MemoryLimits,
    /// How long a batch waits for an earlier one, milliseconds.
    pub wait_max_ms: u64,
}

/// The header of a batch, as far as the gate is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    /// The gate that the batch is meant for; none before the sender knows it.
    pub gate: Option<GateId>,
    /// Whose stream the sequences are of.
    pub origin: Origin,
    /// The owner's fencing token.
    pub epoch: Epoch,
    /// Everything up to here is settled at the sender.
    pub floor: Seq,
}

/// Why a batch is not begun.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Meant for another life of the receiver; here is the current one.
    NewGate(GateId),
    /// A later owner is known.
    StaleEpoch(Epoch),
    /// Another site (or, within one epoch, another stream) feeds this lane; nothing tells whose order counts.
    OtherOrigin(Origin),
}

/// An item that wants to go to the instance.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// Epoch of its batch.
    pub epoch: Epoch,
    /// The item that its owner put just before it.
    pub prev: Seq,
    /// Its sequence.
    pub seq: Seq,
    /// Its message id.
    pub msg_id: &'a MsgId,
    /// When its batch began to wait for it: from then on the wait for an earlier batch is bounded.
    pub since: Moment,
}

/// What to do with an item now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Take it to the instance, and call [`ReceiveGate::finished`] with what became of it.
    Deliver,
    /// Its outcome is known.
    Answer(Answer),
    /// Ask again when the gate changed, or at that moment.
    Wait {
        /// When to ask again at the latest; none while the instance has an item (its delivery is bounded).
        until: Option<Moment>,
    },
    /// An earlier batch did not come in time.
    Gap {
        /// The last sequence that had its outcome here: information, never a settlement.
        last: Seq,
    },
    /// A later owner is known.
    Stale(Epoch),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Owner {
    epoch: Epoch,
    origin: Origin,
    floor: Seq,
}

/// The gate of one lane. See the module's picture.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReceiveGate {
    id: GateId,
    limits: GateLimits,
    /// Whose items may be begun.
    owner: Option<Owner>,
    /// What takes effect once the instance is free: a newer owner, or the same one with a higher floor.
    coming: Option<Owner>,
    /// The highest sequence that had its outcome, or was vouched for, in the owner's epoch.
    last: Seq,
    at_instance: Option<(Epoch, Seq, MsgId)>,
    memory: Memory,
}

impl ReceiveGate {
    /// A gate that knows nothing, in the receiver's life `id`.
    #[must_use]
    pub fn new(id: GateId, limits: GateLimits) -> Self {
        Self {
            id,
            limits,
            owner: None,
            coming: None,
            last: Seq(0),
            at_instance: None,
            memory: Memory::new(limits.memory),
        }
    }

    /// May this batch come in? A newer epoch is adopted, a higher floor noted; both take effect when the instance
    /// has no item of this lane.
    ///
    /// # Errors
    /// Why not; nothing of the batch may be begun.
    pub fn admit(&mut self, head: &Head) -> Result<(), Refusal> {
        if head.gate != Some(self.id) && guard::holds(Guard::GateId) {
            return Err(Refusal::NewGate(self.id));
        }
        if let Some(known) = self.newest() {
            if known.origin.site != head.origin.site && guard::holds(Guard::Origin) {
                return Err(Refusal::OtherOrigin(known.origin.clone()));
            }
            if head.epoch < known.epoch && guard::holds(Guard::EpochAtAdmission) {
                return Err(Refusal::StaleEpoch(known.epoch));
            }
            if head.epoch == known.epoch && head.origin != known.origin && guard::holds(Guard::Origin) {
                return Err(Refusal::OtherOrigin(known.origin.clone()));
            }
        }
        let floor = match self.newest() {
            Some(known) if known.epoch == head.epoch => known.floor.max(head.floor),
            _ => head.floor,
        };
        self.coming = Some(Owner { epoch: head.epoch, origin: head.origin.clone(), floor });
        self.settle_coming();
        invariants::gate(self);
        Ok(())
    }

    /// What to do with an item now. Ask for each item, and again after every wait.
    pub fn step(&mut self, now: Moment, visit: &Visit<'_>) -> Step {
        match self.newest() {
            Some(known) if visit.epoch < known.epoch && guard::holds(Guard::EpochBeforeEachItem) => {
                return Step::Stale(known.epoch);
            }
            Some(known) => debug_assert!(visit.epoch <= known.epoch, "an item whose batch was not admitted"),
            None => debug_assert!(false, "an item whose batch was not admitted"),
        }
        if self.at_instance.is_some() && guard::holds(Guard::OneAtTheInstance) {
            return Step::Wait { until: None };
        }
        if visit.prev > self.last && guard::holds(Guard::GapCheck) {
            let until = visit.since.after_ms(self.limits.wait_max_ms);
            return if now >= until { Step::Gap { last: self.last } } else { Step::Wait { until: Some(until) } };
        }
        if let Some(answer) = self.memory.recall(visit.seq, visit.msg_id).filter(|_| guard::holds(Guard::Memory)) {
            let answer = answer.clone();
            if guard::holds(Guard::MemoryMovesLast) {
                self.last = self.last.max(visit.seq);
            }
            return Step::Answer(repeated(answer));
        }
        let vouched = self.owner.as_ref().is_some_and(|owner| visit.seq <= owner.floor);
        if vouched && guard::holds(Guard::FloorVouches) {
            return Step::Answer(Answer::vouched());
        }
        self.at_instance = Some((visit.epoch, visit.seq, visit.msg_id.clone()));
        invariants::gate(self);
        Step::Deliver
    }

    /// The item at the instance has its outcome: a final one, or none (it will be tried again).
    ///
    /// # Panics
    /// When no item is at the instance: the caller finished something that it did not begin.
    pub fn finished(&mut self, answer: Option<Answer>) {
        #[expect(clippy::expect_used, reason = "a caller's bug, named in the docs")]
        let (epoch, seq, msg_id) = self.at_instance.take().expect("finished without an item at the instance");
        if let Some(answer) = answer {
            self.memory.remember(seq, msg_id, answer);
            if self.owner.as_ref().is_some_and(|owner| owner.epoch == epoch) {
                self.last = self.last.max(seq);
            }
        }
        self.settle_coming();
        invariants::gate(self);
    }

    /// The receiver's life that this gate belongs to.
    #[must_use]
    pub fn id(&self) -> GateId {
        self.id
    }

    /// The highest epoch seen.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.newest().map(|owner| owner.epoch)
    }

    /// Where the sequences come from.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.newest().map(|owner| &owner.origin)
    }

    /// The highest sequence that had its outcome, or was vouched for, in the current epoch.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.last
    }

    /// Epoch and sequence of the item that is at the instance.
    #[must_use]
    pub fn at_instance(&self) -> Option<(Epoch, Seq)> {
        self.at_instance.as_ref().map(|(epoch, seq, _)| (*epoch, *seq))
    }

    /// What is remembered.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Is an adoption or a floor still waiting for the instance?
    #[must_use]
    pub fn has_coming(&self) -> bool {
        self.coming.is_some()
    }

    fn newest(&self) -> Option<&Owner> {
        self.coming.as_ref().or(self.owner.as_ref())
    }

    fn settle_coming(&mut self) {
        if self.at_instance.is_some() && guard::holds(Guard::AdoptionWaits) {
            return;
        }
        let Some(coming) = self.coming.take() else { return };
        let adopted = self.owner.as_ref().is_none_or(|owner| owner.epoch < coming.epoch);
        if adopted && guard::holds(Guard::LastBelongsToItsEpoch) {
            self.last = coming.floor;
        } else if guard::holds(Guard::FloorMovesLast) {
            self.last = self.last.max(coming.floor);
        }
        self.owner = Some(coming);
    }
}

/// A repeat of something delivered is a duplicate; a repeat of something refused stays refused, so that its copy gets
/// parked.
fn repeated(answer: Answer) -> Answer {
    if answer.outcome.park_reason().is_some() && guard::holds(Guard::RefusedIsNoDuplicate) {
        return answer;
    }
    Answer { outcome: Final::Duplicate, ..answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: GateId = GateId(7);
    const NOW: Moment = Moment(1_000);

    fn gate() -> ReceiveGate {
        let memory = MemoryLimits { items: 100, bytes: 100_000 };
        ReceiveGate::new(ID, GateLimits { memory, wait_max_ms: 50 })
    }

    fn head(epoch: u64, floor: u64) -> Head {
        Head {
            gate: Some(ID),
            origin: Origin { site: "near".into(), created_us: 1 },
            epoch: Epoch(epoch),
            floor: Seq(floor),
        }
    }

    fn step_at(gate: &mut ReceiveGate, now: Moment, epoch: u64, prev: u64, seq: u64, msg_id: &str) -> Step {
        let msg_id = MsgId::new(msg_id);
        gate.step(now, &Visit { epoch: Epoch(epoch), prev: Seq(prev), seq: Seq(seq), msg_id: &msg_id, since: NOW })
    }

    fn step(gate: &mut ReceiveGate, epoch: u64, prev: u64, seq: u64) -> Step {
        step_at(gate, NOW, epoch, prev, seq, &format!("m{seq}"))
    }

    fn answer(outcome: Final) -> Answer {
        Answer { outcome, status: if outcome == Final::Rejected { 400 } else { 200 }, body: None }
    }

    fn deliver(gate: &mut ReceiveGate, epoch: u64, prev: u64, seq: u64) {
        assert_eq!(step(gate, epoch, prev, seq), Step::Deliver);
        gate.finished(Some(answer(Final::Delivered)));
    }

    #[test]
    fn a_batch_for_another_life_of_the_receiver_is_void() {
        let mut gate = gate();
        for named in [None, Some(GateId(8))] {
            assert_eq!(gate.admit(&Head { gate: named, ..head(1, 0) }), Err(Refusal::NewGate(ID)));
        }
        assert_eq!(gate.epoch(), None, "a refused batch adopts nothing");
    }

    #[test]
    fn a_stale_epoch_is_refused_and_its_waiting_items_never_start() {
        let mut gate = gate();
        gate.admit(&head(5, 0)).expect("first owner");
        gate.admit(&head(6, 0)).expect("second owner");
        assert_eq!(gate.admit(&head(5, 0)), Err(Refusal::StaleEpoch(Epoch(6))));
        assert_eq!(step(&mut gate, 5, 0, 1), Step::Stale(Epoch(6)));
    }

    #[test]
    fn two_sites_on_one_lane_are_refused() {
        let mut gate = gate();
        gate.admit(&head(5, 0)).expect("first site");
        let other = Origin { site: "far".into(), created_us: 1 };
        assert!(
            matches!(gate.admit(&Head { origin: other, ..head(9, 0) }), Err(Refusal::OtherOrigin(known)) if &*known.site == "near")
        );
    }

    #[test]
    fn a_stream_made_anew_needs_a_new_epoch() {
        let mut gate = gate();
        gate.admit(&head(5, 0)).expect("old stream");
        deliver(&mut gate, 5, 0, 9);
        let anew = Origin { site: "near".into(), created_us: 2 };
        assert!(gate.admit(&Head { origin: anew.clone(), ..head(5, 0) }).is_err());
        gate.admit(&Head { origin: anew, ..head(6, 0) }).expect("new epoch");
        assert_eq!(gate.last(), Seq(0));
        deliver(&mut gate, 6, 0, 1);
        assert_eq!(
            step_at(&mut gate, NOW, 6, 1, 9, "another activity"),
            Step::Deliver,
            "a known sequence with another id is new"
        );
    }

    #[test]
    fn one_item_is_at_the_instance_and_adoption_waits_for_it() {
        let mut gate = gate();
        gate.admit(&head(1, 0)).expect("first owner");
        assert_eq!(step(&mut gate, 1, 0, 3), Step::Deliver);
        gate.admit(&head(2, 0)).expect("second owner");
        assert_eq!(step(&mut gate, 1, 3, 5), Step::Stale(Epoch(2)), "no other item of the old epoch starts");
        assert_eq!(step(&mut gate, 2, 0, 3), Step::Wait { until: None });
        gate.finished(Some(answer(Final::Delivered)));
        assert_eq!(gate.last(), Seq(0), "last belongs to an epoch");
        assert_eq!(
            step(&mut gate, 2, 0, 3),
            Step::Answer(answer(Final::Duplicate)),
            "and the memory answers the repeat"
        );
        assert_eq!(gate.last(), Seq(3));
    }

    #[test]
    fn a_higher_floor_takes_effect_once_the_instance_is_free() {
        let mut gate = gate();
        gate.admit(&head(1, 0)).expect("owner");
        assert_eq!(step(&mut gate, 1, 0, 3), Step::Deliver);
        gate.admit(&head(1, 8)).expect("same owner, further on");
        assert_eq!(gate.last(), Seq(0));
        gate.finished(None);
        assert_eq!(gate.last(), Seq(8));
        gate.admit(&head(1, 2)).expect("a late batch");
        assert_eq!(gate.last(), Seq(8), "a floor never goes back within an epoch");
    }

    #[test]
    fn a_missing_batch_is_waited_for_then_told() {
        let mut gate = gate();
        gate.admit(&head(1, 0)).expect("owner");
        deliver(&mut gate, 1, 0, 2);
        assert_eq!(step(&mut gate, 1, 4, 5), Step::Wait { until: Some(Moment(1_050)) });
        assert_eq!(step_at(&mut gate, Moment(1_050), 1, 4, 5, "m5"), Step::Gap { last: Seq(2) });
        deliver(&mut gate, 1, 2, 4);
        assert_eq!(step(&mut gate, 1, 4, 5), Step::Deliver);
    }

    #[test]
    fn a_repeat_gets_the_outcome_of_the_first_time() {
        let mut gate = gate();
        gate.admit(&head(1, 0)).expect("owner");
        deliver(&mut gate, 1, 0, 2);
        assert_eq!(step(&mut gate, 1, 2, 3), Step::Deliver);
        gate.finished(Some(answer(Final::Rejected)));
        assert_eq!(step(&mut gate, 1, 0, 2), Step::Answer(answer(Final::Duplicate)));
        assert_eq!(
            step(&mut gate, 1, 2, 3),
            Step::Answer(answer(Final::Rejected)),
            "a rejection is never called a duplicate"
        );
    }

    #[test]
    fn what_the_floor_vouches_for_is_a_duplicate_and_what_was_forgotten_is_repeated() {
        let memory = MemoryLimits { items: 1, bytes: 100_000 };
        let mut gate = ReceiveGate::new(ID, GateLimits { memory, wait_max_ms: 50 });
        gate.admit(&head(1, 2)).expect("owner");
        assert_eq!(step(&mut gate, 1, 1, 2), Step::Answer(Answer::vouched()));
        deliver(&mut gate, 1, 2, 3);
        deliver(&mut gate, 1, 3, 4);
        assert_eq!(step(&mut gate, 1, 2, 3), Step::Deliver, "forgotten: a repeat, never a loss");
    }

    #[test]
    fn an_item_without_an_outcome_may_be_tried_again() {
        let mut gate = gate();
        gate.admit(&head(1, 0)).expect("owner");
        assert_eq!(step(&mut gate, 1, 0, 2), Step::Deliver);
        gate.finished(None);
        assert_eq!(gate.last(), Seq(0));
        assert_eq!(step(&mut gate, 1, 0, 2), Step::Deliver);
    }
}
