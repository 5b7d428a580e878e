//! This crate from the outside: deliveries to real HTTP servers that verify what they get, and events in a real nats-server.
//!
//! In process: `signatures`, `retries`, `addresses`, `backfill` (`paging` of what is read), `shutdown`, `panics`, and `application`, the other side written by others.
//! Over the broker: `publisher`, `traced` and `python`, with `streams` to look. Both: `example`. `contract` is `nats/events.schema.json`.

mod addresses;
mod application;
mod backfill;
mod contract;
mod example;
mod paging;
mod panics;
mod publisher;
mod python;
mod retries;
mod shutdown;
mod signatures;
mod streams;
mod support;
mod traced;
