//! Backfills of this process: each walks its history, and hands one activity at a time to the follower's lane.
//!
//! ```text
//!   request_backfill ─▶ walk from the position it has ─▶ lane ─▶ delivered, or refused and told ─▶ the next
//!                              ▲                          └─ not now, or no page: a pause ─┐
//!                              └────────────────── from where it was ──────────────────────┘ given up after as many as a delivery
//! ```
//!
//! One whose inbox answers "gone" again and again is given up at once.
//!
//! The position is in memory, as everything here: a shutdown hands it back. One that is given up is told as a delivery is, with
//! the event that asks for it again in the activity's place.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fedstream_lane::Moment;
use futures::FutureExt;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::{SemaphorePermit, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use url::Url;
use uuid::Uuid;

use super::{AskedBy, Error, InProcess, LeftBackfill, Outcome, Shared};
use crate::FederationEvent;
use crate::activity::Activity;
use crate::attempt::Delivery;
use crate::backfill::{self, Backfilled, GONE_AFTER, History, Position, Recipient, Refusal, Unreadable, walk};
use crate::lanes::remote_of;
use crate::rules::millis;

/// Backfills that run at a time: each holds a page, and makes one request at a time.
pub(super) const AT_A_TIME: usize = 4;

/// One that waits longer for its lane lets another run meanwhile: a dead follower must not keep the others waiting.
const TURN: Duration = Duration::from_secs(10);

/// A backfill that is not done.
pub(super) struct Backfill {
    owner: Uuid,
    inbox: Url,
    at: Position,
    /// Somebody waits for it, and is told where it can go on.
    attended: bool,
}

impl Backfill {
    /// What a shutdown says of it.
    pub(super) fn left(self) -> Option<LeftBackfill> {
        let Self { owner, inbox, at, attended } = self;
        let left = LeftBackfill { owner_user_id: owner, follower_inbox_url: inbox.into(), at };
        (!attended).then_some(left)
    }
}

impl InProcess {
    /// Sends a user's history to an inbox, now; it is done when this returns, or the error says where it can go on.
    pub(crate) async fn backfill(
        &self,
        owner: Uuid,
        inbox: Url,
        from: Position,
    ) -> Result<Backfilled, backfill::Error> {
        let later = |at: Position, cause: &dyn ToString| backfill::Error::NotNow { at, cause: cause.to_string() };
        let job = self.shared.begin(Backfill { owner, inbox, at: from.clone(), attended: true });
        let (job, runtime) = match (job, self.shared.runtime()) {
            (Ok(job), Ok(runtime)) => (Arc::new(job), runtime),
            (Err(Error::NoHistory), _) => return Err(backfill::Error::NoHistory),
            (Err(error), _) | (_, Err(error)) => return Err(later(from, &error)),
        };
        // On a task, so that a shutdown never waits for a caller that looks elsewhere; it ends with the caller.
        let walking = job.clone();
        let task = async move { walking.shared.stop.run_until_cancelled(walking.run()).await };
        match AbortOnDropHandle::new(self.shared.tasks.spawn_on(task, &runtime)).await {
            Ok(Some(came_to)) => came_to.map_err(|halt| halt.error),
            Ok(None) => Err(later(job.at(), &Error::ShuttingDown)),
            Err(error) => Err(later(job.at(), &error)),
        }
    }

    /// Queues a backfill.
    pub(super) fn backfill_later(&self, owner: Uuid, inbox: Url) -> Result<(), Error> {
        remote_of(&inbox)?;
        let runtime = self.shared.runtime()?;
        let place = self.place()?;
        let job = self.shared.begin(Backfill { owner, inbox, at: Position::default(), attended: false })?;
        let task = async move {
            let _place = place;
            job.shared.stop.run_until_cancelled(job.to_the_end()).await;
        };
        self.shared.tasks.spawn_on(task, &runtime);
        Ok(())
    }
}

impl Shared {
    fn begin(self: &Arc<Self>, backfill: Backfill) -> Result<Job, Error> {
        let backfill = Backfill { at: backfill.at.or_asked_at(OffsetDateTime::now_utc()), ..backfill };
        let history = self.history.clone().ok_or(Error::NoHistory)?;
        let (owner, inbox) = (backfill.owner, backfill.inbox.clone());
        let mut backfills = self.backfills();
        // Asked under the lock, see `enter`.
        if self.tasks.is_closed() {
            return Err(Error::ShuttingDown);
        }
        let number = backfills.keys().max().map_or(0, |last| last + 1);
        backfills.insert(number, backfill);
        drop(backfills);
        Ok(Job { shared: self.clone(), history, number, owner, inbox })
    }
}

/// A backfill on its way.
struct Job {
    shared: Arc<Shared>,
    history: Arc<dyn History>,
    number: u64,
    owner: Uuid,
    inbox: Url,
}

impl Drop for Job {
    fn drop(&mut self) {
        // What a shutdown ended stays: it is handed back.
        if !self.shared.stop.is_cancelled() {
            self.shared.backfills().remove(&self.number);
        }
    }
}

/// Why a walk ended before its end, and the activity that was given up there.
struct Halt {
    error: backfill::Error,
    given_up: Option<(Delivery, String)>,
}

impl Job {
    fn at(&self) -> Position {
        self.shared.backfills().get(&self.number).map(|backfill| backfill.at.clone()).unwrap_or_default()
    }

    /// From where it is to the end, through whatever passes.
    async fn to_the_end(&self) {
        let Self { shared, owner, inbox, .. } = self;
        let began = Instant::now();
        let mut backoff = shared.rules.backoff();
        let (mut failures, mut was_at) = (0_u32, self.at());
        loop {
            let Halt { error, given_up } = match self.run().await {
                Ok(Backfilled { gone: None, .. }) => return,
                Ok(Backfilled { gone: Some(cause), .. }) => {
                    tracing::warn!(%owner, %inbox, error = cause, "a backfill was given up");
                    shared.tell_event(FederationEvent::backfill_failed(*owner, inbox.clone(), &cause));
                    return;
                }
                Err(halt) => halt,
            };
            let at = self.at();
            if at != was_at {
                failures = 0;
                backoff.progressed();
                was_at = at;
            }
            failures += 1;
            if matches!(error, backfill::Error::Endless) || failures >= shared.rules.attempts_max {
                tracing::warn!(%owner, %inbox, %error, "a backfill was given up");
                if let Some((delivery, cause)) = given_up {
                    shared.tell(delivery, cause);
                }
                shared.tell_event(FederationEvent::backfill_failed(*owner, inbox.clone(), &error.to_string()));
                return;
            }
            tracing::debug!(%owner, %inbox, %error, failures, "a backfill goes on later");
            backoff.failed(Moment(millis(began.elapsed())), None, fastrand::u16(..=1000));
            let until = backoff.until().map_or(Duration::ZERO, |until| Duration::from_millis(until.0));
            tokio::time::sleep_until(began + until).await;
        }
    }

    /// From where it is until something is in the way.
    async fn run(&self) -> Result<Backfilled, Halt> {
        let turn = self.shared.backfill_turns.acquire().await.ok(); // never closed
        let mut follower = Follower { job: self, turn, given_up: None, gone: 0 };
        let pace = self.shared.pace;
        // A reader that panics is one that can't be read.
        let walking = walk(self.history.as_ref(), self.owner, Some(self.at()), &pace, &mut follower);
        let came_to = AssertUnwindSafe(walking).catch_unwind().await.unwrap_or_else(|_panic| {
            Err(backfill::Error::History { at: self.at(), cause: Unreadable("its reader panicked".to_owned()) })
        });
        came_to.map_err(|error| Halt { error, given_up: follower.given_up })
    }
}

/// Where a backfill's activities go: the follower's lane, each by the rule of every other delivery.
struct Follower<'j> {
    job: &'j Job,
    turn: Option<SemaphorePermit<'j>>,
    given_up: Option<(Delivery, String)>,
    /// How often in a row it has said that it is gone.
    gone: u8,
}

