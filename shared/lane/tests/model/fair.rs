//! From any state on without further faults: does the lane drain?
//!
//! Nobody crashes, nothing is lost, everybody gets a turn. This is `awake` as people mean it: a state from which the fair
//! run does not end is a jam.

use fedstream_lane::{End, Event, Final, PostId, Refusal, Step};

use super::bounds::{Bounds, ParkBy};
use super::far::{Does, place_of, step};
use super::state::{Awaited, Content, State};

/// A fair run of four activities takes some 40 turns; what takes so many goes round in a circle.
const TURNS_MAX: usize = 300;

impl State {
    /// # Errors
    /// The invariant that breaks on the way; `awake` where the lane does not drain.
    pub fn drains(&self, bounds: &Bounds) -> Result<(), &'static str> {
        let mut state = self.clone();
        for _ in 0..TURNS_MAX {
            if let Some(broken) = state.broken {
                return Err(broken);
            }
            if !state.takes_a_turn(bounds) {
                return if state.stream.is_empty() { Ok(()) } else { Err("awake") };
            }
        }
        Err("awake")
    }

    /// One thing that is due; false where nothing is.
    fn takes_a_turn(&mut self, bounds: &Bounds) -> bool {
        if let Some(at) = &self.at_instance {
            let does = will_do(bounds, at.place);
            self.finishes(does);
            return true;
        }
        if let Some(place) = self.copying.iter().find(|place| !self.copies.has(*place)) {
            self.copy_is_stored(place);
            return true;
        }
        if let Some(upto) = self.purging.iter().find(|upto| !self.is_purged(*upto)) {
            self.purges(upto);
            return true;
        }
        let epoch = self.epoch;
        let Some(owner) = self.owner(epoch).filter(|owner| owner.holds) else {
            if self.stream.is_empty() {
                return false;
            }
            self.owners.clear();
            self.is_taken(bounds, bounds.seqs.len());
            return true;
        };
        if let Some(place) = owner.parking.iter().find(|place| self.copies.has(*place)) {
            self.copy_is_acked(bounds, epoch, place);
        } else if owner.trimming.is_some_and(|upto| self.is_purged(upto)) {
            self.purge_is_answered(bounds, epoch, true);
        } else if let Some(post) = owner.awaited.first().map(|awaited| awaited.post) {
            self.is_served(bounds, post);
        } else if self.next_read(bounds, epoch).is_some() {
            self.reads(bounds, epoch);
            self.happens(bounds, epoch, Event::Pause(false));
        } else {
            return false;
        }
        true
    }

    /// The oldest POST goes through, as far as the gate lets it. What was in flight before is lost.
    fn is_served(&mut self, bounds: &Bounds, post: PostId) {
        let epoch = self.epoch;
        let end = match self.owner(epoch).and_then(|owner| owner.awaited.iter().find(|a| a.post == post)) {
            Some(Awaited { content: Some(content), lines, .. }) => {
                self.goes_through(bounds, post, &content.clone(), *lines)
            }
            _ => End::Lost,
        };
        self.post_ends(bounds, epoch, post, end);
    }

    fn goes_through(&mut self, bounds: &Bounds, post: PostId, content: &Content, lines: usize) -> End {
        match self.gate.admit(&content.head()) {
            Ok(()) => self.adopted = self.adopted.max(content.epoch),
            Err(Refusal::NewGate(gate)) => return End::NewGate(gate),
            Err(Refusal::StaleEpoch(known)) => return End::StaleEpoch(known),
            Err(Refusal::OtherOrigin(_)) => return End::Refused { retry_after_ms: None },
        }
        for at in lines..content.items.len() {
            let place = place_of(bounds, content.items[at]);
            let outcome = match step(&mut self.gate, content, at) {
                Step::Answer(answer) => answer.outcome,
                Step::Gap { .. } | Step::Wait { .. } => return End::Gap,
                Step::Stale(known) => return End::StaleEpoch(known),
                Step::Deliver => {
                    self.begins(bounds, content, at, place);
                    let does = will_do(bounds, place);
                    self.finishes(does);
                    match does {
                        Does::Takes => Final::Delivered,
                        Does::Rejects => Final::Rejected,
                        _ => {
                            let (seq, status) = (content.items[at], Some(500));
                            return End::Retry { seq, status, alive: true, retry_after_ms: None };
                        }
                    }
                }
            };
            self.line_comes(bounds, self.epoch, post, outcome);
        }
        End::Done
    }
}

/// What the instance does without a fault: it answers, and poison stays poison.
fn will_do(bounds: &Bounds, place: usize) -> Does {
    if bounds.parked == Some((place, ParkBy::Poison)) {
        return Does::Faults;
    }
    if bounds.rejected == Some(place) { Does::Rejects } else { Does::Takes }
}
