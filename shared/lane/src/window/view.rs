//! What the invariants look at in a window.

use super::{Batch, SendWindow, State};
use crate::Seq;

/// What the invariants look at.
pub(crate) struct WindowView<'a> {
    pub(super) window: &'a SendWindow,
}

impl WindowView<'_> {
    pub(crate) fn sequences_grow_above_the_floor(&self) -> bool {
        let mut above = self.window.floor;
        self.window.items.iter().all(|item| std::mem::replace(&mut above, item.seq) < item.seq)
    }

    /// Of a batch that was just made; limits that are lowered later hold for what is posted from then on.
    pub(crate) fn is_within_the_window(&self, batch: &Batch) -> bool {
        let w = self.window;
        let (items, bytes) = w.flight.held();
        let of_batch = |seq: &Seq| w.items.iter().find(|item| item.seq == *seq).map_or(0, |item| item.bytes);
        let batch_bytes: usize = batch.items.iter().map(of_batch).sum();
        let limits = &w.limits;
        w.flight.live() <= limits.posts.max(1)
            && batch.items.len() <= limits.batch_items.max(1)
            && (batch.items.len() <= 1 || batch_bytes <= limits.batch_bytes)
            && (items <= 1 || items <= limits.in_flight_items && bytes <= limits.in_flight_bytes)
    }

    pub(crate) fn each_in_flight_is_in_one_live_post(&self) -> bool {
        let w = self.window;
        w.items.iter().filter(|item| item.state == State::InFlight).all(|item| {
            let live = w.flight.posts.iter().filter(|post| !post.abandoned);
            live.filter(|post| post.unanswered.iter().any(|(seq, _)| *seq == item.seq)).count() == 1
        })
    }

    pub(crate) fn bytes_add_up(&self) -> bool {
        self.window.items.iter().map(|item| item.bytes).sum::<usize>() == self.window.bytes
    }

    pub(crate) fn the_head_is_not_settled(&self) -> bool {
        self.window.items.front().is_none_or(|item| item.state != State::Settled)
    }

    /// Nothing after a parked head is in flight: nothing is posted until it is purged. A POST of items before it may be
    /// open still, where another POST brought their outcome.
    pub(crate) fn nothing_passes_a_parked_head(&self) -> bool {
        let w = self.window;
        let live = w.flight.posts.iter().filter(|post| !post.abandoned);
        let mut in_flight = live.flat_map(|post| &post.unanswered).map(|(seq, _)| *seq);
        w.purge_first.is_none_or(|parked| in_flight.all(|seq| seq < parked))
    }

    pub(crate) fn something_will_happen(&self) -> bool {
        let w = self.window;
        let nothing_wanted = w.items.is_empty() || w.is_draining() || w.paused || w.stop.is_some();
        nothing_wanted
            || !w.flight.is_empty()
            || w.is_parking()
            || w.trimming.is_some()
            || w.trim_due().is_some()
            || w.unfit_head().is_some()
            || w.post_due().is_some()
    }
}
