//! The near side of a lane, for one lane and one epoch: what is posted, settled and trimmed.
//!
//! ```text
//!   Read ─▶ waiting ─Post─▶ in flight ─Outcome─▶ delivered ────────────┐
//!              ▲                │        └──────▶ rejected ─Park─▶ parked ┴─▶ settled ─▶ floor ─▶ Trim
//!              └──── rewind ────┘  (retry, gap, new gate, lost answer; then the backoff)
//! ```
//!
//! Each item is settled by its own outcome line only. The floor moves over consecutive settled items, and no floor
//! leaves the window, in a batch or in a trim, that passes an unsettled one. A window is never resumed: a restarted
//! owner takes a new epoch and starts from what the stream holds.
//!
//! One batch is in flight at a time, and it starts where the floor is: a batch after a rejection waits until the
//! rejected activity's copy is parked. So `prev` equals the floor in every batch that this window makes today; the
//! far side checks it all the same.

use std::collections::VecDeque;

use crate::{Backoff, Epoch, Final, GateId, Moment, PostId, Seq, invariants};

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
    /// The batch is larger than the far side takes.
    TooLarge,
    /// The far side refused the batch for another reason (credential, format, destination, site).
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

/// Why an activity leaves its lane undelivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParkReason {
    /// The instance refused it for good.
    Rejected,
    /// Written by another version, or by another program.
    Unreadable,
}

impl ParkReason {
    /// The word in headers, ids and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Unreadable => "unreadable",
        }
    }
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Waiting,
    InFlight,
    /// Can't be read; its copy is asked for when it is the head.
    Unreadable,
    /// Rejected, and the copy not yet asked for.
    Rejected,
    /// The copy is on its way.
    Parking,
    Settled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Item {
    seq: Seq,
    bytes: usize,
    attempts: u32,
    state: State,
}

/// The window of one lane and one epoch. See the module's picture.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SendWindow {
    epoch: Epoch,
    limits: WindowLimits,
    /// Items of the next batch; less than the limit while the far side calls batches too large.
    batch_items: usize,
    floor: Seq,
    last_read: Seq,
    items: VecDeque<Item>,
    bytes: usize,
    in_flight: Option<PostId>,
    posts: u64,
    gate: Option<GateId>,
    /// The gate was learnt, and nothing was accepted under it yet.
    gate_unproven: bool,
    backoff: Backoff,
    settled_untrimmed: u64,
    trimming: Option<u64>,
    trim_due: Moment,
    trim_failed: bool,
    draining: bool,
    stop: Option<StopReason>,
    stopped: bool,
}

impl SendWindow {
    /// A new owner's window. `floor` is the sequence before the first message that it reads; `gate` is the far side's
    /// current life where another lane of this process knows it, and saves this one the asking.
    #[must_use]
    pub fn new(epoch: Epoch, floor: Seq, gate: Option<GateId>, limits: WindowLimits, backoff: Backoff) -> Self {
        Self {
            epoch,
            limits,
            batch_items: limits.batch_items.max(1),
            floor,
            last_read: floor,
            items: VecDeque::new(),
            bytes: 0,
            in_flight: None,
            posts: 0,
            gate,
            gate_unproven: false,
            backoff,
            settled_untrimmed: 0,
            trimming: None,
            trim_due: Moment(0),
            trim_failed: false,
            draining: false,
            stop: None,
            stopped: false,
        }
    }

