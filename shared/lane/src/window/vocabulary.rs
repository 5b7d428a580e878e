//! The vocabulary of a window: what happens to it, and what it wants done.

use crate::{Epoch, Final, GateId, ParkReason, PostId, Seq};

/// Bounds of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowLimits {
    /// Items of one batch.
    pub batch_items: usize,
    /// Bytes of one batch's items; a single larger item goes alone.
    pub batch_bytes: usize,
    /// Items that the window holds, waiting and in flight.
    pub items: usize,
    /// Bytes that it holds; reading stops there (the item that passes it is still held).
    pub bytes: usize,
    /// Shortest time between two trims, milliseconds.
    pub trim_interval_ms: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The reader brought the lane's next activity.
    Read {
        /// Its sequence, above all that were read before.
        seq: Seq,
        /// Its size in a batch.
        bytes: usize,
    },
    /// The reader brought a message that can't be read: it is parked when it is the head, and never posted.
    ReadUnreadable {
        /// Its sequence, above all that were read before.
        seq: Seq,
        /// What it takes in memory.
        bytes: usize,
    },
    /// An outcome line of a POST.
    Outcome {
        /// The POST.
        post: PostId,
        /// The item.
        seq: Seq,
        /// What became of it.
        outcome: Final,
    },
    /// A POST is over.
    Ended {
        /// The POST.
        post: PostId,
        /// How it ended.
        end: End,
        /// A random number from 0 to 1000, for the backoff.
        jitter: u16,
    },
    /// A rejected item's copy is stored and acked.
    Parked {
        /// The item.
        seq: Seq,
    },
    /// The trim in flight is over.
    Trimmed {
        /// Did the broker ack it?
        done: bool,
    },
    /// Post nothing more; settle what is in flight.
    Drain,
}

/// How a POST ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The far side went through all of it.
    Done,
    /// The instance gave no final outcome for this item.
    Retry {
        /// The item.
        seq: Seq,
        /// Its HTTP status, where it gave one.
        status: Option<u16>,
        /// Since the attempt before this one the instance is known to have answered others: evidence that the activity
        /// is the trouble (DESIGN section 8, `poison`).
        alive: bool,
        /// What the instance asked for.
        retry_after_ms: Option<u64>,
    },
    /// An earlier batch is missing at the far side.
    Gap,
    /// The far side has no room now.
    Overloaded {
        /// What it asked for.
        retry_after_ms: Option<u64>,
    },
    /// The far side is in another life than the batch was meant for.
    NewGate(GateId),
    /// A later owner is known there.
    StaleEpoch(Epoch),
    /// The far side does not take the batch as it is: too large, or something in it that it refuses. Smaller batches
    /// let the others through, and show which one it is.
    Unfit,
    /// The far side refused the batch for another reason (credential, site, something in between).
    Refused {
        /// What it asked for.
        retry_after_ms: Option<u64>,
    },
    /// No answer, or not all of it.
    Lost,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// POST these items.
    Post(Batch),
    /// Store a copy of this item in FED_PARKED, and say when it is acked.
    Park {
        /// The item.
        seq: Seq,
        /// Why it leaves its lane undelivered.
        reason: ParkReason,
        /// How often it was tried.
        attempts: u32,
    },
    /// Purge the lane up to here, this one included.
    Trim {
        /// The floor.
        upto: Seq,
        /// How many items that is, by this window's count.
        count: u64,
    },
    /// This owner is done with the lane.
    Stop(StopReason),
}

/// Why an owner stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// The far side knows a later owner.
    StaleEpoch {
        /// Its epoch.
        known: Epoch,
    },
    /// Drained: nothing is in flight, and what was settled is trimmed.
    Drained,
}

/// One POST.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Its number.
    pub post: PostId,
    /// The gate it is meant for; none in the empty batch that asks for it.
    pub gate: Option<GateId>,
    /// Everything up to here is settled.
    pub floor: Seq,
    /// The item put just before the first one, or the floor if there is none.
    pub prev: Seq,
    /// The items, in lane order. Empty only where the gate is not known.
    pub items: Vec<Seq>,
}
