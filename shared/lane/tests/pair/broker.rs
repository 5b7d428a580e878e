//! The broker as a lane sees it: the lease's entry, copies and purges; its state outlives every process.

use fedstream_lane::{Epoch, GateId, ParkReason, Seq};

/// Of a lease's entry, counted by the broker from the moment it has the put.
pub const TTL_MS: u64 = 15_000;

/// Within that the wall clocks of the senders agree, with what the asking takes.
const WALLS_AGREE_MS: u64 = 20_000;

/// What a sender asks for.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    /// The lane, for this life of its process; with the epoch that its wall clock and its memory want at least.
    Take { life: u64, wanted: Epoch, sent: u64 },
    /// The lane for another TTL.
    Renew { sent: u64 },
    /// To be rid of the lane.
    Release,
    /// A copy.
    Copy { seq: Seq, reason: ParkReason },
    /// A purge.
    Purge { upto: Seq },
}

/// What it gets.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    /// The lane, until a TTL after it was sent; and the gate that another lane knows, if any.
    Taken { life: u64, sent: u64, gate: Option<GateId> },
    /// Another one has it, or the broker is away.
    NotTaken,
    /// Renewed.
    Renewed { sent: u64 },
    /// Somebody else has it.
    LeaseGone,
    /// A copy is stored, or nobody knows.
    Copied { seq: Seq, reason: ParkReason, acked: bool },
    /// A purge is done, or nobody knows.
    Purged { acked: bool },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    epoch: Epoch,
    since: u64,
    /// None: given back.
    holder: Option<usize>,
    until: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Broker {
    entry: Option<Entry>,
    away_until: u64,
}

impl Broker {
    /// Nobody reaches it until then.
    pub fn leaves_until(&mut self, until: u64) {
        self.away_until = self.away_until.max(until);
    }

    /// Can nobody reach it?
    pub fn is_away(&self, now: u64) -> bool {
        now < self.away_until
    }

    /// Who holds the lane.
    pub fn holder(&self, now: u64) -> Option<usize> {
        self.entry.filter(|entry| entry.until > now).and_then(|entry| entry.holder)
    }

    /// Compare and set: the lane goes to who asks if it is free. An entry that ended by its TTL has left no epoch.
    pub fn take(&mut self, now: u64, sender: usize, wanted: Epoch) -> Option<Epoch> {
        let epoch = match self.entry.filter(|entry| entry.until > now) {
            Some(Entry { holder: Some(_), .. }) => return None,
            Some(released) => wanted.max(Epoch(released.epoch.0 + 1)),
            None => wanted,
        };
        self.entry = Some(Entry { epoch, since: now, holder: Some(sender), until: now + TTL_MS });
        Some(epoch)
    }

    /// Another TTL, if nobody else had the lane in between.
    pub fn renew(&mut self, now: u64, epoch: Epoch) -> bool {
        let own =
            self.entry.as_mut().filter(|entry| entry.until > now && entry.epoch == epoch && entry.holder.is_some());
        own.map(|entry| entry.until = now + TTL_MS).is_some()
    }

    /// The bucket is made anew. Epochs still grow by the wall clocks, as long as those agree to a few seconds. Answers the
    /// epoch of a lease that is forgotten by it.
    pub fn loses_its_bucket(&mut self, now: u64) -> Option<Epoch> {
        self.entry.take_if(|entry| entry.since + WALLS_AGREE_MS <= now).map(|entry| entry.epoch)
    }

    /// Gives the lane back; its epoch stays.
    pub fn release(&mut self, epoch: Epoch) {
        if let Some(entry) = self.entry.as_mut().filter(|entry| entry.epoch == epoch) {
            entry.holder = None;
        }
    }
}