    /// Takes in what happened.
    ///
    /// # Panics
    /// On an event that can't be: an activity that was read before, an outcome of an item that is not in flight.
    pub fn handle(&mut self, now: Moment, event: Event) {
        match event {
            Event::Read { seq, bytes } => {
                self.read(Item { seq, bytes, attempts: 0, state: State::Waiting });
            }
            Event::ReadUnreadable { seq } => self.read(Item { seq, bytes: 0, attempts: 0, state: State::Unreadable }),
            Event::Outcome { post, seq, outcome } => self.outcome(post, seq, outcome),
            Event::Ended { post, end, jitter } => self.ended(now, post, end, jitter),
            Event::Parked { seq } => {
                let item = self.items.iter_mut().find(|item| item.seq == seq);
                if let Some(item) = item.filter(|item| item.state == State::Parking) {
                    item.state = State::Settled;
                }
                self.raise_floor();
            }
            Event::Trimmed { done } => {
                let count = self.trimming.take().unwrap_or(0);
                if !done {
                    self.settled_untrimmed += count;
                }
                self.trim_failed = !done;
                self.trim_due = now.after_ms(self.limits.trim_interval_ms);
            }
            Event::Drain => self.draining = true,
        }
        invariants::window(self);
    }

    /// What to do now; ask until there is nothing.
    pub fn poll(&mut self, now: Moment) -> Option<Action> {
        let action = self.next_action(now);
        invariants::window(self);
        action
    }

