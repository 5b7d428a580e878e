//! This crate against a real nats-server, which each test starts for itself: the guards are about what it really does.

mod connection;
mod epochs;
mod limits;
mod reading;
mod safety;
mod server;
mod trimming;
mod watching;
