//! This crate against a real nats-server, which each test starts for itself: the guards are about what it really does.

mod connection;
mod lane_settings;
mod leasing;
mod limits;
mod membership;
mod oldest;
mod outbound_copies;
mod reading;
mod redriving;
mod safety;
mod server;
mod sessions;
mod trimming;
mod watching;
