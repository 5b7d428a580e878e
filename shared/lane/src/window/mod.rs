//! The near side of a lane, for one lane and one epoch: what is posted, settled and trimmed.
//!
//! ```text
//!   Read ─▶ waiting ─Post─▶ in flight ─Outcome─▶ delivered ───────────┐
//!            ▲ │                │        └─────▶ refused ─Park─▶ acked ┴─▶ settled ─▶ floor ─▶ Trim
//!            │ │                │                                        ▲
//!            └─│─── rewind ─────┘  (retry, gap, new gate, lost answer)   │
//!              └─ the head: unreadable, overdue, poison, operator ─Park─▶ acked, and purged before anything is posted
//! ```
//!
//! Several batches are in flight, each told where the one before it ended (`prev`). Each item is settled by its own
//! outcome line only. The floor moves over consecutive settled items, and no floor leaves the window, in a batch or in
//! a trim, that passes an unsettled one. A window is never resumed: a restarted owner takes a new epoch and starts from
//! what the stream holds.
//!
//! How much is sent: at once when nothing is in flight, or when the last batch left at least a linger ago (latency); else
//! when a batch is full, or that linger has passed (throughput). After a failure single items are tried until one has an outcome, and POSTs side by side come back by
//! doubling: an instance or a link that is down costs one activity per try, not a window.

use std::collections::VecDeque;

use crate::guard::{self, Guard};
use crate::{Backoff, Epoch, GateId, Moment, ParkReason, Seq, invariants};
use evidence::Evidence;
use flight::{Cancel, Flight};

pub(crate) use view::WindowView;
pub use vocabulary::{Action, Batch, End, Event, Settle, Standing, Start, StopReason, WindowLimits};

mod answers;
mod evidence;
mod flight;
mod parking;
mod posting;
#[cfg(test)]
mod tests;
mod view;
mod vocabulary;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Waiting,
    /// In a POST that was not given up.
    InFlight,
    /// Can't be read, or its deadline has passed: its copy is asked for when it is the head.
    Unfit(ParkReason),
    /// Refused by the instance, and the copy not yet asked for.
    Refused(ParkReason),
    /// The copy is on its way.
    Parking,
    Settled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Item {
    seq: Seq,
    bytes: usize,
    deadline: Option<Moment>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Trim {
    upto: Seq,
    count: u64,
}

/// The window of one lane and one epoch. See the module's picture.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SendWindow {
    epoch: Epoch,
    limits: WindowLimits,
    lease_until: Moment,
    /// Items of the next batch; less than the limit while the far side, or the link, does not take larger ones.
    batch_items: usize,
    /// POSTs side by side; one after a failure.
    posts_allowed: usize,
    floor: Seq,
    last_read: Seq,
    items: VecDeque<Item>,
    bytes: usize,
    flight: Flight,
    gate: Option<GateId>,
    /// The gate was learnt, and no batch was taken under it yet.
    gate_unproven: bool,
    /// Another gate was learnt before the last one was proven.
    gate_alternates: bool,
    backoff: Backoff,
    evidence: Option<Evidence>,
    /// Refusals in a row, up to the number that pauses the lane.
    rejections: u32,
    paused: bool,
    operator_parks: Option<Seq>,
    /// When a batch that isn't full goes all the same.
    /// A batch that isn't full keeps this distance from the one before it.
    linger_until: Moment,
    rate_until: Moment,
    settled_untrimmed: u64,
    trimming: Option<Trim>,
    trim_due: Moment,
    trim_failed: bool,
    /// The sender's own parked head: nothing is posted until it is purged.
    purge_first: Option<Seq>,
    draining: Option<Settle>,
    stop: Option<StopReason>,
    stopped: bool,
}

impl SendWindow {
    /// A new owner's window.
    #[must_use]
    pub fn new(start: Start, limits: WindowLimits, backoff: Backoff) -> Self {
        Self {
            epoch: start.epoch,
            limits,
            lease_until: start.lease_until,
            batch_items: limits.batch_items.max(1),
            posts_allowed: limits.posts.max(1),
            floor: start.floor,
            last_read: start.floor,
            items: VecDeque::new(),
            bytes: 0,
            flight: Flight::default(),
            gate: start.gate,
            gate_unproven: false,
            gate_alternates: false,
            backoff,
            evidence: None,
            rejections: 0,
            paused: false,
            operator_parks: None,
            linger_until: Moment(0),
            rate_until: Moment(0),
            settled_untrimmed: 0,
            trimming: None,
            trim_due: Moment(0),
            trim_failed: false,
            purge_first: None,
            draining: None,
            stop: None,
            stopped: false,
        }
    }

