//! Metrics: the numbers of real services after real traffic, on `/metrics` and at an OTLP endpoint.

mod collector;
mod counted;
mod fleet;
mod labels;
mod table;
mod v1;

use std::time::Duration;

use fedstream_tests::broker;
use fedstream_tests::eventually::eventually;
use fedstream_tests::metrics_page::MetricsPage;
use fedstream_tests::pipeline::{Builder, Pipeline};
use fedstream_tests::process::Service;

/// For anything that happens of itself: generous, since two cores may be shared with a build.
const SOON: Duration = Duration::from_secs(30);

/// The lane that most tests look at.
const LANE: &str = "home.test/a.test";

/// One source, one destination.
fn one_lane() -> Builder {
    // Nobody kills the broker here: what it acknowledged need not be on disk.
    let broker = broker::Options { sync_always: false, ..broker::Options::default() };
    Pipeline::builder().source("a.test").broker(broker)
}

/// Waits until the page looks so, and shows it; if it never does, how it looked last.
async fn page(service: &Service, what: &str, looks: impl Fn(&MetricsPage) -> bool) -> MetricsPage {
    let mut last = None;
    let seen = eventually(what, SOON, async || {
        last = MetricsPage::of(service).await;
        last.clone().filter(&looks)
    });
    let seen = seen.await;
    seen.unwrap_or_else(|timeout| panic!("{}: {timeout}; its page:\n{}", service.name(), last.unwrap_or_default()))
}

/// Waits until the sum over these series is so much, and shows the page.
async fn until(service: &Service, name: &str, labels: &[(&str, &str)], wanted: f64) -> MetricsPage {
    let what = format!("{name} {labels:?} is {wanted}");
    page(service, &what, |page| page.sum(name, labels) == Some(wanted)).await
}
