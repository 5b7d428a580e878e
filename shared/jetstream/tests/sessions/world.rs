//! Two processes, the bucket between them, and all that can happen next.
//!
//! A process that does nothing for a while is one whose next step comes later: pauses need no step of their own. An answer
//! comes at once or never; one that comes late is a request that was on its way for longer.

use super::broker::{Alive, Broker, Entry, Found, NONCES, Sent, TTL, UNTIL, Write};
use super::process::{Awaited, Lease, Process, Session, Step};

/// The process that only takes the lane, and whose session never ends. All that can go wrong with a session goes wrong with
/// those of the other one, which takes too.
const TAKER: usize = 1;
const ITS_SESSION: u8 = 2;

/// What the services hold to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// That no session is found is no proof: its key is deleted first.
    FenceFirst,
    /// It is deleted by compare-and-set.
    FenceByRevision,
    /// A session that is over is not written again.
    NeverBegunAgain,
    /// A lane that was taken under a former session is taken anew.
    LanesEndWithTheirSession,
}

impl Rule {
    pub const ALL: [Self; 4] =
        [Self::FenceFirst, Self::FenceByRevision, Self::NeverBegunAgain, Self::LanesEndWithTheirSession];
}

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Writes on their way.
    pub on_their_way: usize,
    /// Sessions that the first process begins, two at most.
    pub sessions: u8,
    /// The rule that is broken.
    pub without: Option<Rule>,
}

impl Bounds {
    pub const SMALL: Self = Self { on_their_way: 1, sessions: 1, without: None };
    /// Half a million states, and half a minute.
    pub const LARGE: [Self; 2] =
        [Self { on_their_way: 1, sessions: 2, without: None }, Self { on_their_way: 2, sessions: 1, without: None }];
}

/// Later than any revision that was numbered anew.
const LATER: u8 = 100;

