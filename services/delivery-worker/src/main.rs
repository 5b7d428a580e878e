//! The delivery-worker process: configuration, telemetry, keys, broker, listener, then [`delivery_worker::run`].

use std::process::ExitCode;

use delivery_worker::{Config, SERVICE};
use fedstream_service::cli::{self, Failure};
use fedstream_service::{config, metrics, runtime, shutdown, telemetry};

fn main() -> ExitCode {
    cli::entry(&SERVICE);
    cli::exit(&SERVICE, runtime::run(start()))
}

async fn start() -> Result<(), Failure> {
    let config: Config = config::load(&SERVICE)?; // nothing bound yet; an error names the variable
    let telemetry = telemetry::init(&SERVICE, &config.common.telemetry)?;
    let metrics = metrics::init(&SERVICE, &config.common.telemetry)?;
    let grace = config.common.shutdown_grace.get();
    let ports = config.ports()?; // keys, certificate authorities: what is missing is said before there is a broker
    let shutdown = shutdown::signal().map_err(Failure::other)?;
    let broker = tokio::select! {
        broker = fedstream_connect::connect(&config.nats, SERVICE.name) => broker?,
        () = shutdown.cancelled() => return Ok(()), // told to stop before there was a broker
    };
    let admin = cli::bind("FED_ADMIN_LISTEN", config.common.admin_listen).await?;
    let result = Box::pin(delivery_worker::run(config, ports, broker, admin, shutdown)).await; // boxed: several kB
    telemetry.flush(grace); // the last spans leave before we do
    metrics.flush(grace);
    result.map_err(|error| Failure { code: error.exit_code(), line: error.to_string() })
}
