//! What the services need of the broker, NATS JetStream, and the guards that measurements showed to be necessary.
//!
//! ```text
//!   settings ─▶ broker ─▶ streams (made or bound, checked by safety) ─▶ watch (checked again, for ever)
//!                 │
//!                 ├─ publish   a message in: stored, or refused with the limit that refused it
//!                 ├─ reader    a lane out, in order, from the stream it was opened for and no other
//!                 ├─ purge     what is settled leaves
//!                 ├─ lanes     which lanes have a backlog
//!                 ├─ oldest    what has waited longest in a lane
//!                 ├─ usage     how full streams are, for people
//!                 ├─ parked    what left its lane undelivered: listed, and published again
//!                 │
//!                 ├─ bucket ─┬─ leases          who sends a lane, and its epoch, by compare-and-set
//!                 │          ├─ cursors         how far a backfill is
//!                 └─ follow ─┼─ members         who lives, and which lane belongs to whom
//!                            └─ lane_settings   what an operator set of a lane
//! ```
//!
//! `bucket` reads and writes one key, `follow` brings every change of all of them; both are guarded against what the
//! library does on a bad day, and neither knows what an entry means.
//!
//! The names, subjects and settings of streams and buckets are data, in `nats/streams.json` ([`definitions`]).
//! Nothing here counts messages to decide whether there is room: the broker's limits do, atomically. Nothing here
//! knows HTTP, batches or what a message means. A stream's identity is its creation time ([`Created`]): sequences
//! start again when a stream is deleted and made anew, so everything that names a sequence also names it.

mod api;
pub mod broker;
mod bucket;
pub mod cursors;
pub mod definitions;
pub mod durability;
mod follow;
pub mod headers;
pub mod identity;
pub mod lane_settings;
pub mod lanes;
pub mod leases;
pub mod members;
pub mod oldest;
pub mod parked;
pub mod publish;
pub mod purge;
pub mod reader;
pub mod safety;
pub mod settings;
pub mod streams;
mod tls;
pub mod usage;
pub mod watch;

pub use broker::Broker;
pub use cursors::Cursors;
pub use definitions::{Bounds, Definition};
pub use durability::Held;
pub use headers::Headers;
pub use identity::Created;
pub use lane_settings::{LaneSettings, LaneSettingsWatch};
pub use leases::{Lease, Leases, Taken};
pub use members::{Living, Members};
pub use publish::{Publisher, Refused, Stored};
pub use reader::{LaneReader, ReaderOptions, StoredMessage};
pub use settings::{NatsSettings, StreamsMode};
pub use streams::{StreamFacts, StreamNeed};
pub use usage::{Usage, UsageWatch};
pub use watch::{StreamState, StreamWatch};
