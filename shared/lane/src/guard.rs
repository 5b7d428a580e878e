//! The rules without which a lane loses, jams or reorders something, by name, so that a test can take each one away.
//!
//! Every rule stands at its place in the machines as `guard::holds(Guard::X)`, which is `true` and costs nothing. The
//! crate `lane-mutants` compiles the same sources with the feature `mutants`; there [`without`] takes one rule away for
//! a test, which then shows the invariant that breaks (`shared/lane-mutants/tests/mutations.rs`).

/// One rule. DESIGN section 5; those with a star there were found by leaving them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    // The sender's.
    /// `prev` is the item that this owner put just before, or the floor; never the first item's sequence less one.
    PrevIsTheItemBefore,
    /// Each item is settled by its own line only.
    OwnLine,
    /// A refused item is settled when its copy is acked, not when the instance refused it.
    CopyBeforeSettled,
    /// The floor, and with it every trim, moves over consecutive settled items only.
    PrefixTrim,
    /// Retries, gaps and errors of an abandoned POST don't count.
    AbandonedEndsAreVoid,
    /// What had no final outcome is posted again.
    RewindOnRetry,
    /// What the sender parks itself is the head of its lane.
    OnlyTheHeadIsParked,
    /// The head leaves the stream only when its copy is acked.
    ParkBeforeTrim,
    /// Nothing after a parked head is posted until the purge of it is acked.
    PurgeBeforeNext,
    /// The lease is looked at before each POST, and nothing is done without one.
    LeaseBeforePost,
    /// An item past its deadline is not posted.
    DeadlineBeforePost,
    // The gate's.
    /// What was sent to another life of the receiver is void.
    GateId,
    /// A lower epoch than one that was seen is refused.
    EpochAtAdmission,
    /// The epoch is looked at again before each item.
    EpochBeforeEachItem,
    /// Two sites, or two streams within one epoch, don't share a lane.
    Origin,
    /// An item whose predecessor had no outcome here waits.
    GapCheck,
    /// One item of a lane is at the instance at a time.
    OneAtTheInstance,
    /// A new owner, or a higher floor, takes effect when the item at the instance has its outcome.
    AdoptionWaits,
    /// `last` belongs to an epoch: an adoption sets it to the new owner's floor.
    LastBelongsToItsEpoch,
    /// Within an epoch `last` follows the floor.
    FloorMovesLast,
    /// What the owner's floor passes is not begun any more: the sender vouches for it.
    FloorVouches,
    /// A repeat is answered with what became of it the first time.
    Memory,
    /// A remembered item moves `last`.
    MemoryMovesLast,
    /// A known sequence with another message id is another activity.
    MemoryByMessageId,
    /// A refused item is never called a duplicate.
    RefusedIsNoDuplicate,
}

impl Guard {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::PrevIsTheItemBefore,
        Self::OwnLine,
        Self::CopyBeforeSettled,
        Self::PrefixTrim,
        Self::AbandonedEndsAreVoid,
        Self::RewindOnRetry,
        Self::OnlyTheHeadIsParked,
        Self::ParkBeforeTrim,
        Self::PurgeBeforeNext,
        Self::LeaseBeforePost,
        Self::DeadlineBeforePost,
        Self::GateId,
        Self::EpochAtAdmission,
        Self::EpochBeforeEachItem,
        Self::Origin,
        Self::GapCheck,
        Self::OneAtTheInstance,
        Self::AdoptionWaits,
        Self::LastBelongsToItsEpoch,
        Self::FloorMovesLast,
        Self::FloorVouches,
        Self::Memory,
        Self::MemoryMovesLast,
        Self::MemoryByMessageId,
        Self::RefusedIsNoDuplicate,
    ];
}

/// Does this rule hold? Always, but in a mutant.
#[cfg(not(feature = "mutants"))]
#[inline]
pub(crate) const fn holds(_: Guard) -> bool {
    true
}

#[cfg(feature = "mutants")]
pub(crate) use mutants::holds;
#[cfg(feature = "mutants")]
pub use mutants::without;

#[cfg(feature = "mutants")]
mod mutants {
    use std::cell::Cell;

    use super::Guard;

    thread_local! {
        static TAKEN_AWAY: Cell<Option<Guard>> = const { Cell::new(None) };
    }

    pub(crate) fn holds(guard: Guard) -> bool {
        TAKEN_AWAY.get() != Some(guard)
    }

    /// Runs `test` on this thread with one rule taken away.
    pub fn without<T>(guard: Guard, test: impl FnOnce() -> T) -> T {
        struct Back;
        impl Drop for Back {
            fn drop(&mut self) {
                TAKEN_AWAY.set(None);
            }
        }
        TAKEN_AWAY.set(Some(guard));
        let _back = Back; // also when the test panics, which is what a mutant is for
        test()
    }
}
