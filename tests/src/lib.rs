//! The harness: everything around the three services that a test of the whole needs, and the demo.
//!
//! A real nats-server, the real binaries as processes, sending instances that behave as Lemmy does, a link across an
//! ocean, an instance that verifies all it gets and misbehaves when told to, and a checker that compares both ends.
//! It knows the services by their environment variables, their ports and what goes over the wire, and shares no code
//! with them: a mistake in the project's own parsing or signing rules can't hide itself here.
//!
//! A test reads from left to right as an activity travels:
//! [`Sender`](sender::Sender) -> [`Pipeline`](pipeline::Pipeline) -> [`Instance`](instance::Instance) -> [`Report`](check::Report).

pub mod behaviour;
pub mod broker;
pub mod chaos;
pub mod check;
pub mod cluster;
pub mod coding;
pub mod debian;
pub mod directory;
pub mod door;
pub mod eventually;
pub mod fixtures;
pub mod http1;
pub mod instance;
pub mod keys;
pub mod ledger;
pub mod link;
pub mod load;
pub mod memory;
pub mod message;
pub mod metrics_page;
pub mod otlp_metrics;
pub mod otlp_sink;
pub mod outbound;
pub mod pipeline;
pub mod ports;
pub mod process;
pub mod sender;
pub mod sign;
pub mod tool;
pub mod verify;
pub mod waterfall;
