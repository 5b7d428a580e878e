//! One delivery until it is done: attempts, the pauses between them, and the breaker that may make them longer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fedstream_lane::{InstanceName, Moment};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::attempt::{Attempted, Attempts, Delivery};
use crate::breaker::{self, Admission, Breaker, Report};
use crate::lanes::remote_of;
use crate::rules::{Rules, millis};
use crate::verdict::Verdict;

/// While somebody else finds out whether a remote is back: no attempt of ours, so it costs nothing to look again soon.
const PROBING: Duration = Duration::from_secs(1);

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The remote has it.
    Delivered,
    /// It was given up.
    Failed {
        /// The remote refused it for good; otherwise every attempt failed.
        refused: bool,
        /// The remote's last status.
        status: Option<u16>,
        /// The reason in words.
        cause: String,
    },
}

/// Delivers by the rule, a bounded number at a time.
pub(crate) struct Retrying {
    attempts: Attempts,
    rules: Rules,
    breaker: Mutex<Breaker>,
    turns: Arc<Semaphore>,
    began: Instant,
}

impl Retrying {
    pub(crate) fn new(attempts: Attempts, rules: Rules, breaker: breaker::Limits, concurrency: usize) -> Self {
        Self {
            attempts,
            rules,
            breaker: Mutex::new(Breaker::new(breaker)),
            turns: Arc::new(Semaphore::new(concurrency)),
            began: Instant::now(),
        }
    }

    /// Tries until it is done. It waits in line since `since`, which counts as having been tried.
    pub(crate) async fn deliver(&self, delivery: &Delivery, since: Instant, span: Span) -> Outcome {
        let Ok(remote) = remote_of(&delivery.inbox) else {
            let cause = "the inbox names no instance".to_owned();
            return Outcome::Failed { refused: true, status: None, cause };
        };
        let last = self.rules.attempts_max.max(1);
        let mut made = self.rules.attempts_within(since.elapsed()).min(last - 1);
        let mut backoff = self.rules.backoff();
        loop {
            let admission = self.breaker().ask(self.now(), &remote);
            let (wait, verdict) = match admission {
                Admission::Probing { until } => {
                    self.sleep_until(until.min(self.now().after_ms(millis(PROBING)))).await;
                    continue;
                }
                // Somebody was told a moment ago that it does not answer: that counts as an attempt of ours.
                Admission::Open { until } => (Some(until), None),
                Admission::Go | Admission::Probe => {
                    let _turn = self.turns.acquire().await; // never closed
                    let attempted = self.attempts.attempt(delivery).instrument(span.clone()).await;
                    self.report(&remote, &attempted);
                    (None, Some(attempted.verdict))
                }
            };
            made += 1;
            let (status, cause, after) = match verdict {
                Some(Verdict::Delivered { .. }) => return Outcome::Delivered,
                Some(Verdict::Refused { status, cause }) => return Outcome::Failed { refused: true, status, cause },
                Some(Verdict::Retry { status, after, cause }) => (status, cause, after),
                None => (None, "the remote does not answer".to_owned(), None),
            };
            if made >= last {
                return Outcome::Failed { refused: false, status, cause };
            }
            backoff.failed(self.now(), after.map(millis), fastrand::u16(..=1000));
            self.sleep_until(wait.max(backoff.until()).unwrap_or_else(|| self.now())).await;
        }
    }

    fn report(&self, remote: &InstanceName, attempted: &Attempted) {
        let report = match &attempted.verdict {
            _ if attempted.requests == 0 => Report::NotAsked, // no key: that is not the remote's fault
            verdict if verdict.is_alive() => Report::Alive,
            Verdict::Retry { after: Some(after), .. } => Report::Busy(millis((*after).min(self.rules.retry_after_max))),
            _ => Report::Failed,
        };
        self.breaker().report(self.now(), remote, report, fastrand::u16(..=1000));
    }

    fn now(&self) -> Moment {
        Moment(millis(self.began.elapsed()))
    }

    async fn sleep_until(&self, moment: Moment) {
        tokio::time::sleep_until(self.began + Duration::from_millis(moment.0)).await;
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
