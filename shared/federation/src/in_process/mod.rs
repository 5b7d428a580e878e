//! Delivery inside the application's own process, on tokio tasks: what an application has that sets up nothing.
//!
//! ```text
//!   submit ─▶ lane (remote, actor) ─▶ head ─▶ breaker ─▶ a turn ─▶ attempt ─▶ done, or later, or DeliveryFailed
//!     full: an error                   the others of the lane wait
//! ```
//!
//! The same order as over the broker: of one actor to one remote nothing overtakes, and a remote that is down delays nobody
//! else, for a delivery takes a turn only while it is tried, not while it waits. Everything is bounded: what is queued, what
//! is tried at a time, how long a delivery is tried. What is queued is in memory only: [`InProcess::shut_down`] waits for it,
//! and hands back what was left.

mod retrying;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fedstream_lane::InstanceName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Span;
use url::Url;
use uuid::Uuid;

use crate::FederationEvent;
use crate::activity::{self, Activity};
use crate::attempt::{Attempts, Delivery};
use crate::backfill::{self, Backfilled, History, Pace};
use crate::breaker;
use crate::lanes::{self, remote_of};
use crate::rules::Rules;

pub use retrying::Outcome;
pub(crate) use retrying::Retrying;

/// Backfills that run at a time: each is one request at a time, and pauses between pages.
const BACKFILLS_MAX: usize = 4;

/// Bounds of in-process work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Deliveries and backfills that may be queued; beyond it publishing is an error.
    pub queue: usize,
    /// Requests that are made at a time.
    pub concurrency: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { queue: 10_000, concurrency: 32 } // some kB each; a fan-out to every instance there is, twice over
    }
}

