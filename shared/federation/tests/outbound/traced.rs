//! A publish is a span below the application's own, and what it stores carries that span on: the delivery-worker goes on there.

use federation::{EventPublisher, FederationEvent};
use fedstream_tests::broker::Broker;
use opentelemetry::trace::{SpanKind, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing::{Dispatch, Instrument};
use tracing_subscriber::layer::SubscriberExt;

use crate::streams::{all, publisher};
use crate::support::{ALICE, note};

const PUBLISH: &str = "publish fed.outbox.{remote}.{partition}";

#[tokio::test]
async fn the_applications_trace_goes_on_in_what_is_stored() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("application"));
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(layer));
    // With a single one tracing would ask the thread of another test whether anybody listens.
    let _second = Dispatch::new(tracing_subscriber::registry());
    let _here = tracing::dispatcher::set_default(&dispatch);

    let broker = Broker::start().await.expect("a broker");
    let publisher = publisher(&broker).await;
    let event = FederationEvent::DeliveryRequested {
        inbox: "https://remote.example/inbox".parse().expect("a URL"),
        activity: note(1),
        signing_actor_id: ALICE,
    };
    publisher.publish(event.clone()).instrument(tracing::info_span!("POST /notes")).await.expect("stored");

    let spans = exporter.get_finished_spans().expect("spans");
    let named = |name: &str| -> &SpanData {
        spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:#?}"))
    };
    let (request, publish) = (named("POST /notes"), named(PUBLISH));
    assert_eq!((&publish.span_kind, publish.parent_span_id), (&SpanKind::Producer, request.span_context.span_id()));
    let stored = all(&broker, "FED_OUTBOX").await;
    let ids = (publish.span_context.trace_id(), publish.span_context.span_id());
    assert_eq!(stored[0].header("traceparent"), Some(&*format!("00-{}-{}-01", ids.0, ids.1)));
    let said =
        |key: &str| publish.attributes.iter().find(|one| one.key.as_str() == key).map(|one| one.value.to_string());
    assert_eq!(said("messaging.message.id").as_deref(), stored[0].header("Nats-Msg-Id"));
    assert_eq!(said("fedstream.seq").as_deref(), Some("1"));
    assert_eq!(said("fedstream.duplicate").as_deref(), Some("false"));

    // Follow, Undo, Follow: the third is the first to the broker, and the caller hears `Ok`.
    exporter.reset();
    publisher.publish(event).await.expect("stored before");
    let spans = exporter.get_finished_spans().expect("spans");
    let repeat = spans.iter().find(|span| span.name == PUBLISH).expect("a publish");
    let is_repeat =
        |one: &opentelemetry::KeyValue| one.key.as_str() == "fedstream.duplicate" && one.value.to_string() == "true";
    assert!(repeat.attributes.iter().any(is_repeat), "{:?}", repeat.attributes);
    let [said] = &repeat.events.events[..] else { panic!("one line in the log: {:?}", repeat.events) };
    assert!(said.name.starts_with("this delivery was stored less than ten minutes ago"), "{said:?}");
    let told: Vec<_> = said.attributes.iter().map(|one| one.value.to_string()).collect();
    assert!(told.iter().any(|value| value == "https://remote.example/inbox"), "{told:?}");
    assert!(told.iter().any(|value| Some(&**value) == note(1)["id"].as_str()), "{told:?}");
}