impl Follower<'_> {
    async fn outcome(&mut self, delivery: &Delivery) -> Result<Outcome, Refusal> {
        let not_now = |error: &dyn ToString| Refusal::NotNow(error.to_string());
        let (asked, mut answer) = oneshot::channel();
        let shared = &self.job.shared;
        shared.enter(delivery.clone(), AskedBy::Backfill(asked)).map_err(|error| not_now(&error))?;
        let outcome = match timeout(TURN, &mut answer).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                self.turn = None;
                let outcome = answer.await;
                self.turn = shared.backfill_turns.acquire().await.ok();
                outcome
            }
        };
        outcome.map_err(|_| not_now(&Error::ShuttingDown)) // nobody else drops what is in a lane
    }
}

#[async_trait]
impl Recipient for Follower<'_> {
    async fn take(&mut self, activity: Value) -> Result<(), Refusal> {
        let activity = Activity::from_value(&activity).map_err(|error| Refusal::ThisOne(error.to_string()))?;
        let Job { shared, owner, inbox, .. } = self.job;
        let delivery = Delivery { inbox: inbox.clone(), activity: Arc::new(activity), signing_actor_id: *owner };
        match self.outcome(&delivery).await? {
            Outcome::Delivered => {
                self.gone = 0;
                Ok(())
            }
            Outcome::Failed { refused: true, status, cause } => {
                shared.tell(delivery, cause.clone());
                self.gone = if matches!(status, Some(404 | 410)) { self.gone.saturating_add(1) } else { 0 };
                // The inbox itself is not there any more: the rest of the history would hear the same.
                Err(if self.gone >= GONE_AFTER { Refusal::Gone(cause) } else { Refusal::ThisOne(cause) })
            }
            Outcome::Failed { refused: false, cause, .. } => {
                self.given_up = Some((delivery, cause.clone()));
                Err(Refusal::NotNow(cause))
            }
        }
    }

    async fn reached(&mut self, position: &Position) -> Result<(), Refusal> {
        if let Some(backfill) = self.job.shared.backfills().get_mut(&self.job.number) {
            backfill.at = position.clone();
        }
        Ok(())
    }
}
