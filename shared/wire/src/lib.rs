//! What fedstream writes down: the stored message, and the batches that cross the ocean.
//!
//! Formats only: this crate knows neither NATS nor HTTP clients. Everything that comes from outside is read with
//! bounds and an error that names the field; nothing here panics on input.

pub mod encoding;
pub mod profile;
pub mod protocol;
pub mod stored;
mod timestamp;
pub mod v1;
pub mod v2;

pub use timestamp::{from_micros, micros, rfc3339};
