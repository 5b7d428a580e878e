//! The variables of a service that talks to the broker. Plain values: what is done with them is the business of
//! `fedstream-jetstream`, which this crate doesn't know.

use std::path::PathBuf;
use std::str::FromStr;

use envconfig::Envconfig;

use super::{Check, ConfigError, NotA, Secret, Span, Variable};

/// Where the broker is, who we are there, and whether the streams are ours to make.
#[derive(Debug, Clone, Envconfig)]
pub struct NatsConfig {
    /// One or more servers, comma separated.
    #[envconfig(from = "NATS_URL")]
    pub url: String,
    /// User name.
    #[envconfig(from = "NATS_USER")]
    pub user: Option<String>,
    /// Password of the user.
    #[envconfig(from = "NATS_PASSWORD")]
    pub password: Option<Secret>,
    /// A credentials file (JWT and seed), instead of a user.
    #[envconfig(from = "NATS_CREDS_FILE")]
    pub creds_file: Option<PathBuf>,
    /// A certificate authority to trust beside the system's.
    #[envconfig(from = "NATS_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// Prefix of reply subjects, where the broker's permissions give each user its own.
    #[envconfig(from = "NATS_INBOX_PREFIX")]
    pub inbox_prefix: Option<String>,
    /// The broker's monitoring address, to see whether a 204 means "on disk".
    #[envconfig(from = "NATS_MONITOR_URL")]
    pub monitor_url: Option<String>,
    /// How long to try at start.
    #[envconfig(from = "NATS_CONNECT_TIMEOUT")]
    pub connect_timeout: Span,
    /// Make the streams, or bind to those declared elsewhere.
    #[envconfig(from = "FED_STREAMS")]
    pub streams: Streams,
    /// Replicas of a stream that is made here.
    #[envconfig(from = "FED_STREAM_REPLICAS")]
    pub replicas: Replicas,
}

/// Who makes the streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// This service, when they are missing.
    Create,
    /// Somebody else (Kubernetes with NACK): missing is an error.
    Bind,
}

impl FromStr for Streams {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        match text.trim() {
            "create" => Ok(Self::Create),
            "bind" => Ok(Self::Bind),
            _ => Err(NotA("create or bind")),
        }
    }
}

/// Copies of a stream: 1, 3 or 5 (an even number adds cost and no safety).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas(pub u8);

impl FromStr for Replicas {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        match text.trim().parse() {
            Ok(count @ (1 | 3 | 5)) => Ok(Self(count)),
            _ => Err(NotA("1, 3 or 5")),
        }
    }
}

impl Check for NatsConfig {
    fn check(&self) -> Result<(), ConfigError> {
        if self.user.is_some() != self.password.is_some() {
            return Err(ConfigError::between("NATS_USER and NATS_PASSWORD: one is set without the other"));
        }
        if self.user.is_some() && self.url.contains('@') {
            return Err(ConfigError::between("NATS_URL and NATS_USER: both name a user, one must go"));
        }
        if self.user.is_some() && self.creds_file.is_some() {
            return Err(ConfigError::between("NATS_USER and NATS_CREDS_FILE: both are set, one must go"));
        }
        Ok(())
    }
}

/// The table of [`NatsConfig`].
pub const VARIABLES: [Variable; 10] = [
    Variable::new::<String>("NATS_URL", "nats://127.0.0.1:4222", "the broker; several servers separated by commas")
        .default("nats://127.0.0.1:4222"),
    Variable::new::<String>("NATS_USER", "inbox-receiver", "user at the broker").optional(),
    Variable::new::<Secret>("NATS_PASSWORD", "s3cret", "its password").optional().secret(),
    Variable::new::<PathBuf>("NATS_CREDS_FILE", "/run/secrets/nats.creds", "credentials file, instead of a user")
        .optional(),
    Variable::new::<PathBuf>("NATS_CA_FILE", "/etc/ssl/nats-ca.pem", "certificate authority of the broker").optional(),
    Variable::new::<String>(
        "NATS_INBOX_PREFIX",
        "_INBOX_receiver",
        "prefix of reply subjects, where permissions ask for one",
    )
    .optional(),
    Variable::new::<String>(
        "NATS_MONITOR_URL",
        "http://127.0.0.1:8222",
        "monitoring address of the broker, to see that it syncs each write",
    )
    .optional(),
    Variable::new::<Span>("NATS_CONNECT_TIMEOUT", "30s", "how long to try to reach the broker at start").default("30s"),
    Variable::new::<Streams>("FED_STREAMS", "bind", "create: make missing streams; bind: they are declared elsewhere")
        .default("create"),
    Variable::new::<Replicas>("FED_STREAM_REPLICAS", "3", "replicas of a stream made here").default("1"),
];
