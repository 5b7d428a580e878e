//! Backfill jobs: a user's history for a new follower, fed into the follower's outbox lane, behind what is live there.
//!
//! ```text
//!   fed.backfill.<remote>.<owner> ─Post(job)─▶ walk ── page by page ──▶ Feed ─▶ fed.outbox.<remote>.<partition>
//!                                                └── position ─▶ KV fed_cursors
//! ```
//!
//! A job is carried as a delivery is: in order, by one owner at a time, again after a failure, and parked when its time is
//! over. Its "POST" is the whole walk. What is fed goes out like any other delivery, so nothing here signs or sends.
//!
//! It never decides whether there is room: the lane's depth is looked at to stay behind the live traffic, and a full lane is
//! the publisher's affair.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use federation::backfill::{self, GONE_AFTER, Pace, Position, Recipient, Refusal};
use federation::jetstream::Error as PublishError;
use federation::lanes::{BackfillLane, lane_of, remote_of};
use federation::stored::{Particulars, StoredBackfill};
use federation::{Backfilled, FederationEvent, History, JetStreamPublisher};
use fedstream_carrier::{Attempt, Copy, Direction, Ended, Item, Loaded, OnThePage, Outcomes, Plan, Way};
use fedstream_jetstream::lane_settings::LaneSettings;
use fedstream_jetstream::{Created, Cursors, Refused, StoredMessage, lanes};
use fedstream_lane::{Answer, Batch, End, Epoch, Final, GateId, LaneName, OutboxLane, Seq};
use fedstream_service::shutdown::CancellationToken;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::Span;

use crate::gone::Gone;
use crate::outbound::{GATE, KEPT_HEADERS, header_of, in_words, tell};
use crate::plan::{self, Settings};
use crate::worker::BACKFILL;

/// What all jobs of this process share.
pub type Shared = fedstream_carrier::Shared<Jobs>;

/// How often a lane that is full enough is looked at again: one question about one subject.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A finished job is purged within the trim interval; then nothing needs its resume point.
const FORGET_AFTER: Duration = Duration::from_secs(5);

/// What all jobs have in common.
pub struct Jobs {
    /// How they are carried.
    pub settings: Settings,
    /// Where histories are read.
    pub history: Arc<dyn History>,
    /// How far each job is.
    pub cursors: Cursors,
    /// Stores what is fed.
    pub publisher: JetStreamPublisher,
    /// Which followers are not there any more.
    pub gone: Arc<Gone>,
}

/// The jobs of one remote and one owner, during one epoch.
pub struct Walks {
    shared: Arc<Shared>,
    lane: BackfillLane,
    created: Created,
}

/// One job as it is walked.
#[derive(Clone, Debug)]
pub struct Job {
    stored: StoredBackfill,
    asked_at: OffsetDateTime,
    deadline: OffsetDateTime,
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl Item for Job {
    fn activity_id(&self) -> &str {
        self.stored.follower_inbox.as_str()
    }

    fn trace(&mut self) -> (&mut Option<String>, &mut Option<String>) {
        (&mut self.traceparent, &mut self.tracestate)
    }
}

impl Direction for Jobs {
    type Lane = BackfillLane;
    type Item = Job;
    type Way = Walks;

    const KEPT_HEADERS: &'static [&'static str] = KEPT_HEADERS;
    const IN_METRICS: bool = false; // a job's lane has a user's id in its name
    const ON_THE_PAGE: OnThePage =
        OnThePage { stream: BACKFILL, lanes: "backfills", waiting: "waiting backfills", subjects: "backfill subjects" };

    fn way(shared: &Arc<Shared>, lane: &BackfillLane, created: Created, _: Epoch, _: &LaneSettings) -> Walks {
        Walks { shared: Arc::clone(shared), lane: lane.clone(), created }
    }

    /// The application hears of a backfill that was given up, as of a delivery.
    async fn parked(shared: &Shared, copy: &Copy<BackfillLane>) -> Result<(), String> {
        let Ok(job) = StoredBackfill::read(|name| header_of(copy, name), &copy.body) else {
            return Ok(()); // whose it was, nobody can say; the copy is there for people
        };
        let event = job.failed(&in_words(copy));
        tell(&shared.direction.publisher, copy, event).await
    }
}

impl Way for Walks {
    type Item = Job;

    fn plan(&self, settings: LaneSettings) -> Plan {
        plan::one_at_a_time(&self.shared.direction.settings, settings)
    }

    fn gate(&self) -> Option<GateId> {
        Some(GATE)
    }