    /// When to poll again although nothing happened.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let post = self.backoff.until().filter(|_| self.may_post_but_for_backoff());
        let trim = Some(self.trim_due).filter(|_| self.has_trim());
        post.into_iter().chain(trim).min()
    }

    /// Is there room for the lane's next activity?
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.draining && self.stop.is_none() && self.items.len() < self.limits.items && self.bytes < self.limits.bytes
    }

    /// Is nothing waiting, in flight, on its way to be parked or to be trimmed?
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.items.is_empty() && self.in_flight.is_none() && self.settled_untrimmed == 0 && self.trimming.is_none()
    }

    /// Was it told to post nothing more?
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Everything up to here is settled.
    #[must_use]
    pub fn floor(&self) -> Seq {
        self.floor
    }

    /// The highest sequence that was read.
    #[must_use]
    pub fn last_read(&self) -> Seq {
        self.last_read
    }

    /// This owner's fencing token.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Items held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Is no item held?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// Has the far side changed its life twice without taking anything? Then two receivers answer in turn.
    #[must_use]
    pub fn gate_alternates(&self) -> bool {
        self.gate_unproven && self.backoff.failures() > 0
    }

    fn read(&mut self, item: Item) {
        assert!(item.seq > self.last_read, "{} was read after {}", item.seq, self.last_read);
        self.last_read = item.seq;
        self.bytes += item.bytes;
        self.items.push_back(item);
    }

    fn outcome(&mut self, post: PostId, seq: Seq, outcome: Final) {
        if self.in_flight != Some(post) {
            return; // of a POST that was given up: with one in flight there is nothing left to settle by it
        }
        let item = self.items.iter_mut().find(|item| item.seq == seq);
        #[expect(clippy::expect_used, reason = "a shell's bug: it lets only the next expected sequence through")]
        let item =
            item.filter(|item| item.state == State::InFlight).expect("an outcome of an item that is not in flight");
        item.attempts += 1;
        item.state = match outcome {
            Final::Delivered | Final::Duplicate => State::Settled,
            Final::Rejected => State::Rejected,
        };
        self.gate_unproven = false;
        self.batch_items = self.limits.batch_items.max(1);
        self.backoff.progressed();
        self.raise_floor();
    }

    fn ended(&mut self, now: Moment, post: PostId, end: End, jitter: u16) {
        if self.in_flight != Some(post) {
            return;
        }
        self.in_flight = None;
        let unanswered = self.items.iter().any(|item| item.state == State::InFlight);
        self.rewind(end);
        match end {
            End::Done if !unanswered && self.gate.is_some() => self.gate_unproven = false,
            End::NewGate(gate) => {
                if self.gate_unproven {
                    self.backoff.failed(now, None, jitter);
                }
                self.gate = Some(gate);
                self.gate_unproven = true;
            }
            End::StaleEpoch(known) => self.stop = Some(StopReason::StaleEpoch { known }),
            End::TooLarge if self.batch_items > 1 => self.batch_items /= 2,
            End::Retry { retry_after_ms, .. }
            | End::Overloaded { retry_after_ms }
            | End::Refused { retry_after_ms } => {
                self.backoff.failed(now, retry_after_ms, jitter);
            }
            End::Done | End::TooLarge | End::Gap | End::Lost => self.backoff.failed(now, None, jitter),
        }
    }

    /// What is in flight waits again.
    fn rewind(&mut self, end: End) {
        let mut tried = match end {
            End::Retry { seq, .. } => Some(seq),
            End::Lost => self.items.iter().find(|item| item.state == State::InFlight).map(|item| item.seq),
            _ => None,
        };
        for item in self.items.iter_mut().filter(|item| item.state == State::InFlight) {
            item.state = State::Waiting;
            if tried.take_if(|seq| *seq == item.seq).is_some() {
                item.attempts += 1;
            }
        }
    }

    fn raise_floor(&mut self) {
        while let Some(item) = self.items.pop_front_if(|item| item.state == State::Settled) {
            assert!(item.seq > self.floor, "settled twice");
            self.floor = item.seq;
            self.bytes -= item.bytes;
            self.settled_untrimmed += 1;
        }
    }

    fn next_action(&mut self, now: Moment) -> Option<Action> {
        if self.stopped {
            return None;
        }
        if let Some(park) = self.next_park() {
            return Some(park);
        }
        // A drain does not wait for the interval, but a broker that refuses is left alone for it all the same.
        if self.has_trim() && (now >= self.trim_due || self.draining && !self.trim_failed) {
            let count = std::mem::take(&mut self.settled_untrimmed);
            self.trimming = Some(count);
            return Some(Action::Trim { upto: self.floor, count });
        }
        if let Some(reason) = self.stop_reason() {
            self.stopped = true;
            return Some(Action::Stop(reason));
        }
        if self.may_post_but_for_backoff() && self.backoff.is_due(now) {
            return Some(Action::Post(self.form_batch()));
        }
        None
    }

    fn next_park(&mut self) -> Option<Action> {
        let unreadable_head = self.items.front_mut().filter(|item| item.state == State::Unreadable && !self.draining);
        let (item, reason) = match unreadable_head {
            Some(item) => (item, ParkReason::Unreadable),
            None => (self.items.iter_mut().find(|item| item.state == State::Rejected)?, ParkReason::Rejected),
        };
        item.state = State::Parking;
        Some(Action::Park { seq: item.seq, reason, attempts: item.attempts })
    }

    fn has_trim(&self) -> bool {
        self.settled_untrimmed > 0 && self.trimming.is_none()
    }

    fn stop_reason(&self) -> Option<StopReason> {
        if self.stop.is_some() {
            return self.stop;
        }
        let parking = self.is_parking();
        let drained = self.draining
            && self.in_flight.is_none()
            && !parking
            && self.settled_untrimmed == 0
            && self.trimming.is_none();
        drained.then_some(StopReason::Drained)
    }

    fn is_parking(&self) -> bool {
        self.items.iter().any(|item| matches!(item.state, State::Rejected | State::Parking))
    }

    /// The head waits: so nothing is in flight, and no copy of an earlier item is on its way.
    fn may_post_but_for_backoff(&self) -> bool {
        !self.draining
            && self.stop.is_none()
            && self.in_flight.is_none()
            && self.items.front().is_some_and(|item| item.state == State::Waiting)
    }

    fn form_batch(&mut self) -> Batch {
        let post = PostId(self.posts);
        self.posts += 1;
        self.in_flight = Some(post);
        let mut items = Vec::new();
        if self.gate.is_some() {
            let mut bytes = 0;
            for item in self.items.iter_mut().take(self.batch_items).take_while(|item| item.state == State::Waiting) {
                bytes += item.bytes;
                if bytes > self.limits.batch_bytes && !items.is_empty() {
                    break;
                }
                item.state = State::InFlight;
                items.push(item.seq);
            }
        }
        Batch { post, gate: self.gate, floor: self.floor, prev: self.floor, items }
    }

    pub(crate) fn view(&self) -> WindowView<'_> {
        WindowView { window: self }
    }
}

/// What the invariants look at.
pub(crate) struct WindowView<'a> {
    window: &'a SendWindow,
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

