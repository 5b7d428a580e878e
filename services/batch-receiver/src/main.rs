//! The batch-receiver's process: configuration, telemetry, two listeners, and [`batch_receiver::run`].

use std::process::ExitCode;

use batch_receiver::{Config, SERVICE};
use fedstream_service::cli::{self, Failure};
use fedstream_service::{config, metrics, runtime, shutdown, telemetry};

fn main() -> ExitCode {
    cli::entry(&SERVICE);
    cli::exit(&SERVICE, runtime::run(serve()))
}

async fn serve() -> Result<(), Failure> {
    let config: Config = config::load(&SERVICE)?; // nothing bound yet; an error names the variable
    let grace = config.common.shutdown_grace.get();
    let telemetry = telemetry::init(&SERVICE, &config.common.telemetry)?;
    let metrics = metrics::init(&SERVICE, &config.common.telemetry)?;
    let listener = cli::bind("FED_LISTEN", config.listen).await?;
    let admin = cli::bind("FED_ADMIN_LISTEN", config.common.admin_listen).await?;
    let stop = shutdown::signal().map_err(Failure::other)?;
    batch_receiver::run(config, listener, admin, stop).await.map_err(Failure::unavailable)?;
    telemetry.flush(grace); // the last spans leave before we do
    metrics.flush(grace);
    Ok(())
}
