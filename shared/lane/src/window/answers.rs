//! What a POST brings: outcomes that settle, and an end that rewinds.

use super::evidence::{self, Evidence};
use super::flight::{Cancel, Post};
use super::{End, Item, SendWindow, State, StopReason};
use crate::guard::{self, Guard};
use crate::{Final, GateId, Moment, ParkReason, PostId, Seq};

impl SendWindow {
    pub(super) fn outcome(&mut self, now: Moment, post: PostId, seq: Seq, outcome: Final) {
        let Some(carrier) = self.flight.get_mut(post) else { return };
        #[expect(clippy::expect_used, reason = "a shell's bug: it lets only the next expected sequence through")]
        let at =
            carrier.unanswered.iter().position(|(carried, _)| *carried == seq).expect("an outcome that was not due");
        carrier.unanswered.remove(at);
        carrier.answered = true;
        let live = !carrier.abandoned;
        let settles = |item: &&mut Item| {
            let its_own = item.seq == seq || !guard::holds(Guard::OwnLine) && item.seq < seq;
            // One that became overdue while a POST that was given up still carried it has its outcome all the same.
            let open = State::Unfit(ParkReason::Expired);
            its_own && (matches!(item.state, State::Waiting | State::InFlight) || item.state == open)
        };
        let mut counted = false;
        for item in self.items.iter_mut().filter(settles) {
            counted = true;
            item.state = match outcome.park_reason() {
                Some(reason) if guard::holds(Guard::CopyBeforeSettled) => State::Refused(reason),
                _ => State::Settled,
            };
        }
        if counted {
            self.count_rejection(now, outcome);
        }
        if live {
            self.gate_is_proven();
        }
        // A probe that is refused is no progress: the next one comes a longer backoff later.
        if live && !self.is_paused_by_rejections() {
            self.backoff.progressed();
        }
        self.raise_floor();
    }

    /// So many refusals in a row without a 2xx ("already received" aside) are no bad activities.
    fn count_rejection(&mut self, now: Moment, outcome: Final) {
        match outcome {
            Final::Delivered => self.rejections = 0,
            Final::Duplicate => {}
            Final::Rejected | Final::Expired | Final::Unprocessed => {
                self.rejections = (self.rejections + 1).min(self.limits.rejections_max);
                if self.is_paused_by_rejections() {
                    self.backoff.failed(now, None, 0);
                    self.flight.call_back(|post| !post.unanswered.is_empty());
                }
            }
        }
    }

    pub(super) fn ended(&mut self, now: Moment, post: PostId, end: End, jitter: u16) {
        let Some((place, post)) = self.flight.remove(post) else { return };
        if let End::StaleEpoch(known) = end {
            self.stop.get_or_insert(StopReason::StaleEpoch { known });
        }
        if post.abandoned && guard::holds(Guard::AbandonedEndsAreVoid) {
            return;
        }
        let all_answered = post.unanswered.is_empty();
        self.rewind(place, &post, end);
        if matches!(end, End::Done | End::Retry { .. } | End::Gap) {
            self.gate_is_proven();
        }
        match end {
            End::Done if all_answered => self.grow(),
            End::NewGate(gate) => self.new_gate(now, gate, jitter),
            End::StaleEpoch(_) => {}
            End::Unfit if post.size > 1 => self.halve(&post),
            End::Lost if post.cancel != Cancel::No => {}
            End::Lost if post.size > 1 && !post.answered => {
                self.halve(&post); // it may be too large for the link to carry in time
                self.failed(now, None, jitter);
            }
            End::Retry { seq, status, alive, retry_after_ms } => {
                if evidence::is_fault(status) {
                    self.note_fault(now, seq, alive);
                }
                self.failed(now, retry_after_ms, jitter);
            }
            End::Overloaded { retry_after_ms } | End::Refused { retry_after_ms } => {
                self.failed(now, retry_after_ms, jitter);
            }
            End::Done | End::Unfit | End::Gap | End::Lost => self.failed(now, None, jitter),
        }
    }

    /// What this POST carried waits again, and what was posted after it. A gap or a new gate say that something before it
    /// is missing too.
    fn rewind(&mut self, place: usize, ended: &Post, end: End) {
        if end == End::Done && ended.unanswered.is_empty() {
            return;
        }
        let from = if matches!(end, End::Gap | End::NewGate(_)) { 0 } else { place };
        let mut again: Vec<Seq> = ended.unanswered.iter().map(|(seq, _)| *seq).collect();
        for post in self.flight.posts.iter_mut().skip(from).filter(|post| !post.abandoned) {
            post.abandoned = true;
            again.extend(post.unanswered.iter().map(|(seq, _)| *seq));
        }
        for item in self.items.iter_mut().filter(|item| item.state == State::InFlight && again.contains(&item.seq)) {
            item.state = State::Waiting;
        }
        if let (End::Retry { seq, .. }, false) = (end, guard::holds(Guard::RewindOnRetry)) {
            self.items.iter_mut().filter(|item| item.seq == seq).for_each(|item| item.state = State::Settled);
            self.raise_floor();
        }
    }

    /// Back to full size: POSTs by doubling, batches by an eighth, for each batch that is refused again costs a crossing.
    fn grow(&mut self) {
        self.posts_allowed = (self.posts_allowed * 2).min(self.limits.posts.max(1));
        if self.gate.is_some() {
            let grown = self.batch_items + (self.batch_items / 8).max(1);
            self.batch_items = grown.min(self.limits.batch_items.max(1));
        }
    }

    /// Smaller batches than this one; never larger ones than now, for it may be of a time with other limits.
    fn halve(&mut self, ended: &Post) {
        self.batch_items = self.batch_items.min(ended.size / 2);
    }

    fn failed(&mut self, now: Moment, retry_after_ms: Option<u64>, jitter: u16) {
        self.backoff.failed(now, retry_after_ms, jitter);
        self.posts_allowed = 1;
    }

    fn new_gate(&mut self, now: Moment, gate: GateId, jitter: u16) {
        if self.gate_unproven {
            self.backoff.failed(now, None, jitter);
            self.gate_alternates = true;
        }
        self.gate = Some(gate);
        self.gate_unproven = true;
    }

    /// The far side took a batch in the life that it was meant for.
    fn gate_is_proven(&mut self) {
        (self.gate_unproven, self.gate_alternates) = (false, false);
    }

    fn note_fault(&mut self, now: Moment, seq: Seq, alive: bool) {
        let limits = self.limits;
        match self.evidence.as_mut().filter(|evidence| evidence.seq == seq) {
            Some(evidence) => evidence.again(now, alive, limits.poison_attempts, limits.poison_after_ms),
            None => self.evidence = Some(Evidence::new(seq, now)),
        }
    }
}
