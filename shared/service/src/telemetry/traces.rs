//! Where finished spans go, and under whose name.

use opentelemetry::Key;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::dropped;
use super::sampler::{Always, standard};
use crate::Service;
use crate::config::ConfigError;
use crate::config::common::TelemetryConfig;

/// Our own spans, at info and above whatever LOG_LEVEL says: a quiet log is no reason for a trace with holes. Lines at
/// info and above become events of the span that they are in.
pub(super) fn exported() -> Targets {
    Targets::new()
        .with_default(LevelFilter::INFO)
        // The exporter's own calls would be traced and exported, and so on.
        .with_target("opentelemetry", LevelFilter::OFF)
        .with_target("tonic", LevelFilter::OFF)
        .with_target("h2", LevelFilter::OFF)
        .with_target("hyper", LevelFilter::OFF)
        .with_target("tower", LevelFilter::OFF)
        .with_target("async_nats", LevelFilter::OFF)
}

/// Spans to the configured endpoint. Batch sizes and limits come from OTEL_BSP_*, OTEL_SPAN_* and
/// OTEL_EXPORTER_OTLP_*: the SDK reads them.
pub(super) fn provider(service: &Service, config: &TelemetryConfig) -> Result<SdkTracerProvider, ConfigError> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .build()
        .map_err(|error| ConfigError::new("OTEL_EXPORTER_OTLP_ENDPOINT", error))?;
    let sampler = Always::beside(standard(config.traces_sampler, config.traces_sampler_arg)?);
    Ok(SdkTracerProvider::builder()
        .with_span_processor(dropped::Queue::before(exporter, config.span_queue()))
        .with_sampler(sampler)
        .with_resource(resource(service))
        .build())
}

/// OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME as the SDK reads them; our own name where neither gives one.
pub fn resource(service: &Service) -> Resource {
    const NAME: Key = Key::from_static_str("service.name");
    let from_environment = Resource::builder().build();
    let named = from_environment.get(&NAME).is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let builder = Resource::builder().with_attribute(opentelemetry::KeyValue::new("service.version", service.version));
    if named { builder.build() } else { builder.with_service_name(service.name).build() }
}
