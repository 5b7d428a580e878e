//! Both ends of a lane, a stream, an instance, and a link that loses, delays, repeats and reorders: one small world,
//! moved by [`Op`]s.
//!
//! It uses the very `SendWindow` and `ReceiveGate` that the services run, and keeps the rules that they rely on: a
//! lease is taken when the one before it is over, lines of one answer come in order, a purge is asked for once at a
//! time. Everything else may happen at any moment. What must hold is checked by the [`Ledger`].

mod far;
mod ledger;
mod link;
mod owner;
mod plan;

use std::collections::{BTreeMap, VecDeque};

use fedstream_lane::{Action, Backoff, Batch, End, Epoch, Event, Final, Moment, ParkReason, Seq, Start, StopReason};

use far::{Far, Line, Request};
pub use ledger::Ledger;
use owner::Owner;
pub use plan::{Activity, Broker, Ending, Fate, Op, Plan, op, plan};

/// Long enough for a few round trips of this world, short enough to end in many of them.
const TTL_MS: u64 = 400;
/// How long a batch waits for an earlier one.
const WAIT_MAX_MS: u64 = 30;

/// A POST that has not ended for its owner, with the lines that are on their way to it.
#[derive(Debug)]
struct Post {
    owner: usize,
    batch: Batch,
    lines: VecDeque<Line>,
}

/// An owner's process, with what it asked the broker for.
#[derive(Debug)]
struct Process {
    owner: Owner,
    /// Copies that are not acked.
    copies: VecDeque<(Seq, ParkReason)>,
    /// A purge that is not acked.
    purge: Option<Seq>,
    /// It is gone, or done with the lane.
    ended: bool,
}

/// The whole of it. See the module.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    now: Moment,
    /// What the lane holds, by sequence.
    stream: BTreeMap<Seq, Activity>,
    fates: BTreeMap<Seq, Fate>,
    accepted: usize,
    limits: usize,
    processes: Vec<Process>,
    posts: BTreeMap<usize, Post>,
    posts_made: usize,
    wire: Vec<Request>,
    far: Far,
    /// What both ends came to.
    pub ledger: Ledger,
}

impl World {
    /// A world before its first step: one activity is there, and an owner.
    pub fn new(plan: Plan) -> Self {
        let far = Far::new(plan.memory_items, WAIT_MAX_MS);
        let mut world = Self {
            plan,
            now: Moment(0),
            stream: BTreeMap::new(),
            fates: BTreeMap::new(),
            accepted: 0,
            limits: 0,
            processes: vec![],
            posts: BTreeMap::new(),
            posts_made: 0,
            wire: vec![],
            far,
            ledger: Ledger::default(),
        };
        world.accept();
        world.new_owner(false);
        world
    }

    /// One thing happens; nothing where there is nothing to choose.
    pub fn apply(&mut self, op: Op) {
        match op {
            Op::Accept => self.accept(),
            Op::Drive(back) => self.drive(self.owner(back), true),
            Op::Pause(back) => self.drive(self.owner(back), false),
            Op::Broker(back, broker) => self.broker(self.owner(back), broker),
            Op::Arrive(which) => self.arrive(which, None),
            Op::ArriveTwice(which, hears) => self.arrive(which, Some(hears)),
            Op::Lose(which) => drop(self.take_from_wire(which)),
            Op::Work(which) => {
                if let Some(id) = pick(which, self.far.requests().map(|(id, _)| id)) {
                    let did = self.far.work(self.now, id, &mut self.ledger);
                    self.hand_on(did);
                }
            }
            Op::Finish(which, ending) => self.finish(which, ending),
            Op::Hear(which) => self.hear(which),
            Op::GiveUp(which) => {
                if let Some(post) = pick(which, self.posts.keys().copied()) {
                    self.lost(post);
                }
            }
            Op::FindOut(which) => self.find_out(which),
            Op::RestartReceiver => {
                for post in self.far.restart() {
                    self.posts.entry(post).and_modify(|post| post.lines.push_back(Line::Over(End::Lost)));
                }
            }
            Op::Crash => self.crash(),
            Op::TakeOver(knows_the_gate) => self.take_over(knows_the_gate),
            Op::Renew => self.renew(),
            Op::Drain => self.tell_newest(Event::Drain(fedstream_lane::Settle::Oldest)),
            Op::SetPaused(paused) => self.tell_newest(Event::Pause(paused)),
            Op::Resume => self.tell_newest(Event::Resume),
            Op::ParkHead(which) => {
                if let Some(seq) = pick(which, self.stream.keys().copied()) {
                    self.tell_newest(Event::ParkHead { seq });
                }
            }
            Op::Limits(which) => self.change_limits(usize::from(which)),
            Op::Wait(ms) => self.now = self.now.after_ms(ms.into()),
        }
    }

