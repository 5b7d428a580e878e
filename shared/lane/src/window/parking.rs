//! What leaves the lane undelivered: refused by the instance, in any place; taken out of the way by the sender, at the
//! head only.

use super::{Action, Item, SendWindow, State};
use crate::guard::{self, Guard};
use crate::{Moment, ParkReason, Seq};

impl SendWindow {
    pub(super) fn note_overdue(&mut self, now: Moment) {
        if !guard::holds(Guard::DeadlineBeforePost) {
            return;
        }
        let overdue =
            |item: &&mut Item| item.state == State::Waiting && item.deadline.is_some_and(|deadline| now >= deadline);
        for item in self.items.iter_mut().filter(overdue) {
            item.state = State::Unfit(ParkReason::Expired);
        }
    }

    /// What the instance refused, in any place; what the sender itself takes out of the way, at the head only.
    pub(super) fn next_park(&mut self) -> Option<Action> {
        let refused = self.items.iter_mut().find(|item| matches!(item.state, State::Refused(_)));
        if let Some(item) = refused
            && let State::Refused(reason) = std::mem::replace(&mut item.state, State::Parking)
        {
            return Some(Action::Park { seq: item.seq, reason });
        }
        if self.paused || self.is_draining() || self.purge_first.is_some() {
            return None;
        }
        let (place, reason) = self.unfit_head()?;
        let item = self.items.get_mut(place)?;
        item.state = if guard::holds(Guard::ParkBeforeTrim) { State::Parking } else { State::Settled };
        let seq = item.seq;
        if guard::holds(Guard::PurgeBeforeNext) {
            self.purge_first = Some(seq);
        }
        self.raise_floor();
        Some(Action::Park { seq, reason })
    }

    /// The head, where it is not to be posted any more; and why.
    pub(super) fn unfit_head(&self) -> Option<(usize, ParkReason)> {
        let unfit = |item: &Item| match item.state {
            State::Unfit(reason) => Some(reason),
            State::Waiting => self.unwanted(item.seq),
            _ => None,
        };
        let places = if guard::holds(Guard::OnlyTheHeadIsParked) { 1 } else { self.items.len() };
        self.items.iter().take(places).enumerate().find_map(|(place, item)| {
            let reason = unfit(item)?;
            // What was posted may still have its outcome: one that is parked as well would be told twice.
            (!self.flight.carries(item.seq)).then_some((place, reason))
        })
    }

    pub(super) fn unwanted(&self, seq: Seq) -> Option<ParkReason> {
        if self.operator_parks == Some(seq) {
            return Some(ParkReason::Operator);
        }
        let poison =
            self.evidence.is_some_and(|known| known.seq == seq && known.is_enough(self.limits.poison_attempts));
        poison.then_some(ParkReason::Poison)
    }

    /// Does this item wait, and no POST that was given up still carries it?
    pub(super) fn waits_alone(&self, item: &Item) -> bool {
        item.state == State::Waiting && !self.is_draining() && !self.paused && !self.flight.carries(item.seq)
    }
}
