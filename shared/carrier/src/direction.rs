//! What differs between lanes that lead in and lanes that lead out: the names, the messages, and where they go.
//!
//! A [`Direction`] is one a process; a [`Way`] is one a lane and epoch, and all that a lane knows of its far side. A way
//! posts and reports, and decides nothing: what is posted, in which order, and when again, is the window's.

use std::sync::Arc;

use fedstream_jetstream::lane_settings::{Key, LaneSettings};
use fedstream_jetstream::{Created, StoredMessage};
use fedstream_lane::{Batch, End, Epoch, GateId, LaneName, Seq};
use fedstream_service::attributes;
use fedstream_service::shutdown::CancellationToken;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Span;

use crate::lane::Outcomes;
use crate::{Copy, FarSide, Ownership, Plan, Shared};

/// One direction of travel, and what all its lanes in this process share.
pub trait Direction: Sized + Send + Sync + 'static {
    /// The names of its lanes. They say which queue holds them, and who else carries them.
    type Lane: LaneName + Into<Key>;
    /// An activity as it is posted.
    type Item: Item;
    /// Where a lane goes.
    type Way: Way<Item = Self::Item>;

    /// Headers of a message that its parked copy keeps, in the order in which they are written.
    const KEPT_HEADERS: &'static [&'static str];

    /// Whether metrics tell of its lanes. Not of those that have an id in their name: a label is never one; and a second
    /// direction in a process would overwrite what the first says of the process.
    const IN_METRICS: bool = true;

    /// Its check and its notes on the readiness page. A second direction in a process has names of its own.
    const ON_THE_PAGE: OnThePage =
        OnThePage { stream: "stream", lanes: "lanes", waiting: "waiting lanes", subjects: "subjects" };

    /// The way of a lane with these settings, for one epoch.
    fn way(
        shared: &Arc<Shared<Self>>,
        lane: &Self::Lane,
        created: Created,
        epoch: Epoch,
        settings: &LaneSettings,
    ) -> Self::Way;

    /// How the far side of a lane is known to be, where that is known without the lane. It is asked while lanes wait for
    /// FED_LANES_MAX: one whose far side is closed may make room for another, and loses its place in line, what its window
    /// knows of its head's attempts, and nothing else. By default nobody makes room but who is empty.
    fn far_side(_shared: &Shared<Self>, _lane: &Self::Lane) -> FarSide {
        FarSide::Well
    }

    /// What has to be done under a new epoch before anything is posted. `former` is the way of the epoch before, where this
    /// process had that. Answers false when it is told to leave before, or the lane is not ours any more.
    fn prepare(
        _shared: &Shared<Self>,
        _lane: &Self::Lane,
        _created: Created,
        _ownership: &Ownership,
        _former: Option<Self::Way>,
        _leave: &CancellationToken,
    ) -> impl Future<Output = bool> + Send {
        std::future::ready(true)
    }

    /// What has to be done when an activity's copy is parked, before it counts as settled. It is tried until it succeeds,
    /// here or by the lane's next owner: so it may happen twice.
    ///
    /// # Errors
    /// It has to be tried again; why.
    fn parked(_shared: &Shared<Self>, _copy: &Copy<Self::Lane>) -> impl Future<Output = Result<(), String>> + Send {
        std::future::ready(Ok(()))
    }
}

/// Names on the readiness page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnThePage {
    /// The check of the stream.
    pub stream: &'static str,
    /// The note of lanes that do not move.
    pub lanes: &'static str,
    /// The note of lanes beyond FED_LANES_MAX.
    pub waiting: &'static str,
    /// The note of subjects that are no lanes.
    pub subjects: &'static str,
}

