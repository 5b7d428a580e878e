//! What goes in signed comes out signed: once, in lane order, byte for byte, and as one trace.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use fedstream_tests::fixtures::{self, Fixture};
use fedstream_tests::otlp_sink::Span;
use fedstream_tests::pipeline::{Builder, Pipeline, Which};
use fedstream_tests::sign::Kind;
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(20);

/// Most of it is RSA: 6,000 signatures made and 6,000 verified.
const ALL: Duration = Duration::from_secs(60);

/// Kinds of spans by their numbers in OTLP.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_lanes_of_2000_arrive_once_in_lane_order_and_byte_for_byte() {
    const EACH: usize = 2000;
    let lanes = [("a.test", "home.test"), ("b.test", "home.test"), ("a.test", "other.test:8443")];
    let builder =
        Pipeline::builder().source("a.test").source("b.test").destination("home.test").destination("other.test:8443");
    let pipeline = builder.start().await.unwrap();

    let mut sending = JoinSet::new();
    for (source, destination) in lanes {
        let mut sender = pipeline.sender(source, destination);
        sending.spawn(async move { sender.send_many(EACH).await });
    }
    while let Some(ended) = sending.join_next().await {
        ended.unwrap();
    }

    pipeline.settle(ALL).await.assert_clean(lanes.len() * EACH);
    pipeline.wait_trimmed(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_captured_request_still_verifies_at_the_destination() {
    let fixtures = [fixtures::fedify().unwrap(), fixtures::lemmy().unwrap()].concat();
    let pipeline = in_front_of(&fixtures).env(Which::InboxReceiver, "FED_PUBLIC_SCHEME", "http").start().await.unwrap();
    replay(&pipeline, &fixtures, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scheme_that_a_trusted_proxy_saw_reaches_the_destination() {
    let fixtures: Vec<Fixture> = fixtures::fedify().unwrap();
    let pipeline =
        in_front_of(&fixtures).env(Which::InboxReceiver, "HTTP_TRUSTED_PROXIES", "127.0.0.1").start().await.unwrap();
    replay(&pipeline, &fixtures, &[("X-Forwarded-Proto", "http"), ("X-Forwarded-For", "203.0.113.7")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_targets_arrive_as_they_were_signed() {
    let pipeline = Pipeline::builder().source("a.test").start().await.unwrap();
    let mut sender = pipeline.sender("a.test", pipeline.destination(0));
    let targets = [
        "/inbox?shared=1",
        "/users/%40bob/inbox",
        "/users/%40bob%2fx/inbox?a=%20b&a='",
        "/a/../inbox",
        "/./a//inbox",
        "/users/o'hara/inbox",
        "/inbox?",
    ];
    for kind in [Kind::Cavage, Kind::Rfc9421] {
        for target in targets {
            sender.kind = kind;
            sender.target = target.to_owned();
            let answer = sender.send_one().await;
            assert_eq!(answer.status, 204, "{target}: {answer:?}");
        }
    }
    let report = pipeline.settle(SOON).await;
    let arrived: Vec<String> = pipeline.instance().seen().into_iter().map(|seen| seen.message.target).collect();
    assert_eq!(arrived, [targets, targets].concat());
    report.assert_clean(2 * targets.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activity_is_one_trace_from_the_front_door_to_the_replay() {
    let pipeline = Pipeline::builder().source("a.test").traced().start().await.unwrap();
    let mut sender = pipeline.sender("a.test", pipeline.destination(0));
    sender.send_many(3).await;
    pipeline.settle(SOON).await.assert_clean(3);

    let traces = pipeline.traces.as_ref().unwrap();
    let of = |spans: &[Span], service: Which, kind: i32| -> Vec<Span> {
        spans.iter().filter(|span| span.service == service.name() && span.kind == kind).cloned().collect()
    };
    let replays = |spans: &[Span]| of(spans, Which::BatchReceiver, CLIENT);
    traces.until("three replays", SOON, |spans| replays(spans).len() >= 3).await.unwrap();
    let fronts = of(&traces.spans(), Which::InboxReceiver, SERVER);
    let ids: BTreeSet<String> = replays(&traces.spans()).into_iter().map(|span| span.trace_id).collect();
    assert_eq!(ids.len(), 3, "each activity is a trace of its own");

    for id in ids {
        // The batch's span ends after its last item's; a link to it may come from either side.
        let in_a_batch = |spans: &[Span]| {
            let batches: Vec<&Span> = spans.iter().filter(|span| span.service == Which::BatchSender.name()).collect();
            let from_the_batch = batches.iter().any(|batch| batch.links.iter().any(|(trace, _)| *trace == id));
            let to_the_batch = spans.iter().filter(|span| span.trace_id == id).flat_map(|span| &span.links);
            from_the_batch
                || to_the_batch.into_iter().any(|(trace, _)| batches.iter().any(|batch| batch.trace_id == *trace))
        };
        traces.until("the batch is linked", SOON, in_a_batch).await.unwrap();
        let trace = traces.of_trace(&id);
        let front = fronts.iter().find(|span| span.trace_id == id).expect("a server span of the front door");
        let publish = of(&trace, Which::InboxReceiver, PRODUCER);
        assert_eq!(publish.len(), 1, "{trace:#?}");
        assert!(is_below(&publish[0], front, &trace), "{trace:#?}");
        let replay = &replays(&trace)[0];
        assert!(is_below(replay, front, &trace), "{trace:#?}");
    }
}

/// Whether a span descends from another, as far as the trace shows.
fn is_below(span: &Span, ancestor: &Span, trace: &[Span]) -> bool {
    let mut at = span;
    while at.parent_id != ancestor.span_id {
        let Some(parent) = trace.iter().find(|candidate| candidate.span_id == at.parent_id) else { return false };
        at = parent;
    }
    true
}

/// A pipeline for the hosts of these requests.
fn in_front_of(fixtures: &[Fixture]) -> Builder {
    let sources: BTreeSet<String> = fixtures.iter().map(Fixture::source).collect();
    let destinations: BTreeSet<String> = fixtures.iter().map(Fixture::destination).collect();
    // Captured long ago; the instance judges them by the clock of the capture, and the front by none.
    let builder = Pipeline::builder().env(Which::InboxReceiver, "FED_SIGNATURE_WINDOW", "0");
    let builder = sources.iter().fold(builder, |builder, source| builder.source(source));
    destinations.iter().fold(builder, |builder, destination| builder.destination(destination))
}

/// Sends each lane's requests in their order, the lanes side by side, and judges by the clock of the capture.
async fn replay(pipeline: &Pipeline, fixtures: &[Fixture], added: &[(&str, &str)]) {
    fixtures::enter_keys(fixtures, &pipeline.keys).expect("the fixtures' keys");
    // Lemmy's were taken an hour after Fedify's: the middle is within an hour of both.
    let captured = fixtures.iter().map(|fixture| SystemTime::from(fixture.captured_at));
    let (first, last) = (captured.clone().min().expect("some"), captured.max().expect("some"));
    let between = last.duration_since(first).expect("first is the minimum") / 2;
    pipeline.instance().set_clock(Some(first + between));

    let mut lanes: BTreeMap<(String, String), Vec<Fixture>> = BTreeMap::new();
    for fixture in fixtures {
        lanes.entry((fixture.source(), fixture.destination())).or_default().push(fixture.clone());
    }
    let mut sending = JoinSet::new();
    for ((source, destination), requests) in lanes {
        let mut sender = pipeline.sender(&source, &destination);
        let added: Vec<(String, String)> =
            added.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        sending.spawn(async move {
            for fixture in requests {
                let mut message = fixture.message;
                message.headers.extend(added.clone());
                let answer = sender.send_verbatim(&message).await;
                assert_eq!(answer.status, 204, "{answer:?}");
            }
        });
    }
    while let Some(ended) = sending.join_next().await {
        ended.expect("every request is accepted");
    }
    pipeline.settle(SOON).await.assert_clean(fixtures.len());
}