#[cfg(test)]
mod tests {
    use super::*;

    const GATE: GateId = GateId(7);

    fn limits() -> WindowLimits {
        WindowLimits { batch_items: 3, batch_bytes: 100, items: 10, bytes: 1000, trim_interval_ms: 200 }
    }

    fn window() -> SendWindow {
        SendWindow::new(Epoch(1), Seq(9), None, limits(), Backoff::new(100, 1000, 5000))
    }

    fn read(window: &mut SendWindow, seqs: &[u64]) {
        for seq in seqs {
            window.handle(Moment(0), Event::Read { seq: Seq(*seq), bytes: 10 });
        }
    }

    fn post(window: &mut SendWindow, now: u64) -> Batch {
        match window.poll(Moment(now)) {
            Some(Action::Post(batch)) => batch,
            other => panic!("expected a post, got {other:?}"),
        }
    }

    fn end(window: &mut SendWindow, now: u64, post: PostId, end: End) {
        window.handle(Moment(now), Event::Ended { post, end, jitter: 0 });
    }

    fn outcome(window: &mut SendWindow, post: PostId, seq: u64, outcome: Final) {
        window.handle(Moment(0), Event::Outcome { post, seq: Seq(seq), outcome });
    }

    /// A window that knows its gate and holds these items.
    fn ready(seqs: &[u64]) -> SendWindow {
        let mut window = window();
        read(&mut window, seqs);
        let hello = post(&mut window, 0);
        assert_eq!((hello.gate, hello.items.len()), (None, 0), "the first batch only asks for the gate");
        end(&mut window, 0, hello.post, End::NewGate(GATE));
        window
    }

    fn seqs(batch: &Batch) -> Vec<u64> {
        batch.items.iter().map(|seq| seq.0).collect()
    }

    #[test]
    fn a_batch_is_bounded_by_items_and_bytes_and_a_large_item_goes_alone() {
        let mut window = ready(&[10, 13, 14, 20]);
        assert_eq!(seqs(&post(&mut window, 0)), [10, 13, 14]);
        let mut window = self::window();
        for (seq, bytes) in [(10, 60), (11, 60), (12, 500)] {
            window.handle(Moment(0), Event::Read { seq: Seq(seq), bytes });
        }
        let hello = post(&mut window, 0);
        end(&mut window, 0, hello.post, End::NewGate(GATE));
        for expected in [10, 11, 12] {
            let batch = post(&mut window, 1000 * expected);
            assert_eq!(seqs(&batch), [expected]);
            outcome(&mut window, batch.post, expected, Final::Delivered);
            end(&mut window, 0, batch.post, End::Done);
            assert!(matches!(window.poll(Moment(1000 * expected)), Some(Action::Trim { count: 1, .. })));
            window.handle(Moment(1000 * expected), Event::Trimmed { done: true });
        }
    }

    #[test]
    fn outcomes_settle_a_growing_prefix_and_one_trim_takes_it() {
        let mut window = ready(&[10, 13, 14]);
        let batch = post(&mut window, 0);
        assert_eq!((batch.floor, batch.prev, batch.gate), (Seq(9), Seq(9), Some(GATE)));
        outcome(&mut window, batch.post, 10, Final::Delivered);
        assert_eq!(window.poll(Moment(0)), Some(Action::Trim { upto: Seq(10), count: 1 }));
        outcome(&mut window, batch.post, 13, Final::Duplicate);
        outcome(&mut window, batch.post, 14, Final::Delivered);
        assert_eq!(window.poll(Moment(0)), None, "one trim at a time");
        window.handle(Moment(5), Event::Trimmed { done: true });
        assert_eq!(window.poll(Moment(5)), None, "coalesced");
        assert_eq!(window.next_deadline(), Some(Moment(205)));
        assert_eq!(window.poll(Moment(205)), Some(Action::Trim { upto: Seq(14), count: 2 }));
    }

