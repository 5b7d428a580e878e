//! The worker's metrics: those that `docs/metrics.md` names for it, of lanes by remote and partition, and never of a backfill job,
//! whose lane has a user's id in its name.

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::eventually;
use fedstream_tests::metrics_page::{self, MetricsPage};
use fedstream_tests::outbound::{Outbound, Outboxes};

use crate::SOON;

/// All lanes that have no name of their own.
const OTHER: &str = "other";

/// Of OpenTelemetry's: the attributes of the process.
const RESOURCE: &str = "target_info";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_the_table_is_there_and_no_other() {
    let outboxes = Outboxes::start(3).await.unwrap();
    let outbound = Outbound::with(1).env("FED_OUTBOX_URL_TEMPLATE", outboxes.template()).start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    // A lane that waits has an age and a deadline.
    outbound.remotes[0].behave(Behaviour::Hang);
    outbound.publish_many(0, &actor, 2).await.unwrap();
    let mut seen = metrics_page::Metrics::new();
    let waits = async || {
        look(&outbound, &mut seen).await?;
        seen.keys().any(|(_, name)| name == "fedstream_lane_deadline_seconds").then_some(())
    };
    eventually("the lane waits", SOON, waits).await.unwrap();
    outbound.remotes[0].behave_well();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    outbound.request_backfill(0, &actor).await.unwrap();
    outbound.wait_empty("FED_BACKFILL", SOON).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();

    let mut table = metrics_page::table();
    table.retain(|(service, _), _| service == "delivery-worker");
    let whole = async || {
        look(&outbound, &mut seen).await?;
        table.keys().all(|metric| seen.contains_key(metric)).then_some(())
    };
    let whole = eventually("every metric was there once", SOON, whole).await;
    let missing: Vec<_> = table.keys().filter(|metric| !seen.contains_key(metric)).collect();
    assert!(whole.is_ok(), "missing: {missing:?}");
    seen.retain(|(_, name), _| name != RESOURCE);
    assert_eq!(seen, table);

    let page = MetricsPage::of(&outbound.worker).await.expect("the page");
    let mut lanes = page.values_of("lane");
    lanes.retain(|lane| *lane != OTHER);
    let remote = format!("{}/", outbound.remotes[0].addr());
    assert!(
        !lanes.is_empty() && lanes.iter().all(|lane| lane.starts_with(&remote) && !lane.contains(&actor)),
        "{lanes:?}"
    );
    assert_eq!(
        page.sum("fedstream_lane_outcomes_total", &[("outcome", "delivered")]),
        Some(5.0),
        "the job itself is none: {page}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_job_that_is_parked_is_counted_without_its_name() {
    let outboxes = Outboxes::start(1).await.unwrap();
    let outbound = Outbound::with(1).env("FED_OUTBOX_URL_TEMPLATE", outboxes.template()).start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    let subject = format!("fed.backfill.a_example.{actor}");
    outbound.jetstream().await.unwrap().publish(subject, "no job".into()).await.unwrap().await.unwrap();
    let parked = [("lane", OTHER), ("reason", "unreadable")];
    let counted = async || {
        let page = MetricsPage::of(&outbound.worker).await?;
        (page.sum("fedstream_lane_parked_total", &parked)? == 1.0).then_some(page)
    };
    let page = eventually("it is counted", SOON, counted).await.unwrap();
    assert_eq!(page.values_of("lane"), [OTHER].into(), "{page}");
}

/// Adds what the page has now.
async fn look(outbound: &Outbound, seen: &mut metrics_page::Metrics) -> Option<()> {
    for (name, kind) in MetricsPage::of(&outbound.worker).await?.kinds {
        seen.insert(("delivery-worker".to_owned(), name), kind);
    }
    Some(())
}
