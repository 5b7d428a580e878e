//! A collector in trouble: it costs spans, which are counted, and nothing else.

use fedstream_tests::eventually::eventually;
use fedstream_tests::otlp_sink::Mood;
use fedstream_tests::process::Service;
use fedstream_tests::{http1, ports};

use crate::*;

/// Activities: at four spans each many times the queue below.
const MANY: usize = 300;

/// What waits for the collector.
const QUEUE: &str = "64";

const WARNED: &str = "spans are lost; activities go on";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_costs_no_activity_and_what_is_dropped_is_counted() {
    let builder = everywhere(traced(), "OTEL_BSP_MAX_QUEUE_SIZE", QUEUE);
    let mut pipeline = builder.start().await.unwrap();
    sink(&pipeline).behave(Mood::Hangs);
    pipeline.sender("a.test", "home.test").send_many(MANY).await;
    pipeline.settle(SOON).await.assert_clean(MANY);
    for which in [Which::InboxReceiver, Which::BatchSender, Which::BatchReceiver] {
        let service = pipeline.service(which);
        let lost = dropped(service, "queue_full").await;
        // Two spans an activity at the front, one or more elsewhere; the queue and a batch on its way are not lost yet.
        assert!(lost > 0 && lost < 3 * MANY, "{}: {lost}", which.name());
    }
    sink(&pipeline).behave(Mood::Takes);
    let before = sink(&pipeline).spans().len();
    sink(&pipeline).until("what waited arrives", SOON, |spans| spans.len() > before).await.unwrap();
    // An answer that took too long ended in an error by now, or it did not: nothing more is lost from here on.
    let id = send_one(&pipeline).await;
    of_activity(&pipeline, &id, "a whole trace again", |spans| spans.len() >= 4).await;
    assert_eq!(pipeline.batch_sender.terminate(SOON).await.unwrap(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_or_refuses_is_told_once_and_what_is_lost_is_counted() {
    let nobody = format!("http://{}", ports::free());
    let away = everywhere(traced(), "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &nobody);
    for (case, builder) in [("away", away), ("refuses", traced())] {
        let mut pipeline = builder.start().await.unwrap();
        sink(&pipeline).behave(Mood::Refuses);
        let mut sender = pipeline.sender("a.test", "home.test");
        sender.send_many(20).await;
        lost_more_than(&pipeline.inbox_receiver, 0).await;
        sender.send_many(20).await;
        pipeline.settle(SOON).await.assert_clean(40);
        // Two spans for each activity, and the last batch of them too.
        lost_more_than(&pipeline.inbox_receiver, 2 * 40 - 1).await;
        let log = pipeline.inbox_receiver.log();
        assert_eq!(log.matches(WARNED).count(), 1, "{case}: {log}");
        assert!(!log.contains("ExportError"), "{case}: the library's own lines say nothing more: {log}");
        assert_eq!(pipeline.inbox_receiver.terminate(SOON).await.unwrap(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_does_not_hold_up_the_end_of_a_service() {
    let mut pipeline = everywhere(traced(), "FED_SHUTDOWN_GRACE", "60s").start().await.unwrap();
    sink(&pipeline).behave(Mood::Hangs);
    send_one(&pipeline).await;
    pipeline.settle(SOON).await.assert_clean(1);
    // Well below the grace period: five seconds for spans, as many for metrics.
    assert_eq!(pipeline.batch_receiver.terminate(SOON).await.unwrap(), Some(0));
}

async fn lost_more_than(service: &Service, count: usize) {
    let more = async || (dropped(service, "export_failed").await > count).then_some(());
    eventually("what could not be exported is counted", SOON, more).await.expect("in time");
}

/// `fedstream.telemetry.dropped` as `/metrics` has it.
async fn dropped(service: &Service, reason: &str) -> usize {
    let page = http1::get(service.admin(), "/metrics").await.expect("the page");
    let text = String::from_utf8_lossy(&page.body).into_owned();
    let of_it = |line: &&str| {
        line.starts_with("fedstream_telemetry_dropped_total{")
            && line.contains(&format!("reason=\"{reason}\""))
            && line.contains("signal=\"traces\"")
    };
    let line = text.lines().find(of_it).unwrap_or_else(|| panic!("{reason}: {text}"));
    let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number");
    value as usize
}
