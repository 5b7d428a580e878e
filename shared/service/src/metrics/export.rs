//! The way to a collector, with its failures counted. A collector that is away, slow or refusing costs the numbers of one
//! interval at most: counters are sums, so the next export that arrives says it all.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;

use super::table::TELEMETRY_DROPPED;

/// From now on its failures are seen to grow from none.
pub(super) fn begin() {
    lost(0);
}

fn lost(metrics: usize) {
    let labels = [KeyValue::new("signal", "metrics"), KeyValue::new("reason", "export_failed")];
    TELEMETRY_DROPPED.add(metrics as u64, &labels);
}

/// An exporter whose failures are counted as dropped metrics.
#[derive(Debug)]
pub struct Counted<E> {
    inner: E,
}

impl<E> Counted<E> {
    /// Counts the failures of `inner`.
    pub fn new(inner: E) -> Self {
        Self { inner }
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Counted<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let exported = self.inner.export(metrics).await;
        if exported.is_err() {
            lost(metrics.scope_metrics().map(|scope| scope.metrics().count()).sum());
        }
        exported
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}
