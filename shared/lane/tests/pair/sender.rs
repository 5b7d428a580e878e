//! The batch-senders: processes that take the lane, renew their lease, read, post, are paused, die and come back.

use fedstream_lane::{Action, Backoff, Epoch, Event, Moment, ParkReason, Seq, Standing, Start, StopReason};

use super::broker::{Ask, Reply, TTL_MS};
use super::clock::Clock;
use super::history::{History, What};
use super::instance::Fate;
use super::rng::Rng;
use super::weather::MINUTE;
use crate::ledger::name_of_action;
use crate::owner::Owner;

/// An owner stops so long before the broker gives its lease away.
const MARGIN_MS: u64 = TTL_MS / 5;
/// An answer of the broker that did not come by then is taken for a no.
const BROKER_WITHIN_MS: u64 = 5_000;
/// How far wall clocks are off at most, milliseconds.
const WALL_OFF_MS: u64 = 3_000;

/// A process. What it holds is lost with it; its clock is its machine's.
#[derive(Debug)]
pub struct Sender {
    clock: Clock,
    lives: u64,
    is_alive: bool,
    asks_for_the_lane: bool,
    /// What it does is not done before.
    pub paused_until: u64,
    /// A later epoch that the far side told of.
    at_least: Epoch,
    polls_at: u64,
    owner: Option<Owner>,
}

impl Sender {
    /// One on some machine.
    pub fn draw(rng: &mut Rng) -> Self {
        let drift_ppm = rng.pick(&[0, 50, -50, 3_000, -3_000]);
        let wall_off_ms = i64::try_from(rng.between(0, 2 * WALL_OFF_MS)).unwrap_or(0) - 3_000;
        Self {
            clock: Clock { zero: rng.between(0, 1_000_000), drift_ppm, wall_off_ms },
            lives: 0,
            is_alive: false,
            asks_for_the_lane: false,
            paused_until: 0,
            at_least: Epoch(0),
            polls_at: 0,
            owner: None,
        }
    }
}

impl History {
    /// Who thinks that it owns the lane: rather who does.
    pub(super) fn owning(&self) -> Option<usize> {
        let owns = |sender: &usize| self.senders[*sender].owner.is_some();
        self.broker.holder(self.now).filter(owns).or_else(|| (0..self.senders.len()).find(owns))
    }

    pub(super) fn start(&mut self, sender: usize) {
        let process = &mut self.senders[sender];
        if !process.is_alive {
            (process.is_alive, process.asks_for_the_lane) = (true, false);
            process.lives += 1;
            self.look_soon(sender);
        }
    }

    pub(super) fn crash(&mut self, sender: usize, ms: u64) {
        if self.senders[sender].is_alive {
            self.senders[sender].is_alive = false;
            self.senders[sender].paused_until = 0;
            self.forget_the_lane(sender);
            self.after(ms, What::Start(sender));
        }
    }

    pub(super) fn look(&mut self, sender: usize) {
        let process = &mut self.senders[sender];
        if process.is_alive && process.owner.is_none() && !process.asks_for_the_lane {
            process.asks_for_the_lane = true;
            // Far above any epoch made by counting, like unix milliseconds are.
            let wall = Epoch(1_000_000_000 + process.clock.wall(self.now + WALL_OFF_MS));
            let ask = Ask::Take { life: process.lives, wanted: process.at_least.max(wall), sent: self.now };
            self.ask(sender, Epoch(0), ask);
        }
    }

    fn look_soon(&mut self, sender: usize) {
        let ms = self.rng.between(1_000, 6_000);
        self.after(ms, What::Look(sender));
    }

    fn ask(&mut self, sender: usize, epoch: Epoch, ask: Ask) {
        let ms = self.broker_ms();
        self.after(ms, What::Asked(sender, epoch, ask));
    }

    fn broker_ms(&mut self) -> u64 {
        if self.rng.chance(5) { self.rng.spread(100, 8_000) } else { self.rng.spread(1, 20) }
    }

