//! batch-sender: reads each lane of FED_INBOX in order, and posts its activities in batches across a link of any
//! latency.
//!
//! ```text
//!   members, backlog ─▶ carrier: one task a lane ─▶ SendWindow ─▶ link ══▶ batch-receiver
//! ```
//!
//! How a lane is carried is the carrier's ([`fedstream_carrier`]); here is where inbound lanes go: which batch-receiver
//! (`moving` to another one), which batch format (`link`), and what that means for a lane's window (`plan`).

pub mod config;
mod gates;
mod inbound;
pub mod link;
mod moving;
mod outgoing;
mod plan;

use std::sync::Arc;

use fedstream_carrier::{Carrier, READINESS};
use fedstream_jetstream::Broker;
use fedstream_service::admin::Admin;
use fedstream_service::readiness::Readiness;
use fedstream_service::shutdown::CancellationToken;
use tokio::net::TcpListener;

pub use config::{Config, SERVICE};

/// Why the service can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its lanes can't be carried.
    #[error(transparent)]
    Carrier(#[from] fedstream_carrier::Error),
    /// The link can't be built from the configuration.
    #[error(transparent)]
    Link(#[from] link::Error),
}

impl Error {
    /// The exit code that tells whose move it is.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Carrier(error) => error.exit_code(),
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
    let grace = config.common.shutdown_grace.get();
    let options = config.carrier_options();
    let readiness = Readiness::new(&READINESS);
    let inbound = inbound::Inbound { config, link, gates: gates::KnownGates::default() };
    let carrier = Carrier::open(broker, inbound, options, readiness.clone(), shutdown).await?;
    let shared = Arc::clone(carrier.shared());
    let (to, site) = (shared.direction.link.url(), &shared.direction.config.site.0);
    tracing::info!(to, site, sender_id = shared.sender_id, "batch-sender runs");
    let admin_stop = CancellationToken::new();
    let pages = Admin::new(readiness).lanes(move || {
        let shared = Arc::clone(&shared);
        async move { shared.page() }
    });
    let admin_task = tokio::spawn(pages.serve(admin, admin_stop.clone()));
    if !carrier.run(grace).await {
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
