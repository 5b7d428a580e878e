//! Where next to nothing is sampled, bad news is all the same: a refusal, a rejection and a parking each have a span of
//! their own, in the trace of their activity.

use std::collections::BTreeSet;

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::otlp_sink::Span;
use serde_json::Value;

use crate::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_sampling_off_only_the_rejection_and_the_parking_arrive_in_the_activitys_trace() {
    for (sampler, share) in [("always_off", ""), ("parentbased_traceidratio", "0"), ("traceidratio", "0.0")] {
        let builder = everywhere(traced(), "OTEL_TRACES_SAMPLER", sampler);
        let builder = everywhere(builder, "OTEL_TRACES_SAMPLER_ARG", share);
        let mut pipeline = everywhere(builder, "LOG_FORMAT", "json").start().await.unwrap();
        let quiet = send_one(&pipeline).await;
        pipeline.settle(SOON).await.assert_clean(1);
        pipeline.instance().behave_next(1, Behaviour::rejects(404, "gone for good"));
        let id = send_one(&pipeline).await;
        let parked = |spans: &[Span]| count(spans, PARK) == 1 && count(spans, "reject") == 1;
        sink(&pipeline).until("the rejection and the parking", SOON, parked).await.unwrap();
        pipeline.wait_trimmed(SOON).await.unwrap();
        // At its end each service sends what it has left.
        for which in [Which::InboxReceiver, Which::BatchSender, Which::BatchReceiver] {
            assert_eq!(pipeline.service(which).terminate(SOON).await.unwrap(), Some(0));
        }

        let spans = sink(&pipeline).spans();
        assert_eq!(spans.len(), 2, "{sampler}: nothing else, and nothing of {quiet}: {spans:#?}");
        let (park, reject) = (the(&spans, SENDER, PARK), the(&spans, RECEIVER, "reject"));
        assert_eq!((park.kind, reject.kind), (PRODUCER, INTERNAL));
        for span in [park, reject] {
            assert!(span.failed() && span.flags == 1, "{span:#?}");
            assert_eq!(span.get("activitypub.activity.id"), id);
            assert_eq!((span.get("fedstream.always_sampled"), span.get("error.type")), ("true", "rejected"));
            assert_eq!(span.numbers.get("http.response.status_code"), Some(&404));
            assert_eq!(span.numbers.get("fedstream.seq"), Some(&2));
        }
        assert_eq!(park.get("fedstream.park.reason"), "rejected");
        // The trace of the activity is what its stored context says, also where that is not sampled.
        let stored = stored_traceparent(&pipeline).await;
        let [_, trace, _, flags] = stored.split('-').collect::<Vec<_>>()[..] else { panic!("four parts: {stored}") };
        assert_eq!(flags, "00");
        assert_eq!((park.trace_id.as_str(), reject.trace_id.as_str()), (trace, trace));
        // So do the lines about it.
        let line = line(&pipeline.batch_sender.log(), "an activity leaves its lane undelivered: a copy is parked");
        assert_eq!((&line["trace_id"], &line["span_id"]), (&trace.into(), &park.span_id.as_str().into()));
        let line = self::line(&pipeline.batch_receiver.log(), "rejected by the instance");
        assert_eq!((&line["trace_id"], &line["span_id"]), (&trace.into(), &reject.span_id.as_str().into()));
        assert_eq!((&line["lane"], &line["seq"]), (&"home.test/a.test".into(), &2.into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_sampling_off_a_refusal_at_the_front_arrives_and_its_log_line_leads_to_it() {
    let builder = everywhere(traced(), "OTEL_TRACES_SAMPLER", "always_off");
    let pipeline = everywhere(builder, "LOG_FORMAT", "json").start().await.unwrap();
    let mut stranger = pipeline.sender("stranger.test", "home.test");
    let activity = stranger.compose();
    assert_eq!(stranger.try_once(&activity).await.unwrap().status, 503);
    let mut sender = pipeline.sender("a.test", "home.test");
    sender.target = "/outbox".into();
    let activity = sender.compose();
    assert_eq!(sender.try_once(&activity).await.unwrap().status, 503);

    sink(&pipeline).until("both refusals", SOON, |spans| count(spans, "refuse") == 2).await.unwrap();
    let spans = sink(&pipeline).spans();
    assert_eq!(spans.len(), 2, "{spans:#?}");
    let kinds: BTreeSet<&str> = spans.iter().map(|span| span.get("error.type")).collect();
    assert_eq!(kinds, BTreeSet::from(["not-an-inbox", "source-not-configured"]));
    for span in &spans {
        assert!(span.failed() && span.kind == INTERNAL && span.flags == 1, "{span:#?}");
        assert!(!span.parent_id.is_empty(), "below the request's own span, which is not sampled");
        assert_eq!(span.numbers.get("http.response.status_code"), Some(&503));
        let log = pipeline.inbox_receiver.log();
        let of_it = |line: &Value| line["message"] == "refused" && line["kind"] == span.get("error.type");
        let line = lines(&log).find(of_it).expect("a line");
        assert_eq!(
            (&line["trace_id"], &line["span_id"]),
            (&span.trace_id.as_str().into(), &span.span_id.as_str().into())
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_is_sampled_a_refusal_is_below_its_request() {
    let pipeline = traced().start().await.unwrap();
    let mut stranger = pipeline.sender("stranger.test", "home.test");
    let activity = stranger.compose();
    assert_eq!(stranger.try_once(&activity).await.unwrap().status, 503);
    let both = |spans: &[Span]| count(spans, "refuse") == 1 && count(spans, "POST /inbox") == 1;
    sink(&pipeline).until("the request and the refusal", SOON, both).await.unwrap();
    let spans = sink(&pipeline).spans();
    let (request, refusal) = (the(&spans, FRONT, "POST /inbox"), the(&spans, FRONT, "refuse"));
    assert_eq!((&refusal.parent_id, &refusal.trace_id), (&request.span_id, &request.trace_id));
    assert!(request.failed() && request.get("error.type") == "source-not-configured", "{request:#?}");
    assert_eq!(request.numbers.get("http.response.status_code"), Some(&503));
}

/// The context that the one parked copy was stored with.
async fn stored_traceparent(pipeline: &Pipeline) -> String {
    let jetstream = pipeline.broker.jetstream().await.expect("a connection");
    let stream = jetstream.get_stream("FED_PARKED").await.expect("a service has made it");
    let copy = stream.get_last_raw_message_by_subject("fed.parked.>").await.expect("a copy");
    copy.headers.get("traceparent").map(|value| value.to_string()).unwrap_or_default()
}

/// The lines of a JSON log.
fn lines(log: &str) -> impl Iterator<Item = Value> {
    log.lines().filter_map(|line| serde_json::from_str(line).ok())
}

/// The one line that says this.
fn line(log: &str, message: &str) -> Value {
    let found: Vec<Value> = lines(log).filter(|line| line["message"] == message).collect();
    let [line] = &found[..] else { panic!("one line {message:?}: {log}") };
    line.clone()
}
