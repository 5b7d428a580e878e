//! The broker, reached with the services' own variables, and the streams that a command needs: bound, never made.

use std::time::Duration;

use fedstream_jetstream::streams::{self, StreamNeed};
use fedstream_jetstream::{Broker, Definition, lane_settings, leases};
use fedstream_service::Service;
use fedstream_service::cli::Failure;
use fedstream_service::config::nats::{self, NatsConfig, Streams};
use fedstream_service::config::{Environment, Variable, load_from};

/// Name and variables.
pub static SERVICE: Service = Service {
    name: "fedctl",
    about: "The operator's tool of fedstream.",
    version: env!("CARGO_PKG_VERSION"),
    variables: &[&nats::VARIABLES],
};

/// Variables of a service that makes and watches streams. They may be set here, for one file of settings serves all.
const OF_SERVICES: [&str; 3] = ["NATS_MONITOR_URL", "FED_STREAMS", "FED_STREAM_REPLICAS"];

/// Whoever sits in front of it wonders by then.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// The variables that matter here.
pub fn variables() -> impl Iterator<Item = &'static Variable> {
    SERVICE.all_variables().filter(|variable| !OF_SERVICES.contains(&variable.name))
}

/// Connects, and makes sure that these streams are there and fit.
///
/// # Errors
/// 64 for a wrong variable, 69 for a broker or a stream that is away, 78 for one that is not safe.
pub async fn connect(needs: &[&'static Definition]) -> Result<Broker, Failure> {
    // Not `load`: it warns of the services' other variables, and this may be run with the settings of any of them.
    let mut config: NatsConfig = load_from(&SERVICE, &Environment::of_process())?;
    config.streams = Streams::Bind;
    let mut connecting = Box::pin(fedstream_connect::connect(&config, SERVICE.name));
    let broker = match tokio::time::timeout(SILENCE_MAX, &mut connecting).await {
        Ok(broker) => broker?,
        Err(_) => {
            eprintln!("fedctl: no broker yet, trying for {} (NATS_CONNECT_TIMEOUT)", config.connect_timeout);
            connecting.await?
        }
    };
    for definition in needs {
        need(&broker, definition).await?;
    }
    Ok(broker)
}

/// Makes sure that a stream is there and fits.
///
/// # Errors
/// As [`connect`].
pub async fn need(broker: &Broker, definition: &'static Definition) -> Result<(), Failure> {
    observe(broker, definition).await.map_err(refused)
}

/// Whether a stream is there; one that is has to fit. A broker of one direction has no streams of the other.
///
/// # Errors
/// As [`connect`], but for one that is missing.
pub async fn has(broker: &Broker, definition: &'static Definition) -> Result<bool, Failure> {
    match observe(broker, definition).await {
        Ok(()) => Ok(true),
        Err(streams::Error::Missing { .. }) => Ok(false),
        Err(error) => Err(refused(error)),
    }
}

async fn observe(broker: &Broker, definition: &'static Definition) -> Result<(), streams::Error> {
    Box::pin(streams::observe(broker, &StreamNeed::plain(definition))).await.map(drop)
}

/// A stream that is not as it should be.
fn refused(error: streams::Error) -> Failure {
    match error {
        streams::Error::Missing { stream } => Failure::unavailable(format_args!(
            "stream {stream} is missing; fedctl makes none: the services do when they start, or whoever declares them"
        )),
        other => Failure { code: other.exit_code(), line: other.to_string() },
    }
}

/// Settings that are not read or stored.
pub fn of_settings(error: lane_settings::Error) -> Failure {
    match error {
        lane_settings::Error::Bucket(error) => refused(error),
        error @ lane_settings::Error::Refused { .. } => Failure::usage(error),
        error => Failure::unavailable(error),
    }
}

/// Leases that are not read.
pub fn of_leases(error: leases::Error) -> Failure {
    Failure { code: error.exit_code(), line: error.to_string() }
}