    #[test]
    fn a_failed_trim_is_tried_again_with_its_count() {
        let mut window = ready(&[10]);
        let batch = post(&mut window, 0);
        outcome(&mut window, batch.post, 10, Final::Delivered);
        assert!(matches!(window.poll(Moment(0)), Some(Action::Trim { .. })));
        window.handle(Moment(0), Event::Trimmed { done: false });
        assert_eq!(window.poll(Moment(200)), Some(Action::Trim { upto: Seq(10), count: 1 }));
    }

    #[test]
    fn no_floor_passes_a_rejected_item_before_its_copy_is_acked() {
        let mut window = ready(&[10, 13, 14, 15]);
        let batch = post(&mut window, 0);
        outcome(&mut window, batch.post, 10, Final::Rejected);
        assert_eq!(
            window.poll(Moment(0)),
            Some(Action::Park { seq: Seq(10), reason: ParkReason::Rejected, attempts: 1 })
        );
        outcome(&mut window, batch.post, 13, Final::Delivered);
        outcome(&mut window, batch.post, 14, Final::Delivered);
        end(&mut window, 0, batch.post, End::Done);
        assert_eq!(window.floor(), Seq(9));
        assert_eq!(window.poll(Moment(10_000)), None, "neither a trim nor a batch");
        window.handle(Moment(10_000), Event::Parked { seq: Seq(10) });
        assert_eq!(window.floor(), Seq(14));
        assert_eq!(window.poll(Moment(10_000)), Some(Action::Trim { upto: Seq(14), count: 3 }));
        let batch = post(&mut window, 10_000);
        assert_eq!((batch.floor, seqs(&batch)), (Seq(14), vec![15]));
    }

    #[test]
    fn an_unreadable_message_is_parked_as_the_head_and_holds_back_what_follows() {
        let mut window = ready(&[10]);
        window.handle(Moment(0), Event::ReadUnreadable { seq: Seq(11) });
        read(&mut window, &[12]);
        let batch = post(&mut window, 0);
        assert_eq!(seqs(&batch), [10]);
        assert_eq!(window.poll(Moment(0)), None, "not the head yet");
        outcome(&mut window, batch.post, 10, Final::Delivered);
        end(&mut window, 0, batch.post, End::Done);
        assert_eq!(
            window.poll(Moment(0)),
            Some(Action::Park { seq: Seq(11), reason: ParkReason::Unreadable, attempts: 0 })
        );
        assert_eq!(window.poll(Moment(0)), Some(Action::Trim { upto: Seq(10), count: 1 }));
        assert_eq!(window.poll(Moment(0)), None);
        window.handle(Moment(0), Event::Parked { seq: Seq(11) });
        assert_eq!(seqs(&post(&mut window, 0)), [12]);
    }

    #[test]
    fn a_retry_rewinds_to_the_floor_and_waits() {
        let mut window = ready(&[10, 13, 14]);
        let batch = post(&mut window, 0);
        outcome(&mut window, batch.post, 10, Final::Delivered);
        window.poll(Moment(0));
        end(&mut window, 0, batch.post, End::Retry { seq: Seq(13), retry_after_ms: Some(700) });
        assert_eq!(window.poll(Moment(699)), None);
        assert_eq!(window.next_deadline(), Some(Moment(700)));
        let batch = post(&mut window, 700);
        assert_eq!((batch.floor, seqs(&batch)), (Seq(10), vec![13, 14]));
    }

    #[test]
    fn a_closing_line_without_all_outcomes_is_a_lost_answer() {
        let mut window = ready(&[10, 13]);
        let batch = post(&mut window, 0);
        end(&mut window, 0, batch.post, End::Done);
        assert_eq!(window.failures(), 1);
        assert_eq!(seqs(&post(&mut window, 100)), [10, 13]);
    }

    #[test]
    fn a_new_gate_is_followed_at_once_but_alternating_ones_back_off() {
        let mut window = ready(&[10]);
        let batch = post(&mut window, 0);
        assert_eq!(batch.gate, Some(GATE));
        end(&mut window, 0, batch.post, End::NewGate(GateId(8)));
        assert!(window.gate_alternates());
        assert_eq!(window.poll(Moment(0)), None, "the second life in a row that takes nothing");
        let batch = post(&mut window, 100);
        outcome(&mut window, batch.post, 10, Final::Delivered);
        assert!(!window.gate_alternates());
    }

