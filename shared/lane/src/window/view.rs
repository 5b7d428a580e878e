//! What the invariants look at in a window.

use super::{SendWindow, State};

/// What the invariants look at.
pub(crate) struct WindowView<'a> {
    pub(super) window: &'a SendWindow,
}

impl WindowView<'_> {
    pub(crate) fn sequences_grow_above_the_floor(&self) -> bool {
        let mut above = self.window.floor;
        self.window.items.iter().all(|item| std::mem::replace(&mut above, item.seq) < item.seq)
    }

    pub(crate) fn in_flight_is_within_a_batch(&self) -> bool {
        let in_flight = || self.window.items.iter().filter(|item| item.state == State::InFlight);
        let (count, bytes) = (in_flight().count(), in_flight().map(|item| item.bytes).sum::<usize>());
        (count == 0 || self.window.in_flight.is_some())
            && count <= self.window.limits.batch_items.max(1)
            && (count <= 1 || bytes <= self.window.limits.batch_bytes)
    }

    pub(crate) fn bytes_add_up(&self) -> bool {
        self.window.items.iter().map(|item| item.bytes).sum::<usize>() == self.window.bytes
    }

    pub(crate) fn the_head_is_not_settled(&self) -> bool {
        self.window.items.front().is_none_or(|item| item.state != State::Settled)
    }

    pub(crate) fn something_will_happen(&self) -> bool {
        let w = self.window;
        let parking = w.is_parking() || w.items.front().is_some_and(|item| item.state == State::Unreadable);
        let waits_in_vain = !w.items.is_empty()
            && !w.draining
            && w.stop.is_none()
            && w.in_flight.is_none()
            && !parking
            && !w.may_post_but_for_backoff();
        !waits_in_vain
    }
}
