//! The connection: made once at start, kept for ever after.
//!
//! At start it waits for a broker, one log line a try, and gives up in one line. Once connected it reconnects by
//! itself, at most a quarter of a second after the broker is back, and counts each time ([`Broker::generation`]):
//! ordered consumers left alone take 15 s after a restart, rebuilt on that count they take 55 ms. It refuses servers
//! that are known to lose data. No credential is ever in an error or a log line.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::{self, context::ContextBuilder};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{NatsSettings, tls};

/// Older servers lose data: a 2.10 cluster acknowledges a message as a duplicate that it refused before.
const VERSION_OLDEST: (u64, u64) = (2, 12);

/// What this code was measured and tested against.
const VERSION_TESTED: (u64, u64) = (2, 15);

/// Services must work again two seconds after the broker does, so a try is never far away.
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(250);

/// A try at an address that swallows packets must not hold up the next for long.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two tries at start, at most: each is a log line.
const START_DELAY_MAX: Duration = Duration::from_secs(1);

/// A broker that vanished without a goodbye is noticed after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Requests to JetStream's API; a healthy one answers in milliseconds.
const API_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no usable broker. One line each, without credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No try succeeded.
    #[error("NATS_URL: no broker at {url} within {waited:.1?}: {cause}")]
    Unreachable {
        /// The address, without credentials.
        url: String,
        /// How long it was tried.
        waited: Duration,
        /// What the last try met.
        cause: String,
    },
    /// An address that can't be read.
    #[error("NATS_URL: {url:?} is not an address of a NATS server, for example nats://127.0.0.1:4222")]
    BadUrl {
        /// The address, without credentials.
        url: String,
    },
    /// The credentials file can't be read.
    #[error("NATS_CREDS_FILE: {cause}")]
    CredentialsFile {
        /// The operating system's words, or the parser's.
        cause: String,
    },
    /// The certificate authority's file can't be read: the library would say so of the connection, and try for ever.
    #[error("NATS_CA_FILE: {cause}")]
    CaFile {
        /// The operating system's words.
        cause: String,
    },
    /// The broker does not let this user in.
    #[error("NATS_URL: the broker at {url} refuses these credentials (NATS_USER, NATS_PASSWORD, NATS_CREDS_FILE)")]
    Unauthorized {
        /// The address, without credentials.
        url: String,
    },
    /// A server that is known to lose data.
    #[error(
        "nats-server {version} is older than 2.12: such a cluster acknowledges activities that it did not store; use 2.15 or newer"
    )]
    TooOld {
        /// What the server says it is.
        version: String,
    },
    /// A server that does not say what it is.
    #[error("the broker's version {version:?} can't be read: fedstream needs nats-server 2.12 or newer")]
    UnknownVersion {
        /// What the server says it is.
        version: String,
    },
    /// Messages that a service must be able to store would be refused.
    #[error(
        "max_payload of the broker is {found}, must be at least {needed}: the body limit and 80 KiB of headers must fit"
    )]
    PayloadTooSmall {
        /// The server's `max_payload`, in bytes.
        found: u64,
        /// What is needed, in bytes.
        needed: u64,
    },
}

impl Error {
    /// The process exit code that says the same: 64 for a setting that can't be right, 69 where waiting may help, 78 where
    /// somebody has to act on the broker.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::BadUrl { .. } | Self::CredentialsFile { .. } | Self::CaFile { .. } => 64,
            Self::Unreachable { .. } => 69,
            _ => 78,
        }
    }
}

/// A connection to the broker. Cheap to clone; all clones are one connection.
#[derive(Clone)]
pub struct Broker {
    client: Client,
    context: jetstream::Context,
    settings: Arc<NatsSettings>,
    generation: watch::Receiver<u64>,
    version: Arc<str>,
}

impl Broker {
    /// Waits for a broker, up to `settings.connect_timeout`, and refuses one that would lose data.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn connect(settings: NatsSettings, client_name: &str) -> Result<Self, Error> {
        tls::install_provider();
        let started = Instant::now();
        let deadline = started + settings.connect_timeout;
        let url = settings.shown_url();
        let (bump, mut generation) = watch::channel(0);
        let bump = Arc::new(bump);
        let mut delay = RECONNECT_DELAY_MAX;
        let client = loop {
            let cause = match try_connect(&settings, client_name, &bump).await? {
                Ok(client) => break client,
                Err(cause) => cause,
            };
            if Instant::now() + delay >= deadline {
                return Err(Error::Unreachable { url, waited: started.elapsed(), cause });
            }
            tracing::warn!(%url, %cause, "no broker yet, trying again");
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(START_DELAY_MAX);
        };
        let version = client.server_info().version;
        check_version(&version)?;
        // The first connection counts as generation 1 before anybody looks, or a reader opened now would see it as a
        // reconnect. The event is on its way; if the library lost it, the count merely starts at 0.
        drop(tokio::time::timeout(ATTEMPT_TIMEOUT, generation.wait_for(|count| *count > 0)).await);
        let context = ContextBuilder::new().timeout(API_TIMEOUT).build(client.clone());
        tracing::info!(%url, %version, "connected to the broker");
        Ok(Self { client, context, settings: Arc::new(settings), generation, version: version.into() })
    }

    /// Refuses a broker whose largest message is smaller than this service's.
    ///
    /// # Errors
    /// [`Error::PayloadTooSmall`].
    pub fn check_max_payload(&self, needed: u64) -> Result<(), Error> {
        let found = self.client.max_payload() as u64;
        if found < needed { Err(Error::PayloadTooSmall { found, needed }) } else { Ok(()) }
    }

    /// Whether the connection is up at this moment.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// How many times the connection was made. It grows with each reconnect; what is now counts as seen.
    #[must_use]
    pub fn generation(&self) -> watch::Receiver<u64> {
        let mut generation = self.generation.clone();
        generation.mark_unchanged();
        generation
    }

    /// The NATS connection itself.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// JetStream over it.
    #[must_use]
    pub fn context(&self) -> &jetstream::Context {
        &self.context
    }

    /// What it was connected with.
    #[must_use]
    pub fn settings(&self) -> &NatsSettings {
        &self.settings
    }

    /// The server's version at the first connection.
    #[must_use]
    pub fn server_version(&self) -> &str {
        &self.version
    }
}

