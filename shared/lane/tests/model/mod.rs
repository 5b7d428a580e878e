//! A model of a whole lane: owners in turn, lease, stream, FED_PARKED, link, gate and instance.
//!
//! ```text
//!   stream ─reads─▶ owner 1 (paused for ever, or gone) ─┐                         ┌─▶ instance, and what goes on there
//!     ▲             owner 2 (holds the lease) ──────────┴▶ link ─arrives─▶ gate ──┤   for a receiver that is gone
//!   purges, copies ◀─ on their way ─┘   ◀── lines and closing lines ── link ◀─────┘
//! ```
//!
//! `SendWindow` and `ReceiveGate` are the ones that the services run. The link is a growing set: what was sent once may
//! arrive at any time and any number of times, and what is lost never arrives. So are copies and purges on their way: an
//! owner that was paused goes on acting through them. Timers fire whenever they like.
//!
//! What keeps it small, and why nothing is missed by it. An owner handles an event and does all that follows in one step:
//! what it does only sets out. An owner whose lease ended is dropped where its very window says that it stops, whatever
//! it gets to know first. A POST that can't change anything at the receiver any more is dropped: a copy of the gate is
//! asked. And the link back is larger than life: an outcome that any POST was told may reach each POST that carries the
//! item, and that nothing came of an item (lost, gap, retry) may be told at any time.

mod bounds;
mod fair;
mod far;
mod near;
pub mod report;
mod state;

use std::any::Any;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use fedstream_lane::guard::Guard;
use fedstream_lane::{End, Epoch, Event, Final, GateId, PostId, Seq};
use stateright::{Model, Property};

pub use bounds::{Bounds, ParkBy};
use far::Does;
use state::{Awaited, Content, Owner, State};

/// The invariants that the model watches, by name.
pub const INVARIANTS: [&str; 10] =
    ["no-loss", "prefix", "in-order", "single", "fenced", "parked-stays-out", "bounded", "awake", "once", "fresh"];

/// A model.
#[derive(Clone, Debug)]
pub struct Lane(pub Bounds);

/// What happens next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    IsTaken { reads: usize },
    LeaseEnds(Epoch),
    Wakes(Epoch),
    Crashes(Epoch),
    Reads(Epoch),
    Operator(Epoch),
    DeadlinePasses,
    LineComes { epoch: Epoch, post: PostId, outcome: Final },
    PostEnds { epoch: Epoch, post: PostId, end: End },
    CopyIsStored(usize),
    CopyIsAcked(Epoch, usize),
    Purges(usize),
    PurgeIsAnswered { epoch: Epoch, done: bool },
    Arrives(Content),
    Serves(usize),
    Finishes(Does),
    OrphanFinishes { index: usize, taken: bool },
    ReceiverRestarts,
}

impl Model for Lane {
    type State = State;
    type Action = Next;

    fn init_states(&self) -> Vec<State> {
        let mut state = State::new(&self.0);
        if self.0.reads_all {
            state.is_taken(&self.0, self.0.seqs.len());
        }
        vec![state]
    }

    fn actions(&self, state: &State, next: &mut Vec<Next>) {
        if state.broken.is_none() {
            self.near(state, next);
            self.far(state, next);
        }
    }

