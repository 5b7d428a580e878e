//! One delivery until it is done: attempts, the pauses between them, and the breaker that may make them longer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fedstream_lane::Moment;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::turns::Turns;
use crate::attempt::{Attempts, Delivery};
use crate::breaker::{self, Admission, Breaker};
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

/// A number for the delivery's lane among those of its remote: the breaker tells them apart by it.
fn lane_of(delivery: &Delivery) -> u64 {
    delivery.signing_actor_id.as_u64_pair().1
}

/// Delivers by the rule, a bounded number at a time.
pub(crate) struct Retrying {
    attempts: Attempts,
    rules: Rules,
    breaker: Mutex<Breaker>,
    turns: Turns,
    began: Instant,
}

impl Retrying {
    pub(crate) fn new(attempts: Attempts, rules: Rules, breaker: breaker::Limits, concurrency: usize) -> Self {
        Self {
            attempts,
            rules,
            breaker: Mutex::new(Breaker::new(breaker)),
            turns: Turns::new(concurrency),
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
        let patience = self.patience(since);
        loop {
            // The turn first: what the breaker says holds now, and not after minutes in line.
            let fails = self.breaker().is_failing(&remote);
            let mut turn = self.turns.take(&remote, fails).await;
            let admission = self.breaker().ask(self.now(), &remote);
            let (wait, verdict) = match admission {
                Admission::Probing { until } => {
                    drop(turn);
                    self.sleep_until(until.min(self.now().after_ms(millis(PROBING)))).await;
                    continue;
                }
                // The last attempt is made, and not counted as made by others: else a whole queue could be given up without
                // one request.
                Admission::Open { until } if made + 1 >= last && until <= patience => {
                    drop(turn);
                    self.sleep_until(until).await;
                    continue;
                }
                // Somebody was told a moment ago that it does not answer: that counts as an attempt of ours.
                Admission::Open { until } => (Some(until), None),
                Admission::Go | Admission::Probe(_) => {
                    let attempt = self.attempts.attempt(delivery).instrument(span.clone());
                    let attempted = turn.during(attempt).await;
                    let (probe, report) = (admission.probe(), attempted.report(lane_of(delivery)));
                    self.breaker().report(self.now(), &remote, probe, report, fastrand::u16(..=1000));
                    (None, Some(attempted.verdict))
                }
            };
            drop(turn);
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

    /// Until when the last attempt waits for an open breaker: to the end of what the rule takes in all, and for one pause in any
    /// case, in which the remote is asked by one of those who wait.
    fn patience(&self, since: Instant) -> Moment {
        let left = self.rules.total().saturating_sub(since.elapsed());
        let pause = self.rules.delay_max.max(self.rules.retry_after_max);
        self.now().after_ms(millis(left.max(pause)))
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
