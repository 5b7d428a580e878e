//! What every fedstream service has in common, and nothing of what a service does: configuration from the
//! environment, the command line, logs, traces and metrics, an HTTP server with limits, problem+json, the admin listener,
//! shutdown. It knows neither NATS nor lanes; the variables that name a broker are here only because two services
//! share them.
//!
//! A service's `main.rs` reads top to bottom like this:
//!
//! ```text
//! cli::entry(&SERVICE);                                        // --help, --version; unknown words: exit 64
//! let config: Config = config::load(&SERVICE)?;                // nothing bound yet; an error names the variable
//! let telemetry = telemetry::init(&SERVICE, &config.common.telemetry)?;
//! let metrics = metrics::init(&SERVICE, &config.common.telemetry)?;
//! let listener = cli::bind("FED_LISTEN", config.listen).await?;
//! let admin = cli::bind("FED_ADMIN_LISTEN", config.common.admin_listen).await?;
//! my_service::run(config, listener, admin, shutdown::signal()?).await?;
//! telemetry.flush(grace);                                      // the last spans leave before we do
//! metrics.flush(grace);
//! ```
//!
//! Each step's error becomes a [`cli::Failure`]: one plain line on stderr and an exit code.

pub mod admin;
pub mod attributes;
pub mod cli;
pub mod client_addr;
pub mod config;
pub mod context;
pub mod healthy;
pub mod http_server;
pub mod metrics;
pub mod paths;
pub mod problem;
pub mod readiness;
pub mod refused;
pub mod runtime;
pub mod shutdown;
pub mod signature;
pub mod spans;
pub mod telemetry;

use config::Variable;

/// A service's name and its one table of variables: `--help`, the defaults and the checks all come from it.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// The binary's name, also `service.name` in traces.
    pub name: &'static str,
    /// One sentence for `--help`.
    pub about: &'static str,
    /// `env!("CARGO_PKG_VERSION")`.
    pub version: &'static str,
    /// Groups of variables, listed by `--help` in this order.
    pub variables: &'static [&'static [Variable]],
}

impl Service {
    /// Every variable of every group.
    pub fn all_variables(&self) -> impl Iterator<Item = &'static Variable> {
        self.variables.iter().flat_map(|group| group.iter())
    }
}
