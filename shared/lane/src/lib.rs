//! The lane: one ordered, durable, bounded sequence of activities, and the two state machines that carry it.
//!
//! ```text
//!   stream ──Read──▶ SendWindow ══ Post(batch) ══▶ ReceiveGate ──one at a time──▶ instance
//!          ◀─Trim──             ◀═ outcome lines ═
//! ```
//!
//! Everything here is pure: no clock, no socket, no runtime, no randomness, no payload. Time comes in as a
//! [`Moment`], jitter as a number in an event, and what to do goes out as an action. The services around it turn
//! I/O into events and actions into I/O, and decide nothing. What must always hold is in [`invariants`], by name.

mod any_lane;
mod backfill_lane;
mod backoff;
mod gate;
pub mod guard;
mod ids;
mod instance_name;
pub mod invariants;
mod lane;
mod lane_name;
mod memory;
mod outbox_lane;
mod outcome;
mod profile;
mod window;

pub use any_lane::{AnyLane, InvalidKind, LaneKind};
pub use backfill_lane::BackfillLane;
pub use backoff::Backoff;
pub use gate::{GateLimits, Head, ReceiveGate, Refusal, Step, Visit};
pub use ids::{Epoch, GateId, InvalidGateId, Moment, MsgId, Origin, PostId, Seq};
pub use instance_name::{InstanceName, InvalidName};
pub use lane::Lane;
pub use lane_name::{InvalidSubject, LaneName};
pub use memory::{Memory, MemoryLimits};
pub use outbox_lane::OutboxLane;
pub use outcome::{Answer, Final, InvalidReason, ParkReason};
pub use profile::{InvalidProfile, Profile};
pub use window::{Action, Batch, End, Event, SendWindow, Settle, Standing, Start, StopReason, WindowLimits};
