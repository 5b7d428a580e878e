//! What the tasks of an owner report, and what it means to the window.

use fedstream_jetstream::{identity, purge};
use fedstream_lane::{Answer, End, Event, PostId, Seq};

use super::owner::{Owner, Released};
use crate::{Direction, Ended};

/// What the tasks of an owner report.
#[derive(Debug)]
pub(super) enum Report {
    Outcome(PostId, Seq, Answer),
    Ended(PostId, Ended),
    Parked(Seq),
    Trouble(String),
    Trimmed { count: u64, result: Result<u64, purge::Error> },
}

impl<D: Direction> Owner<D> {
    pub(super) fn take_in(&mut self, report: Report) {
        let event = match report {
            Report::Outcome(post, seq, answer) => self.outcome(post, seq, answer),
            Report::Ended(post, ended) => self.ended(post, ended),
            Report::Parked(seq) => {
                self.trouble.over(self.epoch.0);
                Event::Parked { seq }
            }
            Report::Trouble(cause) => return self.trouble.failed(self.epoch.0, cause),
            Report::Trimmed { count, result } => self.trimmed(count, result),
        };
        self.look_at_lease(); // a purge that was acked after its end is not counted
        let now = self.shared.now();
        let Some(window) = &mut self.window else { return };
        let paused_before = window.is_paused_by_rejections();
        let new_gate = matches!(event, Event::Ended { end: End::NewGate(_), .. });
        window.handle(now, event);
        let (lane, epoch) = (&self.lane, self.epoch.0);
        if new_gate && window.gate_alternates() {
            let help = "a lane needs one batch-receiver: route replicas by lane, or run one";
            tracing::warn!(%lane, epoch, help, "two batch-receivers answer in turn");
        }
        match (paused_before, window.is_paused_by_rejections()) {
            (false, true) => {
                let help = "a wrong override, scheme or firewall? it goes on when one is accepted, or by fedctl resume";
                tracing::error!(%lane, epoch, refusals = self.plan.limits.rejections_max, help, "nothing but refusals: the lane pauses, and single activities are tried");
            }
            (true, false) => tracing::info!(%lane, epoch, "one was accepted: the lane goes on"),
            _ => {}
        }
    }

    fn outcome(&mut self, post: PostId, seq: Seq, answer: Answer) -> Event {
        let outcome = answer.outcome;
        let status = (answer.status != 0).then_some(answer.status);
        if let Some(posted) = self.posted.get_mut(&post) {
            posted.unanswered.retain(|unanswered| *unanswered != seq);
        }
        if let Some(held) = self.held.get_mut(seq) {
            held.end(&answer);
            held.attempts.ended(status, None);
            // A repeat may bring it twice: from the POST that was given up, and from the one after it.
            if !std::mem::replace(&mut held.answered, true) {
                self.series.settled(outcome, held.taken_at());
            }
            if outcome.park_reason().is_some() {
                held.refusal = Some(answer);
            }
        }
        self.proven = true;
        self.trouble.over(self.epoch.0);
        let at = fedstream_wire::rfc3339(time::OffsetDateTime::now_utc());
        self.shared.registry.update(&self.lane, |view| {
            view.settled += 1;
            view.rejected += u64::from(outcome.park_reason().is_some());
            view.last_outcome = Some(match status {
                Some(status) => format!("sequence {seq}: {} ({status}) at {at}", outcome.as_str()),
                None => format!("sequence {seq}: {} at {at}", outcome.as_str()),
            });
        });
        Event::Outcome { post, seq, outcome }
    }

    fn ended(&mut self, post: PostId, ended: Ended) -> Event {
        self.series.posted(&ended);
        let posted = self.posted.remove(&post);
        let called_back = posted.as_ref().is_some_and(|posted| posted.cancel.is_cancelled());
        let first = posted.as_ref().and_then(|posted| posted.unanswered.front().copied());
        self.note_attempt(&ended, post, first);
        match (ended.end, ended.cause) {
            (End::Done | End::Lost, None) => {} // done, or called off
            (End::Lost, _) if called_back => {}
            (End::NewGate(gate), _) => {
                tracing::info!(lane = %self.lane, epoch = %self.epoch, %gate, "the far side is in a new life, or new to us");
            }
            (end, cause) => {
                let cause = cause.unwrap_or_else(|| "the answer left activities out".to_owned());
                if let (End::Gap, Some(posted)) = (end, &posted) {
                    let _in_its_trace = posted.span.enter();
                    tracing::warn!(lane = %self.lane, epoch = %self.epoch, seq = first.map(|seq| seq.0), cause, "gap");
                }
                self.trouble.failed(self.epoch.0, cause);
            }
        }
        Event::Ended { post, end: ended.end, jitter: fastrand::u16(0..=1000) }
    }

    /// The one item that may have been at the instance when the POST ended.
    fn note_attempt(&mut self, ended: &Ended, post: PostId, first: Option<Seq>) {
        let (seq, status) = match ended.end {
            End::Retry { seq, status, .. } => (Some(seq), status),
            End::Lost => (first, None),
            _ => (None, None),
        };
        let called_off = ended.cause.is_none();
        self.held.end_attempts(post, ended, seq.filter(|_| !called_off));
        if let Some(held) = seq.and_then(|seq| self.held.get_mut(seq)) {
            held.attempts.ended(status, ended.cause.clone());
        }
    }

    fn trimmed(&mut self, count: u64, result: Result<u64, purge::Error>) -> Event {
        match result {
            Ok(purged) => {
                if purged > count {
                    tracing::error!(lane = %self.lane, epoch = %self.epoch, count, purged, "more was purged than was settled: the reader skipped something");
                } else if purged < count && !self.trim_uncertain {
                    tracing::warn!(lane = %self.lane, epoch = %self.epoch, count, purged, "less was purged than was settled: somebody else purged the lane");
                }
                if std::mem::take(&mut self.trim_uncertain) {
                    self.trouble.over(self.epoch.0);
                }
                Event::Trimmed { done: true }
            }
            // What was to be trimmed went with its stream.
            Err(purge::Error::Identity(error @ identity::Error::MadeAnew { .. })) => {
                self.released.get_or_insert(Released::Anew(error.to_string()));
                Event::Trimmed { done: true }
            }
            Err(purge::Error::Identity(identity::Error::Missing { .. })) if self.is_draining() => {
                Event::Trimmed { done: true }
            }
            Err(error) => {
                self.trouble.failed(self.epoch.0, format!("what is settled can't be trimmed: {error}"));
                self.trim_uncertain = true;
                Event::Trimmed { done: false }
            }
        }
    }
}