/// The way of one lane during one epoch.
pub trait Way: Send + 'static {
    /// An activity as it is posted.
    type Item: Item;

    /// How the lane is carried with these settings.
    fn plan(&self, settings: LaneSettings) -> Plan;

    /// The far side's life with which a window begins: the known one, an agreed one where there is nothing to know, or none:
    /// then it is asked for first, with an empty batch.
    fn gate(&self) -> Option<GateId>;

    /// Reads a message.
    ///
    /// # Errors
    /// It can't be read, ever; why. It is parked.
    fn read(&self, message: &StoredMessage) -> Result<Loaded<Self::Item>, String>;

    /// What held activities of so many bytes, as [`Loaded::bytes`] counts them, take in memory at most.
    fn memory(&self, bytes: usize) -> usize {
        bytes
    }

    /// The span of a POST, which ends with it. Its attempts have spans of their own, in their activities' traces; what
    /// happens to the POST is told on both.
    fn span(&self, batch: &Batch, attempts: &[Attempt<Self::Item>]) -> Span;

    /// Posts a batch, tells each outcome as it is known, and answers how it ended. `called_off` where the window calls it
    /// back: then it waits for nothing more. What it knows by then it tells all the same: outcomes in hand may be the very
    /// reason, and what isn't told is posted again. So it is never dropped in between, while its owner lives.
    fn post(
        &self,
        plan: &Plan,
        batch: &Batch,
        attempts: Vec<Attempt<Self::Item>>,
        called_off: CancellationToken,
        outcomes: Outcomes,
    ) -> impl Future<Output = Ended> + Send + use<Self>;

    /// Changes when anything but the lane's settings may lead it elsewhere.
    fn changes(&self) -> watch::Receiver<u64> {
        watch::channel(0).1 // nobody ever changes it
    }

    /// Asked when the plan or [`Way::changes`] changed: has the lane to go another way from now on? Then it is drained, and
    /// begins again under another epoch. The answer, once for each reason, says what for ("to go on elsewhere"). `tasks` end
    /// with this epoch.
    fn reroutes(&mut self, _plan: &Plan, _tasks: &mut JoinSet<()>) -> Option<&'static str> {
        None
    }
}

/// An activity as it is posted.
pub trait Item: Clone + Send + 'static {
    /// Its `id`, for people.
    fn activity_id(&self) -> &str;

    /// Its trace: `traceparent` and `tracestate` as they were stored. An attempt puts its own in place of them.
    fn trace(&mut self) -> (&mut Option<String>, &mut Option<String>);
}

/// A message that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded<I> {
    /// What is posted of it.
    pub item: I,
    /// Its size in a batch.
    pub bytes: usize,
    /// When it was accepted.
    pub received_at: OffsetDateTime,
    /// Until when it may be posted; none where that does not matter.
    pub deadline: Option<OffsetDateTime>,
}

/// One attempt at one activity.
#[derive(Debug)]
pub struct Attempt<I> {
    /// Its sequence.
    pub seq: Seq,
    /// How many attempts of this owner ended before it.
    pub before: u32,
    /// The activity; its trace is that of this attempt.
    pub item: I,
    /// Continues the activity's trace. It ends with the outcome, or with the POST, once nobody else holds it.
    pub span: Span,
}

/// How a POST ended, and the reason in words where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// For the window.
    pub end: End,
    /// For people.
    pub cause: Option<String>,
}

impl Ended {
    /// Given up, or never begun, for a reason that is no failure: nobody has to hear of it.
    #[must_use]
    pub fn called_off() -> Self {
        Self { end: End::Lost, cause: None }
    }

    /// The far side went through all of it.
    #[must_use]
    pub fn done() -> Self {
        Self { end: End::Done, cause: None }
    }

    /// The end's name in spans and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match (self.end, &self.cause) {
            (End::Done, _) => "done",
            (End::Retry { .. }, _) => "retry",
            (End::Gap, _) => "gap",
            (End::Overloaded { .. }, _) => "overloaded",
            (End::NewGate(_), _) => "new_gate",
            (End::StaleEpoch(_), _) => "stale_epoch",
            (End::Unfit, _) => "unfit",
            (End::Refused { .. }, _) => "refused",
            (End::Lost, Some(_)) => "lost",
            (End::Lost, None) => "called_off",
        }
    }

    /// The span event of an end that says something about the far side.
    #[must_use]
    pub fn event(&self) -> Option<&'static str> {
        match self.end {
            End::Gap => Some(attributes::GAP),
            End::NewGate(_) => Some(attributes::NEW_GATE),
            End::StaleEpoch(_) => Some(attributes::STALE_EPOCH),
            _ => None,
        }
    }

    /// For a reason that people read.
    #[must_use]
    pub fn because(end: End, cause: impl Into<String>) -> Self {
        Self { end, cause: Some(cause.into()) }
    }

    /// No answer, or not all of it.
    #[must_use]
    pub fn lost(cause: impl Into<String>) -> Self {
        Self::because(End::Lost, cause)
    }
}