    /// No more faults: everything must come to its end within a bounded number of rounds.
    pub fn run_out(&mut self) {
        while self.accepted < self.plan.activities.len() {
            self.accept();
        }
        self.tell_newest(Event::Resume);
        for _ in 0..60 * (self.plan.activities.len() + 2) {
            if self.stream.is_empty() {
                break;
            }
            self.round();
        }
        assert!(self.stream.is_empty(), "awake: the lane still holds {:?}\n{self:#?}", self.stream.keys());
        self.ledger.nothing_is_missing();
    }

    /// Everybody does what is due, and a moment passes.
    fn round(&mut self) {
        let newest = self.processes.len() - 1;
        if self.processes[newest].ended {
            self.take_over(false);
        }
        self.renew();
        for owner in 0..self.processes.len() {
            self.drive(owner, true);
            while self.processes[owner].purge.is_some() || !self.processes[owner].copies.is_empty() {
                self.broker(owner, Broker::Acks);
            }
        }
        while !self.wire.is_empty() {
            self.arrive(0, None);
        }
        loop {
            for id in self.far.requests().map(|(id, _)| id).collect::<Vec<_>>() {
                let did = self.far.work(self.now, id, &mut self.ledger);
                self.hand_on(did);
            }
            if self.far.at_instance.is_empty() {
                break;
            }
            for _ in 0..self.far.at_instance.len() {
                self.finish(0, Ending::Final);
            }
        }
        for post in self.posts.keys().copied().collect::<Vec<_>>() {
            self.hear_line(post);
        }
        self.give_up_what_nobody_answers();
        self.now = self.now.after_ms(50);
    }

    fn give_up_what_nobody_answers(&mut self) {
        let mut answered: Vec<usize> = self
            .wire
            .iter()
            .chain(self.far.requests().map(|(_, request)| request))
            .filter(|request| request.heard)
            .map(|request| request.post)
            .collect();
        answered.extend(self.posts.iter().filter(|(_, post)| !post.lines.is_empty()).map(|(id, _)| *id));
        for post in self.posts.keys().copied().filter(|post| !answered.contains(post)).collect::<Vec<_>>() {
            self.lost(post);
        }
    }

    fn owner(&self, back: u8) -> usize {
        self.processes.len() - 1 - usize::from(back).min(self.processes.len() - 1)
    }

    fn accept(&mut self) {
        let Some(activity) = self.plan.activities.get(self.accepted).copied() else { return };
        let last = self.fates.last_key_value().map_or(0, |(seq, _)| seq.0);
        let seq = Seq(last + u64::from(activity.step.max(1)));
        self.accepted += 1;
        self.stream.insert(seq, activity);
        self.fates.insert(seq, activity.fate);
        self.ledger.accepted(seq, activity.bytes);
    }

    fn new_owner(&mut self, knows_the_gate: bool) {
        let epoch = Epoch(self.processes.len() as u64 + 1);
        let gate = knows_the_gate.then(|| self.far.life());
        let start = Start { epoch, floor: Seq(0), gate, lease_until: self.now.after_ms(TTL_MS) };
        let owner = Owner::new(start, self.plan.limits[self.limits], Backoff::new(10, 40, 100));
        self.processes.push(Process { owner, copies: VecDeque::new(), purge: None, ended: false });
    }

    /// When the lease of the owner before is over, or it gave the lane back.
    fn take_over(&mut self, knows_the_gate: bool) {
        if let Some(process) = self.processes.last() {
            self.now = self.now.max(process.owner.lease_until);
        }
        self.new_owner(knows_the_gate);
    }

    fn renew(&mut self) {
        let (now, until) = (self.now, self.now.after_ms(TTL_MS));
        if let Some(process) = self.processes.last_mut()
            && !process.ended
            && now < process.owner.lease_until
        {
            process.owner.lease_until = until;
            self.tell_newest(Event::Lease { until });
        }
    }

    /// Its connections break, and what it polled is never done; what the broker has is there or not.
    fn crash(&mut self) {
        let newest = self.processes.len() - 1;
        let process = &mut self.processes[newest];
        process.ended = true;
        process.owner.window = None;
        process.owner.polled.clear();
        self.ledger.owner_died(process.owner.epoch);
        self.posts.retain(|_, post| post.owner != newest);
    }

    fn change_limits(&mut self, which: usize) {
        self.limits = which % self.plan.limits.len();
        let limits = self.plan.limits[self.limits];
        if let Some(process) = self.processes.last_mut() {
            process.owner.limits = limits;
        }
        self.tell_newest(Event::Limits(limits));
    }

