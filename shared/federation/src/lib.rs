//! Outbound federation for an application: send an activity, and know that it is not lost.
//!
//! ```text
//!   your application ── FederationEvent ──▶ EventPublisher ─┬─ none given: in process, on tokio tasks
//!                                                           ├─ JetStreamPublisher: stored, then delivery-worker
//!                                                           └─ your own
//!   either way:  Attempts ── signed POST, one form of signature after the other ──▶ remote inbox
//! ```
//!
//! # In process
//! ```no_run
//! # async fn example(alice: uuid::Uuid, note: serde_json::Value, followers: Vec<federation::Recipient>) -> anyhow::Result<()> {
//! use std::{sync::Arc, time::Duration};
//! use federation::{ActivityPubService, PemDirectory};
//!
//! let keys = PemDirectory::open("/run/secrets/actors", None)?; // <actor id>.pem
//! let service = ActivityPubService::builder("https://our.example")
//!     .signing_keys(Arc::new(keys))
//!     .on_delivery_failed(|event| eprintln!("{event:?}"))
//!     .build()
//!     .await?;
//! service.send(&note, alice, followers).await?;
//! let left = service.shut_down(Duration::from_secs(20)).await; // what was not delivered, to be sent again
//! # drop(left); Ok(())
//! # }
//! ```
//!
//! # Through NATS JetStream
//! One line more, and a `delivery-worker` beside the application; nothing is lost when either restarts:
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! # use std::sync::Arc;
//! # use federation::{ActivityPubService, JetStreamOptions, JetStreamPublisher, NatsSettings};
//! let nats = NatsSettings { url: "nats://127.0.0.1:4222".into(), ..NatsSettings::default() };
//! let queue = JetStreamPublisher::connect(nats, JetStreamOptions::default()).await?;
//! let service = ActivityPubService::builder("https://our.example").event_publisher(Arc::new(queue)).build().await?;
//! # drop(service); Ok(())
//! # }
//! ```
//!
//! `examples/minimal.rs` is the smallest application, either way: `cargo run -p federation --example minimal -- try`.
//!
//! # Inside your process
//! Nor need it be a service beside the application. `Worker`, of the crate `delivery-worker` (services/delivery-worker), is what
//! that service runs: it consumes, delivers and backfills inside the application's process until it is told to stop, with the
//! application's own [`SigningKeys`] and its own [`History`], read from where it has them and not over HTTP. Any number of
//! processes share the work, services among them. This crate and that one are all of fedstream that is linked:
//! ```text
//! let broker = Broker::connect(NatsSettings::default(), "our.example").await?;      // delivery_worker's
//! let ports = Ports { attempts: Attempts::new(Client::new(Setup::default())?, keys), history: Some(history) };
//! let worker = Worker::open(broker, Settings::default(), ports, Readiness::new(&READINESS), shutdown.clone()).await?;
//! let running = tokio::spawn(worker.run(Duration::from_secs(20)));
//! ```
//! `cargo run -p delivery-worker --example in_process` is a whole application of this kind. The worker is in a crate of its own,
//! for an application that only publishes has no use for what carries lanes.
//!
//! # In an application that has k-ap
//! | k-ap | here |
//! |---|---|
//! | `FederationEvent`, `EventPublisher` | the same, variant for variant and field for field |
//! | `builder(..)`, `event_publisher`, `delivery_max_attempts`, `delivery_initial_delay_secs`, `build` | the same on [`ActivityPubService`]; besides `signing_keys`, `history`, `on_delivery_failed` |
//! | `deliver_to_inbox`, `run_backfill_for_follower` | the same: one delivery, one walk, when they return it is done |
//! | a worker of your own, that consumes the queue and calls these two | `delivery-worker`, or a `Worker` in your process |
//! | its repositories of users and objects | [`SigningKeys`], [`History`] (or [`OutboxCollection`], over HTTP) |
//!
//! So this is all that is between its `EventPublisher` and ours:
//! ```
//! # mod k_ap {
//! #     pub enum FederationEvent {
//! #         DeliveryRequested { inbox: url::Url, activity: serde_json::Value, signing_actor_id: uuid::Uuid },
//! #         DeliveryFailed { inbox: url::Url, activity: serde_json::Value, signing_actor_id: uuid::Uuid, error: String },
//! #         BackfillRequested { owner_user_id: uuid::Uuid, follower_inbox_url: String },
//! #     }
//! #     #[async_trait::async_trait]
//! #     pub trait EventPublisher: Send + Sync { async fn publish(&self, event: FederationEvent) -> anyhow::Result<()>; }
//! # }
//! use federation::{EventPublisher as _, FederationEvent as Ours};
//! use k_ap::FederationEvent as Theirs;
//!
//! struct Queue(federation::JetStreamPublisher);
//!
//! #[async_trait::async_trait]
//! impl k_ap::EventPublisher for Queue {
//!     async fn publish(&self, event: Theirs) -> anyhow::Result<()> {
//!         self.0.publish(match event {
//!             Theirs::DeliveryRequested { inbox, activity, signing_actor_id } => Ours::DeliveryRequested { inbox, activity, signing_actor_id },
//!             Theirs::DeliveryFailed { inbox, activity, signing_actor_id, error } => Ours::DeliveryFailed { inbox, activity, signing_actor_id, error },
//!             Theirs::BackfillRequested { owner_user_id, follower_inbox_url } => Ours::BackfillRequested { owner_user_id, follower_inbox_url },
//!         }).await
//!     }
//! }
//! // k_ap::ActivityPubService::builder("https://our.example")....event_publisher(Arc::new(Queue(queue))).build().await?;
//! ```
//! What k-ap does with an error of `publish` is its own affair: it logs a warning on a spawned task. [`ActivityPubService`]
//! here hands it to the caller.
//!
//! # What it never does
//! It counts nothing as delivered that was not answered 2xx. It connects to no address that is not public, unless told so
//! ([`Guard`]). It stores nothing of its own, and follows no link of a stranger's but a redirect of an inbox. Of the environment it
//! reads nothing but what the system's certificate authorities are found by (`SSL_CERT_FILE`, `SSL_CERT_DIR`), and that only
//! where no `ca_file` is given.

pub mod activity;
pub mod attempt;
pub mod backfill;
pub mod breaker;
mod event;
pub mod forms;
pub mod guard;
pub mod in_process;
pub mod jetstream;
pub mod keys;
pub mod lanes;
pub mod message_id;
mod publisher;
pub mod room;
pub mod rules;
mod service;
pub mod signature;
pub mod stored;
#[cfg(test)]
mod testing;
pub mod trace;
pub mod verdict;

pub use attempt::{Attempted, Attempts, Client, Delivery, Limits, Setup};
pub use backfill::{Backfilled, Cursor, History, OutboxCollection, OutboxSetup, Page};
pub use event::FederationEvent;
pub use fedstream_jetstream::{Broker, NatsSettings, StreamsMode};
pub use guard::{Guard, Names};
pub use in_process::{Left, LeftBackfill};
pub use jetstream::{JetStreamPublisher, Options as JetStreamOptions};
pub use keys::{ActorKeys, KeysInMemory, PemDirectory, SigningKeys};
pub use publisher::EventPublisher;
pub use service::{
    ActivityPubService, BuildError, Builder, DeliveryError, NotSent, PublishError, Recipient, SendError, Sent,
};
pub use verdict::Verdict;