    fn next_state(&self, last: &State, next: Next) -> Option<State> {
        let mut state = last.clone();
        let done = self.guarded(|| {
            catch_unwind(AssertUnwindSafe(|| {
                self.apply(&mut state, next);
                state.tidy(&self.0, last);
            }))
        });
        if let Err(panic) = done {
            state.broken = Some(invariant_of(&*panic));
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn whole(state: &State, name: &'static str) -> bool {
            state.broken != Some(name)
        }
        vec![
            Property::always("no-loss", |lane: &Lane, state: &State| {
                let all = state::Places::first(lane.0.seqs.len());
                whole(state, "no-loss") && state.stream.or(state.taken).or(state.copies).contains(all)
            }),
            Property::always("prefix", |_, state| whole(state, "prefix")),
            Property::always("in-order", |_, state| whole(state, "in-order")),
            Property::always("single", |_, state| whole(state, "single")),
            Property::always("fenced", |_, state| whole(state, "fenced")),
            Property::always("parked-stays-out", |_, state| whole(state, "parked-stays-out")),
            Property::always("bounded", |_, state| whole(state, "bounded")),
            Property::always("awake", |lane: &Lane, state| whole(state, "awake") && lane.drains(state)),
            Property::always("once", |_, state| whole(state, "once")),
            Property::always("fresh", |_, state| whole(state, "fresh")),
            // An assertion of the machines that is no invariant by name.
            Property::always("sound", |_, state| whole(state, "sound")),
        ]
    }
}

impl Lane {
    /// Runs with the rule taken away that the bounds name.
    fn guarded<T>(&self, run: impl FnOnce() -> T) -> T {
        #[cfg(feature = "mutants")]
        if let Some(guard) = self.0.without {
            return fedstream_lane::guard::without(guard, run);
        }
        run()
    }

