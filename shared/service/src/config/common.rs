//! The variables of every service: logs, traces, metrics, the admin listener, shutdown.

use std::net::SocketAddr;

use envconfig::Envconfig;

use super::{Check, Count, Span, Switch, Variable};
use crate::metrics::lanes::MetricLanes;
use crate::telemetry::dropped;
use crate::telemetry::sampler::{SamplerName, Share};
use crate::telemetry::{LogFilter, LogFormat};

/// What every service nests as `common` in its configuration.
#[derive(Debug, Clone, Envconfig)]
pub struct CommonConfig {
    /// Where `/healthz`, `/readyz`, `/metrics` and `/lanes` are.
    #[envconfig(from = "FED_ADMIN_LISTEN")]
    pub admin_listen: SocketAddr,
    /// How long in-flight work may take to finish after SIGTERM.
    #[envconfig(from = "FED_SHUTDOWN_GRACE")]
    pub shutdown_grace: Span,
    /// Logs, traces and metrics.
    #[envconfig(nested)]
    pub telemetry: TelemetryConfig,
}

impl Check for CommonConfig {}

/// Logs, traces and metrics. The OpenTelemetry SDK reads the other `OTEL_*` variables itself.
#[derive(Debug, Clone, Envconfig)]
pub struct TelemetryConfig {
    /// `pretty` or `json`; without it, pretty on a terminal and JSON elsewhere.
    #[envconfig(from = "LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged, in RUST_LOG's syntax.
    #[envconfig(from = "LOG_LEVEL")]
    pub log_level: LogFilter,
    /// OTLP/gRPC endpoint of all signals.
    #[envconfig(from = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// OTLP/gRPC endpoint of traces.
    #[envconfig(from = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")]
    pub otlp_traces_endpoint: Option<String>,
    /// OTLP/gRPC endpoint of metrics.
    #[envconfig(from = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")]
    pub otlp_metrics_endpoint: Option<String>,
    /// `true` switches every export off.
    #[envconfig(from = "OTEL_SDK_DISABLED")]
    pub sdk_disabled: Switch,
    /// `none` switches the export of traces off.
    #[envconfig(from = "OTEL_TRACES_EXPORTER")]
    pub traces_exporter: String,
    /// `none` switches the export of metrics off; they stay on `/metrics`.
    #[envconfig(from = "OTEL_METRICS_EXPORTER")]
    pub metrics_exporter: String,
    /// Lanes that metrics tell apart.
    #[envconfig(from = "FED_METRIC_LANES")]
    pub metric_lanes: MetricLanes,
    /// Instead of the service's own name.
    #[envconfig(from = "OTEL_SERVICE_NAME")]
    pub service_name: Option<String>,
    /// Which traces are exported; without it, all that no parent has decided.
    #[envconfig(from = "OTEL_TRACES_SAMPLER")]
    pub traces_sampler: Option<SamplerName>,
    /// The share of a ratio sampler.
    #[envconfig(from = "OTEL_TRACES_SAMPLER_ARG")]
    pub traces_sampler_arg: Option<Share>,
    /// Spans that wait for the collector.
    #[envconfig(from = "OTEL_BSP_MAX_QUEUE_SIZE")]
    pub bsp_max_queue_size: Option<Count>,
}

impl TelemetryConfig {
    /// Are traces to be exported? Only where an endpoint was given: without one nothing leaves the process.
    pub fn exports_traces(&self) -> bool {
        let endpoint = self.otlp_traces_endpoint.is_some() || self.otlp_endpoint.is_some();
        endpoint && !self.sdk_disabled.is_on() && self.traces_exporter != "none"
    }

    /// Are metrics to be exported? They are on `/metrics` in any case.
    pub fn exports_metrics(&self) -> bool {
        let endpoint = self.otlp_metrics_endpoint.is_some() || self.otlp_endpoint.is_some();
        endpoint && !self.sdk_disabled.is_on() && self.metrics_exporter != "none"
    }

    /// How many finished spans may wait.
    pub fn span_queue(&self) -> usize {
        self.bsp_max_queue_size.map_or(dropped::QUEUE_DEFAULT, Count::get)
    }
}

/// How many variables [`variables`] has.
pub const COUNT: usize = 19;

