//! `docs/metrics.md` against the services: each metric of its table is really there, in each service that it names, as the
//! kind that it says; and nothing else is.

use std::collections::BTreeSet;

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::eventually;
use fedstream_tests::metrics_page::{self, MetricsPage};
use fedstream_tests::pipeline::{Pipeline, Which};

use crate::{SOON, one_lane};

/// Of OpenTelemetry's: the attributes of the process.
const RESOURCE: &str = "target_info";

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
    let mut seen = metrics_page::Metrics::new();
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

    let mut table = metrics_page::table();
    table.retain(|(service, _), _| service != "delivery-worker"); // it has a test of its own, with what goes out
    assert!(table.len() > 40, "the table is read wrongly: {table:?}");
    let whole = async || {
        look(&pipeline, &mut seen).await?;
        table.keys().all(|metric| seen.contains_key(metric)).then_some(())
    };
    let whole = eventually("every metric was there once", SOON, whole).await;
    let names = |metrics: &metrics_page::Metrics| metrics.keys().cloned().collect::<BTreeSet<_>>();
    let missing: Vec<_> = names(&table).difference(&names(&seen)).cloned().collect();
    assert!(whole.is_ok(), "missing: {missing:?}");
    seen.retain(|(_, name), _| name != RESOURCE);
    assert_eq!(seen, table);
}

/// Adds what the three pages have now.
async fn look(pipeline: &Pipeline, seen: &mut metrics_page::Metrics) -> Option<()> {
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
