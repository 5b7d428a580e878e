//! What goes out: a trace leads from the application's publish to the remote's answer. The publisher here is one in any language: it
//! gives a `traceparent`, and its own span is none of ours.

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::outbound::{Builder, Outbound, put_with};
use serde_json::json;

use crate::*;

const WORKER: &str = "delivery-worker";

const PROCESS: &str = "process fed.outbox.{remote}.{partition}";
const PARK: &str = "publish fed.parked.outbox.{remote}.{partition}";
const TELL: &str = "publish fed.event.delivery_failed.{remote}";

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The span of the application that published.
const PUBLISHED: &str = "00f067aa0ba902b7";

const ID: &str = "http://our.test/activities/1";

fn traced(sink: &OtlpSink) -> Builder {
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ("OTEL_METRICS_EXPORTER", "none".to_owned()), // the endpoint takes traces only
    ];
    env.into_iter().fold(Outbound::with(1), |builder, (name, value)| builder.env(name, value))
}

/// The application asks for one delivery, in its own trace.
async fn publish(outbound: &Outbound, flags: &str) {
    let actor = outbound.actor(1).expect("a key");
    let inbox = format!("http://{}/inbox", outbound.remotes[0].addr());
    let activity = json!({ "id": ID, "type": "Like", "actor": actor });
    let traceparent = format!("00-{TRACE}-{PUBLISHED}-{flags}");
    let jetstream = outbound.jetstream().await.expect("the broker");
    put_with(&jetstream, &inbox, &actor, activity, &[("traceparent", &traceparent)]).await.expect("stored");
}

/// Waits until the worker is done with all, and has exported as many spans of the trace.
async fn spans_of(outbound: &Outbound, sink: &OtlpSink, count: usize) -> Vec<Span> {
    outbound.wait_empty("FED_OUTBOX", SOON).await.expect("in time");
    let all = |spans: &[Span]| spans.iter().filter(|span| span.trace_id == TRACE).count() >= count;
    sink.until(&format!("{count} spans of the trace"), SOON, all).await.expect("in time");
    let mut spans = sink.of_trace(TRACE);
    assert_eq!(spans.len(), count, "{spans:#?}");
    spans.sort_by_key(|span| span.began_ns);
    spans
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_leads_from_the_applications_publish_to_the_remotes_answer() {
    let sink = OtlpSink::start().await.unwrap();
    let outbound = traced(&sink).start().await.unwrap();
    publish(&outbound, "01").await;
    let spans = spans_of(&outbound, &sink, 2).await;
    let (process, post) = (the(&spans, WORKER, PROCESS), the(&spans, WORKER, "POST"));
    assert_eq!((process.kind, process.parent_id.as_str()), (CONSUMER, PUBLISHED));
    assert_eq!((post.kind, &post.parent_id), (CLIENT, &process.span_id));
    let remote = outbound.remotes[0].addr();
    for span in &spans {
        assert!(!span.failed() && !span.attributes.contains_key("error.type"), "{span:#?}");
        assert_eq!((span.get("activitypub.activity.id"), span.get("fedstream.outcome")), (ID, "delivered"));
        assert_eq!(span.numbers.get("http.response.status_code"), Some(&200), "{span:#?}");
        assert_eq!(span.get("activitypub.remote.host"), remote.to_string());
    }
    assert!(process.get("messaging.destination.name").starts_with("fed.outbox.127_0_0_1=3A"), "{process:#?}");
    assert!(process.get("fedstream.lane").starts_with(&format!("{remote}/")), "{process:#?}");
    assert_eq!(process.get("fedstream.attempt"), "1");
    assert!(process.event("fedstream.lease.taken").is_some(), "{process:#?}");
    assert_eq!(
        ["http.request.method", "url.full", "server.address", "fedstream.signature"].map(|name| post.get(name)),
        ["POST", &format!("http://{remote}/inbox"), "127.0.0.1", "cavage"]
    );
    assert_eq!(post.numbers.get("server.port"), Some(&i64::from(remote.port())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_and_what_was_given_up_is_in_the_same_trace_and_says_why() {
    let sink = OtlpSink::start().await.unwrap();
    let outbound = traced(&sink).start().await.unwrap();
    outbound.remotes[0].behave_next(1, Behaviour::busy(503, None));
    outbound.remotes[0].behave_next(1, Behaviour::Reset);
    outbound.remotes[0].behave_next(1, Behaviour::rejects(410, "gone"));
    publish(&outbound, "01").await;
    // Three tries, each with its request, the copy, and what the application is told.
    let spans = spans_of(&outbound, &sink, 8).await;
    let (tries, posts) = (all(&spans, WORKER, PROCESS), all(&spans, WORKER, "POST"));
    assert_eq!((tries.len(), posts.len()), (3, 3), "{spans:#?}");
    for ((attempt, post), kind) in tries.iter().zip(&posts).zip(["503", "broken_off", "410"]) {
        assert_eq!((&post.parent_id, post.get("error.type")), (&attempt.span_id, kind), "{post:#?}");
        assert!(post.failed() && attempt.failed(), "{attempt:#?}");
    }
    assert_eq!(posts[0].numbers.get("http.response.status_code"), Some(&503));
    let outcomes: Vec<_> = tries.iter().map(|span| span.get("fedstream.outcome")).collect();
    assert_eq!(outcomes, ["again", "again", "rejected"]);
    for (attempt, why) in tries.iter().zip(["503", "no answer"]) {
        let retry = attempt.event("fedstream.retry").expect("the event");
        assert!(retry.attributes["fedstream.cause"].contains(why), "{retry:?}");
    }
    let (park, tell) = (the(&spans, WORKER, PARK), the(&spans, WORKER, TELL));
    assert_eq!((park.kind, park.parent_id.as_str()), (PRODUCER, PUBLISHED));
    assert_eq!((park.get("fedstream.park.reason"), park.get("fedstream.attempts")), ("rejected", "3"));
    assert_eq!((tell.kind, &tell.parent_id), (PRODUCER, &park.span_id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_sampling_off_only_what_was_given_up_arrives() {
    let sink = OtlpSink::start().await.unwrap();
    let mut outbound = traced(&sink).env("OTEL_TRACES_SAMPLER", "always_off").start().await.unwrap();
    outbound.remotes[0].behave(Behaviour::rejects(410, "gone"));
    publish(&outbound, "00").await;
    spans_of(&outbound, &sink, 1).await;
    assert_eq!(outbound.worker.terminate(SOON).await.unwrap(), Some(0)); // at its end it sends what it has left
    let spans = sink.spans();
    let park = the(&spans, WORKER, PARK);
    assert_eq!((spans.len(), park.get("fedstream.always_sampled")), (1, "true"), "{spans:#?}");
    assert_eq!((park.trace_id.as_str(), park.get("activitypub.activity.id")), (TRACE, ID));
    assert_eq!(park.numbers.get("http.response.status_code"), Some(&410));
}
