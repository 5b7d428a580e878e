//! Both ends of a lane, a stream, an instance, and a link that loses and cuts: one small world, stepped by choices.
//!
//! It uses the very `SendWindow` and `ReceiveGate` that the services run. Time stands still but for the backoff, which
//! is skipped to when nothing else can happen; so every order of events that the rules allow can be chosen.

use std::collections::{BTreeMap, BTreeSet};

use fedstream_lane::{
    Action, Answer, Backoff, Batch, End, Epoch, Event, Final, GateId, GateLimits, Head, MemoryLimits, Moment, MsgId,
    Origin, PostId, ReceiveGate, Refusal, SendWindow, Seq, Step, StopReason, Visit, WindowLimits,
};

const WINDOW: WindowLimits =
    WindowLimits { batch_items: 3, batch_bytes: 1_000, items: 6, bytes: 10_000, trim_interval_ms: 0 };

/// What the lane holds in this world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How far each sequence is above the one before: holes are larger than 1.
    pub gaps: Vec<u8>,
    /// Which activities (by place in the lane) the instance rejects.
    pub rejected: BTreeSet<usize>,
    /// How many outcomes the far side remembers.
    pub memory_items: usize,
}

/// An owner of the lane: one process life, or one that was replaced and does not know it.
#[derive(Debug)]
struct Owner {
    epoch: Epoch,
    window: Option<SendWindow>,
    parking: Vec<Seq>,
    trimming: Option<(Seq, u64)>,
}

/// A POST on its way, or being worked on at the far side.
#[derive(Debug)]
struct Post {
    owner: usize,
    batch: Batch,
    epoch: Epoch,
    /// The receiver's life that admitted it.
    admitted: Option<GateId>,
    next: usize,
    prev: Seq,
    /// The sender no longer listens: the item at the instance goes on, no further one is begun.
    cut: bool,
}

/// An activity at the instance.
#[derive(Debug)]
struct AtInstance {
    seq: Seq,
    epoch: Epoch,
    /// The life that sent it; after a restart its outcome reaches nobody.
    life: GateId,
    post: usize,
}

/// The whole of it. See the module.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    now: Moment,
    stream: BTreeMap<Seq, MsgId>,
    all: Vec<Seq>,
    owners: Vec<Owner>,
    posts: BTreeMap<usize, Post>,
    posts_made: usize,
    gate: ReceiveGate,
    lives: u64,
    at_instance: Vec<AtInstance>,
    parked: BTreeSet<Seq>,
    answered: BTreeSet<Seq>,
    /// First final outcomes, in the order in which they came.
    first_final: Vec<Seq>,
    /// Outcomes of any kind at the instance, repeats included.
    pub outcomes: usize,
}

impl World {
    /// A world before its first step.
    pub fn new(plan: Plan) -> Self {
        let mut seq = 0;
        let all: Vec<Seq> = plan
            .gaps
            .iter()
            .map(|gap| {
                seq += u64::from(*gap).max(1);
                Seq(seq)
            })
            .collect();
        let stream = all.iter().map(|seq| (*seq, MsgId::new(format!("m{seq}")))).collect();
        let gate = new_gate(&plan, 1);
        let mut world = Self {
            plan,
            now: Moment(0),
            stream,
            all,
            owners: vec![],
            posts: BTreeMap::new(),
            posts_made: 0,
            gate,
            lives: 1,
            at_instance: vec![],
            parked: BTreeSet::new(),
            answered: BTreeSet::new(),
            first_final: vec![],
            outcomes: 0,
        };
        world.take_over();
        world
    }

    /// One step, chosen by a number. Faults are chosen as often as anything else.
    pub fn step(&mut self, choice: u16) {
        let (kind, which) = (choice & 0xff, usize::from(choice >> 8));
        match kind % 16 {
            0..=3 => self.drive(if which % 5 == 0 { self.newest().saturating_sub(1) } else { self.newest() }),
            4..=7 => self.work(which),
            8..=10 => self.finish(which, Ending::Final),
            11 => self.finish(which, Ending::Unavailable),
            12 => self.finish(which, Ending::AnswerLost),
            13 => self.cut(which),
            14 if which % 4 == 0 => self.restart_receiver(),
            15 if which % 4 == 0 => self.take_over(),
            _ => self.wait(),
        }
        self.check();
    }

    /// No more faults: everything must come to its end within a bounded number of steps.
    pub fn run_out(&mut self) {
        for _ in 0..60 * (self.all.len() + 2) {
            if self.stream.is_empty() {
                break;
            }
            self.drive(self.newest());
            for which in 0..self.posts.len() {
                self.work(which);
            }
            self.finish(0, Ending::Final);
            self.wait();
            self.check();
        }
        assert!(self.stream.is_empty(), "awake: the lane still holds {:?}\n{self:#?}", self.stream.keys());
        let missing: Vec<_> =
            self.all.iter().filter(|seq| !self.answered.contains(seq) && !self.parked.contains(seq)).collect();
        assert!(missing.is_empty(), "no-loss: {missing:?} were purged without an outcome");
    }

