//! What the services need of the broker, NATS JetStream, and the guards that measurements showed to be necessary.
//!
//! ```text
//!   settings ─▶ broker ─▶ streams (made or bound, checked by safety) ─▶ watch (checked again, for ever)
//!                 │
//!                 ├─ publish   a message in: stored, or refused with the limit that refused it
//!                 ├─ reader    a lane out, in order, from the stream it was opened for and no other
//!                 ├─ purge     what is settled leaves
//!                 ├─ lanes     which lanes have a backlog
//!                 └─ epochs    the fencing token of a lane, by compare-and-set
//! ```
//!
//! The names, subjects and settings of streams and buckets are data, in `nats/streams.json` ([`definitions`]).
//! Nothing here counts messages to decide whether there is room: the broker's limits do, atomically. Nothing here
//! knows HTTP, batches or what a message means. A stream's identity is its creation time ([`Created`]): sequences
//! start again when a stream is deleted and made anew, so everything that names a sequence also names it.

mod api;
pub mod broker;
pub mod definitions;
pub mod durability;
pub mod epochs;
pub mod headers;
pub mod identity;
pub mod lanes;
pub mod publish;
pub mod purge;
pub mod reader;
pub mod safety;
pub mod settings;
pub mod streams;
mod tls;
pub mod watch;

pub use broker::Broker;
pub use definitions::{Bounds, Definition};
pub use durability::Held;
pub use headers::Headers;
pub use identity::Created;
pub use publish::{Publisher, Refused, Stored};
pub use reader::{LaneReader, ReaderOptions, StoredMessage};
pub use settings::{NatsSettings, StreamsMode};
pub use streams::{StreamFacts, StreamNeed};
pub use watch::{StreamState, StreamWatch};
