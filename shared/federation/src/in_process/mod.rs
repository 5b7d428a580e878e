//! Delivery inside the application's own process, on tokio tasks: what an application has that sets up nothing.
//!
//! ```text
//!   submit ─▶ lane (remote, actor) ─▶ head ─▶ breaker ─▶ a turn ─▶ attempt ─▶ done, or later, or DeliveryFailed
//!     full: an error                   the others of the lane wait
//! ```
//!
//! A backfill's activities go through the same lanes, one at a time, each behind what is in the lane then: so nothing of a
//! user's overtakes there either.
//!
//! The same order as over the broker: of one actor to one remote nothing overtakes, and a remote that is down delays nobody
//! else, for a delivery takes a turn only while it is tried, not while it waits. Everything is bounded: what is queued, what
//! is tried at a time, how long a delivery is tried. What is queued is in memory only: [`InProcess::shut_down`] waits for it,
//! and hands back what was left. What the application gives (keys, a history, a listener) may panic: the delivery fails then, and
//! the lane goes on.

mod backfills;
mod retrying;
mod turns;

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fedstream_lane::InstanceName;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Span;
use uuid::Uuid;

use crate::FederationEvent;
use crate::activity::{self, Activity};
use crate::attempt::{Attempts, Delivery};
use crate::backfill::{History, Pace, Position};
use crate::breaker;
use crate::lanes::{self, remote_of};
use crate::rules::Rules;

use backfills::Backfill;
pub use retrying::Outcome;
use retrying::Retrying;

/// After a panic of our own in a lane: it goes on, and can't spin.
const RESTART: Duration = Duration::from_secs(1);

/// In this unit the bytes of activities are counted, for a semaphore counts to some 500 million on a small machine.
const UNIT_BYTES: usize = 1024;

/// Bounds of in-process work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Deliveries and backfills that may be queued; beyond it publishing is an error.
    pub queue: usize,
    /// Bytes of activities that may be queued; one that goes to many inboxes counts once.
    pub queue_bytes: usize,
    /// Requests that are made at a time.
    pub concurrency: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        // Some kB each; a fan-out to every instance there is, twice over. In bytes what a small server can spare.
        Self { queue: 10_000, queue_bytes: 128 * 1024 * 1024, concurrency: 32 }
    }
}

/// It was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As much is queued as may be.
    #[error("{0} deliveries and backfills are queued, and no more may be")]
    QueueFull(usize),
    /// As many bytes are queued as may be.
    #[error("{0} bytes of activities are as many as may be queued")]
    QueueBytes(usize),
    /// The application has given no reader.
    #[error("there is no history to send: give `history(..)` to the builder")]
    NoHistory,
    /// Neither here nor where it was built.
    #[error("there is no tokio runtime to deliver on")]
    NoRuntime,
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
    /// How far the backfills are that are among them and have begun: what an event would begin anew,
    /// [`resume_backfill`](crate::ActivityPubService::resume_backfill) goes on with.
    pub backfills: Vec<LeftBackfill>,
}

/// A backfill that has begun and was not waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftBackfill {
    /// Whose history.
    pub owner_user_id: Uuid,
    /// Where it goes.
    pub follower_inbox_url: String,
    /// Where it goes on.
    pub at: Position,
}

/// Who hears of what was given up.
pub type OnFailed = Arc<dyn Fn(FederationEvent) + Send + Sync>;

/// Deliveries and backfills of this process.
pub(crate) struct InProcess {
    shared: Arc<Shared>,
}