/// One try. The outer error is final, the inner one is worth another try.
async fn try_connect(
    settings: &NatsSettings,
    client_name: &str,
    bump: &Arc<watch::Sender<u64>>,
) -> Result<Result<Client, String>, Error> {
    let url = || settings.shown_url();
    // Without the credentials: the library would not use them, and log them at debug level.
    let addresses: Vec<ServerAddr> = url()
        .split(',')
        .map(|part| part.trim().parse().map_err(|_| Error::BadUrl { url: url() }))
        .collect::<Result<_, _>>()?;
    let options = options(settings, client_name, bump.clone()).await?;
    // Boxed: the library's future is 16 kB, and every caller's would be.
    match Box::pin(options.connect(addresses)).await {
        Ok(client) => Ok(Ok(client)),
        Err(error) => match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                Err(Error::Unauthorized { url: url() })
            }
            ConnectErrorKind::ServerParse => Err(Error::BadUrl { url: url() }),
            _ => Ok(Err(error.to_string())),
        },
    }
}

async fn options(
    settings: &NatsSettings,
    client_name: &str,
    bump: Arc<watch::Sender<u64>>,
) -> Result<ConnectOptions, Error> {
    let mut options = ConnectOptions::new()
        .name(client_name)
        .connection_timeout(ATTEMPT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .request_timeout(Some(API_TIMEOUT))
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(move |event| {
            let bump = bump.clone();
            async move { note(&event, &bump) }
        });
    options = match (&settings.user, settings.url_credentials()) {
        (Some(user), _) => options.user_and_password(user.clone(), settings.password.clone().unwrap_or_default()),
        (None, Some((user, Some(password)))) => options.user_and_password(user, password),
        (None, Some((token, None))) => options.token(token),
        (None, None) => options,
    };
    if let Some(file) = &settings.creds_file {
        options = options
            .credentials_file(file)
            .await
            .map_err(|error| Error::CredentialsFile { cause: format!("{}: {error}", file.display()) })?;
    }
    if let Some(file) = &settings.ca_file {
        std::fs::File::open(file).map_err(|error| Error::CaFile { cause: format!("{}: {error}", file.display()) })?;
        options = options.add_root_certificates(file.clone()).require_tls(true);
    }
    if let Some(prefix) = &settings.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    Ok(options)
}

/// 0, 20, 40, 80, .. ms, up to [`RECONNECT_DELAY_MAX`].
fn reconnect_delay(attempts: usize) -> Duration {
    if attempts <= 1 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(attempts - 1).unwrap_or(u32::MAX).min(10);
    Duration::from_millis(10 << doublings).min(RECONNECT_DELAY_MAX)
}

fn note(event: &Event, bump: &watch::Sender<u64>) {
    match event {
        Event::Connected => bump.send_modify(|count| *count += 1),
        Event::Disconnected => tracing::warn!("the connection to the broker is lost"),
        Event::SlowConsumer(_) | Event::ServerError(_) => {
            tracing::warn!(%event, "the broker complains")
        }
        _ => tracing::debug!(%event, "connection"),
    }
}

/// Refuses what is known to lose data, says "untested" of what was never tried.
fn check_version(version: &str) -> Result<(), Error> {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']).map(str::parse::<u64>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Err(Error::UnknownVersion { version: version.to_owned() });
    };
    if (major, minor) < VERSION_OLDEST {
        return Err(Error::TooOld { version: version.to_owned() });
    }
    if (major, minor) < VERSION_TESTED {
        tracing::warn!(version, "fedstream is untested with nats-server below 2.15");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_older_than_2_12_are_refused_and_unreadable_versions_too() {
        for version in ["2.12.0", "2.12.3-beta.1", "2.15.1", "3.0.0", "v2.14.0"] {
            assert!(check_version(version).is_ok(), "{version}");
        }
        for version in ["2.10.27", "2.9.25", "2.11.11", "1.4.1"] {
            assert!(matches!(check_version(version), Err(Error::TooOld { .. })), "{version}");
        }
        for version in ["", "unknown", "2", "2.x.1"] {
            assert!(matches!(check_version(version), Err(Error::UnknownVersion { .. })), "{version}");
        }
    }

    #[test]
    fn a_reconnect_is_never_more_than_a_quarter_of_a_second_away() {
        assert_eq!(reconnect_delay(1), Duration::ZERO);
        assert_eq!(reconnect_delay(2), Duration::from_millis(20));
        for attempts in [5, 6, 100, usize::MAX] {
            assert!(reconnect_delay(attempts) <= RECONNECT_DELAY_MAX);
        }
    }
}
