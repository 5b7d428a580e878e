//! The next batch: when it may go, and what is in it.

use super::flight::{Cancel, Post};
use super::{Batch, Item, SendWindow, State};
use crate::guard::{self, Guard};
use crate::{Moment, Seq, invariants};

/// What bounds a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Its own limits.
    Full,
    /// What waits.
    Waiting,
    /// What is in flight already.
    Window,
}

impl SendWindow {
    /// Single items are tried until one has an outcome.
    pub(super) fn is_probing(&self) -> bool {
        self.backoff.failures() > 0 || self.is_paused_by_rejections()
    }

    /// When the next batch may go; none where nothing may go before something happens.
    pub(super) fn post_due(&self) -> Option<Moment> {
        if self.is_draining() || self.paused || self.stop.is_some() || self.purge_first.is_some() {
            return None;
        }
        // A broker that does not trim would let the lane run away from it, and all of it would come again.
        if self.trim_failed && self.settled_untrimmed >= self.limits.items as u64 {
            return None;
        }
        let live = self.flight.live();
        let careful = self.is_probing() || self.gate_unproven || self.gate.is_none();
        let most = if careful { 1 } else { self.posts_allowed };
        if live >= most || self.is_paused_by_rejections() && !self.flight.is_empty() {
            return None;
        }
        let (_, cut) = self.next_items()?;
        let patient = match cut {
            _ if live == 0 => Moment(0),
            Cut::Full => Moment(0),
            Cut::Waiting => self.linger_until,
            // Some of what is in flight has its outcome soon; a batch of what little fits now would cost a crossing.
            Cut::Window => return None,
        };
        Some(patient.max(self.rate_until).max(self.backoff.until().unwrap_or_default()))
    }

    /// The places of the next batch's items, and what bounds it; none where none may go. An empty batch asks for the gate.
    fn next_items(&self) -> Option<(Vec<usize>, Cut)> {
        let may_go = |item: &Item| item.state == State::Waiting && self.unwanted(item.seq).is_none();
        let blocks =
            |item: &Item| matches!(item.state, State::Unfit(_)) || item.state == State::Waiting && !may_go(item);
        let first = self.items.iter().position(|item| may_go(item) || blocks(item))?;
        if self.items.get(first).is_some_and(blocks) {
            return None;
        }
        if self.gate.is_none() {
            return Some((vec![], Cut::Full));
        }
        let (held_items, held_bytes) = self.flight.held();
        let most = self.batch_most();
        let (mut places, mut bytes) = (Vec::new(), 0);
        for (place, item) in self.items.iter().enumerate().skip(first) {
            match item.state {
                State::Waiting if may_go(item) => {}
                State::Settled | State::Refused(_) | State::Parking => continue, // had its outcome: nothing overtakes it
                State::Waiting | State::Unfit(_) | State::InFlight => break,
            }
            if places.len() >= most || !places.is_empty() && bytes + item.bytes > self.limits.batch_bytes {
                return Some((places, Cut::Full));
            }
            let fits = held_items + places.len() < self.limits.in_flight_items
                && held_bytes + bytes + item.bytes <= self.limits.in_flight_bytes;
            // An item that is larger than the window goes alone.
            if !fits && held_items + places.len() > 0 {
                return (!places.is_empty()).then_some((places, Cut::Window));
            }
            places.push(place);
            bytes += item.bytes;
        }
        let cut = if places.len() >= most { Cut::Full } else { Cut::Waiting };
        (!places.is_empty()).then_some((places, cut))
    }

    fn batch_most(&self) -> usize {
        if self.is_probing() {
            return 1;
        }
        // With a rate, a batch is what the rate allows in a second: no burst at the instance.
        let by_rate =
            self.limits.rate_per_s.map_or(usize::MAX, |rate| usize::try_from(rate.get()).unwrap_or(usize::MAX));
        self.batch_items.min(by_rate).max(1)
    }

    pub(super) fn form_batch(&mut self, now: Moment) -> Batch {
        let places = self.next_items().map(|(places, _)| places).unwrap_or_default();
        let prev = match places.first() {
            Some(0) | None => self.floor,
            Some(first) if guard::holds(Guard::PrevIsTheItemBefore) => self.items[first - 1].seq,
            Some(first) => Seq(self.items[*first].seq.0 - 1),
        };
        let id = self.flight.free_id();
        let mut unanswered = Vec::with_capacity(places.len());
        for place in places {
            let item = &mut self.items[place];
            item.state = State::InFlight;
            unanswered.push((item.seq, item.bytes));
        }
        if let Some(rate) = self.limits.rate_per_s {
            let takes_ms = unanswered.len() as u64 * 1000 / u64::from(rate.get());
            self.rate_until = self.rate_until.max(now).after_ms(takes_ms);
        }
        self.linger_until = now.after_ms(self.limits.linger_ms);
        let items: Vec<Seq> = unanswered.iter().map(|(seq, _)| *seq).collect();
        let (size, cancel) = (items.len(), Cancel::No);
        self.flight.posts.push(Post { id, unanswered, size, answered: false, abandoned: false, cancel });
        let batch = Batch { post: id, gate: self.gate, floor: self.floor, prev, items };
        invariants::posted(self, &batch);
        batch
    }
}