    /// Takes in what happened.
    ///
    /// # Panics
    /// On an event that can't be: an activity that was read before, an outcome of an item that its POST did not carry.
    pub fn handle(&mut self, now: Moment, event: Event) {
        match event {
            Event::Read { seq, bytes, deadline } => self.read(Item { seq, bytes, deadline, state: State::Waiting }),
            Event::ReadUnreadable { seq, bytes } => {
                let state = State::Unfit(ParkReason::Unreadable);
                self.read(Item { seq, bytes, deadline: None, state });
            }
            Event::Outcome { post, seq, outcome } => self.outcome(now, post, seq, outcome),
            Event::Ended { post, end, jitter } => self.ended(now, post, end, jitter),
            Event::Parked { seq } => self.parked(seq),
            Event::Trimmed { done } => self.trimmed(now, done),
            Event::Lease { until } => self.lease_until = until,
            Event::Limits(limits) => self.limit(limits),
            Event::Pause(paused) => self.paused = paused,
            Event::Resume => self.resume(),
            Event::ParkHead { seq } => self.operator_parks = Some(seq),
            Event::ClockStepped { ahead_ms } => self.clock_stepped(ahead_ms),
            Event::Drain(settle) => self.drain(settle),
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
        if self.stopped {
            return None;
        }
        let lease = Some(self.lease_until).filter(|until| *until < Moment(u64::MAX));
        let trim = self.trim_due();
        let head = self.items.front().filter(|head| self.waits_alone(head)).and_then(|head| head.deadline);
        lease.into_iter().chain(trim).chain(head).chain(self.post_due()).min()
    }

    /// Is there room for the lane's next activity?
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.is_draining()
            && self.stop.is_none()
            && self.items.len() < self.limits.items
            && self.bytes < self.limits.bytes
    }

