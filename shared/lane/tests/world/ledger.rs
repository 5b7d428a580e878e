//! What is true of a lane, kept apart from both machines: what the instance saw, what was copied and purged, what is
//! in flight. Each check begins with the name of the invariant of `fedstream_lane::invariants` that it is about.
//!
//! It never asks a window or a gate what they think. So a mistake that both share shows here.

use std::collections::{BTreeMap, BTreeSet};

use fedstream_lane::{Action, Batch, End, Epoch, Final, GateId, ParkReason, PostId, Seq, StopReason, WindowLimits};

/// One activity that was accepted.
#[derive(Clone, Debug)]
struct Entry {
    bytes: usize,
    /// The first final outcome at the instance.
    first: Option<Final>,
    /// The last one: which life of the receiver asked, and whether it got to know.
    last: Option<Told>,
    /// The instance has it: 2xx, or it said so.
    taken: bool,
    /// What the instance said of it, where it did not take it.
    refused: BTreeSet<ParkReason>,
    /// Copies in FED_PARKED.
    copies: BTreeSet<ParkReason>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    life: GateId,
    reached: bool,
}

/// Why the instance saw an activity again that it had answered for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repeat {
    /// Another life of the receiver had asked.
    ReceiverRestarted,
    /// Its answer did not reach the receiver.
    AnswerLost,
    /// The receiver forgot it: its memory is bounded, and the sender did not get the line.
    Forgotten,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<Seq, Entry>,
    /// Everything below this has its first outcome or a copy: it never grows back.
    accounted: Seq,
    /// Everything below this was taken or has a copy.
    safe: Seq,
    /// Everything up to here was purged.
    purged: Seq,
    latest_outcome: Option<Seq>,
    /// The highest epoch that a gate let in, and the life that it was in then.
    adopted: (Epoch, Option<GateId>),
    /// Owners whose lease the broker forgot though it had acknowledged it: they act until they ask again. The gate fences
    /// them off; a gate that starts anew right then knows of no later owner, and nothing is left that does. That breaks
    /// what holds over gate lives, and is past what is promised: the broker keeps what it acknowledged (DESIGN section 13).
    pub forgotten: BTreeSet<Epoch>,
    at_instance: Vec<(GateId, Seq)>,
    /// Unanswered items of every POST that has not ended.
    open: BTreeMap<(Epoch, PostId), BTreeSet<Seq>>,
    told: BTreeSet<(Epoch, Seq)>,
    /// Every repeat at the instance, with its reason.
    pub repeats: Vec<(Seq, Repeat)>,
    /// How often what happened: so that a proof can say that it isn't empty.
    pub seen: BTreeMap<&'static str, u64>,
    /// First final outcomes.
    pub outcomes: usize,
}

impl Ledger {
    /// The front door answered 204.
    pub fn accepted(&mut self, seq: Seq, bytes: usize) {
        let entry =
            Entry { bytes, first: None, last: None, taken: false, refused: BTreeSet::new(), copies: BTreeSet::new() };
        assert!(self.entries.insert(seq, entry).is_none(), "a world's mistake: {seq} was accepted before");
    }

    /// An owner posts.
    pub fn posted(&mut self, owner: Epoch, limits: &WindowLimits, batch: &Batch) {
        self.no_floor_passes_what_is_not_safe(batch.floor, "a batch");
        let last = batch.items.iter().fold(batch.prev, |before, seq| {
            assert!(*seq > before, "in-order: {seq} is posted after {before}: {batch:?}");
            *seq
        });
        for seq in &batch.items {
            assert!(
                !self.told.contains(&(owner, *seq)),
                "no-repeat: {owner} posts {seq} again though it was told the outcome"
            );
        }
        assert!(
            self.entries.contains_key(&last) || batch.items.is_empty(),
            "a world's mistake: {last} was not accepted"
        );
        let before = self.open.insert((owner, batch.post), batch.items.iter().copied().collect());
        assert!(before.is_none(), "bounded: POST {:?} has not ended", batch.post);
        self.is_bounded(owner, limits, batch);
    }

