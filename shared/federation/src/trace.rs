//! The trace that a publish belongs to, as the two W3C header values: it leads from the application's request to the
//! remote's answer.
//!
//! An application that exports no traces, or does so with another version of `tracing-opentelemetry`, gets none.

use opentelemetry::trace::TraceContextExt;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// `traceparent` and `tracestate` (W3C Trace Context).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// `00-<trace id>-<span id>-<flags>`.
    pub parent: Option<String>,
    /// What vendors add; often absent.
    pub state: Option<String>,
}

impl Trace {
    /// The context of a span.
    #[must_use]
    pub fn of(span: &Span) -> Self {
        let context = span.context();
        let span = context.span();
        let span = span.span_context();
        if !span.is_valid() {
            return Self::default();
        }
        let parent = format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8());
        Self { parent: Some(parent), state: Some(span.trace_state().header()).filter(|state| !state.is_empty()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_exported_traces_there_is_nothing_to_pass_on() {
        assert_eq!(Trace::of(&tracing::info_span!("quiet")), Trace::default());
    }
}