    /// At the broker.
    pub(super) fn asked(&mut self, sender: usize, epoch: Epoch, ask: Ask) {
        let away = self.broker.is_away(self.now);
        // Done, and the ack is lost: a leader that dies at the wrong moment.
        let acked = !away && !self.rng.chance(5);
        let (epoch, reply) = match ask {
            Ask::Take { life, wanted, sent } => match self.broker.take(self.now, sender, wanted).filter(|_| !away) {
                Some(epoch) => {
                    let gate = self.rng.chance(300).then(|| self.far.life());
                    (epoch, Reply::Taken { life, sent, gate })
                }
                None => (epoch, Reply::NotTaken),
            },
            Ask::Renew { .. } | Ask::Release if away => return,
            Ask::Renew { sent } if self.broker.renew(self.now, epoch) => (epoch, Reply::Renewed { sent }),
            Ask::Renew { .. } => (epoch, Reply::LeaseGone),
            Ask::Release => return self.broker.release(epoch),
            Ask::Copy { seq, reason } => {
                if !away {
                    self.has_cause(seq, reason);
                    self.ledger.copied(seq, reason);
                    if reason == ParkReason::Expired {
                        self.expired.insert(self.activities[&seq].received);
                    }
                }
                (epoch, Reply::Copied { seq, reason, acked })
            }
            Ask::Purge { upto } => {
                if !away {
                    self.ledger.purged(upto);
                    self.stream.retain(|seq, _| *seq > upto);
                }
                (epoch, Reply::Purged { acked })
            }
        };
        let ms = if acked { self.broker_ms() } else { BROKER_WITHIN_MS };
        self.after(ms, What::Replied(sender, epoch, reply));
    }

    fn has_cause(&self, seq: Seq, reason: ParkReason) {
        let activity = &self.activities[&seq];
        let has = match reason {
            ParkReason::Poison => activity.fate == Fate::Poison,
            ParkReason::Unreadable => activity.fate == Fate::Unreadable,
            // A wall clock that is off, and a monotonic one that drifts for most of an hour.
            ParkReason::Expired => self.now + WALL_OFF_MS + 15_000 >= activity.deadline(),
            _ => true,
        };
        assert!(has, "no-loss: {seq} is parked as {reason} without cause: {activity:?}");
    }

    pub(super) fn replied(&mut self, sender: usize, epoch: Epoch, reply: Reply) {
        match reply {
            Reply::Taken { life, sent, gate } => return self.taken(sender, epoch, life, sent, gate),
            Reply::NotTaken => {
                self.senders[sender].asks_for_the_lane = false;
                return self.look_soon(sender);
            }
            _ => {}
        }
        let process = &mut self.senders[sender];
        let Some(owner) = process.owner.as_mut().filter(|owner| owner.epoch == epoch) else { return };
        let event = match reply {
            Reply::Renewed { sent } => {
                owner.lease_until = process.clock.at(sent).after_ms(TTL_MS - MARGIN_MS);
                Event::Lease { until: owner.lease_until }
            }
            Reply::LeaseGone => {
                owner.lease_until = Moment(0);
                Event::Lease { until: Moment(0) }
            }
            Reply::Copied { seq, acked: true, .. } => Event::Parked { seq },
            Reply::Copied { seq, reason, acked: false } => return self.ask(sender, epoch, Ask::Copy { seq, reason }),
            Reply::Purged { acked } => {
                if !acked {
                    self.ledger.saw("a purge without an ack");
                }
                Event::Trimmed { done: acked }
            }
            Reply::Taken { .. } | Reply::NotTaken => return,
        };
        self.tell(sender, event);
        self.drive(sender);
    }

    fn taken(&mut self, sender: usize, epoch: Epoch, life: u64, sent: u64, gate: Option<fedstream_lane::GateId>) {
        let process = &mut self.senders[sender];
        if !process.is_alive || process.lives != life {
            return; // asked by a life before; the lease ends by itself
        }
        process.asks_for_the_lane = false;
        let lease_until = process.clock.at(sent).after_ms(TTL_MS - MARGIN_MS);
        let start = Start { epoch, floor: Seq(0), gate, lease_until };
        process.owner = Some(Owner::new(start, self.settings.limits, Backoff::new(500, MINUTE, 10 * MINUTE)));
        self.say(|_| format!("sender {sender} owns the lane, epoch {epoch}"));
        self.ledger.saw("a new owner");
        self.after(TTL_MS / 3, What::Renew(sender, epoch));
        self.drive(sender);
    }

    pub(super) fn renew(&mut self, sender: usize, epoch: Epoch) {
        if self.senders[sender].owner.as_ref().is_some_and(|owner| owner.epoch == epoch) {
            self.ask(sender, epoch, Ask::Renew { sent: self.now });
            self.after(TTL_MS / 3, What::Renew(sender, epoch));
        }
    }

    pub(super) fn take_settings(&mut self, sender: usize) {
        let settings = self.settings;
        if let Some(owner) = &mut self.senders[sender].owner {
            owner.limits = settings.limits;
        }
        self.tell(sender, Event::Limits(settings.limits));
        self.tell(sender, Event::Pause(settings.paused));
        self.drive(sender);
    }

    pub(super) fn tell(&mut self, sender: usize, event: Event) {
        let process = &mut self.senders[sender];
        let now = process.clock.at(self.now);
        if let Some(window) = process.owner.as_mut().and_then(|owner| owner.window.as_mut()) {
            window.handle(now, event);
        }
    }