    fn newest(&self) -> usize {
        self.owners.len() - 1
    }

    /// A new owner takes the lane; the one before may go on for a while without knowing.
    fn take_over(&mut self) {
        let epoch = Epoch(self.owners.len() as u64 + 1);
        self.owners.push(Owner { epoch, window: None, parking: vec![], trimming: None });
    }

    /// Lets an owner read and act.
    fn drive(&mut self, index: usize) {
        self.settle_side_effects(index);
        self.read(index);
        while let Some(action) = self.owners[index].window.as_mut().and_then(|window| window.poll(self.now)) {
            match action {
                Action::Post(batch) => self.post(index, batch),
                Action::Park { seq, .. } => self.owners[index].parking.push(seq),
                Action::Trim { upto, count } => self.owners[index].trimming = Some((upto, count)),
                Action::Stop(StopReason::StaleEpoch { .. } | StopReason::Drained) => {}
            }
        }
    }

    fn read(&mut self, index: usize) {
        let owner = &mut self.owners[index];
        loop {
            let last = owner.window.as_ref().map_or(Seq(0), SendWindow::last_read);
            if owner.window.as_ref().is_some_and(|window| !window.has_room()) {
                return;
            }
            let Some(seq) = self.stream.range(Seq(last.0 + 1)..).next().map(|(seq, _)| *seq) else { return };
            let window = owner.window.get_or_insert_with(|| {
                SendWindow::new(owner.epoch, Seq(seq.0 - 1), None, WINDOW, Backoff::new(10, 40, 100))
            });
            window.handle(self.now, Event::Read { seq, bytes: 10 });
        }
    }

    /// Copies are acked and purges happen.
    fn settle_side_effects(&mut self, index: usize) {
        let parking = std::mem::take(&mut self.owners[index].parking);
        for seq in parking {
            self.parked.insert(seq);
            self.tell(index, Event::Parked { seq });
        }
        if let Some((upto, _)) = self.owners[index].trimming.take() {
            let below: Vec<Seq> = self.stream.range(..=upto).map(|(seq, _)| *seq).collect();
            for seq in below {
                assert!(
                    self.answered.contains(&seq) || self.parked.contains(&seq),
                    "no-loss: {seq} is purged and neither answered 2xx nor parked"
                );
                assert!(
                    !self.rejects(seq) || self.parked.contains(&seq),
                    "no-loss: {seq} was rejected, purged and not parked"
                );
                self.stream.remove(&seq);
            }
            self.tell(index, Event::Trimmed { done: true });
        }
    }

    fn post(&mut self, owner: usize, batch: Batch) {
        let epoch = self.owners[owner].epoch;
        let prev = batch.prev;
        self.posts.insert(self.posts_made, Post { owner, batch, epoch, admitted: None, next: 0, prev, cut: false });
        self.posts_made += 1;
    }

    /// The far side works on a POST: admits it, or takes its next item one step on.
    fn work(&mut self, which: usize) {
        let Some(id) = self.posts.keys().nth(which % self.posts.len().max(1)).copied() else { return };
        let Some(post) = self.posts.get_mut(&id) else { return };
        if self.at_instance.iter().any(|at| at.post == id) {
            return;
        }
        if post.admitted.is_none() {
            let head = Head { gate: post.batch.gate, origin: origin(), epoch: post.epoch, floor: post.batch.floor };
            match self.gate.admit(&head) {
                Ok(()) => post.admitted = Some(self.gate.id()),
                Err(Refusal::NewGate(gate)) => return self.end(id, End::NewGate(gate)),
                Err(Refusal::StaleEpoch(known)) => return self.end(id, End::StaleEpoch(known)),
                Err(Refusal::OtherOrigin(origin)) => panic!("one site only: {origin}"),
            }
        }
        if post.cut || post.admitted != Some(self.gate.id()) {
            self.posts.remove(&id);
            return;
        }
        let Some(seq) = post.batch.items.get(post.next).copied() else { return self.end(id, End::Done) };
        let msg_id = MsgId::new(format!("m{seq}"));
        let visit = Visit { epoch: post.epoch, prev: post.prev, seq, msg_id: &msg_id, since: self.now };
        match self.gate.step(self.now, &visit) {
            Step::Deliver => {
                let newest = self.gate.epoch();
                assert_eq!(
                    newest,
                    Some(post.epoch),
                    "fenced: an item of epoch {} is begun under {newest:?}",
                    post.epoch
                );
                let life = self.gate.id();
                assert!(
                    !self.at_instance.iter().any(|at| at.life == life),
                    "single: two items of one life at the instance"
                );
                self.at_instance.push(AtInstance { seq, epoch: post.epoch, life, post: id });
            }
            Step::Answer(answer) => {
                assert!(
                    !(answer.outcome == Final::Duplicate && self.rejects(seq) && !self.parked.contains(&seq)),
                    "a rejection was called a duplicate"
                );
                self.outcome(id, seq, answer.outcome);
            }
            Step::Wait { .. } => {}
            Step::Gap { .. } => self.end(id, End::Gap),
            Step::Stale(known) => self.end(id, End::StaleEpoch(known)),
        }
    }

