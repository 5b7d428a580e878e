//! Logs through `tracing`, traces through OTLP/gRPC by the standard OTEL_* variables.
//!
//! Without an endpoint nothing is exported and no span has a trace id. Spans leave in batches on a thread of the SDK's
//! own, so no request waits for a collector; what a collector that is away can't take is dropped, never queued without end.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry::Key;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::Service;
use crate::config::common::TelemetryConfig;
use crate::config::{ConfigError, NotA};

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        match text.trim() {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err(NotA("pretty or json")),
        }
    }
}

/// What is logged, in RUST_LOG's syntax.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl FromStr for LogFilter {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        EnvFilter::builder()
            .parse(text)
            .map(|_| Self(text.to_owned()))
            .map_err(|_| NotA("a log level (error, warn, info, debug, trace) or a filter in RUST_LOG's syntax"))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is running; [`flush`](Telemetry::flush) it at the end.
#[derive(Debug)]
#[must_use = "the last spans are lost unless it is flushed"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Starts logs and, where an endpoint is set, traces. Call it once, inside the runtime.
pub fn init(service: &Service, config: &TelemetryConfig) -> Result<Telemetry, ConfigError> {
    let provider = if config.exports_traces() { Some(provider(service)?) } else { None };
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(service.name))
            // Source lines and thread names of ours mean nothing in somebody's trace store.
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_filter(exported_spans())
    });
    let filter =
        EnvFilter::builder().parse(&config.log_level.0).map_err(|error| ConfigError::new("LOG_LEVEL", error))?;
    let lines = match config.log_format.unwrap_or_else(format_for_stdout) {
        LogFormat::Pretty if std::io::stdout().is_terminal() => tracing_subscriber::fmt::layer().boxed(),
        // Colours are for eyes: in a file they split `name=value`, and nobody can search for it.
        LogFormat::Pretty => tracing_subscriber::fmt::layer().with_ansi(false).boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false).boxed(),
    };
    tracing_subscriber::registry()
        .with(traces)
        .with(lines.with_filter(filter))
        .try_init()
        .map_err(|error| ConfigError::between(format_args!("logs can't be started: {error}")))?;
    Ok(Telemetry { provider })
}

impl Telemetry {
    /// Sends what is still waiting, for at most `grace`. Blocks; the runtime must have another thread.
    pub fn flush(self, grace: Duration) {
        let Some(provider) = self.provider else {
            return;
        };
        if let Err(error) = provider.shutdown_with_timeout(grace) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

fn format_for_stdout() -> LogFormat {
    if std::io::stdout().is_terminal() { LogFormat::Pretty } else { LogFormat::Json }
}

/// Our own spans, at info and above whatever LOG_LEVEL says: a quiet log is no reason for a trace with holes.
fn exported_spans() -> Targets {
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

fn provider(service: &Service) -> Result<SdkTracerProvider, ConfigError> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .build()
        .map_err(|error| ConfigError::new("OTEL_EXPORTER_OTLP_ENDPOINT", error))?;
    // The sampler, batch sizes and limits come from OTEL_TRACES_SAMPLER, OTEL_BSP_*, OTEL_SPAN_*: the SDK reads them.
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource(service)).build())
}

/// OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME as the SDK reads them; our own name where neither gives one.
fn resource(service: &Service) -> Resource {
    const NAME: Key = Key::from_static_str("service.name");
    let from_environment = Resource::builder().build();
    let named = from_environment.get(&NAME).is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let builder = Resource::builder().with_attribute(opentelemetry::KeyValue::new("service.version", service.version));
    if named { builder.build() } else { builder.with_service_name(service.name).build() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_filter_is_checked_before_it_is_used() {
        assert!("info,async_nats=warn".parse::<LogFilter>().is_ok());
        assert!("info,inbox_receiver=loud".parse::<LogFilter>().is_err());
        assert!("xml".parse::<LogFormat>().is_err());
    }

    #[test]
    fn nothing_is_exported_without_an_endpoint_or_when_switched_off() {
        let config = |pairs: &[(&str, &str)]| {
            static COMMON: [crate::config::Variable; 14] = crate::config::common::variables("127.0.0.1:9090");
            static SERVICE: Service = Service { name: "sample", about: "", version: "0", variables: &[&COMMON] };
            let environment = crate::config::Environment::from_pairs(pairs);
            crate::config::load_from::<crate::config::common::CommonConfig>(&SERVICE, &environment).unwrap().telemetry
        };
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
        assert!(!config(&[]).exports_traces());
        assert!(config(&[endpoint]).exports_traces());
        assert!(!config(&[endpoint, ("OTEL_SDK_DISABLED", "true")]).exports_traces());
        assert!(!config(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]).exports_traces());
    }
}
