//! The variables of every service: logs, traces, the admin listener, shutdown.

use std::net::SocketAddr;

use envconfig::Envconfig;

use super::{Check, Span, Switch, Variable};
use crate::telemetry::{LogFilter, LogFormat};

/// What every service nests as `common` in its configuration.
#[derive(Debug, Clone, Envconfig)]
pub struct CommonConfig {
    /// Where `/healthz`, `/readyz` and `/lanes` are.
    #[envconfig(from = "FED_ADMIN_LISTEN")]
    pub admin_listen: SocketAddr,
    /// How long in-flight work may take to finish after SIGTERM.
    #[envconfig(from = "FED_SHUTDOWN_GRACE")]
    pub shutdown_grace: Span,
    /// Logs and traces.
    #[envconfig(nested)]
    pub telemetry: TelemetryConfig,
}

impl Check for CommonConfig {}

/// Logs and traces. The OpenTelemetry SDK reads the other `OTEL_*` variables itself.
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
    /// `true` switches every export off.
    #[envconfig(from = "OTEL_SDK_DISABLED")]
    pub sdk_disabled: Switch,
    /// `none` switches the export of traces off.
    #[envconfig(from = "OTEL_TRACES_EXPORTER")]
    pub traces_exporter: String,
    /// Instead of the service's own name.
    #[envconfig(from = "OTEL_SERVICE_NAME")]
    pub service_name: Option<String>,
}

impl TelemetryConfig {
    /// Are traces to be exported? Only where an endpoint was given: without one nothing leaves the process.
    pub fn exports_traces(&self) -> bool {
        let endpoint = self.otlp_traces_endpoint.is_some() || self.otlp_endpoint.is_some();
        endpoint && !self.sdk_disabled.is_on() && self.traces_exporter != "none"
    }
}

/// The table of [`CommonConfig`]; the admin address differs so that all three run on one machine.
pub const fn variables(admin_listen: &'static str) -> [Variable; 14] {
    [
        Variable::new::<SocketAddr>(
            "FED_ADMIN_LISTEN",
            "127.0.0.1:9090",
            "address of /healthz, /readyz and /lanes; keep it private",
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
            "where traces go (OTLP/gRPC); unset: nothing is exported",
        )
        .optional(),
        Variable::new::<String>(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://127.0.0.1:4317",
            "the same, for traces only",
        )
        .optional(),
        Variable::new::<Switch>("OTEL_SDK_DISABLED", "true", "true: no export at all").default("false"),
        Variable::new::<String>("OTEL_TRACES_EXPORTER", "none", "otlp, or none: no traces").default("otlp"),
        Variable::new::<String>("OTEL_SERVICE_NAME", "near-front", "name in traces; unset: the service's own")
            .optional(),
        Variable::new::<String>(
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=prod",
            "more about this process, in traces",
        )
        .optional(),
        Variable::new::<String>("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=abc", "headers of the export")
            .optional()
            .secret(),
        Variable::new::<String>("OTEL_TRACES_SAMPLER", "parentbased_traceidratio", "which traces are kept; unset: all")
            .optional(),
        Variable::new::<String>("OTEL_TRACES_SAMPLER_ARG", "0.1", "the sampler's argument").optional(),
        Variable::new::<u64>("OTEL_BSP_SCHEDULE_DELAY", "5000", "milliseconds between two exports").optional(),
    ]
}
