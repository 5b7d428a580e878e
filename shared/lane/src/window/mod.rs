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

use crate::{Backoff, Epoch, Final, GateId, Moment, ParkReason, PostId, Seq, invariants};

pub(crate) use view::WindowView;
pub use vocabulary::{Action, Batch, End, Event, StopReason, WindowLimits};

#[cfg(test)]
mod tests;
mod view;
mod vocabulary;

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
    /// Items of the next batch; less than the limit while the far side refuses larger ones.
    batch_items: usize,
    floor: Seq,
    last_read: Seq,
    items: VecDeque<Item>,
    bytes: usize,
    in_flight: Option<PostId>,
    posts: u64,
    gate: Option<GateId>,
    /// The gate was learnt, and no batch was taken under it yet.
    gate_unproven: bool,
    /// Another gate was learnt before the last one was proven.
    gate_alternates: bool,
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
            gate_alternates: false,
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
            Event::ReadUnreadable { seq, bytes } => {
                self.read(Item { seq, bytes, attempts: 0, state: State::Unreadable });
            }
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

    /// Has the far side changed its life twice without taking a batch? Then two receivers answer in turn.
    #[must_use]
    pub fn gate_alternates(&self) -> bool {
        self.gate_alternates
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
            Final::Rejected | Final::Expired | Final::Unprocessed => State::Rejected,
        };
        self.gate_is_proven();
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
        if matches!(end, End::Done | End::Retry { .. } | End::Gap) {
            self.gate_is_proven();
        }
        match end {
            // Back to the full size by an eighth: each batch that is refused again costs a crossing.
            End::Done if !unanswered && self.gate.is_some() => {
                let grown = self.batch_items + (self.batch_items / 8).max(1);
                self.batch_items = grown.min(self.limits.batch_items.max(1));
            }
            End::NewGate(gate) => {
                if self.gate_unproven {
                    self.backoff.failed(now, None, jitter);
                    self.gate_alternates = true;
                }
                self.gate = Some(gate);
                self.gate_unproven = true;
            }
            End::StaleEpoch(known) => self.stop = Some(StopReason::StaleEpoch { known }),
            End::Unfit if self.batch_items > 1 => self.batch_items /= 2,
            End::Retry { retry_after_ms, .. }
            | End::Overloaded { retry_after_ms }
            | End::Refused { retry_after_ms } => {
                self.backoff.failed(now, retry_after_ms, jitter);
            }
            End::Done | End::Unfit | End::Gap | End::Lost => self.backoff.failed(now, None, jitter),
        }
    }

    /// The far side took a batch in the life that it was meant for.
    fn gate_is_proven(&mut self) {
        (self.gate_unproven, self.gate_alternates) = (false, false);
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
