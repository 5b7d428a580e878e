//! Metrics: one definition for each instrument, on `/metrics` of the admin listener and over OTLP alike.
//!
//! ```text
//!   table ─ every Definition ─▶ instrument ──┬─▶ Prometheus reader ─▶ /metrics, when it is asked for
//!     └─▶ docs/metrics.md       (add, record,└─▶ periodic reader ──▶ OTLP/gRPC, where an endpoint is set
//!                                observe)
//! ```
//!
//! - A label has a bound: a fixed list of words, or the lanes that [`lanes::LaneNames`] names. Never an id or an URL; a host
//!   that nobody configured only where `*` or a v1 batch brought it, once something of its lane is stored or delivered.
//! - The SDK puts what goes beyond its own limit of series into one that has no labels. That limit is worked out from each
//!   definition, so that it is never reached by what is configured.
//! - What is counted is counted in memory; a thread of the SDK's own sends it. No request waits for a collector.
//! - Before [`init`], and in a process that never calls it, every call is nothing.

mod definition;
pub mod export;
pub mod http;
mod instrument;
pub mod lanes;
mod page;
pub mod table;

use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::{InstrumentationScope, global};
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::metrics::{Instrument, PeriodicReader, SdkMeterProvider, Stream};
use prometheus::Registry;

use crate::Service;
use crate::config::ConfigError;
use crate::config::common::TelemetryConfig;
use crate::telemetry;

pub use definition::{Definition, Kind, Label, Values};
pub use instrument::{Counter, Gauge, Histogram, Observed};
pub use opentelemetry::KeyValue;
pub use page::{CONTENT_TYPE, text};

/// The instrumentation scope of all instruments.
const SCOPE: &str = "fedstream";

/// The numbers of the last minute are worth no longer wait at the end: the spans have had theirs.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// What `/metrics` is made of; set once.
static REGISTRY: OnceLock<Registry> = OnceLock::new();

/// The running export; [`flush`](Metrics::flush) it at the end.
#[derive(Debug)]
#[must_use = "the last numbers are lost unless it is flushed"]
pub struct Metrics {
    provider: SdkMeterProvider,
}

/// Starts the metrics. Call it once, inside the runtime, before the first instrument is used.
///
/// # Errors
/// The OTLP endpoint can't be used.
pub fn init(service: &Service, config: &TelemetryConfig) -> Result<Metrics, ConfigError> {
    let registry = Registry::new();
    let cannot =
        |error: &dyn std::fmt::Display| ConfigError::between(format_args!("metrics can't be started: {error}"));
    let page = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false) // one scope, so a label that says so on every line says nothing
        .build()
        .map_err(|error| cannot(&error))?;
    let lanes = config.metric_lanes.get();
    let mut builder = SdkMeterProvider::builder()
        .with_resource(telemetry::resource(service))
        .with_view(move |instrument: &Instrument| bounded(instrument, lanes))
        .with_reader(page);
    if config.exports_metrics() {
        let exporter = MetricExporter::builder()
            .with_tonic()
            .build()
            .map_err(|error| ConfigError::new("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", error))?;
        // The interval comes from OTEL_METRIC_EXPORT_INTERVAL: the SDK reads it.
        builder = builder.with_reader(PeriodicReader::builder(export::Counted::new(exporter)).build());
    }
    let provider = builder.build();
    global::set_meter_provider(provider.clone());
    lanes::set_most(lanes);
    if REGISTRY.set(registry).is_err() {
        return Err(cannot(&"they run already"));
    }
    begin(service);
    Ok(Metrics { provider })
}

impl Metrics {
    /// Sends what was counted since the last export, within `grace` and five seconds. Blocks; the runtime must have
    /// another thread.
    pub fn flush(self, grace: Duration) {
        if let Err(error) = self.provider.shutdown_with_timeout(grace.min(FLUSH_MAX)) {
            tracing::warn!(%error, "the last metrics could not be sent");
        }
    }
}

/// As many series as the definition can have, instead of the SDK's 2000 for each.
fn bounded(instrument: &Instrument, lanes: usize) -> Option<Stream> {
    let definition = table::ALL.iter().find(|definition| definition.name == instrument.name())?;
    Stream::builder().with_cardinality_limit(definition.series(lanes)).build().ok()
}

/// What is known from the start.
fn begin(service: &Service) {
    let version = service.version;
    table::BUILD.observe(move |build| build.is(1.0, &[KeyValue::new("version", version)]));
    for reason in table::DROP_REASONS {
        table::TELEMETRY_DROPPED.add(0, &[KeyValue::new("signal", "traces"), KeyValue::new("reason", *reason)]);
    }
    export::begin();
}

fn meter() -> opentelemetry::metrics::Meter {
    global::meter_with_scope(InstrumentationScope::builder(SCOPE).build())
}
