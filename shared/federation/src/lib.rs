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
//! # In an application that has k-ap
//! k-ap's events have the same variants and fields, so this is all that is between its `EventPublisher` and ours:
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
pub use fedstream_jetstream::{NatsSettings, StreamsMode};
pub use guard::{Guard, Names};
pub use in_process::{Left, LeftBackfill};
pub use jetstream::{JetStreamPublisher, Options as JetStreamOptions};
pub use keys::{ActorKeys, KeysInMemory, PemDirectory, SigningKeys};
pub use publisher::EventPublisher;
pub use service::{
    ActivityPubService, BuildError, Builder, DeliveryError, NotSent, PublishError, Recipient, SendError, Sent,
};
pub use verdict::Verdict;