struct Shared {
    retrying: Retrying,
    rules: Rules,
    history: Option<Arc<dyn History>>,
    pace: Pace,
    on_failed: Option<OnFailed>,
    bounds: Bounds,
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    backfill_turns: Semaphore,
    lanes: Mutex<HashMap<LaneKey, VecDeque<Queued>>>,
    backfills: Mutex<HashMap<u64, Backfill>>,
    /// Where it was built: a caller's runtime may be gone before what it asked for is done.
    runtime: Option<Handle>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

type LaneKey = (InstanceName, Uuid);

struct Queued {
    delivery: Delivery,
    since: Instant,
    span: Span,
    asked_by: AskedBy,
}

/// Who hears of the outcome, and what is given back with it.
enum AskedBy {
    /// The application: of a failure only, by `on_failed`.
    Application { _place: OwnedSemaphorePermit, _room: Room },
    /// A backfill, which has a place of its own.
    Backfill(oneshot::Sender<Outcome>),
}

/// An activity's bytes in the queue, shared by all its deliveries.
pub(crate) type Room = Arc<OwnedSemaphorePermit>;

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
        let within = |bound: usize| bound.clamp(1, Semaphore::MAX_PERMITS);
        let units = within(bounds.queue_bytes / UNIT_BYTES);
        let shared = Shared {
            retrying: Retrying::new(attempts, rules, breaker, bounds.concurrency),
            rules,
            history,
            pace,
            on_failed,
            bounds,
            places: Arc::new(Semaphore::new(within(bounds.queue))),
            bytes: Arc::new(Semaphore::new(units)),
            backfill_turns: Semaphore::new(backfills::AT_A_TIME),
            lanes: Mutex::default(),
            backfills: Mutex::default(),
            runtime: Handle::try_current().ok(),
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
                let room = self.room(&activity)?;
                self.deliver(Delivery { inbox, activity, signing_actor_id }, room)
            }
            FederationEvent::BackfillRequested { owner_user_id, follower_inbox_url } => {
                let inbox = follower_inbox_url.parse().map_err(|_| Error::InboxUrl(follower_inbox_url))?;
                self.backfill_later(owner_user_id, inbox)
            }
            FederationEvent::DeliveryFailed { .. } => Err(Error::NotARequest),
        }
    }

    /// Room for the bytes of an activity, for all of its deliveries.
    pub(crate) fn room(&self, activity: &Activity) -> Result<Room, Error> {
        let units = u32::try_from(activity.body().len().div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let room = self.shared.bytes.clone().try_acquire_many_owned(units);
        room.map(Arc::new).map_err(|_| self.no_room())
    }

    pub(crate) fn no_room(&self) -> Error {
        Error::QueueBytes(self.shared.bounds.queue_bytes)
    }

    /// Queues a delivery, behind what this actor already sends to that remote.
    pub(crate) fn deliver(&self, delivery: Delivery, room: Room) -> Result<(), Error> {
        let asked_by = AskedBy::Application { _place: self.place()?, _room: room };
        self.shared.enter(delivery, asked_by)
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
        // A backfill's activity is sent by the backfill when that goes on.
        let asked = |queued: &Queued| matches!(queued.asked_by, AskedBy::Application { .. });
        let deliveries = lanes.into_values().flatten().filter(asked).map(|queued| FederationEvent::DeliveryRequested {
            inbox: queued.delivery.inbox,
            activity: queued.delivery.activity.to_value(),
            signing_actor_id: queued.delivery.signing_actor_id,
        });
        let backfills: Vec<_> = backfills.into_values().filter_map(Backfill::left).collect();
        let again = backfills.iter().map(|left| FederationEvent::BackfillRequested {
            owner_user_id: left.owner_user_id,
            follower_inbox_url: left.follower_inbox_url.clone(),
        });
        let events = deliveries.chain(again).collect();
        Left { events, backfills: backfills.into_iter().filter(|left| left.at.has_begun()).collect() }
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.shared.places.clone().try_acquire_owned().map_err(|_| Error::QueueFull(self.shared.bounds.queue))
    }
}

impl Shared {
    /// Behind what is in its lane.
    fn enter(self: &Arc<Self>, delivery: Delivery, asked_by: AskedBy) -> Result<(), Error> {
        let key = (remote_of(&delivery.inbox)?, delivery.signing_actor_id);
        let runtime = self.runtime()?;
        let mut lanes = self.lanes();
        // Asked under the lock: a shutdown closes first and then looks what is in the lanes. What a backfill still sends
        // belongs to the queue that is waited for.
        if self.tasks.is_closed() && matches!(asked_by, AskedBy::Application { .. }) {
            return Err(Error::ShuttingDown);
        }
        let waiting = lanes.entry(key.clone()).or_default();
        waiting.push_back(Queued { delivery, since: Instant::now(), span: Span::current(), asked_by });
        if waiting.len() == 1 {
            self.tasks.spawn_on(self.clone().lane(key, Duration::ZERO), &runtime);
        }
        Ok(())
    }

    fn runtime(&self) -> Result<Handle, Error> {
        self.runtime.clone().or_else(|| Handle::try_current().ok()).ok_or(Error::NoRuntime)
    }

    /// Delivers what is in a lane, in order, until nothing is.
    async fn lane(self: Arc<Self>, key: LaneKey, pause: Duration) {
        let mut running = Running { shared: self, key, done: false };
        let Running { shared, key, .. } = &running;
        let run = async {
            tokio::time::sleep(pause).await;
            while let Some((delivery, since, span)) = shared.head(key) {
                let outcome = shared.retrying.deliver(&delivery, since, span).await;
                if shared.settle(key, delivery, outcome) {
                    return; // not looked at again: what comes now is another lane, with a task of its own
                }
            }
        };
        shared.stop.clone().run_until_cancelled(run).await;
        running.done = true;
    }

