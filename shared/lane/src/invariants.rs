//! What must always hold, by name, written once.
//!
//! | name | meaning |
//! |---|---|
//! | bounded | what is in flight, and what is remembered, never exceeds its limits |
//! | no-loss | purged means answered 2xx, or a copy acked in FED_PARKED |
//! | prefix | only consecutive settled items are trimmed; no floor passes an unsettled one |
//! | in-order | first final outcomes come in lane order, over epochs and gate lives |
//! | single | at most one item of a lane is at the instance |
//! | fenced | after an epoch is adopted no item of a lower one is begun, over gate lives too |
//! | parked-stays-out | an item that the sender parked is not begun after a later one had its outcome |
//! | once | within one life of the receiver nothing that it remembers an outcome of is begun again |
//! | fresh | nothing is posted past its deadline |
//! | awake | work waiting means that a batch can be posted, an answer is due, or a deadline is set |
//!
//! `bounded`, `prefix`, `single` and `awake` can be seen in one machine and are checked here after every step of a
//! debug build; `no-loss`, `in-order` and `fenced` need both ends and an instance, and are checked in
//! `tests/properties.rs`.

use crate::window::WindowView;
use crate::{Batch, ReceiveGate, SendWindow};

/// Checks a window.
///
/// # Panics
/// In a debug build, with the name of the invariant that does not hold.
pub fn window(window: &SendWindow) {
    if cfg!(debug_assertions) {
        let view: WindowView<'_> = window.view();
        assert!(view.each_in_flight_is_in_one_live_post(), "bounded: {window:?}");
        assert!(view.bytes_add_up(), "bounded: {window:?}");
        assert!(view.sequences_grow_above_the_floor(), "prefix: {window:?}");
        assert!(view.the_head_is_not_settled(), "prefix: {window:?}");
        assert!(view.nothing_passes_a_parked_head(), "parked-stays-out: {window:?}");
        assert!(view.something_will_happen(), "awake: {window:?}");
    }
}

/// Checks a window and the batch that it just made.
///
/// # Panics
/// In a debug build, with the name of the invariant that does not hold.
pub fn posted(window: &SendWindow, batch: &Batch) {
    if cfg!(debug_assertions) {
        assert!(window.view().is_within_the_window(batch), "bounded: {batch:?} of {window:?}");
        assert!(batch.floor <= batch.prev, "prefix: {batch:?}");
    }
}

/// Checks a gate.
///
/// # Panics
/// In a debug build, with the name of the invariant that does not hold.
pub fn gate(gate: &ReceiveGate) {
    if cfg!(debug_assertions) {
        assert!(gate.memory().is_within_limits(), "bounded: {gate:?}");
        assert!(!gate.has_coming() || gate.at_instance().is_some(), "single: an adoption waits for nothing: {gate:?}");
    }
}
