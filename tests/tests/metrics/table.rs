//! `docs/metrics.md` against the services: each metric of its table is really there, in each service that it names, as the
//! kind that it says; and nothing else is.

use std::collections::{BTreeMap, BTreeSet};

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::broker::repository;
use fedstream_tests::eventually::eventually;
use fedstream_tests::metrics_page::MetricsPage;
use fedstream_tests::pipeline::{Pipeline, Which};

use crate::{SOON, one_lane};

/// Of OpenTelemetry's: the attributes of the process.
const RESOURCE: &str = "target_info";

/// Service and name on `/metrics` to the kind.
type Metrics = BTreeMap<(String, String), String>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_the_table_is_there_and_no_other() {
    let pipeline = one_lane().start().await.unwrap();
    let mut sender = pipeline.sender("a.test", "home.test");
    // A lane that waits has an age and a deadline.
    pipeline.instance().behave(Behaviour::Hang);
    sender.send_many(2).await;
    let mut stranger = pipeline.sender("stranger.test", "home.test");
    let refused = stranger.compose();
    assert_eq!(stranger.try_once(&refused).await.unwrap().status, 503);
    let mut seen = Metrics::new();
    let waits = async || {
        look(&pipeline, &mut seen).await?;
        let gauge = |name: &str| ("batch-sender".to_owned(), name.to_owned());
        let both = ["fedstream_lane_deadline_seconds", "fedstream_stream_used_bytes"].map(gauge);
        both.iter().all(|gauge| seen.contains_key(gauge)).then_some(())
    };
    eventually("the lane waits", SOON, waits).await.unwrap();
    pipeline.instance().behave_well();
    pipeline.instance().wait_accepted(2, SOON).await.unwrap();
    pipeline.wait_trimmed(SOON).await.unwrap();

    let table = table();
    assert!(table.len() > 40, "the table is read wrongly: {table:?}");
    let whole = async || {
        look(&pipeline, &mut seen).await?;
        table.keys().all(|metric| seen.contains_key(metric)).then_some(())
    };
    let whole = eventually("every metric was there once", SOON, whole).await;
    let names = |metrics: &Metrics| metrics.keys().cloned().collect::<BTreeSet<_>>();
    let missing: Vec<_> = names(&table).difference(&names(&seen)).cloned().collect();
    assert!(whole.is_ok(), "missing: {missing:?}");
    seen.retain(|(_, name), _| name != RESOURCE);
    assert_eq!(seen, table);
}

/// Adds what the three pages have now.
async fn look(pipeline: &Pipeline, seen: &mut Metrics) -> Option<()> {
    for (which, service) in [
        (Which::InboxReceiver, &pipeline.inbox_receiver),
        (Which::BatchSender, &pipeline.batch_sender),
        (Which::BatchReceiver, &pipeline.batch_receiver),
    ] {
        for (name, kind) in MetricsPage::of(service).await?.kinds {
            seen.insert((which.name().to_owned(), name), kind);
        }
    }
    Some(())
}

/// What the page says: a row is `| OpenTelemetry | /metrics | kind, unit | labels | service | what it says |`.
fn table() -> Metrics {
    let page = std::fs::read_to_string(repository().join("docs/metrics.md")).expect("the page");
    let mut metrics = Metrics::new();
    for row in page.lines().filter(|line| {
        line.starts_with("| `fedstream.") || line.starts_with("| `http.") || line.starts_with("| `messaging.")
    }) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, name, kind, _, services, ..] = cells.as_slice() else { panic!("a row of six cells: {row}") };
        let kind = kind.split([' ', ',']).next().unwrap_or_default();
        for service in services.split(", ") {
            metrics.insert((service.to_owned(), name.trim_matches('`').to_owned()), kind.to_owned());
        }
    }
    metrics
}
