//! The files of `deploy/observability`: rules, dashboards and the compose files around them. A real Prometheus (Debian's) reads
//! the real services, and every expression is asked of it; promtool runs the rules' own tests; Grafana's types check the
//! dashboards. No name of a metric, a label, a word or a span attribute stands in these files that the services don't have.
//!
//!   services ── /metrics ──▶ Prometheus ◀── every query of every dashboard, every rule
//!
//! Grafana, Tempo and the collector are not to be had here: their files are checked for what they say of each other.

mod boards;
mod compose;
mod known;
mod prometheus;
mod promql;
mod rules;
mod scraped;

use std::path::PathBuf;
use std::time::Duration;

use fedstream_tests::broker::repository;

/// For anything that happens of itself: generous, since two cores may be shared with a build.
const SOON: Duration = Duration::from_secs(60);

/// What is deployed, and checked here.
fn deployed(path: &str) -> PathBuf {
    repository().join("deploy/observability").join(path)
}

fn read(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
