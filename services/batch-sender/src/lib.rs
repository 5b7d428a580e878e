//! batch-sender: reads each lane of FED_INBOX in order, and posts its activities in batches across a link of any
//! latency.
//!
//! ```text
//!   members ─┐
//!   backlog ─┴▶ discovery ─▶ one task a lane: lease ─▶ reading ─▶ SendWindow ─▶ link ══▶ batch-receiver
//!                                                     FED_PARKED ◀─┘ └─▶ purge
//! ```
//!
//! Any number of batch-senders share the lanes; each lane has one owner, by a lease. Lanes are independent: a slow or
//! failing destination of one does not delay another. The stream is the only state: what is in a lane is what is not
//! settled, and a new owner begins there, under a new epoch.

mod budget;
mod clock;
pub mod config;
mod discovery;
mod held;
mod lane;
pub mod link;
mod moving;
mod ownership;
mod park;
mod plan;
mod reading;
mod registry;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use fedstream_jetstream::{
    Broker, Definition, LaneSettingsWatch, Leases, Members, Publisher, StreamNeed, StreamWatch, definitions,
    durability, leases, members, streams,
};
use fedstream_service::admin::Admin;
use fedstream_service::readiness::Readiness;
use fedstream_service::shutdown::CancellationToken;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub use config::{Config, SERVICE};

/// How often the stream's configuration is looked at again.
const STREAM_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Why the service can't run.
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
    /// The link can't be built from the configuration.
    #[error(transparent)]
    Link(#[from] link::Error),
}

impl Error {
    /// The exit code that tells whose move it is.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Streams(error) => error.exit_code(),
            Self::Leases(error) => error.exit_code(),
            Self::Members(error) => error.exit_code(),
            Self::Link(_) => fedstream_service::cli::USAGE,
        }
    }
}

/// Runs until `shutdown`: then posts nothing more, finishes what is in flight within the grace period, and trims.
///
/// # Errors
/// See [`Error`]; all of them before the first lane is read.
pub async fn run(config: Config, broker: Broker, admin: TcpListener, shutdown: CancellationToken) -> Result<(), Error> {
    let link = link::Link::new(&config)?;
    let inbox = StreamNeed { lanes_max: config.lanes_max.0, ..StreamNeed::plain(definitions::inbox()) };
    let facts = streams::ensure(&broker, &inbox).await?;
    streams::ensure(&broker, &StreamNeed::plain(definitions::parked())).await?;
    // Once in the life of a process: the bucket's definition with the TTL that this one would make it with.
    let bucket: &'static Definition = Box::leak(Box::new(definitions::leases().with_ttl(config.lease_ttl.get())));
    let leases = Leases::open_in(&broker, bucket).await?;
    let settings = LaneSettingsWatch::start(&broker).await?;
    let readiness = Readiness::new(&["broker", "stream"]);
    if let held @ durability::Held::NotSeen(_) = durability::seen(broker.settings(), &facts).await {
        tracing::warn!(stream = facts.name, %held, "durability");
        readiness.note("durability", Some(held.to_string()));
    }
    let watch = StreamWatch::start(&broker, inbox, facts, STREAM_CHECK_INTERVAL);

    let grace = config.common.shutdown_grace.get();
    let sender_id = config.sender_id.clone().map_or_else(members::random_id, |id| id.0);
    let members = Members::join_in::<fedstream_lane::Lane>(&broker, &sender_id, bucket).await?;
    tracing::info!(to = link.url(), site = config.site.0, sender_id, "batch-sender runs");
    let shared = Arc::new(lane::Shared {
        publisher: Publisher::new(&broker),
        budget: budget::Budget::new(config.held_bytes.get()),
        config,
        settings,
        leases,
        keepers: TaskTracker::new(),
        broker,
        link,
        sender_id,
        registry: registry::Registry::default(),
        gates: lane::KnownGates::default(),
        started: Instant::now(),
        drain: shutdown,
    });
    let admin_stop = CancellationToken::new();
    let page = Arc::clone(&shared);
    let pages = Admin::new(readiness.clone()).lanes(move || {
        let shared = Arc::clone(&page);
        async move { shared.page() }
    });
    let admin_task = tokio::spawn(pages.serve(admin, admin_stop.clone()));
    let drained = discovery::Discovery::new(shared, members, watch.state(), readiness).run(grace).await;
    if !drained {
        tracing::warn!(
            grace_s = grace.as_secs(),
            "the grace period ended before every batch was answered: what was in flight may be repeated"
        );
    }
    admin_stop.cancel();
    if let Err(error) = admin_task.await {
        tracing::error!(%error, "the admin listener ended badly");
    }
    Ok(())
}