/// Numbers the revisions of a key from 1, in their order; 0 stays nothing.
fn number(mut known: Vec<&mut u8>) {
    let mut sorted: Vec<u8> = known.iter().map(|revision| **revision).filter(|revision| *revision > 0).collect();
    sorted.sort_unstable();
    sorted.dedup();
    for revision in known.iter_mut().filter(|revision| ***revision > 0) {
        **revision = (1..).zip(&sorted).find(|(_, old)| **old == **revision).map_or(0, |(new, _)| new);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    bounds: Bounds,
    broker: Broker,
    processes: [Process; 2],
}

impl World {
    pub fn new(bounds: Bounds) -> Self {
        let mut world = Self { bounds, broker: Broker::default(), processes: Default::default() };
        let send = |write| Sent { by: TAKER, write, expected: Some(0), age: 0, is_awaited: true };
        let begins = send(Write::Live { nonce: ITS_SESSION });
        world.processes[TAKER].is_beginning = true;
        let stored = world.broker.store(&begins);
        world.processes[TAKER].is_answered(&begins, stored);
        world.number_anew();
        world
    }

    /// How many processes would post to the lane now.
    pub fn holders(&self) -> usize {
        self.processes.iter().filter(|process| process.holds()).count()
    }

    /// Everything that can happen now, in words, and what is then.
    pub fn next(&self) -> Vec<(String, Self)> {
        let mut all = vec![];
        self.time_passes(&mut all);
        self.writes_arrive(&mut all);
        self.session_goes_on(&mut all);
        for process in [0, TAKER] {
            self.lane_goes_on(process, &mut all);
        }
        all
    }

    fn follows(&self, all: &mut Vec<(String, Self)>, what: String, change: impl FnOnce(&mut Self)) {
        let mut next = self.clone();
        change(&mut next);
        if next.broker.sent.len() <= self.bounds.on_their_way {
            next.number_anew();
            all.push((what, next));
        }
    }

    /// Only which revision of a key is later than another one says anything: so however much is written, there are few states.
    fn number_anew(&mut self) {
        let broker = &mut self.broker;
        let mut of_sessions: [Vec<&mut u8>; NONCES] = Default::default();
        let mut of_lane = vec![&mut broker.lane.now.revision];
        for (known, key) in of_sessions.iter_mut().zip(&mut broker.sessions) {
            known.push(&mut key.now.revision);
        }
        for sent in &mut broker.sent {
            match (&mut sent.expected, sent.write) {
                (None, _) => {}
                (Some(expected), Write::Lane { .. }) => of_lane.push(expected),
                (Some(expected), Write::Live { nonce } | Write::Fence { nonce }) => {
                    of_sessions[usize::from(nonce)].push(expected);
                }
            }
        }
        for process in &mut self.processes {
            process.lease.iter_mut().for_each(|lease| of_lane.push(&mut lease.revision));
            if let Some(session) = &mut process.session {
                of_sessions[usize::from(session.nonce)].push(&mut session.revision);
            }
            match &mut process.step {
                Step::Rests | Step::Waits(Awaited::Taken | Awaited::Confirmed) => {}
                Step::Fences { revision, nonce, session } => {
                    of_lane.push(revision);
                    of_sessions[usize::from(*nonce)].push(session);
                }
                Step::Asks { revision, .. }
                | Step::Writes { revision }
                | Step::Waits(Awaited::Fence { revision, .. }) => of_lane.push(revision),
            }
        }
        of_sessions.into_iter().chain([of_lane]).for_each(number);
        broker.last = LATER;
        broker.sent.sort_unstable();
    }

    fn holds_to(&self, rule: Rule) -> bool {
        self.bounds.without != Some(rule)
    }

    fn time_passes(&self, all: &mut Vec<(String, Self)>) {
        self.follows(all, "time passes".to_owned(), |next| {
            next.broker.time_passes();
            if let Some(session) = &mut next.processes[0].session {
                session.left = session.left.saturating_sub(1);
            }
        });
        for nonce in 0..usize::from(ITS_SESSION) {
            let key = self.broker.sessions[nonce].now;
            if key.value == Some(Alive { age: TTL }) {
                self.follows(all, format!("session {nonce} expires, and leaves a marker"), |next| {
                    next.broker.sessions[nonce].set(next.broker.last + 1, None);
                });
            } else if key.value.is_none() && key.revision > 0 {
                self.follows(all, format!("the marker of session {nonce} goes"), |next| {
                    next.broker.sessions[nonce].set(0, None);
                });
            }
        }
        if self.broker.lane.now.value.is_some_and(|entry| entry.released) {
            self.follows(all, "the released entry expires".to_owned(), |next| next.broker.lane.set(0, None));
        }
    }

    fn writes_arrive(&self, all: &mut Vec<(String, Self)>) {
        for (at, sent) in self.broker.sent.iter().enumerate() {
            self.follows(all, format!("stored or refused, and answered: {sent:?}"), |next| {
                next.broker.sent.remove(at);
                let stored = next.broker.store(sent);
                if sent.is_awaited {
                    next.processes[sent.by].is_answered(sent, stored);
                }
            });
            if sent.is_awaited {
                self.follows(all, format!("given up by its sender, and still on its way: {sent:?}"), |next| {
                    next.broker.is_given_up(at);
                    next.processes[sent.by].gives_up(sent);
                });
            }
        }
    }

    fn session_goes_on(&self, all: &mut Vec<(String, Self)>) {
        let by = 0;
        let process = &self.processes[by];
        let send = |write, expected| Sent { by, write, expected, age: 0, is_awaited: true };
        if process.living().is_none() && !process.is_beginning && process.begun < self.bounds.sessions {
            self.follows(all, format!("{by} begins a session"), |next| {
                let process = &mut next.processes[by];
                if let Some(former) = process.session.take() {
                    process.over[usize::from(former.nonce)] = true;
                }
                next.broker.nobody_waits_for_sessions_of(by);
                let process = &mut next.processes[by];
                let nonce = if by == 0 { 0 } else { 2 } + process.begun;
                process.begun += 1;
                process.is_beginning = true;
                if next.holds_to(Rule::LanesEndWithTheirSession) {
                    next.processes[by].lease = None;
                } else if let Some(lease) = &mut next.processes[by].lease {
                    lease.nonce = nonce;
                }
                next.broker.send(send(Write::Live { nonce }, Some(0)));
            });
        }
        let Some(session) = process.session.filter(|session| !session.is_renewing) else { return };
        if session.left > 0 || !self.holds_to(Rule::NeverBegunAgain) {
            let nonce = session.nonce;
            self.follows(all, format!("{by} renews"), |next| {
                next.processes[by].session = Some(Session { is_renewing: true, ..session });
                next.broker.send(send(Write::Live { nonce }, Some(session.revision)));
            });
            // After a renewal that was refused, or before: what it finds is the same.
            for found in self.broker.sessions[usize::from(nonce)].reads() {
                self.follows(all, format!("{by} looks for its session and finds {found:?}"), |next| {
                    next.finds_own_session(by, session, found);
                });
            }
            self.follows(all, format!("{by} ends its session"), |next| {
                next.processes[by].session = None;
                next.processes[by].over[usize::from(nonce)] = true;
                next.broker.nobody_waits_for_sessions_of(by);
                next.broker.send(Sent { is_awaited: false, ..send(Write::Fence { nonce }, Some(session.revision)) });
            });
        }
    }

    fn finds_own_session(&mut self, by: usize, session: Session, found: Found<Alive>) {
        let may_be_begun_again = !self.holds_to(Rule::NeverBegunAgain);
        let own = &mut self.processes[by].session;
        match found.value {
            _ if may_be_begun_again => *own = Some(Session { revision: found.revision, ..session }),
            _ if found.revision <= session.revision => {} // a replica that is behind
            Some(_) => *own = Some(Session { revision: found.revision, ..session }),
            None => *own = Some(Session { left: 0, ..session }),
        }
    }

    fn lane_goes_on(&self, by: usize, all: &mut Vec<(String, Self)>) {
        let process = &self.processes[by];
        let send = |write, expected| Sent { by, write, expected, age: 0, is_awaited: true };
        let step = |next: &mut Self, step| next.processes[by].step = step;
        let Some(session) = process.session else { return };
        match process.step {
            Step::Rests if process.holds() => self.lease_goes_on(by, session, all),
            Step::Rests => {
                for found in self.broker.lane.reads() {
                    self.follows(all, format!("{by} reads the lane: {found:?}"), |next| {
                        step(next, process.goes_on_with(session.nonce, found));
                    });
                }
            }
            Step::Asks { revision, nonce } => {
                for found in self.broker.sessions[usize::from(nonce)].reads() {
                    let next_step = match found.value {
                        Some(_) => Step::Rests,
                        None if !self.holds_to(Rule::FenceFirst) => Step::Writes { revision },
                        None => Step::Fences { revision, nonce, session: found.revision },
                    };
                    self.follows(all, format!("{by} reads session {nonce}: {found:?}"), |next| step(next, next_step));
                }
            }
            Step::Fences { revision, nonce, session } => {
                let expected = self.holds_to(Rule::FenceByRevision).then_some(session);
                self.follows(all, format!("{by} deletes session {nonce}"), |next| {
                    step(next, Step::Waits(Awaited::Fence { revision, nonce }));
                    next.broker.send(send(Write::Fence { nonce }, expected));
                });
            }
            Step::Writes { revision } => self.follows(all, format!("{by} takes the lane"), |next| {
                step(next, Step::Waits(Awaited::Taken));
                let write = Write::Lane { nonce: session.nonce, released: false };
                next.broker.send(send(write, Some(revision)));
            }),
            Step::Waits(_) => {}
        }
    }

    fn lease_goes_on(&self, by: usize, session: Session, all: &mut Vec<(String, Self)>) {
        let Some(lease) = self.processes[by].lease.filter(|_| by != TAKER) else { return };
        let send = |released, is_awaited| {
            let write = Write::Lane { nonce: session.nonce, released };
            Sent { by, write, expected: Some(lease.revision), age: 0, is_awaited }
        };
        self.follows(all, format!("{by} bumps or confirms"), |next| {
            next.processes[by].step = Step::Waits(Awaited::Confirmed);
            next.broker.send(send(false, true));
        });
        for found in self.broker.lane.reads() {
            self.follows(all, format!("{by} looks for its entry and finds {found:?}"), |next| {
                let own = found.value.is_some_and(|entry| entry.nonce == session.nonce && !entry.released);
                let lease = &mut next.processes[by].lease;
                match (own, lease.as_mut()) {
                    (true, Some(lease)) => lease.revision = lease.revision.max(found.revision),
                    _ => *lease = None,
                }
            });
        }
        self.follows(all, format!("{by} gives the lane back"), |next| {
            next.processes[by].lease = None;
            next.broker.send(send(true, false));
        });
    }

    /// The first process dies, and all that it sent arrives; the second one has time, and no further bad luck. Answers
    /// whether it holds the lane then.
    pub fn taken_over(mut self) -> bool {
        self.processes[0] = Process::default();
        while let Some(sent) = self.broker.sent.pop() {
            self.broker.store(&sent).ok();
            if sent.is_awaited && sent.by == TAKER {
                self.processes[TAKER].gives_up(&sent);
            }
        }
        for _ in 0..=TTL {
            self.broker.time_passes();
            self.goes_on_with_luck();
        }
        for key in self.broker.sessions.iter_mut().take(usize::from(ITS_SESSION)) {
            key.set(0, None); // each is as old as that now
        }
        self.goes_on_with_luck();
        self.processes[TAKER].holds()
    }

    /// The second process reads what is, and is answered.
    fn goes_on_with_luck(&mut self) {
        let send = |world: &mut Self, write, expected| {
            let sent = Sent { by: TAKER, write, expected: Some(expected), age: 0, is_awaited: true };
            let stored = world.broker.store(&sent);
            world.processes[TAKER].is_answered(&sent, stored);
        };
        loop {
            let lane = self.broker.lane.now;
            let process = &mut self.processes[TAKER];
            match process.step {
                Step::Rests if process.holds() => return,
                Step::Rests => process.step = process.goes_on_with(ITS_SESSION, lane),
                Step::Asks { revision, nonce } => {
                    let found = self.broker.sessions[usize::from(nonce)].now;
                    if found.value.is_some() {
                        process.step = Step::Rests;
                        return;
                    }
                    process.step = Step::Fences { revision, nonce, session: found.revision };
                }
                Step::Fences { revision, nonce, session } => {
                    process.step = Step::Waits(Awaited::Fence { revision, nonce });
                    send(self, Write::Fence { nonce }, session);
                }
                Step::Writes { revision } => {
                    process.step = Step::Waits(Awaited::Taken);
                    send(self, Write::Lane { nonce: ITS_SESSION, released: false }, revision);
                }
                Step::Waits(_) => process.step = Step::Rests,
            }
        }
    }
}

impl Process {
    /// What follows from the lane's entry.
    fn goes_on_with(&self, own: u8, found: Found<Entry>) -> Step {
        let revision = found.revision;
        match found.value {
            Some(Entry { nonce, released }) if !released && nonce != own && !self.over[usize::from(nonce)] => {
                Step::Asks { revision, nonce }
            }
            _ => Step::Writes { revision },
        }
    }

    /// The broker's answer.
    fn is_answered(&mut self, sent: &Sent, stored: Result<u8, ()>) {
        let left = UNTIL - sent.age; // counted from when it was sent
        match (sent.write, stored) {
            (Write::Live { nonce }, Ok(revision)) if self.is_beginning => {
                self.is_beginning = false;
                self.session = Some(Session { nonce, revision, left, is_renewing: false });
            }
            (Write::Live { .. }, stored) if self.session.is_some_and(|session| session.is_renewing) => {
                if let Some(session) = &mut self.session {
                    session.is_renewing = false;
                    if let Ok(revision) = stored {
                        (session.revision, session.left) = (revision, session.left.max(left));
                    }
                }
            }
            (Write::Live { .. }, _) => self.is_beginning = false,
            (_, stored) => self.lane_is_answered(sent, stored),
        }
    }

    fn lane_is_answered(&mut self, sent: &Sent, stored: Result<u8, ()>) {
        let Step::Waits(awaited) = std::mem::take(&mut self.step) else { return };
        let Ok(stored) = stored else { return };
        match (awaited, sent.write) {
            (Awaited::Fence { revision, nonce }, _) => {
                self.over[usize::from(nonce)] = true;
                self.step = Step::Writes { revision };
            }
            (Awaited::Taken | Awaited::Confirmed, Write::Lane { nonce, .. }) => {
                self.lease = Some(Lease { nonce, revision: stored });
            }
            _ => {}
        }
    }

    fn gives_up(&mut self, sent: &Sent) {
        match sent.write {
            Write::Live { .. } => {
                self.is_beginning = false;
                if let Some(session) = &mut self.session {
                    session.is_renewing = false;
                }
            }
            Write::Fence { .. } | Write::Lane { .. } => self.step = Step::Rests,
        }
    }
}