    #[test]
    fn a_batch_that_is_too_large_is_halved_until_it_is_one_item() {
        let mut window = ready(&[10, 13, 14]);
        let batch = post(&mut window, 0);
        end(&mut window, 0, batch.post, End::TooLarge);
        let batch = post(&mut window, 0);
        assert_eq!(seqs(&batch), [10]);
        end(&mut window, 0, batch.post, End::TooLarge);
        assert_eq!(window.poll(Moment(0)), None, "a single item that is too large backs off");
        assert_eq!(window.failures(), 1);
    }

    #[test]
    fn a_stale_owner_stops_for_good() {
        let mut window = ready(&[10]);
        let batch = post(&mut window, 0);
        end(&mut window, 0, batch.post, End::StaleEpoch(Epoch(4)));
        assert_eq!(window.poll(Moment(0)), Some(Action::Stop(StopReason::StaleEpoch { known: Epoch(4) })));
        assert_eq!(window.poll(Moment(9_999)), None);
        assert!(!window.has_room());
    }

    #[test]
    fn a_drain_settles_what_is_in_flight_and_trims_it() {
        let mut window = ready(&[10, 13, 14, 15]);
        let batch = post(&mut window, 0);
        window.handle(Moment(0), Event::Drain);
        assert_eq!(window.poll(Moment(0)), None, "still in flight");
        for seq in [10, 13, 14] {
            outcome(&mut window, batch.post, seq, Final::Delivered);
        }
        end(&mut window, 0, batch.post, End::Done);
        assert_eq!(window.poll(Moment(0)), Some(Action::Trim { upto: Seq(14), count: 3 }));
        assert_eq!(window.poll(Moment(0)), None);
        window.handle(Moment(0), Event::Trimmed { done: true });
        assert_eq!(window.poll(Moment(0)), Some(Action::Stop(StopReason::Drained)));
    }

    #[test]
    fn a_drain_does_not_hammer_a_broker_that_does_not_trim() {
        let mut window = ready(&[10]);
        let batch = post(&mut window, 0);
        outcome(&mut window, batch.post, 10, Final::Delivered);
        end(&mut window, 0, batch.post, End::Done);
        window.handle(Moment(0), Event::Drain);
        assert!(matches!(window.poll(Moment(0)), Some(Action::Trim { .. })));
        window.handle(Moment(0), Event::Trimmed { done: false });
        assert_eq!((window.poll(Moment(0)), window.next_deadline()), (None, Some(Moment(200))));
        assert!(matches!(window.poll(Moment(200)), Some(Action::Trim { count: 1, .. })));
    }

    #[test]
    fn a_gate_that_is_known_is_not_asked_for() {
        let mut window = SendWindow::new(Epoch(1), Seq(9), Some(GATE), limits(), Backoff::new(100, 1000, 5000));
        read(&mut window, &[10]);
        let batch = post(&mut window, 0);
        assert_eq!((batch.gate, seqs(&batch)), (Some(GATE), vec![10]));
        end(&mut window, 0, batch.post, End::NewGate(GateId(8)));
        assert_eq!(post(&mut window, 0).gate, Some(GateId(8)), "it was the wrong one: posted again at once");
    }

    #[test]
    fn a_late_end_of_an_old_post_is_ignored() {
        let mut window = ready(&[10]);
        let first = post(&mut window, 0);
        end(&mut window, 0, first.post, End::Lost);
        let second = post(&mut window, 100);
        end(&mut window, 100, first.post, End::Done);
        outcome(&mut window, first.post, 10, Final::Delivered);
        assert_eq!(window.floor(), Seq(9));
        outcome(&mut window, second.post, 10, Final::Delivered);
        assert_eq!(window.floor(), Seq(10));
    }
}