    fn head(&self, key: &LaneKey) -> Option<(Delivery, Instant, Span)> {
        let lanes = self.lanes();
        let head = lanes.get(key)?.front()?;
        Some((head.delivery.clone(), head.since, head.span.clone()))
    }

    /// The head is done with. Whether the lane is empty, and gone.
    fn settle(&self, key: &LaneKey, delivery: Delivery, outcome: Outcome) -> bool {
        let (head, empty) = {
            let mut lanes = self.lanes();
            let Some(waiting) = lanes.get_mut(key) else { return true };
            let head = waiting.pop_front();
            let empty = waiting.is_empty();
            if empty {
                lanes.remove(key);
            }
            (head, empty)
        };
        match (head.map(|head| head.asked_by), outcome) {
            (Some(AskedBy::Backfill(asked)), outcome) => drop(asked.send(outcome)), // it may have left meanwhile
            (_, Outcome::Failed { cause, .. }) => self.tell(delivery, cause),
            (_, Outcome::Delivered) => {}
        }
        empty
    }

    fn tell(&self, delivery: Delivery, error: String) {
        tracing::warn!(
            inbox = %delivery.inbox, activity.id = delivery.activity.id(), %error,
            "a delivery was given up"
        );
        self.tell_event(FederationEvent::DeliveryFailed {
            inbox: delivery.inbox,
            activity: delivery.activity.to_value(),
            signing_actor_id: delivery.signing_actor_id,
            error,
        });
    }

    fn tell_event(&self, event: FederationEvent) {
        let Some(on_failed) = &self.on_failed else { return };
        if catch_unwind(AssertUnwindSafe(|| on_failed(event))).is_err() {
            tracing::error!("what hears of failed deliveries panicked; the lane goes on");
        }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<LaneKey, VecDeque<Queued>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn backfills(&self) -> MutexGuard<'_, HashMap<u64, Backfill>> {
        self.backfills.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane that is being delivered. If that ends in another way than to its end, what is left in the lane goes on.
struct Running {
    shared: Arc<Shared>,
    key: LaneKey,
    done: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.done || self.shared.stop.is_cancelled() || !self.shared.lanes().contains_key(&self.key) {
            return;
        }
        let Ok(runtime) = self.shared.runtime() else { return };
        // Where the runtime itself is gone this is dropped at once, before it has begun.
        self.shared.tasks.spawn_on(self.shared.clone().lane(self.key.clone(), RESTART), &runtime);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::{Client, Setup};
    use crate::guard::Guard;
    use crate::keys::KeysInMemory;

    #[tokio::test]
    async fn a_lane_whose_task_ends_before_its_end_goes_on() {
        let client = Client::new(Setup { guard: Guard::development(), ..Setup::default() }).expect("a client");
        let (told, mut hear) = tokio::sync::mpsc::unbounded_channel();
        let in_process = InProcess::new(Parts {
            attempts: Attempts::new(client, Arc::new(KeysInMemory::default())),
            rules: Rules { attempts_max: 1, ..Rules::default() },
            breaker: breaker::Limits::default(),
            bounds: Bounds::default(),
            history: None,
            pace: Pace::default(),
            on_failed: Some(Arc::new(move |event| told.send(event).expect("somebody hears"))),
        });
        let shared = &in_process.shared;
        let inbox: url::Url = "http://a.example/inbox".parse().expect("a URL");
        let activity = Arc::new(Activity::from_value(&serde_json::json!({ "id": "x" })).expect("an activity"));
        let delivery = Delivery { inbox, activity, signing_actor_id: Uuid::nil() };
        let key: LaneKey = (remote_of(&delivery.inbox).expect("a remote"), Uuid::nil());
        let (asked, _) = oneshot::channel();
        let queued =
            |asked_by| Queued { delivery: delivery.clone(), since: Instant::now(), span: Span::none(), asked_by };
        shared.lanes().entry(key.clone()).or_default().push_back(queued(AskedBy::Backfill(asked)));
        drop(Running { shared: shared.clone(), key, done: false }); // as a panic would
        in_process
            .submit(FederationEvent::DeliveryRequested {
                inbox: delivery.inbox.clone(),
                activity: delivery.activity.to_value(),
                signing_actor_id: Uuid::nil(),
            })
            .expect("taken, behind the other");
        let event = tokio::time::timeout(Duration::from_secs(20), hear.recv()).await.expect("in time");
        assert!(matches!(event, Some(FederationEvent::DeliveryFailed { .. })), "{event:?}");
        assert_eq!(in_process.shut_down(Duration::from_secs(20)).await, Left::default());
    }
}
