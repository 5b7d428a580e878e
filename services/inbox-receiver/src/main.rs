//! The front door's process: configuration, telemetry, broker, listeners, and out again in the opposite order.

use std::process::ExitCode;

use fedstream_service::cli::{self, Failure};
use fedstream_service::{config, metrics, runtime, shutdown, telemetry};
use inbox_receiver::{Config, SERVICE};

fn main() -> ExitCode {
    cli::entry(&SERVICE);
    cli::exit(&SERVICE, runtime::run(serve()))
}

async fn serve() -> Result<(), Failure> {
    let config: Config = config::load(&SERVICE)?; // nothing bound yet; an error names the variable
    let telemetry = telemetry::init(&SERVICE, &config.common.telemetry)?;
    let metrics = metrics::init(&SERVICE, &config.common.telemetry)?;
    let stop = shutdown::signal().map_err(Failure::other)?;
    let stream = tokio::select! {
        stream = inbox_receiver::connect(&config) => stream?,
        () = stop.cancelled() => return Ok(()), // told to stop while waiting for a broker
    };
    let listener = cli::bind("FED_LISTEN", config.listen).await?;
    let admin = cli::bind("FED_ADMIN_LISTEN", config.common.admin_listen).await?;
    let grace = config.common.shutdown_grace.get();
    inbox_receiver::run(config, stream, listener, admin, stop).await?;
    telemetry.flush(grace); // the last spans leave before we do
    metrics.flush(grace);
    Ok(())
}