/// The table of [`CommonConfig`]; the admin address differs so that all three run on one machine.
pub const fn variables(admin_listen: &'static str) -> [Variable; COUNT] {
    [
        Variable::new::<SocketAddr>(
            "FED_ADMIN_LISTEN",
            "127.0.0.1:9090",
            "address of /healthz, /readyz, /metrics and /lanes; keep it private",
        )
        .default(admin_listen),
        Variable::new::<Span>("FED_SHUTDOWN_GRACE", "20s", "after SIGTERM: time for in-flight work to finish")
            .default("20s"),
        Variable::new::<LogFormat>("LOG_FORMAT", "json", "pretty or json; unset: pretty on a terminal, else json")
            .optional(),
        Variable::new::<LogFilter>("LOG_LEVEL", "debug,h2=info", "what is logged, in RUST_LOG's syntax")
            // The broker's library tells each try to reconnect at info; what matters of it we say ourselves.
            .default("info,async_nats=warn"),
        Variable::new::<String>(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://127.0.0.1:4317",
            "where traces and metrics go (OTLP/gRPC); unset: nothing is exported",
        )
        .optional(),
        Variable::new::<String>(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://127.0.0.1:4317",
            "the same, for traces only",
        )
        .optional(),
        Variable::new::<String>(
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "http://127.0.0.1:4317",
            "the same, for metrics only",
        )
        .optional(),
        Variable::new::<Switch>("OTEL_SDK_DISABLED", "true", "true: no export at all").default("false"),
        Variable::new::<String>("OTEL_TRACES_EXPORTER", "none", "otlp, or none: no traces").default("otlp"),
        Variable::new::<String>("OTEL_METRICS_EXPORTER", "none", "otlp, or none: on /metrics only").default("otlp"),
        // A minute is the SDK's own default.
        Variable::new::<u64>("OTEL_METRIC_EXPORT_INTERVAL", "15000", "milliseconds between two exports of metrics")
            .optional(),
        // 200 lanes are some 10,000 series a service; Prometheus takes that in its stride.
        Variable::new::<MetricLanes>(
            "FED_METRIC_LANES",
            "1000",
            "lanes that metrics tell apart, 10000 at most; all others are one, \"other\"",
        )
        .default("200"),
        Variable::new::<String>(
            "OTEL_SERVICE_NAME",
            "near-front",
            "name in traces and metrics; unset: the service's own",
        )
        .optional(),
        Variable::new::<String>(
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=prod",
            "more about this process, in traces and metrics",
        )
        .optional(),
        Variable::new::<String>("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=abc", "headers of the export")
            .optional()
            .secret(),
        Variable::new::<SamplerName>(
            "OTEL_TRACES_SAMPLER",
            "parentbased_traceidratio",
            "which traces are kept, beside refusals and parkings; unset: all",
        )
        .optional(),
        Variable::new::<Share>("OTEL_TRACES_SAMPLER_ARG", "0.1", "the share that a ratio sampler keeps, 0 to 1")
            .optional(),
        Variable::new::<u64>("OTEL_BSP_SCHEDULE_DELAY", "5000", "milliseconds between two exports").optional(),
        Variable::new::<Count>(
            "OTEL_BSP_MAX_QUEUE_SIZE",
            "2048",
            "spans that wait for the collector; more are dropped",
        )
        .optional(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Service;
    use crate::config::{Environment, load_from};

    fn load(pairs: &[(&str, &str)]) -> Result<TelemetryConfig, String> {
        static COMMON: [Variable; COUNT] = variables("127.0.0.1:9090");
        static SERVICE: Service = Service { name: "sample", about: "", version: "0", variables: &[&COMMON] };
        let config = load_from::<CommonConfig>(&SERVICE, &Environment::from_pairs(pairs));
        config.map(|config| config.telemetry).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_exported_without_an_endpoint_or_when_switched_off() {
        let exports = |pairs: &[(&str, &str)]| load(pairs).unwrap().exports_traces();
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
        assert!(!exports(&[]));
        assert!(exports(&[endpoint]));
        assert!(!exports(&[endpoint, ("OTEL_SDK_DISABLED", "true")]));
        assert!(!exports(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]));
    }

    #[test]
    fn a_sampler_that_is_none_is_an_error_and_no_silent_default() {
        let error = load(&[("OTEL_TRACES_SAMPLER", "jaeger_remote")]).unwrap_err();
        assert!(error.starts_with("OTEL_TRACES_SAMPLER: ") && error.contains("parentbased_"), "{error}");
        let error = load(&[("OTEL_TRACES_SAMPLER_ARG", "5%")]).unwrap_err();
        assert!(error.starts_with("OTEL_TRACES_SAMPLER_ARG: \"5%\" is not a number from 0 to 1"), "{error}");
        assert!(load(&[("OTEL_BSP_MAX_QUEUE_SIZE", "0")]).is_err());
        assert_eq!(load(&[("OTEL_BSP_MAX_QUEUE_SIZE", "10")]).unwrap().span_queue(), 10);
        assert_eq!(load(&[]).unwrap().span_queue(), 2048);
    }
}