    fn is_bounded(&mut self, owner: Epoch, limits: &WindowLimits, batch: &Batch) {
        let bytes_of = |seq: &Seq| self.entries.get(seq).map_or(0, |entry| entry.bytes);
        let own = || self.open.iter().filter(|((of, _), _)| *of == owner).map(|(_, items)| items);
        let items: usize = own().map(BTreeSet::len).sum();
        let bytes: usize = own().flatten().map(bytes_of).sum();
        assert!(
            items <= limits.in_flight_items.max(1),
            "bounded: {items} items in flight, {} allowed",
            limits.in_flight_items
        );
        assert!(
            bytes <= limits.in_flight_bytes || items <= 1,
            "bounded: {bytes} bytes in flight, {} allowed",
            limits.in_flight_bytes
        );
        let of_batch: usize = batch.items.iter().map(bytes_of).sum();
        let fits = of_batch <= limits.batch_bytes || batch.items.len() == 1;
        assert!(batch.items.len() <= limits.batch_items.max(1) && fits, "bounded: {batch:?} of {limits:?}");
        // Those that were given up count by their items; a live one is in flight whatever it holds.
        let posts = own().count();
        if posts >= 3 {
            self.saw("three POSTs in flight");
        }
        assert!(posts <= limits.posts.max(1) + limits.in_flight_items, "bounded: {posts} POSTs have not ended");
    }

    /// A line of an answer reached its owner.
    pub fn heard(&mut self, owner: Epoch, post: PostId, seq: Seq) {
        self.told.insert((owner, seq));
        if let Some(items) = self.open.get_mut(&(owner, post)) {
            items.remove(&seq);
        }
    }

    /// Something happened that a proof should reach; see `seen`.
    pub fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// A POST is over for its owner.
    pub fn ended(&mut self, owner: Epoch, post: PostId, end: &End) {
        self.saw(name_of_end(end));
        self.open.remove(&(owner, post));
    }

    /// The process of an owner is gone, with all of its POSTs.
    pub fn owner_died(&mut self, owner: Epoch) {
        self.open.retain(|(of, _), _| *of != owner);
    }

    /// A gate let a batch of this epoch in.
    pub fn adopted(&mut self, life: GateId, epoch: Epoch) {
        if epoch >= self.adopted.0 {
            self.adopted = (epoch, Some(life));
        }
    }

    /// A life of the receiver takes an item to the instance. `remembers`: it knows what became of it.
    pub fn begun(&mut self, life: GateId, epoch: Epoch, seq: Seq, remembers: bool) {
        let (adopted, adopted_in) = self.adopted;
        let excused = self.forgotten.contains(&epoch) && adopted_in != Some(life);
        assert!(epoch >= adopted || excused, "fenced: {seq} of epoch {epoch} is begun, {adopted} was adopted before");
        if epoch < adopted {
            self.saw("an owner whose lease the broker forgot meets a new gate");
        }
        let beside = self.at_instance.iter().find(|(of, _)| *of == life);
        assert!(beside.is_none(), "single: {seq} is begun, and {beside:?} is at the instance");
        self.at_instance.push((life, seq));
        let entry = &self.entries[&seq];
        let sender_parked = entry.first.is_none() && !entry.copies.is_empty();
        let passed = self.latest_outcome.is_some_and(|latest| latest > seq);
        assert!(
            !(sender_parked && passed) || epoch < adopted,
            "parked-stays-out: {seq} is begun after {:?}",
            self.latest_outcome
        );
        if let Some(last) = entry.last {
            let why = match last {
                Told { reached: false, .. } => Repeat::AnswerLost,
                Told { life: asked, .. } if asked != life => Repeat::ReceiverRestarted,
                Told { .. } => Repeat::Forgotten,
            };
            assert!(
                why != Repeat::Forgotten || !remembers,
                "no-repeat: {seq} is begun again, and its outcome is known"
            );
            self.repeats.push((seq, why));
            self.saw(match why {
                Repeat::ReceiverRestarted => "repeat: receiver restarted",
                Repeat::AnswerLost => "repeat: answer lost",
                Repeat::Forgotten => "repeat: forgotten",
            });
        }
    }

    /// The instance is done with an item that this life brought; an outcome is a final one. `reached`: the receiver
    /// that asked still lives, and got the answer.
    pub fn done(&mut self, life: GateId, seq: Seq, outcome: Option<Final>, reached: bool) {
        if let Some(at) = self.at_instance.iter().position(|at| *at == (life, seq)) {
            self.at_instance.swap_remove(at);
        }
        let (Some(outcome), Some(entry)) = (outcome, self.entries.get_mut(&seq)) else { return };
        entry.taken |= outcome.park_reason().is_none();
        entry.refused.extend(outcome.park_reason());
        entry.last = Some(Told { life, reached });
        if entry.first.replace(entry.first.unwrap_or(outcome)).is_some() {
            return;
        }
        self.outcomes += 1;
        self.latest_outcome = self.latest_outcome.max(Some(seq));
        let missing = Self::first_above(&self.entries, &mut self.accounted, |entry| {
            entry.first.is_some() || !entry.copies.is_empty()
        });
        assert!(missing.is_none_or(|missing| missing > seq), "in-order: {seq} has its outcome before {missing:?}");
    }

