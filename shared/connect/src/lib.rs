//! From the variables that name a broker to a connection: what every program that talks to the broker does first.
//!
//! `fedstream-service` reads `NATS_*` and `FED_STREAMS` and knows no broker; `fedstream-jetstream` connects and knows no
//! environment. Here, and nowhere else, one becomes the other; so a variable means the same to a service and to a tool.

mod durability;
mod metrics;

pub use durability::DurabilityWatch;

use fedstream_jetstream::{Broker, NatsSettings, StreamsMode};
use fedstream_service::cli::Failure;
use fedstream_service::config::nats::{NatsConfig, Streams};

/// The variables as settings.
fn settings(config: &NatsConfig) -> NatsSettings {
    // Every field by name: a new variable that is forgotten here does not compile.
    let NatsConfig {
        url,
        user,
        password,
        creds_file,
        ca_file,
        inbox_prefix,
        monitor_url,
        connect_timeout,
        streams,
        replicas,
    } = config.clone();
    NatsSettings {
        url,
        user,
        password: password.map(|secret| secret.expose().to_owned()),
        creds_file,
        ca_file,
        inbox_prefix,
        connect_timeout: connect_timeout.get(),
        streams: match streams {
            Streams::Create => StreamsMode::Create,
            Streams::Bind => StreamsMode::Bind,
        },
        monitor_url,
        replicas: usize::from(replicas.0),
    }
}

/// Waits for the broker, and refuses one that would lose data. From then on metrics show the connection.
///
/// # Errors
/// One line and an exit code: 64 where a variable can't be right, 69 where waiting may help, 78 where the broker is unfit.
pub async fn connect(config: &NatsConfig, client_name: &str) -> Result<Broker, Failure> {
    let connected = Broker::connect(settings(config), client_name).await;
    let broker = connected.map_err(|error| Failure { code: error.exit_code(), line: error.to_string() })?;
    metrics::observe(&broker);
    Ok(broker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_service::Service;
    use fedstream_service::config::{Environment, load_from, nats};

    static SERVICE: Service = Service { name: "sample", about: "", version: "0", variables: &[&nats::VARIABLES] };

    #[test]
    fn every_variable_arrives_in_its_setting() {
        let pairs = [
            ("NATS_URL", "nats://broker:4222"),
            ("NATS_USER", "me"),
            ("NATS_PASSWORD", "s3cret"),
            ("NATS_CA_FILE", "/ca.pem"),
            ("NATS_INBOX_PREFIX", "_INBOX_me"),
            ("NATS_MONITOR_URL", "http://broker:8222"),
            ("NATS_CONNECT_TIMEOUT", "3s"),
            ("FED_STREAMS", "bind"),
            ("FED_STREAM_REPLICAS", "3"),
        ];
        let config: NatsConfig = load_from(&SERVICE, &Environment::from_pairs(&pairs)).unwrap();
        let settings = settings(&config);
        assert_eq!((settings.url.as_str(), settings.user.as_deref()), ("nats://broker:4222", Some("me")));
        assert_eq!((settings.password.as_deref(), settings.creds_file), (Some("s3cret"), None));
        assert_eq!(settings.ca_file.as_deref(), Some(std::path::Path::new("/ca.pem")));
        assert_eq!(settings.inbox_prefix.as_deref(), Some("_INBOX_me"));
        assert_eq!(settings.monitor_url.as_deref(), Some("http://broker:8222"));
        assert_eq!((settings.connect_timeout.as_secs(), settings.replicas), (3, 3));
        assert_eq!(settings.streams, StreamsMode::Bind);
    }
}
