//! What the services export, against an OTLP endpoint inside the test: an activity followed through all parts, and
//! through what can happen to it on the way. Names, kinds, parents, links and attributes are written out here once more:
//! dashboards and people's searches rest on them.

mod broken;
mod collector;
mod followed;
mod instance;
mod outbound;
mod unsampled;

use std::time::Duration;

use fedstream_tests::broker;
use fedstream_tests::otlp_sink::{OtlpSink, Span};
use fedstream_tests::pipeline::{Builder, Pipeline, Which};

/// For anything that happens of itself: generous, since two cores may be shared with a build.
const SOON: Duration = Duration::from_secs(30);

const FRONT: &str = "inbox-receiver";
const SENDER: &str = "batch-sender";
const RECEIVER: &str = "batch-receiver";

/// Kinds of spans by their numbers in OTLP.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const PRODUCER: i32 = 4;
const CONSUMER: i32 = 5;

/// Names of spans.
const PUBLISH: &str = "publish fed.inbox.{destination}.{source}";
const PROCESS: &str = "process fed.inbox.{destination}.{source}";
const PARK: &str = "publish fed.parked.inbox.{destination}.{source}";
const BATCH: &str = "POST /batch";

/// One source, one destination, and the endpoint.
fn traced() -> Builder {
    // Nobody kills the broker here: what it acknowledged need not be on disk.
    let broker = broker::Options { sync_always: false, ..broker::Options::default() };
    let builder = Pipeline::builder().source("a.test").broker(broker).traced();
    builder.env(Which::BatchSender, "FED_DISCOVERY_INTERVAL", "200ms")
}

/// A variable of all three.
fn everywhere(builder: Builder, name: &str, value: &str) -> Builder {
    let all = [Which::InboxReceiver, Which::BatchSender, Which::BatchReceiver];
    all.into_iter().fold(builder, |builder, which| builder.env(which, name, value))
}

fn sink(pipeline: &Pipeline) -> &OtlpSink {
    pipeline.traces.as_ref().expect("it is traced")
}

/// Sends one activity, and says its id.
async fn send_one(pipeline: &Pipeline) -> String {
    let mut sender = pipeline.sender("a.test", "home.test");
    let activity = sender.compose();
    assert_eq!(sender.send(&activity).await.status, 204);
    activity.id
}

/// Waits until the spans of this activity fulfil a condition: those that name it, and the front's request.
async fn of_activity(pipeline: &Pipeline, id: &str, what: &str, so: impl Fn(&[Span]) -> bool) -> Vec<Span> {
    let sink = sink(pipeline);
    let trace_of = |spans: &[Span]| {
        let publish = spans.iter().find(|span| span.name == PUBLISH && span.get("activitypub.activity.id") == id)?;
        Some(publish.trace_id.clone())
    };
    let trace = |spans: &[Span]| -> Vec<Span> {
        let Some(id) = trace_of(spans) else { return Vec::new() };
        let mut spans: Vec<Span> = spans.iter().filter(|span| span.trace_id == id).cloned().collect();
        spans.sort_by_key(|span| span.began_ns);
        spans
    };
    let done = sink.until(what, SOON, |spans| so(&trace(spans))).await;
    done.unwrap_or_else(|timeout| panic!("{timeout}\n{:#?}", trace(&sink.spans())));
    trace(&sink.spans())
}

/// The one span of this service and name.
fn the<'a>(spans: &'a [Span], service: &str, name: &str) -> &'a Span {
    let found = all(spans, service, name);
    let [span] = found[..] else { panic!("one {name:?} of {service}: {spans:#?}") };
    span
}

/// All spans of this service and name, in the order in which they began.
fn all<'a>(spans: &'a [Span], service: &str, name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.service == service && span.name == name).collect()
}

/// How many spans of this name there are.
fn count(spans: &[Span], name: &str) -> usize {
    spans.iter().filter(|span| span.name == name).count()
}

/// Whether a span is linked to another.
fn is_linked(from: &Span, to: &Span) -> bool {
    from.links.contains(&(to.trace_id.clone(), to.span_id.clone()))
}
