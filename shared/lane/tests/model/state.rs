//! One state of the model: what is stored, what is on its way, both machines, and what the instance saw.

use fedstream_lane::guard::Guard;
use fedstream_lane::{
    Batch, Epoch, GateId, GateLimits, Head, MemoryLimits, Moment, MsgId, Origin, PostId, ReceiveGate, SendWindow, Seq,
};

use super::bounds::Bounds;
use super::far::{self, Outlook};

/// The model fires any timer and never advances a clock, but for the one deadline that may pass.
pub const NOW: Moment = Moment(0);
/// When it has passed.
pub const LATE: Moment = Moment(1);

/// Some of the lane's activities, by place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Places(u8);

impl Places {
    pub fn first(count: usize) -> Self {
        Self(((1u16 << count) - 1) as u8)
    }

    pub fn has(self, place: usize) -> bool {
        self.0 & 1 << place != 0
    }

    pub fn insert(&mut self, place: usize) {
        self.0 |= 1 << place;
    }

    pub fn remove(&mut self, others: Self) {
        self.0 &= !others.0;
    }

    pub fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    pub fn or(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..8).filter(move |place| self.has(*place))
    }
}

/// What a POST says. Two POSTs that say the same can't be told apart on the link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content {
    pub epoch: Epoch,
    pub gate: Option<GateId>,
    pub floor: Seq,
    pub prev: Seq,
    pub items: Vec<Seq>,
}

impl Content {
    pub fn of(epoch: Epoch, batch: &Batch) -> Self {
        Self { epoch, gate: batch.gate, floor: batch.floor, prev: batch.prev, items: batch.items.clone() }
    }

    pub fn head(&self) -> Head {
        Head { gate: self.gate, origin: origin(), epoch: self.epoch, floor: self.floor }
    }

    /// What its item at this position was put after.
    pub fn prev_of(&self, at: usize) -> Seq {
        if at == 0 { self.prev } else { self.items[at - 1] }
    }
}

pub fn origin() -> Origin {
    Origin { site: "near".into(), created_us: 1 }
}

pub fn msg_id(seq: Seq) -> MsgId {
    MsgId::new(format!("m{seq}"))
}

/// A POST that was made once: from then on it may arrive at any time, and any number of times.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sent {
    pub content: Content,
    /// It was let in, and waits at this item; only where it could not come that far again, were it to arrive now.
    pub waits_at: Option<usize>,
}

/// A POST that its owner still waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Awaited {
    pub post: PostId,
    pub gate: Option<GateId>,
    pub items: Vec<Seq>,
    /// Outcome lines that came.
    pub lines: usize,
    /// All of what it says, in a fair run; the model has that on the link, and forgets it here.
    pub content: Option<Content>,
}

/// A process that owns the lane, or did.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub epoch: Epoch,
    pub window: SendWindow,
    pub awaited: Vec<Awaited>,
    /// Copies that it waits for.
    pub parking: Places,
    /// The purge that it waits for, by the place of the last one.
    pub trimming: Option<usize>,
    /// Its lease has not ended.
    pub holds: bool,
    /// Its lease ended, and it did nothing since.
    pub paused: bool,
    /// The operator told it what to park.
    pub told: bool,
}

/// What is at the instance for the living receiver.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AtInstance {
    pub content: Content,
    pub at: usize,
    pub place: usize,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub stream: Places,
    pub copies: Places,
    /// What the instance took, and said so to the receiver.
    pub taken: Places,
    /// What had its first final outcome.
    pub finals: Places,
    /// What this life of the receiver has an outcome of.
    pub known: Places,
    /// The highest epoch that was ever let in.
    pub adopted: Epoch,
    /// The lease's.
    pub epoch: Epoch,
    /// The deadline has passed.
    pub late: bool,
    pub owners: Vec<Owner>,
    /// The link to the receiver. Losing something is never delivering it.
    pub link: Vec<Sent>,
    /// The link back: of which item some POST was told that it is taken.
    pub told_taken: Places,
    /// And of which that it was refused.
    pub told_refused: Places,
    /// Copies that are on their way to the broker.
    pub copying: Places,
    /// Purges that are on their way to the broker, by the place of the last one.
    pub purging: Places,
    pub life: GateId,
    pub gate: ReceiveGate,
    pub at_instance: Option<AtInstance>,
    /// What the instance goes on with for a receiver that is gone.
    pub orphans: Vec<usize>,
    /// The invariant that broke on the way here.
    pub broken: Option<&'static str>,
}

impl State {
    pub fn new(bounds: &Bounds) -> Self {
        let life = GateId(1);
        Self {
            stream: Places::first(bounds.seqs.len()),
            copies: Places::default(),
            taken: Places::default(),
            finals: Places::default(),
            known: Places::default(),
            adopted: Epoch(0),
            epoch: Epoch(0),
            late: false,
            owners: vec![],
            link: vec![],
            told_taken: Places::default(),
            told_refused: Places::default(),
            copying: Places::default(),
            purging: Places::default(),
            life,
            gate: new_gate(life, bounds),
            at_instance: None,
            orphans: vec![],
            broken: None,
        }
    }

    pub fn now(&self) -> Moment {
        if self.late { LATE } else { NOW }
    }

    pub fn owner(&self, epoch: Epoch) -> Option<&Owner> {
        self.owners.iter().find(|owner| owner.epoch == epoch)
    }

    pub fn owner_mut(&mut self, epoch: Epoch) -> Option<&mut Owner> {
        self.owners.iter_mut().find(|owner| owner.epoch == epoch)
    }

    /// Is nothing of the lane's first ones, up to this place, in the stream?
    pub fn is_purged(&self, upto: usize) -> bool {
        self.stream.and(Places::first(upto + 1)).is_empty()
    }

    /// Breaks an invariant: only the first one counts.
    pub fn breaks(&mut self, invariant: &'static str) {
        self.broken.get_or_insert(invariant);
    }

    /// Drops what can't change anything any more, by asking a copy of the very gate.
    pub fn tidy(&mut self, bounds: &Bounds, before: &Self) {
        self.owners.iter_mut().flat_map(|owner| &mut owner.awaited).for_each(|awaited| awaited.content = None);
        self.copying.remove(self.copies);
        for upto in self.purging.iter() {
            if self.is_purged(upto) {
                let mut done = Places::default();
                done.insert(upto);
                self.purging.remove(done);
            }
        }
        if self.link == before.link && self.gate == before.gate {
            return;
        }
        let forgets = bounds.memory_items < bounds.seqs.len();
        let mut gate = self.gate.clone();
        if self.at_instance.is_some() {
            gate.finished(None);
        }
        let busy = self.at_instance.as_ref().map(|at| &at.content);
        self.link.retain_mut(|sent| match far::outlook(&gate, sent) {
            // What names another life is void because of this very rule; without it nothing may be dropped.
            _ if bounds.without == Some(Guard::GateId) => true,
            Outlook::Void => false,
            Outlook::Answered => forgets || busy == Some(&sent.content),
            Outlook::ComesAgain => {
                sent.waits_at = None;
                true
            }
            Outlook::Waits => true,
        });
        self.link.sort_unstable_by(|a, b| a.content.cmp(&b.content));
    }
}

pub fn new_gate(life: GateId, bounds: &Bounds) -> ReceiveGate {
    let memory = MemoryLimits { items: bounds.memory_items, bytes: 1 << 20 };
    // Whoever waits for an earlier batch may give up at any moment, and somebody else waits on.
    ReceiveGate::new(life, GateLimits { memory, wait_max_ms: 0 })
}