    /// An activity at the instance comes to its end.
    fn finish(&mut self, which: usize, ending: Ending) {
        if self.at_instance.is_empty() {
            return;
        }
        let at = self.at_instance.remove(which % self.at_instance.len());
        let rejects = self.rejects(at.seq);
        if ending != Ending::Unavailable {
            self.outcomes += 1;
            if !rejects {
                self.answered.insert(at.seq);
            }
            if !self.first_final.contains(&at.seq) {
                self.first_final.push(at.seq);
            }
        }
        if at.life != self.gate.id() {
            return; // the receiver that asked is gone
        }
        let outcome = if rejects { Final::Rejected } else { Final::Delivered };
        if ending == Ending::Final {
            self.gate.finished(Some(Answer { outcome, status: 200, body: None }));
            self.outcome(at.post, at.seq, outcome);
        } else {
            self.gate.finished(None);
            self.end(at.post, End::Retry { seq: at.seq, status: Some(503), alive: false, retry_after_ms: None });
        }
    }

    fn outcome(&mut self, id: usize, seq: Seq, outcome: Final) {
        let Some(post) = self.posts.get_mut(&id) else { return };
        post.next += 1;
        post.prev = seq;
        let (owner, post_id, cut) = (post.owner, post.batch.post, post.cut);
        if !cut {
            self.tell(owner, Event::Outcome { post: post_id, seq, outcome });
        }
    }

    fn end(&mut self, id: usize, end: End) {
        let Some(post) = self.posts.remove(&id) else { return };
        if !post.cut {
            self.ended(post.owner, post.batch.post, end);
        }
    }

    fn ended(&mut self, owner: usize, post: PostId, end: End) {
        self.tell(owner, Event::Ended { post, end, jitter: 0 });
    }

    /// The connection of a POST is gone; the far side finds out later.
    fn cut(&mut self, which: usize) {
        let Some(id) = self.posts.keys().nth(which % self.posts.len().max(1)).copied() else { return };
        let Some(post) = self.posts.get_mut(&id) else { return };
        if !post.cut {
            post.cut = true;
            let (owner, post_id) = (post.owner, post.batch.post);
            self.ended(owner, post_id, End::Lost);
        }
    }

    /// The batch-receiver is killed and started again. What is at the instance goes on there.
    fn restart_receiver(&mut self) {
        self.lives += 1;
        self.gate = new_gate(&self.plan, self.lives);
        let admitted: Vec<usize> =
            self.posts.iter().filter(|(_, post)| post.admitted.is_some()).map(|(id, _)| *id).collect();
        for id in admitted {
            self.end(id, End::Lost);
        }
    }

    fn wait(&mut self) {
        self.now = self.now.after_ms(50);
    }

    fn tell(&mut self, owner: usize, event: Event) {
        if let Some(window) = &mut self.owners[owner].window {
            window.handle(self.now, event);
        }
    }

    fn rejects(&self, seq: Seq) -> bool {
        self.all.iter().position(|known| *known == seq).is_some_and(|place| self.plan.rejected.contains(&place))
    }

    fn check(&self) {
        let mut in_order = self.first_final.clone();
        in_order.sort();
        assert_eq!(self.first_final, in_order, "in-order: first final outcomes");
        let skipped = self.all.iter().take(self.first_final.len()).ne(in_order.iter());
        assert!(!skipped, "in-order: an activity was passed over: {:?}", self.first_final);
        for at in &self.at_instance {
            assert!(at.epoch <= Epoch(self.owners.len() as u64));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The instance answers for good.
    Final,
    /// It does not take the activity.
    Unavailable,
    /// It takes it, and its answer is lost.
    AnswerLost,
}

fn origin() -> Origin {
    Origin { site: "near".into(), created_us: 1 }
}

fn new_gate(plan: &Plan, life: u64) -> ReceiveGate {
    let memory = MemoryLimits { items: plan.memory_items, bytes: 100_000 };
    ReceiveGate::new(GateId(life), GateLimits { memory, wait_max_ms: 30 })
}