    fn read(&self, message: &StoredMessage) -> Result<Loaded<Job>, String> {
        let stored = StoredBackfill::read(|name| message.headers.get(name), &message.payload);
        let stored = stored.map_err(|error| error.to_string())?;
        let lane = BackfillLane {
            remote: remote_of(&stored.follower_inbox).map_err(|error| error.to_string())?,
            owner: stored.owner_user_id,
        };
        if lane != self.lane {
            return Err(format!("the job is one of {lane}, not of {}", self.lane));
        }
        let (received_at, deadline) =
            self.shared.direction.settings.times(stored.particulars.tried_since(message.stored_at));
        let trace = stored.particulars.trace.clone();
        let asked_at = asked_at(&stored.particulars, message.stored_at);
        let item = Job { stored, asked_at, deadline, traceparent: trace.parent, tracestate: trace.state };
        Ok(Loaded { item, bytes: message.payload.len(), received_at, deadline: Some(deadline) })
    }

    fn span(&self, _: &Batch, attempts: &[Attempt<Job>]) -> Span {
        attempts.first().map_or_else(Span::none, |attempt| attempt.span.clone())
    }

    fn post(
        &self,
        _: &Plan,
        _: &Batch,
        attempts: Vec<Attempt<Job>>,
        called_off: CancellationToken,
        outcomes: Outcomes,
    ) -> impl Future<Output = Ended> + Send + use<> {
        let (shared, lane, created) = (Arc::clone(&self.shared), self.lane.clone(), self.created);
        async move {
            let Some(Attempt { seq, item, .. }) = attempts.into_iter().next() else {
                return Ended::done();
            };
            let walked = tokio::select! {
                walked = walk(&shared, &lane, created, seq, &item) => walked,
                () = shared.drain.cancelled() => return Ended::called_off(), // the next owner goes on from the cursor
                () = called_off.cancelled() => return Ended::called_off(),
            };
            match walked {
                // What was not sent is somebody's to know of, whatever those said who answered.
                Ok(Backfilled { taken, refused, passed_over, gone: Some(cause) }) => {
                    tracing::info!(%lane, seq = seq.0, taken, refused, passed_over, "a backfill ends early: the follower's inbox is gone");
                    outcomes.tell(seq, Answer { outcome: Final::Rejected, status: 0, body: Some(cause.into()) }).await;
                    forget(&shared, lane);
                    Ended::done()
                }
                Ok(Backfilled { taken, refused, passed_over, gone: None }) => {
                    tracing::info!(%lane, seq = seq.0, taken, refused, passed_over, "a backfill is done");
                    outcomes.tell(seq, Answer { outcome: Final::Delivered, status: 0, body: None }).await;
                    forget(&shared, lane);
                    Ended::done()
                }
                Err(Stopped::ForGood(cause)) => {
                    outcomes.tell(seq, Answer { outcome: Final::Rejected, status: 0, body: Some(cause.into()) }).await;
                    forget(&shared, lane);
                    Ended::done()
                }
                Err(Stopped::ForNow(cause)) => {
                    let end = End::Retry { seq, status: None, alive: false, retry_after_ms: None };
                    Ended::because(end, cause)
                }
            }
        }
    }
}

/// When a job was asked for, and what is published later goes out live: not before the broker had it, whatever its publisher's
/// clock says, for what is taken as live too early is sent by nobody. One that was parked and published again was asked for
/// before it was stored the second time.
fn asked_at(particulars: &Particulars, stored_at: OffsetDateTime) -> OffsetDateTime {
    let said = particulars.requested_at.unwrap_or(stored_at);
    if particulars.redrive.is_some() { said } else { said.max(stored_at) }
}

/// Why a walk ended before its end.
enum Stopped {
    /// It is tried again, from where it was.
    ForNow(String),
    /// Nothing would become better.
    ForGood(String),
}

/// A resume point. It stands under the lane's name: of a lane's jobs one is on its way at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Point {
    /// Of which stream the sequence is.
    created_us: u64,
    /// The job.
    seq: u64,
    /// How far it is.
    position: Position,
}

async fn walk(
    shared: &Arc<Shared>,
    lane: &BackfillLane,
    created: Created,
    seq: Seq,
    job: &Job,
) -> Result<Backfilled, Stopped> {
    let direction = &shared.direction;
    let key = lane.key();
    let found = direction.cursors.load(&key).await.map_err(|error| Stopped::ForNow(error.to_string()))?;
    let point = found.value.as_deref().and_then(|value| serde_json::from_slice::<Point>(value).ok());
    let of_this_job = |point: &Point| point.created_us == created.unix_micros() && point.seq == seq.0;
    let from = point.filter(of_this_job).map(|point| point.position.or_asked_at(job.asked_at));
    let inbox = &job.stored.follower_inbox;
    let to = lane_of(inbox, lane.owner, direction.settings.partitions);
    let to = to.map_err(|error| Stopped::ForGood(error.to_string()))?;
    tracing::info!(%lane, seq = seq.0, %to, resumed = from.is_some(), "a backfill is on its way");
    let point = (created.unix_micros(), seq.0);
    let began = Instant::now();
    let mut feed = Feed { shared, job, began, to, key, point, revision: found.revision, room: 0 };
    let pace = Pace { pause: direction.settings.backfill_pause };
    let from = from.unwrap_or_else(|| Position::asked_at(job.asked_at));
    match backfill::walk(&*direction.history, lane.owner, Some(from), &pace, &mut feed).await {
        Ok(came_to) => Ok(came_to),
        Err(error @ backfill::Error::Endless) => Err(Stopped::ForGood(error.to_string())),
        Err(error) => Err(Stopped::ForNow(error.to_string())),
    }
}

