//! The far side of a lane: a `ReceiveGate`, the batches that reached it, and what is at the instance.
//!
//! It does what a batch-receiver does and no more: admits a batch, takes its items one by one, answers in lines. When
//! each step happens is the world's choice.

use std::collections::BTreeMap;

use fedstream_lane::{
    Answer, Batch, End, Epoch, Final, GateId, GateLimits, Head, MemoryLimits, Moment, MsgId, Origin, ReceiveGate,
    Refusal, Seq, Step, Visit,
};

use super::ledger::Ledger;

/// A request on its way, or being worked on.
#[derive(Clone, Debug)]
pub struct Request {
    /// The sender's POST that it is one copy of.
    pub post: usize,
    /// Does the sender hear the answer to this copy?
    pub heard: bool,
    epoch: Epoch,
    batch: Batch,
    admitted: bool,
    next: usize,
    /// Since when it waits for an earlier batch.
    since: Option<Moment>,
}

impl Request {
    /// As it leaves its owner.
    pub fn new(post: usize, epoch: Epoch, batch: Batch) -> Self {
        Self { post, heard: true, epoch, batch, admitted: false, next: 0, since: None }
    }
}

/// An activity at the instance.
#[derive(Clone, Copy, Debug)]
pub struct AtInstance {
    /// The activity.
    pub seq: Seq,
    /// The life that brought it; after a restart its outcome reaches nobody.
    pub life: GateId,
    /// The request that it came in.
    pub request: u64,
}

/// What one step of work on a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// An item is at the instance now, or was before.
    AtInstance,
    /// It says something to the sender.
    Says(Said),
    /// It waits, at most until then.
    Waits(Option<Moment>),
}

/// A piece of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// To whom.
    pub post: usize,
    /// Does the sender hear it?
    pub heard: bool,
    /// What.
    pub line: Line,
}

/// A line of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// What became of an item.
    Outcome(Seq, Final),
    /// The closing line, or a refusal; the request is forgotten.
    Over(End),
}

/// See the module.
#[derive(Debug)]
pub struct Far {
    limits: GateLimits,
    gate: ReceiveGate,
    lives: u64,
    requests: BTreeMap<u64, Request>,
    arrived: u64,
    /// What the instance works on, dead lives' requests among it.
    pub at_instance: Vec<AtInstance>,
}

impl Far {
    /// A receiver in its first life.
    pub fn new(memory_items: usize, wait_max_ms: u64) -> Self {
        let limits = GateLimits { memory: MemoryLimits { items: memory_items, bytes: 10_000_000 }, wait_max_ms };
        let gate = ReceiveGate::new(GateId(1), limits);
        Self { limits, gate, lives: 1, requests: BTreeMap::new(), arrived: 0, at_instance: vec![] }
    }

    /// Its current life.
    pub fn life(&self) -> GateId {
        self.gate.id()
    }

    /// A request reaches it.
    pub fn arrive(&mut self, request: Request) -> u64 {
        self.arrived += 1;
        self.requests.insert(self.arrived, request);
        self.arrived
    }

    /// The requests that it has.
    pub fn requests(&self) -> impl Iterator<Item = (u64, &Request)> {
        self.requests.iter().map(|(id, request)| (*id, request))
    }

    /// It learns that nobody listens to this one: no further item of it is begun.
    pub fn drop_request(&mut self, id: u64) {
        self.requests.remove(&id);
    }

    /// Takes a request one step on. Ask again until it is over, waits, or has an item at the instance.
    pub fn work(&mut self, now: Moment, id: u64, ledger: &mut Ledger) -> Did {
        let life = self.gate.id();
        let Some(request) = self.requests.get_mut(&id) else { return Did::Waits(None) };
        if self.at_instance.iter().any(|at| at.request == id) {
            return Did::AtInstance;
        }
        if !request.admitted {
            let batch = &request.batch;
            let head = Head { gate: batch.gate, origin: origin(), epoch: request.epoch, floor: batch.floor };
            match self.gate.admit(&head) {
                Ok(()) => request.admitted = true,
                Err(Refusal::NewGate(gate)) => return self.over(id, End::NewGate(gate)),
                Err(Refusal::StaleEpoch(known)) => return self.over(id, End::StaleEpoch(known)),
                Err(Refusal::OtherOrigin(_)) => return self.over(id, End::Refused { retry_after_ms: None }),
            }
            ledger.adopted(life, request.epoch);
        }
        let Some(seq) = request.batch.items.get(request.next).copied() else { return self.over(id, End::Done) };
        let prev = request.next.checked_sub(1).map_or(request.batch.prev, |before| request.batch.items[before]);
        let msg_id = MsgId::new(format!("m{seq}"));
        let remembers = self.gate.memory().recall(seq, &msg_id).is_some();
        let since = *request.since.get_or_insert(now);
        let step = self.gate.step(now, &Visit { epoch: request.epoch, prev, seq, msg_id: &msg_id, since });
        match step {
            Step::Deliver => {
                ledger.begun(life, request.epoch, seq, remembers);
                self.at_instance.push(AtInstance { seq, life, request: id });
                Did::AtInstance
            }
            Step::Answer(answer) => self.line(id, seq, answer.outcome),
            Step::Wait { until } => Did::Waits(until),
            Step::Gap { .. } => self.over(id, End::Gap),
            Step::Stale(known) => self.over(id, End::StaleEpoch(known)),
        }
    }

    /// The instance is done with an item: a final outcome that reaches the receiver, or how the attempt ended.
    pub fn finished(&mut self, at: AtInstance, result: Result<(Final, u16), End>) -> Did {
        if at.life != self.gate.id() {
            return Did::Waits(None); // the receiver that asked is gone
        }
        match result {
            Ok((outcome, status)) => {
                self.gate.finished(Some(Answer { outcome, status, body: None }));
                self.line(at.request, at.seq, outcome)
            }
            Err(end) => {
                self.gate.finished(None);
                self.over(at.request, end)
            }
        }
    }

    /// Killed and started again. What is at the instance goes on there. Gives the POSTs whose connections broke.
    pub fn restart(&mut self) -> Vec<usize> {
        self.lives += 1;
        self.gate = ReceiveGate::new(GateId(self.lives), self.limits);
        std::mem::take(&mut self.requests)
            .into_values()
            .filter(|broken| broken.heard)
            .map(|broken| broken.post)
            .collect()
    }

    fn line(&mut self, id: u64, seq: Seq, outcome: Final) -> Did {
        let Some(request) = self.requests.get_mut(&id) else { return Did::Waits(None) };
        request.next += 1;
        request.since = None;
        Did::Says(Said { post: request.post, heard: request.heard, line: Line::Outcome(seq, outcome) })
    }

    fn over(&mut self, id: u64, end: End) -> Did {
        let Some(request) = self.requests.remove(&id) else { return Did::Waits(None) };
        Did::Says(Said { post: request.post, heard: request.heard, line: Line::Over(end) })
    }
}

fn origin() -> Origin {
    Origin { site: "near".into(), created_us: 1 }
}
