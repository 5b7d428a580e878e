//! Metrics over OTLP: the same as on `/metrics`; and a collector that is of no use costs nothing.

use std::time::Duration;

use fedstream_tests::metrics_page::MetricsPage;
use fedstream_tests::otlp_metrics::MetricsSink;
use fedstream_tests::pipeline::{Builder, Which};
use fedstream_tests::ports;

use crate::{LANE, SOON, one_lane, until};

const ALL: [Which; 3] = [Which::InboxReceiver, Which::BatchSender, Which::BatchReceiver];

/// Exports ten times a second: a test would wait a minute for the default.
fn exporting_to(endpoint: &str) -> Builder {
    ALL.into_iter().fold(one_lane(), |builder, which| {
        builder
            .env(which, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", endpoint)
            .env(which, "OTEL_METRIC_EXPORT_INTERVAL", "100")
            .env(which, "OTEL_EXPORTER_OTLP_TIMEOUT", "500")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_gets_what_the_pages_show() {
    const SENT: usize = 10;
    let sink = MetricsSink::start().await.unwrap();
    let pipeline = exporting_to(&sink.endpoint()).start().await.unwrap();
    pipeline.sender("a.test", "home.test").send_many(SENT).await;
    pipeline.instance().wait_accepted(SENT, SOON).await.unwrap();
    let sent = SENT as f64;
    for (service, name, key, value) in [
        ("inbox-receiver", "fedstream.front.accepted", "result", "stored"),
        ("batch-sender", "fedstream.lane.outcomes", "outcome", "delivered"),
        ("batch-receiver", "fedstream.replay.outcomes", "outcome", "delivered"),
    ] {
        let metric = sink.until((service, name), SOON, |metric| metric.sum(key, value) == sent).await.unwrap();
        assert_eq!((metric.kind.as_str(), metric.unit.as_str()), ("counter", "{activity}"));
        assert_eq!(metric.sum("lane", LANE), sent);
    }
    let latency = ("batch-sender", "fedstream.lane.latency");
    let latency = sink.until(latency, SOON, |metric| metric.sum("lane", LANE) == sent).await.unwrap();
    assert_eq!((latency.kind.as_str(), latency.unit.as_str()), ("histogram", "s"));
    let connected = sink.metric("batch-sender", "fedstream.broker.connected");
    assert_eq!((connected.kind.as_str(), connected.series[0].1), ("gauge", 1.0));
    assert!(!connected.description.is_empty());
    for service in [&pipeline.inbox_receiver, &pipeline.batch_sender, &pipeline.batch_receiver] {
        let page = MetricsPage::of(service).await.unwrap();
        // A gauge of a lane that waited when it was exported may be gone by now.
        let stays = |name: &String| sink.metric(service.name(), name).kind != "gauge";
        for name in sink.names(service.name()).into_iter().filter(stays) {
            let on_the_page = name.replace('.', "_");
            assert!(page.kinds.keys().any(|shown| shown.starts_with(&on_the_page)), "{name} is on no page");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_counted_last_leaves_before_the_service_does() {
    let sink = MetricsSink::start().await.unwrap();
    let mut pipeline = exporting_to(&sink.endpoint())
        // No export of itself before the end.
        .env(Which::InboxReceiver, "OTEL_METRIC_EXPORT_INTERVAL", "3600000")
        .without(Which::BatchSender)
        .without(Which::BatchReceiver)
        .start()
        .await
        .unwrap();
    pipeline.sender("a.test", "home.test").send_many(2).await;
    assert_eq!(sink.names("inbox-receiver"), Vec::<String>::new());
    assert_eq!(pipeline.inbox_receiver.terminate(SOON).await.unwrap(), Some(0));
    assert_eq!(sink.metric("inbox-receiver", "fedstream.front.accepted").sum("lane", LANE), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_down_costs_no_activity_and_is_counted() {
    delivers_and_counts(&format!("http://{}", ports::free())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_never_answers_costs_no_activity_and_is_counted() {
    let sink = MetricsSink::start().await.unwrap();
    sink.answer(false);
    delivers_and_counts(&sink.endpoint()).await;
}

async fn delivers_and_counts(endpoint: &str) {
    const SENT: usize = 10;
    let mut pipeline = exporting_to(endpoint).start().await.expect("all parts");
    pipeline.sender("a.test", "home.test").send_many(SENT).await;
    pipeline.settle(SOON).await.assert_clean(SENT);
    for service in [&pipeline.inbox_receiver, &pipeline.batch_sender, &pipeline.batch_receiver] {
        let dropped = "fedstream_telemetry_dropped_total";
        let failed = [("signal", "metrics"), ("reason", "export_failed")];
        crate::page(service, "failed exports are counted", |page| page.sum(dropped, &failed) > Some(0.0)).await;
    }
    let delivered = [("lane", LANE), ("outcome", "delivered")];
    until(&pipeline.batch_sender, "fedstream_lane_outcomes_total", &delivered, SENT as f64).await;
    // The end waits for no collector beyond the grace period: 10 s here.
    let code = pipeline.inbox_receiver.terminate(SOON + Duration::from_secs(10)).await.expect("it ends");
    assert_eq!(code, Some(0));
}