/// Where a walk's activities go: the outbox lane of the owner at the follower's instance.
struct Feed<'w> {
    shared: &'w Arc<Shared>,
    job: &'w Job,
    began: Instant,
    to: OutboxLane,
    key: String,
    point: (u64, u64),
    revision: u64,
    /// So many more, before the lane is looked at again.
    room: u64,
}

impl Feed<'_> {
    /// Waits until the lane holds few deliveries: what is live goes first.
    async fn wait_for_room(&mut self) -> Result<(), Refusal> {
        let most = self.shared.direction.settings.backfill_watermark;
        while self.room == 0 {
            if OffsetDateTime::now_utc() >= self.job.deadline {
                return Err(Refusal::NotNow("its time is over".to_owned())); // the window parks it
            }
            let depth = lanes::depth(&self.shared.broker, &self.to).await;
            self.room = most.saturating_sub(depth.map_err(|error| Refusal::NotNow(error.to_string()))?);
            if self.room == 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Recipient for Feed<'_> {
    async fn ready(&mut self) -> Result<(), Refusal> {
        self.wait_for_room().await?;
        let (gone, job) = (&self.shared.direction.gone, &self.job.stored);
        let StoredBackfill { follower_inbox: inbox, owner_user_id: owner, .. } = job;
        if gone.is_gone(inbox, *owner, self.began) {
            return Err(Refusal::Gone(format!("{inbox} answered 404 or 410, {GONE_AFTER} times in a row")));
        }
        Ok(())
    }

    async fn take(&mut self, activity: Value) -> Result<(), Refusal> {
        let inbox = self.job.stored.follower_inbox.clone();
        let signing_actor_id = self.job.stored.owner_user_id;
        let event = FederationEvent::DeliveryRequested { inbox, activity, signing_actor_id };
        match self.shared.direction.publisher.store(event).await {
            Ok(()) => self.room = self.room.saturating_sub(1),
            Err(PublishError::NotStored { refused, .. }) if refused != Refused::TooLarge => {
                return Err(Refusal::NotNow(refused.to_string()));
            }
            Err(error) => return Err(Refusal::ThisOne(error.to_string())), // it never could be
        }
        Ok(())
    }

    /// Kept after each activity: a crash repeats one at most, and the broker knows that one by its id.
    async fn reached(&mut self, position: &Position) -> Result<(), Refusal> {
        let (created_us, seq) = self.point;
        let point = Point { created_us, seq, position: position.clone() };
        let value = serde_json::to_vec(&point).map_err(|error| Refusal::NotNow(error.to_string()))?;
        let stored = self.shared.direction.cursors.store(&self.key, Bytes::from(value), self.revision).await;
        self.revision = stored.map_err(|error| Refusal::NotNow(error.to_string()))?;
        Ok(())
    }
}

/// Takes the resume point away once the lane is empty. Before that a crash would begin the job anew; what is left where this
/// does not succeed is written over by the next job of the lane.
fn forget(shared: &Arc<Shared>, lane: BackfillLane) {
    let shared = Arc::clone(shared);
    shared.keepers.clone().spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(FORGET_AFTER) => {}
            () = shared.drain.cancelled() => return,
        }
        let key = lane.key();
        let Ok(found) = shared.direction.cursors.load(&key).await else { return };
        if matches!(lanes::depth(&shared.broker, &lane).await, Ok(0))
            && let Err(error) = shared.direction.cursors.remove(&key, found.revision).await
        {
            tracing::debug!(%lane, %error, "the resume point of a finished backfill stays");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_behind_takes_nothing_from_a_history() {
        let stored_at = OffsetDateTime::from_unix_timestamp(1_700_000_000).expect("a time");
        let hour = time::Duration::HOUR;
        let asked = |requested_at: Option<time::Duration>, redrive| {
            let requested_at = requested_at.map(|after| stored_at + after);
            asked_at(&Particulars { requested_at, redrive, ..Particulars::default() }, stored_at) - stored_at
        };
        assert_eq!(asked(None, None), time::Duration::ZERO);
        assert_eq!(asked(Some(-hour), None), time::Duration::ZERO);
        assert_eq!(asked(Some(hour), None), hour);
        assert_eq!(asked(Some(-hour), Some(7)), -hour, "it was parked since");
        assert_eq!(asked(None, Some(7)), time::Duration::ZERO);
    }
}
