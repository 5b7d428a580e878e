//! What many histories came to.

use std::collections::BTreeMap;
use std::fmt;

use super::history::Report;

/// What they have to reach, or they prove nothing.
const HAS_TO_HAPPEN: [&str; 52] = [
    "a new owner",
    "a purge without an ack",
    "a request is lost",
    "a request is repeated",
    "asks for the gate",
    "cancels",
    "end: done",
    "end: gap",
    "end: lost",
    "end: new gate",
    "end: retry",
    "end: retry-after",
    "end: stale epoch",
    "fault: broker away",
    "fault: bucket lost",
    "fault: instance fails",
    "fault: instance fails with retry-after",
    "fault: instance hangs",
    "fault: instance refuses all",
    "fault: instance slow",
    "fault: lane handed over",
    "fault: link down",
    "fault: operator parks",
    "fault: operator pauses",
    "fault: operator sets limits",
    "fault: receiver crashes",
    "fault: sender crashes",
    "fault: sender paused",
    "parks: expired",
    "parks: operator",
    "parks: poison",
    "parks: rejected",
    "parks: unprocessed",
    "parks: unreadable",
    "paused between poll and act",
    "posts one",
    "posts several",
    "refuses: broker away",
    "refuses: lane full",
    "refuses: lane paused",
    "refuses: lane too old",
    "repeat: answer lost",
    "repeat: forgotten",
    "repeat: receiver restarted",
    "stands: after refusals",
    "stands: backs off",
    "stands: paused",
    "stops: drained",
    "stops: lease lost",
    "stops: stale epoch",
    "three POSTs in flight",
    "trims",
];

/// See the module.
#[derive(Debug, Default)]
pub struct Summary {
    seen: BTreeMap<&'static str, u64>,
    histories: u64,
    virtual_ms: u64,
    accepted: usize,
    outcomes: usize,
    repeats: usize,
    max_backlog: usize,
    /// With its seed.
    longest_recovery: (u64, u64),
}

impl Summary {
    /// One more history.
    pub fn add(&mut self, seed: u64, report: Report) {
        self.histories += 1;
        self.virtual_ms += report.lasted_ms;
        self.accepted += report.accepted;
        self.outcomes += report.outcomes;
        self.repeats += report.repeats;
        self.max_backlog = self.max_backlog.max(report.max_backlog);
        self.longest_recovery = self.longest_recovery.max((report.recovered_ms, seed));
        self.count(report.seen);
    }

    /// Both together.
    pub fn with(mut self, other: Self) -> Self {
        self.histories += other.histories;
        self.virtual_ms += other.virtual_ms;
        self.accepted += other.accepted;
        self.outcomes += other.outcomes;
        self.repeats += other.repeats;
        self.max_backlog = self.max_backlog.max(other.max_backlog);
        self.longest_recovery = self.longest_recovery.max(other.longest_recovery);
        self.count(other.seen);
        self
    }

    /// What should have happened and did not.
    pub fn never_reached(&self) -> Vec<&'static str> {
        HAS_TO_HAPPEN.into_iter().filter(|what| !self.seen.contains_key(what)).collect()
    }

    fn count(&mut self, seen: BTreeMap<&'static str, u64>) {
        for (what, times) in seen {
            *self.seen.entry(what).or_default() += times;
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (recovery, seed) = self.longest_recovery;
        writeln!(f, "{} histories, {} virtual hours", self.histories, self.virtual_ms / 3_600_000)?;
        writeln!(f, "{} activities accepted, {} outcomes at the instance", self.accepted, self.outcomes)?;
        writeln!(f, "{} repeats at the instance, each with a reason below", self.repeats)?;
        writeln!(f, "most that a lane held: {}", self.max_backlog)?;
        writeln!(f, "longest from the last fault to an empty lane: {} s (seed {seed})", recovery / 1000)?;
        self.seen.iter().try_for_each(|(what, times)| writeln!(f, "{times:>10}  {what}"))
    }
}
