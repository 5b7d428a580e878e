//! The far side: POSTs arrive, items go to the instance, answers set out. And the receiver's restart.

use fedstream_lane::{Answer, Final, GateId, ReceiveGate, Seq, Step, Visit};

use super::bounds::Bounds;
use super::state::{AtInstance, Content, NOW, Places, Sent, State, msg_id, new_gate};

/// What the instance does with an activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Does {
    /// It answers 2xx.
    Takes,
    /// It answers 400.
    Rejects,
    /// Its answer does not come; it has taken it or rejected it.
    AnswersNobody,
    /// It answers 503, or was never reached.
    Fails,
    /// Without another fault it would answer 500 to this one for ever.
    Faults,
}

/// What the gate says to an item of a POST that was let in.
pub fn step(gate: &mut ReceiveGate, content: &Content, at: usize) -> Step {
    let seq = content.items[at];
    let prev = content.prev_of(at);
    gate.step(NOW, &Visit { epoch: content.epoch, prev, seq, msg_id: &msg_id(seq), since: NOW })
}

/// What the instance may do with this activity.
pub fn may_do(bounds: &Bounds, place: usize) -> Vec<Does> {
    let mut may = vec![if bounds.rejected == Some(place) { Does::Rejects } else { Does::Takes }, Does::Fails];
    if bounds.silent {
        may.push(Does::AnswersNobody);
    }
    may
}

/// What may become of a POST that was made.
pub enum Outlook {
    /// It changes nothing, for ever: what is refused stays so in this life, and names the wrong one in the next.
    Void,
    /// It is answered from memory, and changes nothing as long as that forgets nothing.
    Answered,
    /// It may do something, and were it to arrive again, it would come as far as it is.
    ComesAgain,
    /// It may do something, and what was let in of it has come further than it would again.
    Waits,
}

/// Asks a copy of a gate, whose instance is free, what a POST may do there.
pub fn outlook(gate: &ReceiveGate, sent: &Sent) -> Outlook {
    let (content, mut again) = (&sent.content, gate.clone());
    if again.admit(&content.head()).is_ok() {
        if again != *gate {
            return if sent.waits_at.is_some() { Outlook::Waits } else { Outlook::ComesAgain };
        }
        for at in 0..content.items.len() {
            match step(&mut again, content, at) {
                Step::Answer(_) => {}
                _ if sent.waits_at.is_some_and(|waits_at| waits_at > at) => return Outlook::Waits,
                _ => return Outlook::ComesAgain,
            }
        }
        return if again == *gate { Outlook::Answered } else { Outlook::ComesAgain };
    }
    let Some(at) = sent.waits_at.filter(|at| *at < content.items.len()) else { return Outlook::Void };
    if matches!(step(&mut again, content, at), Step::Stale(_)) { Outlook::Void } else { Outlook::Waits }
}

impl State {
    /// A POST arrives, for the first time or again, and is let in or not.
    pub fn arrives(&mut self, content: &Content) {
        if self.gate.admit(&content.head()).is_ok() {
            self.adopted = self.adopted.max(content.epoch);
            self.waits_at(content, 0);
        }
    }

    /// Who waits at this item of a POST asks the gate; where nobody waits, the POST comes once more.
    pub fn serves(&mut self, bounds: &Bounds, index: usize) {
        let Sent { content, waits_at } = self.link[index].clone();
        if waits_at.is_none() {
            self.arrives(&content);
        }
        for at in waits_at.unwrap_or(0)..content.items.len() {
            let place = place_of(bounds, content.items[at]);
            match step(&mut self.gate, &content, at) {
                Step::Deliver => return self.begins(bounds, &content, at, place),
                Step::Answer(answer) => self.tells_outcome(&content, at, place, answer.outcome),
                _ => return,
            }
        }
    }

    pub fn begins(&mut self, bounds: &Bounds, content: &Content, at: usize, place: usize) {
        if self.at_instance.is_some() {
            self.breaks("single");
        }
        if content.epoch < self.adopted {
            self.breaks("fenced");
        }
        let later = (place + 1..bounds.seqs.len()).any(|later| self.finals.has(later));
        if later && self.copies.has(place) && !self.finals.has(place) {
            self.breaks("parked-stays-out");
        }
        if self.known.has(place) && bounds.memory_items >= bounds.seqs.len() {
            self.breaks("once");
        }
        self.at_instance = Some(AtInstance { content: content.clone(), at, place });
    }

    /// The instance is done with the receiver's item. Whoever waits for an answer that is no outcome may get one at any
    /// time: see `Next::PostEnds`.
    pub fn finishes(&mut self, does: Does) {
        let Some(AtInstance { content, at, place }) = self.at_instance.take() else { return };
        match does {
            Does::Takes | Does::Rejects => {
                self.has_final(place);
                self.known.insert(place);
                let outcome = if does == Does::Takes { Final::Delivered } else { Final::Rejected };
                if does == Does::Takes {
                    self.taken.insert(place);
                }
                self.gate.finished(Some(Answer { outcome, status: 0, body: None }));
                self.tells_outcome(&content, at, place, outcome);
            }
            Does::AnswersNobody => {
                self.has_final(place);
                self.gate.finished(None);
            }
            Does::Fails | Does::Faults => self.gate.finished(None),
        }
    }

    /// What a receiver that is gone had at the instance is done there; nobody hears of it.
    pub fn orphan_finishes(&mut self, index: usize, taken: bool) {
        let place = self.orphans.remove(index);
        if taken {
            self.has_final(place);
        }
    }

    /// The receiver starts again: another life, and nothing remembered. What waited in it is gone.
    pub fn receiver_restarts(&mut self, bounds: &Bounds) {
        self.life = GateId(self.life.0 + 1);
        self.gate = new_gate(self.life, bounds);
        self.known = Places::default();
        if let Some(at) = self.at_instance.take() {
            self.orphans.push(at.place);
            self.orphans.sort_unstable();
        }
        for sent in &mut self.link {
            sent.waits_at = None;
        }
    }

    fn has_final(&mut self, place: usize) {
        if !self.finals.has(place) {
            if !self.finals.or(self.copies).contains(Places::first(place)) {
                self.breaks("in-order");
            }
            self.finals.insert(place);
        }
    }

    fn tells_outcome(&mut self, content: &Content, at: usize, place: usize, outcome: Final) {
        // A window without a pause after refusals makes no difference between taken and a duplicate.
        if outcome.park_reason().is_some() {
            self.told_refused.insert(place)
        } else {
            self.told_taken.insert(place)
        }
        self.waits_at(content, at + 1);
    }

    fn waits_at(&mut self, content: &Content, at: usize) {
        if let Some(sent) = self.link.iter_mut().find(|sent| sent.content == *content) {
            sent.waits_at = sent.waits_at.max(Some(at));
        }
    }
}

/// The place in the lane of a sequence.
#[expect(clippy::expect_used, reason = "a model's own sequences")]
pub fn place_of(bounds: &Bounds, seq: Seq) -> usize {
    bounds.seqs.iter().position(|known| *known == seq.0).expect("a sequence of the lane")
}