    /// A copy is stored.
    pub fn copied(&mut self, seq: Seq, reason: ParkReason) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            let of_the_instance = matches!(reason, ParkReason::Rejected | ParkReason::Unprocessed);
            assert!(
                !of_the_instance || entry.refused.contains(&reason),
                "no-loss: {seq} is parked as {reason} without cause"
            );
            entry.copies.insert(reason);
        }
    }

    /// An owner asks for a purge.
    pub fn trims(&mut self, upto: Seq) {
        self.no_floor_passes_what_is_not_safe(upto, "a trim");
    }

    /// The stream drops everything up to here.
    pub fn purged(&mut self, upto: Seq) {
        let lost: Vec<Seq> = self
            .entries
            .range(Seq(self.purged.0 + 1)..Seq(upto.0.max(self.purged.0) + 1))
            .filter(|(_, entry)| !entry.taken && entry.copies.is_empty())
            .map(|(seq, _)| *seq)
            .collect();
        assert!(lost.is_empty(), "no-loss: {lost:?} are purged, neither answered 2xx nor parked");
        self.purged = self.purged.max(upto);
    }

    /// At the end: everything that was accepted has come to its end.
    pub fn nothing_is_missing(&mut self) {
        let missing = Self::first_above(&self.entries, &mut self.safe, is_safe);
        assert!(missing.is_none(), "no-loss: {missing:?} was neither answered 2xx nor parked");
    }

    fn no_floor_passes_what_is_not_safe(&mut self, floor: Seq, of: &str) {
        let missing = Self::first_above(&self.entries, &mut self.safe, is_safe);
        assert!(
            missing.is_none_or(|missing| missing > floor),
            "prefix: the floor {floor} of {of} passes {missing:?}, neither answered 2xx nor parked"
        );
    }

    /// The first entry that is not so; `known` remembers how far the answer is known.
    fn first_above(entries: &BTreeMap<Seq, Entry>, known: &mut Seq, is_so: impl Fn(&Entry) -> bool) -> Option<Seq> {
        let first = entries.range(*known..).find(|(_, entry)| !is_so(entry)).map(|(seq, _)| *seq);
        *known = first.or(entries.last_key_value().map(|(last, _)| Seq(last.0 + 1))).unwrap_or(*known);
        first
    }
}

fn is_safe(entry: &Entry) -> bool {
    entry.taken || !entry.copies.is_empty()
}

fn name_of_end(end: &End) -> &'static str {
    match end {
        End::Done => "end: done",
        End::Retry { retry_after_ms: Some(_), .. } => "end: retry-after",
        End::Retry { .. } => "end: retry",
        End::Gap => "end: gap",
        End::Overloaded { .. } => "end: overloaded",
        End::NewGate(_) => "end: new gate",
        End::StaleEpoch(_) => "end: stale epoch",
        End::Unfit => "end: unfit",
        End::Refused { .. } => "end: refused",
        End::Lost => "end: lost",
    }
}

/// The name of what a window wants, for `seen`.
pub fn name_of_action(action: &Action) -> &'static str {
    match action {
        Action::Post(batch) if batch.items.is_empty() => "asks for the gate",
        Action::Post(batch) if batch.items.len() == 1 => "posts one",
        Action::Post(_) => "posts several",
        Action::Cancel { .. } => "cancels",
        Action::Park { reason, .. } => match reason {
            ParkReason::Rejected => "parks: rejected",
            ParkReason::Expired => "parks: expired",
            ParkReason::Poison => "parks: poison",
            ParkReason::Unprocessed => "parks: unprocessed",
            ParkReason::Operator => "parks: operator",
            ParkReason::Unreadable => "parks: unreadable",
            ParkReason::RemoteFull => unreachable!("a publisher parks for that, no window does"),
        },
        Action::Trim { .. } => "trims",
        Action::Stop(StopReason::StaleEpoch { .. }) => "stops: stale epoch",
        Action::Stop(StopReason::LeaseLost) => "stops: lease lost",
        Action::Stop(StopReason::Drained) => "stops: drained",
    }
}