    /// An owner reads and polls; then it does what it polled, or is paused before.
    fn drive(&mut self, index: usize, acts: bool) {
        self.read(index);
        loop {
            while acts && let Some(action) = self.processes[index].owner.polled.pop_front() {
                self.act(index, action);
            }
            let owner = &mut self.processes[index].owner;
            match owner.window.as_mut().and_then(|window| window.poll(self.now)) {
                Some(Action::Post(batch)) => {
                    for seq in &batch.items {
                        let overdue = matches!(self.fates[seq], Fate::Until(ms) if self.now >= Moment(ms.into()));
                        assert!(!overdue, "deadline: {seq} is posted after it");
                    }
                    self.ledger.posted(owner.epoch, &owner.limits, &batch);
                    owner.polled.push_back(Action::Post(batch));
                }
                Some(action) => owner.polled.push_back(action),
                None => return,
            }
        }
    }

    fn read(&mut self, index: usize) {
        let Process { owner, ended, .. } = &mut self.processes[index];
        while !*ended && let Some(after) = owner.reads_after() {
            let Some((seq, activity)) = self.stream.range(Seq(after.0 + 1)..).next() else { return };
            let (seq, bytes) = (*seq, activity.bytes);
            let event = match activity.fate {
                Fate::Unreadable => Event::ReadUnreadable { seq, bytes },
                Fate::Until(ms) => Event::Read { seq, bytes, deadline: Some(Moment(ms.into())) },
                _ => Event::Read { seq, bytes, deadline: None },
            };
            owner.window_from(seq).handle(self.now, event);
        }
    }

    fn act(&mut self, index: usize, action: Action) {
        self.ledger.saw(ledger::name_of_action(&action));
        match action {
            Action::Post(batch) => {
                self.wire.push(Request::new(self.posts_made, self.processes[index].owner.epoch, batch.clone()));
                self.posts.insert(self.posts_made, Post { owner: index, batch, lines: VecDeque::new() });
                self.posts_made += 1;
            }
            Action::Cancel { post } => {
                let its = |open: &Post| open.owner == index && open.batch.post == post;
                if let Some(id) = self.posts.iter().find(|(_, open)| its(open)).map(|(id, _)| *id) {
                    self.lost(id);
                }
            }
            Action::Park { seq, reason } => self.processes[index].copies.push_back((seq, reason)),
            Action::Trim { upto, .. } => {
                self.ledger.trims(upto);
                self.processes[index].purge = Some(upto);
            }
            Action::Stop(reason) => {
                let process = &mut self.processes[index];
                process.ended = true;
                if reason == StopReason::Drained {
                    process.owner.lease_until = self.now; // given back: nobody waits for its end
                }
            }
        }
    }

    /// The broker answers: copies first. A copy that isn't acked is stored again, under the same id.
    fn broker(&mut self, index: usize, broker: Broker) {
        let process = &mut self.processes[index];
        if let Some((seq, reason)) = process.copies.front().copied() {
            if broker != Broker::Refuses {
                self.has_cause(seq, reason);
                self.ledger.copied(seq, reason);
            }
            if broker == Broker::Acks {
                self.processes[index].copies.pop_front();
                self.tell(index, Event::Parked { seq });
            }
        } else if let Some(upto) = process.purge.take() {
            if broker != Broker::Refuses {
                self.ledger.purged(upto);
                self.stream.retain(|seq, _| *seq > upto);
            }
            self.tell(index, Event::Trimmed { done: broker == Broker::Acks });
        }
    }

    fn has_cause(&self, seq: Seq, reason: ParkReason) {
        let fate = self.fates[&seq];
        let has = match reason {
            ParkReason::Expired => {
                matches!(fate, Fate::Until(ms) if self.now >= Moment(ms.into()))
                    || fate == Fate::Refused(Final::Expired)
            }
            ParkReason::Unreadable => fate == Fate::Unreadable,
            _ => true,
        };
        assert!(has, "no-loss: {seq} is parked as {reason} without cause");
    }

    fn tell_newest(&mut self, event: Event) {
        self.tell(self.processes.len() - 1, event);
    }

    fn tell(&mut self, owner: usize, event: Event) {
        if let Some(window) = &mut self.processes[owner].owner.window {
            window.handle(self.now, event);
        }
    }
}

/// The one that a number chooses, where there is any.
fn pick<T>(which: u8, among: impl Iterator<Item = T>) -> Option<T> {
    let all: Vec<T> = among.collect();
    let at = usize::from(which) % all.len().max(1);
    all.into_iter().nth(at)
}