    fn drains(&self, state: &State) -> bool {
        let one_in = self.0.drains_from_one_in;
        if one_in == 0 || state.broken.is_some() {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        if one_in > 1 {
            state.hash(&mut hasher);
        }
        if one_in > 1 && !hasher.finish().is_multiple_of(one_in) {
            return true;
        }
        // What another invariant has to say on the way is found by the model itself, where its bounds reach so far.
        self.guarded(|| catch_unwind(AssertUnwindSafe(|| state.drains(&self.0)))).is_ok_and(|drained| drained.is_ok())
    }

    fn near(&self, state: &State, next: &mut Vec<Next>) {
        let bounds = &self.0;
        if state.may_be_taken(bounds) && state.epoch.0 < bounds.owners {
            let fewest = if bounds.reads_all { bounds.seqs.len() } else { 1 };
            next.extend((fewest..=bounds.seqs.len()).map(|reads| Next::IsTaken { reads }));
        }
        for owner in &state.owners {
            let epoch = owner.epoch;
            next.push(Next::Crashes(epoch));
            if owner.paused {
                next.push(Next::Wakes(epoch));
                continue;
            }
            if owner.holds {
                next.push(Next::LeaseEnds(epoch));
            }
            if !bounds.reads_all && state.next_read(bounds, epoch).is_some() {
                next.push(Next::Reads(epoch));
            }
            if matches!(bounds.parked, Some((_, ParkBy::Operator))) && !owner.told {
                next.push(Next::Operator(epoch));
            }
            let acked = owner.parking.and(state.copies);
            next.extend(acked.iter().map(|place| Next::CopyIsAcked(epoch, place)));
            if let Some(upto) = owner.trimming {
                if state.is_purged(upto) {
                    next.push(Next::PurgeIsAnswered { epoch, done: true });
                }
                if bounds.purge_fails {
                    next.push(Next::PurgeIsAnswered { epoch, done: false });
                }
            }
            for awaited in &owner.awaited {
                self.comes_back(state, owner, awaited, next);
            }
        }
        if matches!(bounds.parked, Some((_, ParkBy::Deadline))) && !state.late {
            next.push(Next::DeadlinePasses);
        }
        next.extend(state.copying.iter().map(Next::CopyIsStored));
        next.extend(state.purging.iter().map(Next::Purges));
    }

    /// What an owner may get to know of a POST. That nothing came of it may be told at any time: it covers each moment at
    /// which the receiver might have said so.
    fn comes_back(&self, state: &State, owner: &Owner, awaited: &Awaited, next: &mut Vec<Next>) {
        let (epoch, post) = (owner.epoch, awaited.post);
        let mut ends = vec![End::Lost];
        match awaited.items.get(awaited.lines) {
            None if awaited.lines > 0 => ends.push(End::Done),
            None => {}
            Some(seq) => {
                let place = far::place_of(&self.0, *seq);
                if state.told_taken.has(place) {
                    next.push(Next::LineComes { epoch, post, outcome: Final::Delivered });
                }
                if state.told_refused.has(place) {
                    next.push(Next::LineComes { epoch, post, outcome: Final::Rejected });
                }
                ends.push(End::Gap);
                ends.push(End::Retry { seq: *seq, status: None, alive: false, retry_after_ms: None });
                if self.0.parked == Some((place, ParkBy::Poison)) {
                    ends.push(End::Retry { seq: *seq, status: Some(500), alive: true, retry_after_ms: None });
                }
            }
        }
        // A life that a POST names had begun when it was made: only a later one finds it wrong.
        let earliest = awaited.gate.map_or(1, |gate| gate.0 + 1);
        let lives = (earliest..=state.life.0).map(GateId).filter(|_| awaited.lines == 0);
        ends.extend(lives.map(End::NewGate));
        if state.adopted > epoch {
            ends.push(End::StaleEpoch(state.adopted));
        }
        next.extend(ends.into_iter().map(|end| Next::PostEnds { epoch, post, end }));
    }

    fn far(&self, state: &State, next: &mut Vec<Next>) {
        for (index, sent) in state.link.iter().enumerate() {
            next.push(Next::Arrives(sent.content.clone()));
            if state.gate.at_instance().is_none() || self.0.without == Some(Guard::OneAtTheInstance) {
                next.push(Next::Serves(index));
            }
        }
        if let Some(at) = &state.at_instance {
            next.extend(far::may_do(&self.0, at.place).into_iter().map(Next::Finishes));
        }
        for index in 0..state.orphans.len() {
            next.extend([true, false].map(|taken| Next::OrphanFinishes { index, taken }));
        }
        if state.life.0 <= self.0.restarts {
            next.push(Next::ReceiverRestarts);
        }
    }

    fn apply(&self, state: &mut State, next: Next) {
        let bounds = &self.0;
        match next {
            Next::IsTaken { reads } => state.is_taken(bounds, reads),
            Next::LeaseEnds(epoch) => state.lease_ends(epoch),
            Next::Wakes(epoch) => state.wakes(bounds, epoch),
            Next::Crashes(epoch) => state.crashes(epoch),
            Next::Reads(epoch) => {
                state.reads(bounds, epoch);
                state.happens(bounds, epoch, Event::Pause(false)); // nothing but: act on what was read
            }
            Next::Operator(epoch) => {
                if let (Some(owner), Some((place, _))) = (state.owner_mut(epoch), bounds.parked) {
                    owner.told = true;
                    state.happens(bounds, epoch, Event::ParkHead { seq: Seq(bounds.seqs[place]) });
                }
            }
            Next::DeadlinePasses => state.deadline_passes(bounds),
            Next::LineComes { epoch, post, outcome } => state.line_comes(bounds, epoch, post, outcome),
            Next::PostEnds { epoch, post, end } => state.post_ends(bounds, epoch, post, end),
            Next::CopyIsStored(place) => state.copy_is_stored(place),
            Next::CopyIsAcked(epoch, place) => state.copy_is_acked(bounds, epoch, place),
            Next::Purges(upto) => state.purges(upto),
            Next::PurgeIsAnswered { epoch, done } => state.purge_is_answered(bounds, epoch, done),
            Next::Arrives(content) => state.arrives(&content),
            Next::Serves(index) => state.serves(bounds, index),
            Next::Finishes(does) => state.finishes(does),
            Next::OrphanFinishes { index, taken } => state.orphan_finishes(index, taken),
            Next::ReceiverRestarts => state.receiver_restarts(bounds),
        }
    }
}

/// The invariant that an assertion is about: its text begins with the name.
fn invariant_of(panic: &(dyn Any + Send)) -> &'static str {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    let name = text.and_then(|text| text.split(':').next()).unwrap_or_default();
    INVARIANTS.into_iter().find(|known| *known == name).unwrap_or("sound")
}
