//! What is said about a span once more is known: that it failed, and what happened meanwhile. It never says it in the log.

use std::borrow::Cow;

pub use opentelemetry::KeyValue;
use opentelemetry::trace::Status;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::attributes::ERROR_TYPE;

/// Marks a span as failed: why, of few kinds, and in words.
pub fn failed(span: &Span, kind: impl Into<Cow<'static, str>>, cause: impl Into<Cow<'static, str>>) {
    span.set_attribute(ERROR_TYPE, kind.into());
    span.set_status(Status::error(cause));
}

/// Something became known.
pub fn set(span: &Span, attribute: KeyValue) {
    span.set_attribute(attribute.key, attribute.value);
}

/// Something happened.
pub fn event(span: &Span, name: &'static str, attributes: Vec<KeyValue>) {
    span.add_event(name, attributes);
}
