//! Trace context as the two W3C header values, out of a span and back: it travels in HTTP headers, in NATS headers and
//! inside a batch, and this is the one place that knows its form.

use std::collections::HashMap;

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TraceFlags};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// `traceparent` and `tracestate` (W3C Trace Context).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceHeaders {
    /// `00-<trace id>-<span id>-<flags>`.
    pub traceparent: String,
    /// What vendors add; often absent.
    pub tracestate: Option<String>,
}

/// The context of `span`, or `None` where traces aren't exported. One that is not sampled has a context too, with the flag
/// 00: what is sampled in spite of that later is then in the right trace.
pub fn of(span: &Span) -> Option<TraceHeaders> {
    let context = span.context();
    let span = context.span();
    let ids = span.span_context();
    if !ids.is_valid() {
        return None;
    }
    let flags = (ids.trace_flags() & TraceFlags::SAMPLED).to_u8();
    let traceparent = format!("00-{}-{}-{flags:02x}", ids.trace_id(), ids.span_id());
    let tracestate = Some(ids.trace_state().header()).filter(|state| !state.is_empty());
    Some(TraceHeaders { traceparent, tracestate })
}

/// The context of the span being in force.
pub fn current() -> Option<TraceHeaders> {
    of(&Span::current())
}

/// The context in two header values from somebody else, or `None` if they hold none. What isn't well formed is none.
pub fn extract(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<Context> {
    let mut carrier = HashMap::from([("traceparent".to_owned(), traceparent?.to_owned())]);
    if let Some(state) = tracestate {
        carrier.insert("tracestate".to_owned(), state.to_owned());
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    context.span().span_context().is_valid().then_some(context)
}

/// Makes `remote` the parent of `span`: for a context of our own making. Before the span is entered.
pub fn continue_from(span: &Span, remote: Option<Context>) {
    if let Some(context) = remote {
        // Fails only where traces aren't exported, or when the span has begun.
        drop(span.set_parent(context));
    }
}

/// Links `span` to `remote`: for a context that a stranger sent, and for a batch's many activities.
pub fn link(span: &Span, remote: Option<&Context>) {
    if let Some(context) = remote {
        span.add_link(context.span().span_context().clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use tracing_subscriber::layer::SubscriberExt;

    const REMOTE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_span_continues_the_trace_it_was_given() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        // Two, for with a single one tracing asks the thread that meets a span first, and remembers its "nobody listens" for all:
        // another test's thread has no subscriber.
        let subscriber = tracing::Dispatch::new(tracing_subscriber::registry().with(layer));
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        tracing::dispatcher::with_default(&subscriber, || {
            let span = tracing::info_span!("replay");
            continue_from(&span, extract(Some(REMOTE), Some("a=b")));
            let headers = of(&span).unwrap();
            assert!(headers.traceparent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
            assert_ne!(headers.traceparent, REMOTE);
            assert_eq!(headers.tracestate.as_deref(), Some("a=b"));

            let linked = tracing::info_span!("front door");
            link(&linked, extract(Some(REMOTE), None).as_ref());
            assert!(!of(&linked).unwrap().traceparent.contains("4bf92f3577b34da6a3ce929d0e0e4736"));
        });
    }

    #[test]
    fn a_trace_that_is_not_sampled_is_passed_on_with_its_ids() {
        let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing::Dispatch::new(tracing_subscriber::registry().with(layer));
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        tracing::dispatcher::with_default(&subscriber, || {
            let front = of(&tracing::info_span!("front door")).unwrap();
            assert!(front.traceparent.ends_with("-00"), "{front:?}");
            let later = tracing::info_span!("replay");
            continue_from(&later, extract(Some(&front.traceparent), None));
            assert_eq!(of(&later).unwrap().traceparent[..35], front.traceparent[..35], "the same trace");
        });
    }

    #[test]
    fn what_is_not_well_formed_is_no_context() {
        assert!(extract(None, Some("a=b")).is_none());
        assert!(extract(Some("00-zz"), None).is_none());
        assert!(extract(Some("00-00000000000000000000000000000000-0000000000000000-00"), None).is_none());
    }

    #[test]
    fn without_exported_traces_there_is_nothing_to_pass_on() {
        assert!(of(&tracing::info_span!("quiet")).is_none());
    }
}
