//! The far side of the ocean, beside the instance: takes batches from batch-senders and replays each activity to the
//! instance, one of a lane at a time, in lane order, byte for byte.
//!
//! ```text
//!                endpoint: may it come in?            gates: which item may go now?
//!   POST /batch ──▶ credential, room, rules ──▶ visit ⇄ LaneGate (pure: fedstream_lane::ReceiveGate)
//!              ◀── ndjson, line by line ───────  │
//!                                              delivery: a task of its own ──▶ replay ──▶ instance
//!                                                verdict, profile ◀── what its answer means
//!                                                witness, evidence ◀── is it the activity or the instance?
//! ```
//!
//! Batches of the existing batcher's format (`v1`) come in at the same door, go the same way to the instance, and are
//! answered at the end; `feeders` keeps the two formats of one lane apart.
//!
//! It keeps no state beyond its memory: a restart is a new life of its gates, and what was sent to the old one is
//! void. It knows no broker.

pub mod config;

mod clock;
mod coding;
mod credential;
mod delivery;
mod delivery_span;
mod endpoint;
mod evidence;
mod feeders;
mod gates;
mod lane_gate;
mod lines;
mod parcel;
mod passing;
mod replay;
mod room;
mod rules;
mod series;
mod strangers;
mod v1;
mod verdict;
mod visit;
mod witness;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use fedstream_service::admin::Admin;
use fedstream_service::http_server::{self, Limits};
use fedstream_service::readiness::Readiness;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use config::{Config, SERVICE};

use endpoint::Endpoint;

/// The one readiness check: it needs nothing but its port.
const LISTENING: &str = "listening";

/// It can't begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A destination that no URL can name.
    #[error(transparent)]
    Destination(#[from] rules::Unreachable),
    /// No way to the instance.
    #[error(transparent)]
    Replay(#[from] replay::Error),
    /// A listener that has no address.
    #[error("the listener can't be used: {0}")]
    Listener(#[from] std::io::Error),
}

/// Serves until `shutdown`; then lets nothing more in, finishes what is at the instance, closes every answer with a line
/// that says so, and returns within the grace period.
///
/// # Errors
/// It can't begin. Once it serves nothing makes it return but `shutdown`.
pub async fn run(
    config: Config,
    listener: TcpListener,
    admin_listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let endpoint =
        Arc::new(Endpoint::new(&config, rules::Rules::new(&config)?, replay::Replay::new(&config)?, shutdown.clone()));
    let (address, admin_address) = (listener.local_addr()?, admin_listener.local_addr()?);

    endpoint.observe();
    let readiness = Readiness::new(&[LISTENING]);
    let shown = endpoint.clone();
    let admin = Admin::new(readiness.clone()).lanes(move || std::future::ready(shown.lanes_page()));
    let admin_stop = CancellationToken::new();
    let admin_server = tokio::spawn(admin.serve(admin_listener, admin_stop.clone()));

    tracing::info!(
        %address,
        %admin_address,
        path = %config.batch_path,
        gate = %endpoint.gates().id(),
        destinations = %config.destinations.as_slice().iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        protocol = config.protocol.as_str(),
        at = config.domain.as_ref().map(tracing::field::display),
        profile = config.profile.as_str(),
        "taking batches"
    );
    if config.authorization.is_none() {
        tracing::warn!("FED_OPEN_RECEIVER=yes: anybody who reaches this address may post to the destinations");
    }
    readiness.ready(LISTENING, format!("on {address}"));

    let grace = config.common.shutdown_grace.get();
    let limits = Limits { connections: config.connections_max.get(), grace, ..Limits::default() };
    let stopping = async {
        shutdown.cancelled().await;
        readiness.not_ready(LISTENING, "stopping");
        Instant::now()
    };
    let serving = http_server::serve(listener, router(&config, &endpoint), limits, shutdown.clone());
    let (all_answered, stopped_at) = tokio::join!(serving, stopping);

    // A delivery whose sender has gone is in no connection's count.
    endpoint.tasks().close();
    let all_finished = timeout(grace.saturating_sub(stopped_at.elapsed()), endpoint.tasks().wait()).await.is_ok();
    if !(all_answered && all_finished) {
        tracing::warn!(
            unfinished = endpoint.tasks().len(),
            "FED_SHUTDOWN_GRACE has passed; what is unfinished will be sent again"
        );
    }
    admin_stop.cancel();
    if let Err(error) = admin_server.await {
        tracing::error!(%error, "the admin listener ended early");
    }
    Ok(())
}

fn router(config: &Config, endpoint: &Arc<Endpoint>) -> Router {
    let (batches, others) = (endpoint.clone(), endpoint.clone());
    Router::new()
        .route(config.batch_path.as_str(), any(move |request: Request| batches.clone().answer(request)))
        .fallback(any(move || others.clone().not_found()))
}
