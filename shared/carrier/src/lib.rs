//! What carries the lanes of a stream in this process: from the list of the stream's subjects to the last trim of each.
//!
//! ```text
//!   members ─┐
//!   backlog ─┴▶ discovery ─▶ one task a lane: lease ─▶ reading ─▶ SendWindow ─▶ way ══▶ far side
//!                                                     FED_PARKED ◀─┘ └─▶ purge
//! ```
//!
//! Any number of processes share the lanes; each lane has one owner, by a lease. Lanes are independent: a slow or failing
//! far side of one does not delay another. The stream is the only state: what is in a lane is what is not settled, and a
//! new owner begins there, under a new epoch.
//!
//! It is the same for what comes in and what goes out. What differs is a [`Direction`]: the lanes' names, how a message is
//! read, and the [`Way`] on which it is posted. Nothing here knows what a message means or which protocol the far side
//! speaks; and nothing here decides order or retries: the window does.

mod attempt;
mod budget;
mod clock;
mod direction;
mod discovery;
mod gauges;
mod held;
mod lane;
mod mine;
mod ownership;
mod park;
mod plan;
mod reading;
mod registry;
mod series;
mod shared;
mod sweep;
mod trouble;
mod turn;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use fedstream_connect::DurabilityWatch;
use fedstream_jetstream::{
    Broker, Definition, LaneSettingsWatch, Leases, Members, Publisher, StreamNeed, StreamWatch, UsageWatch,
    definitions, leases, members, streams,
};
use fedstream_lane::Backoff;
use fedstream_service::readiness::Readiness;
use fedstream_service::shutdown::CancellationToken;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub use direction::{Attempt, Direction, Ended, Item, Loaded, OnThePage, Way};
pub use lane::Outcomes;
pub use ownership::Ownership;
pub use park::Copy;
pub use plan::{Plan, ReadPlan};
pub use registry::{LaneView, Registry};
pub use shared::Shared;
pub use trouble::Trouble;
pub use waiting::FarSide;

/// What has to be in order for lanes to be carried, as the readiness page names it.
pub const READINESS: [&str; 2] = ["broker", "stream"];

/// How often metrics learn how full the streams are: more often than anybody scrapes.
const USAGE_INTERVAL: Duration = Duration::from_secs(10);

/// How often the stream's configuration is looked at again.
const STREAM_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// How this process carries its lanes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of this process in leases and logs, its own; none: random.
    pub sender_id: Option<String>,
    /// Most lanes at a time.
    pub lanes_max: u32,
    /// Bytes that all lanes hold in memory together.
    pub held_bytes: usize,
    /// How long a dead process keeps its lanes, where the bucket is made here.
    pub lease_ttl: Duration,
    /// Between two questions which lanes hold something.
    pub discovery_interval: Duration,
    /// A lane is let go after so long without an activity.
    pub lane_idle: Duration,
    /// How a failing lane waits.
    pub backoff: Backoff,
}

/// Why lanes can't be carried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A stream or bucket is missing or dangerous.
    #[error(transparent)]
    Streams(#[from] streams::Error),
    /// The bucket of leases is missing or dangerous.
    #[error(transparent)]
    Leases(#[from] leases::Error),
    /// This process can't share the lanes with the others.
    #[error(transparent)]
    Members(#[from] members::Error),
}

impl Error {
    /// The exit code that tells whose move it is.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Streams(error) => error.exit_code(),
            Self::Leases(error) => error.exit_code(),
            Self::Members(error) => error.exit_code(),
        }
    }
}

/// A process that is a member, and carries no lane yet.
pub struct Carrier<D: Direction> {
    shared: Arc<Shared<D>>,
    members: Members,
    watch: StreamWatch,
    usage: UsageWatch,
    durability: DurabilityWatch,
    readiness: Readiness,
}

impl<D: Direction> Carrier<D> {
    /// Makes or finds the streams and buckets, and joins those who carry lanes in this direction. `readiness` knows
    /// [`READINESS`]; `drain` is set when the process leaves.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open(
        broker: Broker,
        direction: D,
        options: Options,
        readiness: Readiness,
        drain: CancellationToken,
    ) -> Result<Self, Error> {
        let queue = definitions::queue_of::<D::Lane>();
        let need = StreamNeed { lanes_max: options.lanes_max, ..StreamNeed::plain(queue) };
        let facts = streams::ensure(&broker, &need).await?;
        streams::ensure(&broker, &StreamNeed::plain(definitions::parked())).await?;
        // Once in the life of a process: the bucket's definition with the TTL that this one would make it with.
        let bucket: &'static Definition = Box::leak(Box::new(definitions::leases().with_ttl(options.lease_ttl)));
        let leases = Leases::open_in(&broker, bucket).await?;
        let settings = LaneSettingsWatch::start(&broker).await?;
        let watch = StreamWatch::start(&broker, need, facts, STREAM_CHECK_INTERVAL);
        // The same broker is behind all directions of a process: one of them tells of it.
        let of_broker = if D::IN_METRICS { readiness.clone() } else { Readiness::new(&[]) };
        let durability = DurabilityWatch::start(&broker, watch.state(), &of_broker).await;
        let sender_id = options.sender_id.clone().unwrap_or_else(members::random_id);
        let members = Members::join_in::<D::Lane>(&broker, &sender_id, bucket).await?;
        let usage = UsageWatch::start(&broker, vec![queue, definitions::parked()], USAGE_INTERVAL);
        let shared = Arc::new(Shared {
            publisher: Publisher::new(&broker),
            budget: budget::Budget::new(options.held_bytes),
            direction,
            options,
            settings,
            leases,
            keepers: TaskTracker::new(),
            broker,
            sender_id,
            registry: Registry::default(),
            mine: mine::Mine::default(),
            started: Instant::now(),
            drain,
        });
        if D::IN_METRICS {
            gauges::observe(&shared.registry, members.living(), usage.now());
        }
        ownership::begin_counting();
        Ok(Self { shared, members, watch, usage, durability, readiness })
    }

    /// What its lanes share.
    #[must_use]
    pub fn shared(&self) -> &Arc<Shared<D>> {
        &self.shared
    }

    /// Carries lanes until told to leave; then posts nothing more, finishes what is in flight within the grace period, and
    /// trims. Answers whether all of it was answered in time.
    pub async fn run(self, grace: Duration) -> bool {
        let Self { shared, members, watch, usage: _looks_on, durability: _asks_on, readiness } = self;
        discovery::Discovery::new(shared, members, watch.state(), readiness).run(grace).await
    }
}