/// It was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As much is queued as may be.
    #[error("{0} deliveries and backfills are queued, and no more may be")]
    QueueFull(usize),
    /// The service is leaving.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// Its inbox names no instance.
    #[error(transparent)]
    Inbox(#[from] lanes::Error),
    /// Not a URL.
    #[error("{0:?} is no URL of an inbox")]
    InboxUrl(String),
    /// It can't be sent.
    #[error(transparent)]
    Activity(#[from] activity::Error),
    /// A `DeliveryFailed`: that is told by this service, never asked of it.
    #[error("a DeliveryFailed is not to be delivered")]
    NotARequest,
}

/// What a shutdown did not wait for.
#[derive(Debug, Default, PartialEq)]
pub struct Left {
    /// Deliveries and backfills that are not known to be done, as the events that would ask for them again. One that was
    /// under way may have arrived.
    pub events: Vec<FederationEvent>,
}

/// Who hears of what was given up.
pub type OnFailed = Arc<dyn Fn(FederationEvent) + Send + Sync>;

/// Deliveries and backfills of this process.
pub(crate) struct InProcess {
    shared: Arc<Shared>,
}

struct Shared {
    retrying: Retrying,
    history: Option<Arc<dyn History>>,
    pace: Pace,
    on_failed: Option<OnFailed>,
    queue: usize,
    places: Arc<Semaphore>,
    backfill_turns: Semaphore,
    lanes: Mutex<HashMap<LaneKey, VecDeque<Queued>>>,
    backfills: Mutex<HashMap<u64, (Uuid, Url)>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

type LaneKey = (InstanceName, Uuid);

struct Queued {
    delivery: Delivery,
    since: Instant,
    span: Span,
    _place: OwnedSemaphorePermit,
}

/// What in-process work needs.
pub(crate) struct Parts {
    pub(crate) attempts: Attempts,
    pub(crate) rules: Rules,
    pub(crate) breaker: breaker::Limits,
    pub(crate) bounds: Bounds,
    pub(crate) history: Option<Arc<dyn History>>,
    pub(crate) pace: Pace,
    pub(crate) on_failed: Option<OnFailed>,
}

impl InProcess {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { attempts, rules, breaker, bounds, history, pace, on_failed } = parts;
        let retrying = Retrying::new(attempts, rules, breaker, bounds.concurrency.max(1));
        let shared = Shared {
            retrying,
            history,
            pace,
            on_failed,
            queue: bounds.queue.max(1),
            places: Arc::new(Semaphore::new(bounds.queue.max(1))),
            backfill_turns: Semaphore::new(BACKFILLS_MAX),
            lanes: Mutex::default(),
            backfills: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Queues what an event asks for.
    pub(crate) fn submit(&self, event: FederationEvent) -> Result<(), Error> {
        match event {
            FederationEvent::DeliveryRequested { inbox, activity, signing_actor_id } => {
                let activity = Arc::new(Activity::from_value(&activity)?);
                self.deliver(Delivery { inbox, activity, signing_actor_id })
            }
            FederationEvent::BackfillRequested { owner_user_id, follower_inbox_url } => {
                let inbox = follower_inbox_url.parse().map_err(|_| Error::InboxUrl(follower_inbox_url))?;
                self.backfill_later(owner_user_id, inbox)
            }
            FederationEvent::DeliveryFailed { .. } => Err(Error::NotARequest),
        }
    }

    /// Queues a delivery, behind what this actor already sends to that remote.
    pub(crate) fn deliver(&self, delivery: Delivery) -> Result<(), Error> {
        let lane = (remote_of(&delivery.inbox)?, delivery.signing_actor_id);
        let place = self.place()?;
        let queued = Queued { delivery, since: Instant::now(), span: Span::current(), _place: place };
        let mut lanes = self.shared.lanes();
        // Asked under the lock: a shutdown closes first and then looks what is in the lanes.
        if self.shared.tasks.is_closed() {
            return Err(Error::ShuttingDown);
        }
        let waiting = lanes.entry(lane.clone()).or_default();
        waiting.push_back(queued);
        if waiting.len() == 1 {
            let shared = self.shared.clone();
            self.shared.tasks.spawn(async move {
                let stop = shared.stop.clone();
                stop.run_until_cancelled(shared.clone().lane(lane)).await;
            });
        }
        Ok(())
    }

    /// Sends a user's history to an inbox, now; the future is done when all of it is.
    pub(crate) async fn backfill(&self, owner: Uuid, inbox: Url) -> Result<Backfilled, backfill::Error> {
        self.shared.backfill(owner, inbox).await
    }

    fn backfill_later(&self, owner: Uuid, inbox: Url) -> Result<(), Error> {
        remote_of(&inbox)?;
        let place = self.place()?;
        let shared = self.shared.clone();
        let mut backfills = self.shared.backfills();
        if self.shared.tasks.is_closed() {
            return Err(Error::ShuttingDown);
        }
        let number = backfills.keys().max().map_or(0, |last| last + 1);
        backfills.insert(number, (owner, inbox.clone()));
        drop(backfills);
        self.shared.tasks.spawn(async move {
            let _place = place;
            let run = async {
                let _turn = shared.backfill_turns.acquire().await; // never closed
                if let Err(error) = shared.backfill(owner, inbox.clone()).await {
                    tracing::warn!(%owner, %inbox, %error, "a backfill was given up");
                }
                shared.backfills().remove(&number);
            };
            shared.stop.clone().run_until_cancelled(run).await;
        });
        Ok(())
    }

    /// Takes nothing more, waits for what is queued for at most `deadline`, and says what was left.
    pub(crate) async fn shut_down(&self, deadline: Duration) -> Left {
        self.shared.tasks.close();
        if tokio::time::timeout(deadline, self.shared.tasks.wait()).await.is_err() {
            self.shared.stop.cancel();
            self.shared.tasks.wait().await;
        }
        let lanes = std::mem::take(&mut *self.shared.lanes());
        let backfills = std::mem::take(&mut *self.shared.backfills());
        let deliveries = lanes.into_values().flatten().map(|queued| FederationEvent::DeliveryRequested {
            inbox: queued.delivery.inbox,
            activity: queued.delivery.activity.to_value(),
            signing_actor_id: queued.delivery.signing_actor_id,
        });
        let backfills = backfills.into_values().map(|(owner_user_id, inbox)| FederationEvent::BackfillRequested {
            owner_user_id,
            follower_inbox_url: inbox.into(),
        });
        Left { events: deliveries.chain(backfills).collect() }
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.shared.places.clone().try_acquire_owned().map_err(|_| Error::QueueFull(self.shared.queue))
    }
}

impl Shared {
    /// Delivers what is in a lane, in order, until nothing is.
    async fn lane(self: Arc<Self>, key: LaneKey) {
        loop {
            let Some((delivery, since, span)) = self.head(&key) else { return };
            let outcome = self.retrying.deliver(&delivery, since, span).await;
            let done = self.settle(&key);
            if let Outcome::Failed { cause, .. } = outcome {
                self.tell(delivery, cause);
            }
            if done {
                return;
            }
        }
    }

    fn head(&self, key: &LaneKey) -> Option<(Delivery, Instant, Span)> {
        let lanes = self.lanes();
        let head = lanes.get(key)?.front()?;
        Some((head.delivery.clone(), head.since, head.span.clone()))
    }

    /// The head is done with. Whether the lane is empty, and gone.
    fn settle(&self, key: &LaneKey) -> bool {
        let mut lanes = self.lanes();
        let Some(waiting) = lanes.get_mut(key) else { return true };
        waiting.pop_front();
        let empty = waiting.is_empty();
        if empty {
            lanes.remove(key);
        }
        empty
    }

    fn tell(&self, delivery: Delivery, error: String) {
        tracing::warn!(
            inbox = %delivery.inbox, activity.id = delivery.activity.id(), %error,
            "a delivery was given up"
        );
        if let Some(on_failed) = &self.on_failed {
            on_failed(FederationEvent::DeliveryFailed {
                inbox: delivery.inbox,
                activity: delivery.activity.to_value(),
                signing_actor_id: delivery.signing_actor_id,
                error,
            });
        }
    }

    async fn backfill(&self, owner: Uuid, inbox: Url) -> Result<Backfilled, backfill::Error> {
        let history = self.history.as_deref().ok_or(backfill::Error::NoHistory)?;
        let mut inbox = backfill::Inbox::new(&self.retrying, owner, inbox);
        backfill::walk(history, owner, None, &self.pace, &mut inbox).await
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<LaneKey, VecDeque<Queued>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn backfills(&self) -> MutexGuard<'_, HashMap<u64, (Uuid, Url)>> {
        self.backfills.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
