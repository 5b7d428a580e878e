//! delivery-worker: brings activities that an application published to the remotes' inboxes, in order for each actor and
//! remote, however long it takes.
//!
//! ```text
//!   FED_OUTBOX ─▶ carrier: one task a lane ─▶ SendWindow ─▶ outbound ─▶ signed POST ══▶ remote inbox
//!        ▲                                                    └─ given up ─▶ FED_PARKED, DeliveryFailed
//!        └── jobs ◀─ FED_BACKFILL: a history, page by page, behind what is live
//! ```
//!
//! How a lane is carried is the carrier's ([`fedstream_carrier`]), as for what comes in; how an activity is signed and what an
//! answer means is [`federation`]'s. Here is what lies between: which remotes are down ([`remotes`]), whether one fails on a
//! single activity ([`suspicion`]), how long a key is waited for ([`patience`]), what a lane's window is told ([`outbound`]),
//! and how a history becomes deliveries ([`jobs`]).
//!
//! # Inside an application
//! A Rust application needs no service beside it: it runs a [`Worker`] of its own, with its own keys and its own history. It
//! links `federation` and this crate, and nothing else of fedstream. `examples/in_process.rs` is a whole one.
//! ```no_run
//! # async fn example(
//! #     keys: std::sync::Arc<dyn federation::SigningKeys>,
//! #     history: std::sync::Arc<dyn federation::History>,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use delivery_worker::{Broker, CancellationToken, NatsSettings, Ports, Readiness, Settings, Worker, READINESS};
//! use federation::{Attempts, Client, Setup};
//!
//! let attempts = Attempts::new(Client::new(Setup::default())?, keys);
//! let ports = Ports { attempts, history: Some(history) };
//! let shutdown = CancellationToken::new(); // cancelled when the application leaves
//! let broker = Broker::connect(NatsSettings::default(), "our.example").await?;
//! let worker = Worker::open(broker, Settings::default(), ports, Readiness::new(&READINESS), shutdown).await?;
//! let all_answered = worker.run(std::time::Duration::from_secs(20)).await;
//! # drop(all_answered); Ok(())
//! # }
//! ```

pub mod config;
pub mod gone;
pub mod jobs;
pub mod outbound;
pub mod patience;
pub mod plan;
mod ramp;
pub mod remotes;
mod series;
mod strangers;
pub mod suspicion;
mod worker;

use fedstream_service::admin::Admin;
use tokio::net::TcpListener;

pub use config::{Config, SERVICE};
pub use fedstream_jetstream::{Broker, NatsSettings};
pub use fedstream_service::readiness::Readiness;
pub use fedstream_service::shutdown::CancellationToken;
pub use plan::Settings;
pub use worker::{BACKFILL, Error, Ports, READINESS, Worker};

/// Runs the service until `shutdown`.
///
/// # Errors
/// See [`Error`]; all of them before the first lane is read.
pub async fn run(
    config: Config,
    ports: Ports,
    broker: Broker,
    admin: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let grace = config.common.shutdown_grace.get();
    let readiness = Readiness::new(&READINESS);
    if ports.history.is_none() {
        readiness.note(
            BACKFILL,
            Some("FED_OUTBOX_URL_TEMPLATE is not set: backfill jobs are left to other workers".to_owned()),
        );
    }
    let worker = Worker::open(broker, config.settings(), ports, readiness.clone(), shutdown).await?;
    let (sender_id, backfills) = (worker.sender_id(), worker.backfills());
    tracing::info!(sender_id, backfills, horizon_s = config.horizon.get().as_secs(), "delivery-worker runs");
    let pages = worker.pages();
    let admin_stop = CancellationToken::new();
    let pages = Admin::new(readiness).lanes(move || std::future::ready(pages()));
    let admin_task = tokio::spawn(pages.serve(admin, admin_stop.clone()));
    if !worker.run(grace).await {
        tracing::warn!(
            grace_s = grace.as_secs(),
            "the grace period ended before every delivery was answered: what was under way may be repeated"
        );
    }
    admin_stop.cancel();
    if let Err(error) = admin_task.await {
        tracing::error!(%error, "the admin listener ended badly");
    }
    Ok(())
}