    /// Is nothing waiting, in flight, on its way to be parked or to be trimmed?
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.items.is_empty() && self.flight.is_empty() && self.settled_untrimmed == 0 && self.trimming.is_none()
    }

    /// Was it told to post nothing more?
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_some()
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

    /// Items in flight: those of POSTs that were given up and have not ended among them.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.flight.held().0
    }

    /// POSTs that have not ended.
    #[must_use]
    pub fn posts(&self) -> usize {
        self.flight.posts.len()
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Failures in a row, counted up to the longest backoff.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// Has the far side changed its life twice without taking a batch? Then two receivers answer in turn.
    #[must_use]
    pub fn gate_alternates(&self) -> bool {
        self.gate_alternates
    }

    /// Did so many refusals come in a row that single items are tried now?
    #[must_use]
    pub fn is_paused_by_rejections(&self) -> bool {
        self.limits.rejections_max > 0 && self.rejections >= self.limits.rejections_max
    }

    /// Why nothing is posted although something waits; none where something is posted, or nothing waits.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        let head = self.items.front()?;
        if self.paused {
            return Some(Standing::Paused);
        }
        if self.is_paused_by_rejections() {
            return Some(Standing::Rejections);
        }
        if self.purge_first.is_some() || matches!(head.state, State::Parking | State::Refused(_) | State::Unfit(_)) {
            return Some(Standing::ParkingTheHead(self.purge_first.unwrap_or(head.seq)));
        }
        if let Some(until) = self.backoff.until().filter(|_| self.backoff.failures() > 0) {
            return Some(Standing::BackingOff { until, failures: self.backoff.failures() });
        }
        self.gate.is_none().then_some(Standing::AskingForTheGate)
    }

    fn read(&mut self, item: Item) {
        assert!(item.seq > self.last_read, "{} was read after {}", item.seq, self.last_read);
        self.last_read = item.seq;
        self.bytes += item.bytes;
        self.items.push_back(item);
    }

    fn parked(&mut self, seq: Seq) {
        if let Some(item) = self.items.iter_mut().find(|item| item.seq == seq && item.state == State::Parking) {
            item.state = State::Settled;
        }
        self.raise_floor();
    }

    fn trimmed(&mut self, now: Moment, done: bool) {
        let trim = self.trimming.take();
        self.trim_failed = !done;
        self.trim_due = now.after_ms(self.limits.trim_interval_ms);
        let Some(trim) = trim else { return };
        // A purge that was acked after the lease ended may have come after another owner's first POST: it is not counted.
        if !done || now >= self.lease_until {
            self.settled_untrimmed += trim.count;
        } else if self.purge_first.is_some_and(|seq| seq <= trim.upto) {
            self.purge_first = None;
        }
    }

    fn limit(&mut self, limits: WindowLimits) {
        if self.batch_items >= self.limits.batch_items {
            self.batch_items = limits.batch_items.max(1);
        }
        if self.posts_allowed >= self.limits.posts {
            self.posts_allowed = limits.posts.max(1);
        }
        self.batch_items = self.batch_items.min(limits.batch_items.max(1));
        self.posts_allowed = self.posts_allowed.min(limits.posts.max(1));
        self.rejections = if limits.rejections_max == 0 { 0 } else { self.rejections.min(limits.rejections_max) };
        self.limits = limits;
    }

    fn drain(&mut self, settle: Settle) {
        self.draining = Some(settle);
        if settle == Settle::Oldest {
            // A whole window takes longer than a grace period, the batch at work seldom does. Where it does (a v1 batch may take
            // minutes), the shell ends it with the grace, and what was in it is posted again.
            let at_work = |post: &&flight::Post| !post.abandoned && !post.unanswered.is_empty();
            let oldest = self.flight.posts.iter().find(at_work).map(|post| post.id);
            self.flight.call_back(|post| Some(post.id) != oldest && !post.unanswered.is_empty());
        }
    }

    /// Deadlines are on the wall clock, and the window's time is not.
    fn clock_stepped(&mut self, ahead_ms: i64) {
        let ms = ahead_ms.unsigned_abs();
        for deadline in self.items.iter_mut().filter_map(|item| item.deadline.as_mut()) {
            *deadline = if ahead_ms >= 0 { Moment(deadline.0.saturating_sub(ms)) } else { deadline.after_ms(ms) };
        }
    }

    fn resume(&mut self) {
        self.paused = false;
        self.rejections = 0;
        self.backoff.reset();
    }

    fn raise_floor(&mut self) {
        let prefix_only = guard::holds(Guard::PrefixTrim);
        while let Some(item) = self.items.pop_front_if(|item| item.state == State::Settled) {
            self.settled(item);
        }
        if !prefix_only && let Some(last) = self.items.iter().rposition(|item| item.state == State::Settled) {
            for _ in 0..=last {
                if let Some(item) = self.items.pop_front() {
                    self.settled(item);
                }
            }
        }
    }

    fn settled(&mut self, item: Item) {
        assert!(item.seq > self.floor, "settled twice");
        self.floor = item.seq;
        self.bytes -= item.bytes;
        self.settled_untrimmed += 1;
        if self.evidence.is_some_and(|evidence| evidence.seq <= item.seq) {
            self.evidence = None;
        }
        if self.operator_parks.is_some_and(|seq| seq <= item.seq) {
            self.operator_parks = None;
        }
    }

    fn next_action(&mut self, now: Moment) -> Option<Action> {
        if self.stopped {
            return None;
        }
        if now >= self.lease_until && guard::holds(Guard::LeaseBeforePost) {
            self.stop.get_or_insert(StopReason::LeaseLost);
        }
        if let Some(reason) = self.stop {
            self.stopped = true;
            return Some(Action::Stop(reason));
        }
        if let Some(post) = self.flight.posts.iter_mut().find(|post| post.cancel == Cancel::Wanted) {
            post.cancel = Cancel::Asked;
            return Some(Action::Cancel { post: post.id });
        }
        self.note_overdue(now);
        if let Some(park) = self.next_park() {
            return Some(park);
        }
        if self.trim_due().is_some_and(|due| now >= due) {
            let trim = Trim { upto: self.floor, count: std::mem::take(&mut self.settled_untrimmed) };
            self.trimming = Some(trim);
            return Some(Action::Trim { upto: trim.upto, count: trim.count });
        }
        if self.is_drained() {
            self.stopped = true;
            return Some(Action::Stop(StopReason::Drained));
        }
        self.post_due().is_some_and(|due| now >= due).then(|| Action::Post(self.form_batch(now)))
    }

    /// When the next trim may start; none where there is nothing to trim, or one is on its way.
    fn trim_due(&self) -> Option<Moment> {
        if self.settled_untrimmed == 0 || self.trimming.is_some() {
            return None;
        }
        // A drain and a parked head don't wait for the interval, but a broker that refuses is left alone all the same.
        let at_once = (self.is_draining() || self.purge_first.is_some()) && !self.trim_failed;
        Some(if at_once { Moment(0) } else { self.trim_due })
    }

    fn is_drained(&self) -> bool {
        let settled = match self.draining {
            None => false,
            Some(Settle::Oldest) => self.flight.live() == 0,
            Some(Settle::All) => self.flight.is_empty(),
        };
        settled && !self.is_parking() && self.settled_untrimmed == 0 && self.trimming.is_none()
    }

    fn is_parking(&self) -> bool {
        self.items.iter().any(|item| matches!(item.state, State::Refused(_) | State::Parking))
    }

    pub(crate) fn view(&self) -> WindowView<'_> {
        WindowView { window: self }
    }
}