    /// Does what it polled before it was paused; then reads, polls and does what its window wants.
    pub(super) fn drive(&mut self, sender: usize) {
        if self.senders[sender].paused_until > self.now {
            return self.after(0, What::Poll(sender));
        }
        self.read(sender);
        loop {
            while let Some(action) = self.senders[sender].owner.as_mut().and_then(|owner| owner.polled.pop_front()) {
                self.act(sender, action);
            }
            let process = &mut self.senders[sender];
            let now = process.clock.at(self.now);
            let Some(owner) = &mut process.owner else { return };
            let Some(window) = &mut owner.window else {
                if now >= owner.lease_until {
                    self.forget_the_lane(sender);
                    self.look_soon(sender);
                }
                return;
            };
            while let Some(action) = window.poll(now) {
                if let Action::Post(batch) = &action {
                    self.ledger.posted(owner.epoch, &owner.limits, batch);
                }
                owner.polled.push_back(action);
            }
            if owner.polled.is_empty() {
                break;
            }
            if self.is_stormy() && self.rng.chance(2) {
                let ms = self.rng.spread(1_000, 2 * MINUTE);
                self.ledger.saw("paused between poll and act");
                self.say(|_| format!("sender {sender} is paused for {ms} ms before it acts"));
                self.senders[sender].paused_until = self.now + ms;
                return self.after(ms, What::Poll(sender));
            }
        }
        self.poll_in_time(sender);
    }

    fn poll_in_time(&mut self, sender: usize) {
        let process = &mut self.senders[sender];
        let Some(window) = process.owner.as_ref().and_then(|owner| owner.window.as_ref()) else { return };
        match window.standing() {
            Some(Standing::Paused) => self.ledger.saw("stands: paused"),
            Some(Standing::Rejections) => self.ledger.saw("stands: after refusals"),
            Some(Standing::BackingOff { .. }) => self.ledger.saw("stands: backs off"),
            _ => {}
        }
        let Some(due) = window.next_deadline() else { return };
        assert!(due > process.clock.at(self.now), "awake: a deadline that passed, and nothing was polled: {window:?}");
        let due = process.clock.true_ms(due).max(self.now + 1);
        if process.polls_at <= self.now || due < process.polls_at {
            process.polls_at = due;
            self.after(due - self.now, What::Poll(sender));
        }
    }

    fn read(&mut self, sender: usize) {
        let process = &mut self.senders[sender];
        let now = process.clock.at(self.now);
        let wall = process.clock.wall(self.now);
        let Some(owner) = process.owner.as_mut().filter(|_| !self.broker.is_away(self.now)) else { return };
        while let Some(after) = owner.reads_after() {
            let Some((seq, activity)) = self.stream.range(Seq(after.0 + 1)..).next() else { return };
            let (seq, bytes, is_first) = (*seq, activity.bytes, owner.window.is_none());
            let deadline = Some(now.after_ms(activity.deadline().saturating_sub(wall)));
            let window = owner.window_from(seq);
            if is_first {
                window.handle(now, Event::Pause(self.settings.paused));
            }
            window.handle(
                now,
                match activity.fate {
                    Fate::Unreadable => Event::ReadUnreadable { seq, bytes },
                    _ => Event::Read { seq, bytes, deadline },
                },
            );
        }
    }

    fn act(&mut self, sender: usize, action: Action) {
        self.say(|_| format!("sender {sender}: {action:?}"));
        self.ledger.saw(name_of_action(&action));
        let Some(epoch) = self.senders[sender].owner.as_ref().map(|owner| owner.epoch) else { return };
        match action {
            Action::Post(batch) => self.post(sender, epoch, batch),
            Action::Cancel { post } => self.cancel(sender, post),
            Action::Park { seq, reason } => self.ask(sender, epoch, Ask::Copy { seq, reason }),
            Action::Trim { upto, .. } => {
                self.ledger.trims(upto);
                self.ask(sender, epoch, Ask::Purge { upto });
            }
            Action::Stop(reason) => {
                if let StopReason::StaleEpoch { known } = reason {
                    self.senders[sender].at_least = Epoch(known.0 + 1);
                }
                if reason == StopReason::Drained {
                    self.ask(sender, epoch, Ask::Release);
                }
                self.forget_the_lane(sender);
                self.look_soon(sender);
            }
        }
    }

    /// Its window is gone, and its connections are closed.
    fn forget_the_lane(&mut self, sender: usize) {
        if let Some(owner) = self.senders[sender].owner.take() {
            self.ledger.owner_died(owner.epoch);
            self.hang_up_all(sender);
        }
    }
}
