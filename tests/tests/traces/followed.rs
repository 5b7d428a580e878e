//! One activity without any trouble: every span that it has, exactly.

use fedstream_tests::otlp_sink::Span;

use crate::*;

const THEIRS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activity_is_one_trace_with_these_spans_and_no_others() {
    let pipeline = traced().start().await.unwrap();
    let id = send_one(&pipeline).await;
    pipeline.settle(SOON).await.assert_clean(1);
    let spans = of_activity(&pipeline, &id, "four spans", |spans| spans.len() >= 4).await;

    let request = the(&spans, FRONT, "POST /inbox");
    let publish = the(&spans, FRONT, PUBLISH);
    let process = the(&spans, SENDER, PROCESS);
    let delivery = the(&spans, RECEIVER, "POST /inbox");
    assert_eq!(spans.len(), 4, "{spans:#?}");
    assert_eq!([request, publish, process, delivery].map(|span| span.kind), [SERVER, PRODUCER, CONSUMER, CLIENT]);
    assert_eq!(request.parent_id, "");
    assert_eq!(
        [&publish.parent_id, &process.parent_id, &delivery.parent_id],
        [&request.span_id, &publish.span_id, &process.span_id]
    );
    for span in &spans {
        assert!(!span.failed() && span.flags == 1, "{span:#?}");
        assert!(!span.attributes.contains_key("error.type"), "{span:#?}");
        assert_eq!((span.get("fedstream.lane"), span.get("activitypub.remote.host")), ("home.test/a.test", "a.test"));
        assert_eq!(span.get("activitypub.activity.id"), id);
    }
    the_front_says(request, publish);
    the_attempt_says(process, publish);
    let instance = pipeline.instance().addr();
    let url = format!("http://{instance}/inbox");
    let delivered = [
        ("http.request.method", "POST"),
        ("url.full", &url),
        ("url.path", "/inbox"),
        ("server.address", "127.0.0.1"),
        ("fedstream.outcome", "delivered"),
    ];
    assert_says(delivery, &delivered);
    assert_numbers(
        delivery,
        &[("http.response.status_code", 200), ("fedstream.seq", 1), ("server.port", i64::from(instance.port()))],
    );
    the_batch_is_linked_both_ways(&pipeline, process, delivery).await;
}

fn the_front_says(request: &Span, publish: &Span) {
    let said = [
        ("http.request.method", "POST"),
        ("http.route", "/inbox"),
        ("url.path", "/inbox"),
        ("network.peer.address", "127.0.0.1"),
        ("activitypub.activity.type", "Announce"),
    ];
    assert_says(request, &said);
    assert_numbers(request, &[("http.response.status_code", 204)]);
    let said = [
        ("messaging.system", "nats"),
        ("messaging.operation.name", "publish"),
        ("messaging.operation.type", "send"),
        ("messaging.destination.name", "fed.inbox.home_test.a_test"),
        ("messaging.destination.template", "fed.inbox.{destination}.{source}"),
        ("activitypub.activity.type", "Announce"),
        ("fedstream.duplicate", "false"),
    ];
    assert_says(publish, &said);
    assert!(!publish.get("messaging.message.id").is_empty());
    assert!(publish.numbers["messaging.message.body.size"] > 1000, "{publish:#?}");
    assert_numbers(publish, &[("fedstream.seq", 1)]);
}

fn the_attempt_says(process: &Span, publish: &Span) {
    let said = [
        ("messaging.system", "nats"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "fed.inbox.home_test.a_test"),
        ("messaging.message.id", publish.get("messaging.message.id")),
        ("activitypub.activity.type", "Announce"),
        ("fedstream.outcome", "delivered"),
    ];
    assert_says(process, &said);
    assert_numbers(process, &[("fedstream.seq", 1), ("fedstream.attempt", 1), ("http.response.status_code", 200)]);
    assert!(process.numbers["fedstream.epoch"] >= 1);
    // From the answer at the front to the batch: discovery and the lease lie in between.
    let waited: f64 = process.get("fedstream.lane.wait_s").parse().expect("a number");
    assert!(waited > 0.0 && waited < SOON.as_secs_f64(), "{waited}");
    let taken = process.event("fedstream.lease.taken").expect("its owner's first batch");
    assert_eq!(taken.attributes["fedstream.epoch"], process.get("fedstream.epoch"));
}

/// The batch is a trace of its own: a client span, and the server span below it.
async fn the_batch_is_linked_both_ways(pipeline: &Pipeline, process: &Span, delivery: &Span) {
    let carries = |span: &Span| span.name == BATCH && is_linked(span, process);
    let both = |spans: &[Span]| spans.iter().filter(|span| carries(span)).count() == 2;
    sink(pipeline).until("the batch's spans are linked to the activity", SOON, both).await.expect("in time");
    let spans: Vec<Span> = sink(pipeline).spans().into_iter().filter(carries).collect();
    let (client, server) = (the(&spans, SENDER, BATCH), the(&spans, RECEIVER, BATCH));
    assert_eq!((client.kind, server.kind), (CLIENT, SERVER));
    assert_eq!((client.parent_id.as_str(), &server.parent_id), ("", &client.span_id));
    assert!(is_linked(process, client), "{process:#?}");
    assert!(is_linked(delivery, server), "{delivery:#?}");
    assert_ne!(client.trace_id, process.trace_id);
    for span in [client, server] {
        assert_says(span, &[("http.request.method", "POST"), ("fedstream.batch.end", "done")]);
        assert_numbers(span, &[("messaging.batch.message_count", 1), ("http.response.status_code", 200)]);
    }
    let link = pipeline.link.addr();
    assert_says(client, &[("url.full", &format!("http://{link}/batch")), ("server.address", "127.0.0.1")]);
    assert_numbers(client, &[("server.port", i64::from(link.port()))]);
    assert!(server.event("a new owner of the lane").is_some(), "{server:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_trace_is_linked_and_never_continued() {
    let pipeline = traced().start().await.unwrap();
    let mut sender = pipeline.sender("a.test", "home.test");
    let activity = sender.compose();
    let mut message = sender.signed(&activity);
    message.headers.push(("traceparent".into(), THEIRS.into()));
    assert_eq!(sender.send_verbatim(&message).await.status, 204);
    pipeline.settle(SOON).await.assert_clean(1);
    let spans = of_activity(&pipeline, &activity.id, "four spans", |spans| spans.len() >= 4).await;
    let request = the(&spans, FRONT, "POST /inbox");
    assert_eq!(request.links, [("4bf92f3577b34da6a3ce929d0e0e4736".to_owned(), "00f067aa0ba902b7".to_owned())]);
    assert_eq!(request.parent_id, "");
    assert!(sink(&pipeline).of_trace("4bf92f3577b34da6a3ce929d0e0e4736").is_empty());
}

fn assert_says(span: &Span, pairs: &[(&str, &str)]) {
    for (name, value) in pairs {
        assert_eq!(span.get(name), *value, "{name}: {span:#?}");
    }
}

fn assert_numbers(span: &Span, pairs: &[(&str, i64)]) {
    for (name, value) in pairs {
        assert_eq!(span.numbers.get(*name), Some(value), "{name}: {span:#?}");
    }
}
