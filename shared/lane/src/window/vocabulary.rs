//! The vocabulary of a window: what happens to it, and what it wants done.

use std::num::NonZeroU32;

use crate::{Epoch, Final, GateId, Moment, ParkReason, PostId, Seq};

/// With what a new owner begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Start {
    /// Its fencing token.
    pub epoch: Epoch,
    /// The sequence before the first message that it reads.
    pub floor: Seq,
    /// The far side's current life, where another lane of this process knows it; it saves this one the asking.
    pub gate: Option<GateId>,
    /// Until when it owns the lane, on its own monotonic clock.
    pub lease_until: Moment,
}

/// Bounds and pace of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowLimits {
    /// Items of one batch.
    pub batch_items: usize,
    /// Bytes of one batch's items; a single larger item goes alone.
    pub batch_bytes: usize,
    /// Batches in flight.
    pub posts: usize,
    /// Items in flight, those of POSTs that were given up and not yet ended among them.
    pub in_flight_items: usize,
    /// Bytes in flight; a single larger item goes alone.
    pub in_flight_bytes: usize,
    /// Items that the window holds, waiting and in flight.
    pub items: usize,
    /// Bytes that it holds; reading stops there (the item that passes it is still held).
    pub bytes: usize,
    /// How long after the one before it a batch that isn't full may go, where that one is in flight, milliseconds.
    pub linger_ms: u64,
    /// Most items a second; none: as fast as the instance takes them.
    pub rate_per_s: Option<NonZeroU32>,
    /// Shortest time between two trims, milliseconds.
    pub trim_interval_ms: u64,
    /// After so many refusals in a row the lane pauses: a wrong override or a firewall, not so many bad activities. 0: never.
    pub rejections_max: u32,
    /// So often an item has to fail with 500 or 501 before it counts as poison.
    pub poison_attempts: u32,
    /// And so long after the first time, milliseconds.
    pub poison_after_ms: u64,
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
        /// Until when its signature is accepted; none where that does not matter.
        deadline: Option<Moment>,
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
    /// A POST is over. Nothing more of it is told after this: its number is given to another one.
    Ended {
        /// The POST.
        post: PostId,
        /// How it ended.
        end: End,
        /// A random number from 0 to 1000, for the backoff.
        jitter: u16,
    },
    /// An item's copy is stored and acked.
    Parked {
        /// The item.
        seq: Seq,
    },
    /// The trim in flight is over.
    Trimmed {
        /// Did the broker ack it?
        done: bool,
    },
    /// The lease was renewed until then, or lost: then this is a moment that has passed.
    Lease {
        /// On the owner's monotonic clock.
        until: Moment,
    },
    /// Other limits hold from now on.
    Limits(WindowLimits),
    /// The operator pauses the lane, or lets it go on.
    Pause(bool),
    /// The operator says that the lane may go on after too many refusals.
    Resume,
    /// The operator wants this item out of the way when it is the head.
    ParkHead {
        /// The item.
        seq: Seq,
    },
    /// The wall clock was set, or stood still with the machine: deadlines are nearer, or (below zero) further.
    ClockStepped {
        /// By how much it is ahead of where it would have been, milliseconds.
        ahead_ms: i64,
    },
    /// Post nothing more, and settle what is in flight.
    Drain(Settle),
}

/// How much of what is in flight is settled before an owner leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settle {
    /// The oldest POST; the others are called back. The next owner posts them to the same receiver, which remembers what
    /// it delivered.
    Oldest,
    /// Every POST, those that were given up too: the lane goes on at a receiver that remembers nothing of it.
    All,
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
    /// An earlier batch is missing at the far side. What it has is information, and settles nothing: so it isn't here.
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
    /// Give this POST up: close its connection, and say that it ended as lost.
    Cancel {
        /// The POST.
        post: PostId,
    },
    /// Store a copy of this item in FED_PARKED, and say when it is acked.
    Park {
        /// The item.
        seq: Seq,
        /// Why it leaves its lane undelivered.
        reason: ParkReason,
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
    /// The lease ended without being renewed.
    LeaseLost,
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

/// Why a window posts nothing although it holds something, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// The operator paused it.
    Paused,
    /// Too many refusals in a row: single items are tried, a backoff apart.
    Rejections,
    /// A copy of the head has to be acked, and the head purged, before anything else.
    ParkingTheHead(Seq),
    /// A failure was a moment ago.
    BackingOff {
        /// Until then.
        until: Moment,
        /// So many in a row.
        failures: u32,
    },
    /// The far side's life is being asked for.
    AskingForTheGate,
}
