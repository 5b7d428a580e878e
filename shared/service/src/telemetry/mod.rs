//! Logs through `tracing`, traces through OTLP/gRPC by the standard OTEL_* variables.
//!
//! ```text
//!   a span ends ─▶ sampler ─▶ queue (OTEL_BSP_MAX_QUEUE_SIZE) ─▶ a thread of the SDK's own ─▶ OTLP/gRPC
//!                               └─ full: dropped, and counted        └─ fails: dropped, and counted
//! ```
//!
//! Without an endpoint nothing is exported and no span has a trace id. No request waits for a collector: one that is
//! away, slow or refusing costs spans, and each of them is counted. What a refusal or a parking has to say is exported
//! whatever share of traces is: see [`sampler`].

pub mod dropped;
pub mod logs;
pub mod sampler;
mod traces;

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::Service;
use crate::config::ConfigError;
use crate::config::common::TelemetryConfig;

pub use logs::{LogFilter, LogFormat};
pub use traces::resource;

/// How long the last spans may take, whatever the grace period is: it is for activities, and a collector that hangs must
/// not hold up a restart.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// What is running; [`flush`](Telemetry::flush) it at the end.
#[derive(Debug)]
#[must_use = "the last spans are lost unless it is flushed"]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Starts logs and, where an endpoint is set, traces. Call it once, inside the runtime.
///
/// # Errors
/// The endpoint can't be used, or logs run already.
pub fn init(service: &Service, config: &TelemetryConfig) -> Result<Telemetry, ConfigError> {
    let provider = if config.exports_traces() { Some(traces::provider(service, config)?) } else { None };
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(service.name))
            // Source lines and thread names of ours mean nothing in somebody's trace store.
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_filter(traces::exported())
    });
    tracing_subscriber::registry()
        .with(traces)
        .with(logs::layer(config)?)
        .try_init()
        .map_err(|error| ConfigError::between(format_args!("logs can't be started: {error}")))?;
    Ok(Telemetry { provider })
}

impl Telemetry {
    /// Sends what is still waiting, for at most `grace` and never longer than five seconds. Blocks; the runtime must have
    /// another thread.
    pub fn flush(self, grace: Duration) {
        let Some(provider) = self.provider else {
            return;
        };
        if let Err(error) = provider.shutdown_with_timeout(grace.min(FLUSH_MAX)) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}
