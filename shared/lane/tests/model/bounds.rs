//! How large a model is: everything that keeps it finite, and the faults that it may choose from.

use fedstream_lane::guard::Guard;

/// By what an activity leaves its lane without an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParkBy {
    /// It can't be read; every owner sees that.
    Unreadable,
    /// Its deadline passes, at any moment.
    Deadline,
    /// The operator tells an owner, at any moment; the next owner does not know.
    Operator,
    /// The instance answers 500 to it as often as it likes; the next owner counts anew.
    Poison,
}

/// The bounds of one model. Losing, repeating, reordering and delaying has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Sequences of the lane's activities, with holes.
    pub seqs: &'static [u64],
    /// The activity, by place, that the instance rejects.
    pub rejected: Option<usize>,
    /// The activity, by place, that a sender parks.
    pub parked: Option<(usize, ParkBy)>,
    /// Owners that take the lane one after the other. The one before is paused for as long as it likes, or crashed.
    pub owners: u64,
    /// Restarts of the receiver.
    pub restarts: u64,
    /// POSTs in flight.
    pub posts: usize,
    /// Items of one batch.
    pub batch_items: usize,
    /// Outcomes that the receiver remembers.
    pub memory_items: usize,
    /// A new owner reads all that is there before it acts; else any number of it, and the rest one by one.
    pub reads_all: bool,
    /// A new owner has to ask for the receiver's life; else it knows the current one from another lane.
    pub asks_for_gate: bool,
    /// A purge may be answered with an error, whatever became of it.
    pub purge_fails: bool,
    /// The instance may take an activity without its answer coming back.
    pub silent: bool,
    /// The local lease does not end before the entry does: what `stop before TTL` prevents.
    pub lease_outlives_entry: bool,
    /// From one in so many states a run without further faults has to drain the lane. 1: from each. 0: from none.
    pub drains_from_one_in: u64,
    /// A rule that is taken away.
    pub without: Option<Guard>,
}

impl Bounds {
    /// Three activities, two owners, window 2; one restart of the receiver.
    pub const SMALL: Self = Self {
        seqs: &[2, 3, 7],
        rejected: None,
        parked: None,
        owners: 2,
        restarts: 1,
        posts: 2,
        batch_items: 1,
        memory_items: 8,
        reads_all: true,
        asks_for_gate: false,
        purge_fails: false,
        silent: false,
        lease_outlives_entry: false,
        drains_from_one_in: 1,
        without: None,
    };
}
