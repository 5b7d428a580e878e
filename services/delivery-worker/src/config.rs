//! The variables of this service.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use envconfig::Envconfig;
use federation::breaker;
use federation::keys::Unreadable;
use federation::{Attempts, Client, Guard, History, Limits, OutboxCollection, OutboxSetup, PemDirectory, Setup};
use fedstream_service::Service;
use fedstream_service::config::common::{self, CommonConfig};
use fedstream_service::config::nats::{self, NatsConfig};
use fedstream_service::config::{Bytes, Check, ConfigError, Count, NotA, Secret, SenderId, Span, Switch, Variable};
use http::HeaderValue;

use crate::Ports;
use crate::plan::Settings;
use crate::remotes::millis;
use crate::suspicion;

/// Name, `--help` and the table of variables.
pub static SERVICE: Service = Service {
    name: "delivery-worker",
    about: "Reads each lane of FED_OUTBOX in order, signs its activities and posts them to the remote's inboxes; walks the backfill jobs of FED_BACKFILL.",
    version: env!("CARGO_PKG_VERSION"),
    variables: &[&VARIABLES, &nats::VARIABLES, &common::variables("127.0.0.1:9093")],
};

const VARIABLES: [Variable; 35] = [
    Variable::new::<PathBuf>(
        "FED_KEYS_DIR",
        "/run/secrets/actors",
        "directory of the actors' private keys, <actor id>.pem (RSA, Ed25519 or both); read again when a file changes",
    ),
    Variable::new::<String>(
        "FED_KEY_ID_TEMPLATE",
        "https://our.example/users/{actor}#main-key",
        "id of a key whose file has no `Key-Id:` line; {actor} is the actor's id",
    )
    .optional(),
    Variable::new::<Span>(
        "FED_KEY_WAIT",
        "1h",
        "a delivery is given up after so long without a key for its actor, or of nothing but 401 or a redirect that a POST does not follow, where its remote takes others meanwhile: its lane waits behind it",
    )
    .default("1h"),
    Variable::new::<SenderId>("FED_SENDER_ID", "worker-a", "name of this process in leases and logs, its own; unset: random")
        .optional(),
    Variable::new::<String>("HTTP_USER_AGENT", "our.example/1.0", "User-Agent of deliveries")
        .default(concat!("fedstream/", env!("CARGO_PKG_VERSION"))),
    Variable::new::<PathBuf>(
        "FED_REMOTE_CA_FILE",
        "/etc/fedstream/remotes-ca.pem",
        "certificate authorities (PEM) that remotes' certificates must come from, instead of the system's",
    )
    .optional(),
    Variable::new::<Switch>(
        "FED_PRIVATE_TARGETS",
        "no",
        "yes: deliver to private and loopback addresses too, and over http. For development only",
    )
    .default("no"),
    Variable::new::<Span>("FED_DELIVERY_HORIZON", "3days", "a delivery is tried for so long after it was requested")
        .default("3days"),
    Variable::new::<Span>("FED_DELIVERY_TIMEOUT", "30s", "a remote has so long to answer").default("30s"),
    Variable::new::<Span>("FED_CONNECT_TIMEOUT", "10s", "and so long of it to take the connection").default("10s"),
    Variable::new::<Count>(
        "FED_DELIVERIES_MAX",
        "256",
        "requests at a time, to all remotes together; as many again to those that fail or take long",
    )
    .default("256"),
    Variable::new::<Span>("FED_BACKOFF_MIN", "2s", "pause after a first failure; doubled with each further one")
        .default("2s"),
    Variable::new::<Span>("FED_BACKOFF_MAX", "15m", "longest pause").default("15m"),
    Variable::new::<Span>("FED_RETRY_AFTER_MAX", "1h", "a remote's Retry-After holds all its lanes, up to this")
        .default("1h"),
    Variable::new::<Count>("FED_POISON_ATTEMPTS", "5", "so often an activity has to be answered 500 to be parked")
        .default("5"),
    Variable::new::<Span>("FED_POISON_AFTER", "15m", "and over so long, while the remote takes others").default("15m"),
    Variable::new::<Span>(
        "FED_POISON_PROBED_AFTER",
        "6h",
        "and over so long, where nothing but FED_POISON_PROBE says that the remote is up",
    )
    .default("6h"),
    Variable::new::<Page>("FED_POISON_PROBE", "/.well-known/nodeinfo", "page of a remote that is asked for then; off: none")
        .default("/.well-known/nodeinfo"),
    Variable::new::<Count>("FED_BREAKER_FAILURES", "5", "so many failures in a row, and a remote counts as down")
        .default("5"),
    Variable::new::<Span>("FED_BREAKER_MIN", "10s", "a remote that is down is left alone for so long first, then probed")
        .default("10s"),
    Variable::new::<Span>("FED_BREAKER_MAX", "15m", "longest time between two probes").default("15m"),
    Variable::new::<Span>(
        "FED_RAMP_PAUSE",
        "500ms",
        "between the first two requests to a remote that is back; shorter with each answer",
    )
    .default("500ms"),
    Variable::new::<Partitions>(
        "FED_PARTITIONS",
        "4",
        "lanes of one remote: the number that every publisher uses (a backfill is published here)",
    )
    .default("4"),
    Variable::new::<String>(
        "FED_OUTBOX_URL_TEMPLATE",
        "http://127.0.0.1:3000/users/{owner}/outbox",
        "where a user's outbox collection is read for backfills; unset: backfill jobs are left to other workers",
    )
    .optional(),
    Variable::new::<Secret>("FED_OUTBOX_AUTHORIZATION", "Bearer s3cret", "Authorization of these requests")
        .optional()
        .secret(),
    Variable::new::<Bytes>("FED_BACKFILL_PAGE_BYTES", "4MiB", "largest page of an outbox collection").default("4MiB"),
    Variable::new::<Span>("FED_BACKFILL_PAUSE", "500ms", "pause between two pages of a history").default("500ms"),
    Variable::new::<Count>(
        "FED_BACKFILL_WATERMARK",
        "20",
        "a history feeds a lane only while that holds fewer deliveries: what is live goes first",
    )
    .default("20"),
    Variable::new::<Bytes>("FED_HELD_BYTES", "256MiB", "bytes that all lanes hold in memory together").default("256MiB"),
    Variable::new::<Span>(
        "FED_LEASE_TTL",
        "15s",
        "a dead worker's lanes are taken over after so long; where the bucket fed_leases is there already, its max_age counts",
    )
    .default("15s"),
    Variable::new::<Span>(
        "FED_TRIM_INTERVAL",
        "20ms",
        "shortest time between two purges of a lane: what is delivered and not purged comes again after a crash",
    )
    .default("20ms"),
    Variable::new::<Span>(
        "FED_DISCOVERY_INTERVAL",
        "500ms",
        "how often the stream is asked which lanes hold something",
    )
    .default("500ms"),
    Variable::new::<Span>("FED_LANE_IDLE", "60s", "a lane's consumer is deleted after so long without a delivery")
        .default("60s"),
    Variable::new::<Count>(
        "FED_LANES_MAX",
        "5000",
        "most lanes at a time, those of dead remotes among them; each with a backlog costs a consumer",
    )
    .default("5000"),
    Variable::new::<Span>("FED_OUTBOX_TIMEOUT", "30s", "the application has so long for a page of an outbox").default("30s"),
];

/// A shorter one would be lost to a broker that pauses for a moment.
const LEASE_TTL_MIN: Duration = Duration::from_secs(1);

/// All settings.
#[derive(Clone, Debug, Envconfig)]
pub struct Config {
    /// Private keys.
    #[envconfig(from = "FED_KEYS_DIR")]
    pub keys_dir: PathBuf,
    /// Ids of keys that name none.
    #[envconfig(from = "FED_KEY_ID_TEMPLATE")]
    pub key_id_template: Option<String>,
    /// How long a missing key is waited for.
    #[envconfig(from = "FED_KEY_WAIT")]
    pub key_wait: Span,
    /// Name in leases and logs.
    #[envconfig(from = "FED_SENDER_ID")]
    pub sender_id: Option<SenderId>,
    /// User-Agent.
    #[envconfig(from = "HTTP_USER_AGENT")]
    pub user_agent: String,
    /// Certificate authorities.
    #[envconfig(from = "FED_REMOTE_CA_FILE")]
    pub remote_ca_file: Option<PathBuf>,
    /// Development only.
    #[envconfig(from = "FED_PRIVATE_TARGETS")]
    pub private_targets: Switch,
    /// For how long a delivery is tried.
    #[envconfig(from = "FED_DELIVERY_HORIZON")]
    pub horizon: Span,
    /// A whole request.
    #[envconfig(from = "FED_DELIVERY_TIMEOUT")]
    pub delivery_timeout: Span,
    /// To connect.
    #[envconfig(from = "FED_CONNECT_TIMEOUT")]
    pub connect_timeout: Span,
    /// Requests at a time.
    #[envconfig(from = "FED_DELIVERIES_MAX")]
    pub deliveries_max: Count,
    /// First pause.
    #[envconfig(from = "FED_BACKOFF_MIN")]
    pub backoff_min: Span,
    /// Longest pause.
    #[envconfig(from = "FED_BACKOFF_MAX")]
    pub backoff_max: Span,
    /// Bound of Retry-After.
    #[envconfig(from = "FED_RETRY_AFTER_MAX")]
    pub retry_after_max: Span,
    /// How often a 500 makes poison.
    #[envconfig(from = "FED_POISON_ATTEMPTS")]
    pub poison_attempts: Count,
    /// And over how long.
    #[envconfig(from = "FED_POISON_AFTER")]
    pub poison_after: Span,
    /// And over how long on weaker evidence.
    #[envconfig(from = "FED_POISON_PROBED_AFTER")]
    pub poison_probed_after: Span,
    /// What is asked for then.
    #[envconfig(from = "FED_POISON_PROBE")]
    pub poison_probe: Page,
    /// Failures in a row.
    #[envconfig(from = "FED_BREAKER_FAILURES")]
    pub breaker_failures: Count,
    /// First pause before a probe.
    #[envconfig(from = "FED_BREAKER_MIN")]
    pub breaker_min: Span,
    /// Longest pause before a probe.
    #[envconfig(from = "FED_BREAKER_MAX")]
    pub breaker_max: Span,
    /// How gently a remote that is back is met.
    #[envconfig(from = "FED_RAMP_PAUSE")]
    pub ramp_pause: Span,
    /// Lanes of a remote.
    #[envconfig(from = "FED_PARTITIONS")]
    pub partitions: Partitions,
    /// Where outboxes are.
    #[envconfig(from = "FED_OUTBOX_URL_TEMPLATE")]
    pub outbox_url_template: Option<String>,
    /// Credential for them.
    #[envconfig(from = "FED_OUTBOX_AUTHORIZATION")]
    pub outbox_authorization: Option<Secret>,
    /// One of their pages.
    #[envconfig(from = "FED_OUTBOX_TIMEOUT")]
    pub outbox_timeout: Span,
    /// And its size.
    #[envconfig(from = "FED_BACKFILL_PAGE_BYTES")]
    pub backfill_page_bytes: Bytes,
    /// Between two pages.
    #[envconfig(from = "FED_BACKFILL_PAUSE")]
    pub backfill_pause: Span,
    /// How full a lane may be for a backfill.
    #[envconfig(from = "FED_BACKFILL_WATERMARK")]
    pub backfill_watermark: Count,
    /// Bytes of all lanes in memory.
    #[envconfig(from = "FED_HELD_BYTES")]
    pub held_bytes: Bytes,
    /// How long a dead process keeps its lanes.
    #[envconfig(from = "FED_LEASE_TTL")]
    pub lease_ttl: Span,
    /// Between two purges.
    #[envconfig(from = "FED_TRIM_INTERVAL")]
    pub trim_interval: Span,
    /// Between two discoveries.
    #[envconfig(from = "FED_DISCOVERY_INTERVAL")]
    pub discovery_interval: Span,
    /// When an idle lane is closed.
    #[envconfig(from = "FED_LANE_IDLE")]
    pub lane_idle: Span,
    /// Lanes at a time.
    #[envconfig(from = "FED_LANES_MAX")]
    pub lanes_max: Count,
    /// The broker.
    #[envconfig(nested)]
    pub nats: NatsConfig,
    /// What every service has.
    #[envconfig(nested)]
    pub common: CommonConfig,
}

impl Config {
    /// How the worker works.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let breaker = breaker::Limits {
            failures: self.breaker_failures.0,
            open_min_ms: millis(self.breaker_min.get()),
            open_max_ms: millis(self.breaker_max.get()),
            busy_max_ms: millis(self.retry_after_max.get()),
            probe_max_ms: millis(self.attempt() * 2), // whoever made it is gone by then
            ..breaker::Limits::default()
        };
        let poison = suspicion::Rule {
            attempts: self.poison_attempts.0,
            after: self.poison_after.get(),
            probed_after: self.poison_probed_after.get(),
            probe: self.poison_probe.0.clone(),
        };
        Settings {
            sender_id: self.sender_id.clone().map(|id| id.0),
            horizon: self.horizon.get(),
            backoff_min: self.backoff_min.get(),
            backoff_max: self.backoff_max.get(),
            retry_after_max: self.retry_after_max.get(),
            key_wait: self.key_wait.get(),
            deliveries_max: self.deliveries_max.get(),
            breaker,
            poison,
            ramp_pause: self.ramp_pause.get(),
            partitions: self.partitions.0,
            backfill_pause: self.backfill_pause.get(),
            backfill_watermark: u64::from(self.backfill_watermark.0),
            lanes_max: self.lanes_max.0,
            held_bytes: self.held_bytes.get(),
            lease_ttl: self.lease_ttl.get(),
            trim_interval: self.trim_interval.get(),
            discovery_interval: self.discovery_interval.get(),
            lane_idle: self.lane_idle.get(),
        }
    }

    /// Keys, the way to the remotes, and the application's outboxes.
    ///
    /// # Errors
    /// One of them can't be used; the variable that says so.
    pub fn ports(&self) -> Result<Ports, ConfigError> {
        let keys = PemDirectory::open(&self.keys_dir, self.key_id_template.clone());
        let keys = keys.map_err(|error| match error {
            Unreadable::Directory { .. } => ConfigError::new("FED_KEYS_DIR", error),
            Unreadable::Template(_) | Unreadable::TemplateText(_) => ConfigError::new("FED_KEY_ID_TEMPLATE", error),
        })?;
        let setup = Setup {
            guard: if self.private_targets.is_on() { Guard::development() } else { Guard::public() },
            limits: Limits {
                request: self.delivery_timeout.get(),
                attempt: self.attempt(),
                connect: self.connect_timeout.get(),
                ..Limits::default()
            },
            ca_file: self.remote_ca_file.clone(),
            user_agent: self.user_agent.clone(),
            ..Setup::default()
        };
        let client = Client::new(setup).map_err(|error| ConfigError::new("FED_REMOTE_CA_FILE", error))?;
        let history = self.outbox_url_template.as_ref().map(|template| self.history(template)).transpose()?;
        Ok(Ports { attempts: Attempts::new(client, Arc::new(keys)), history })
    }

    /// All of an attempt: two requests that hang, whatever the forms of signature and the redirects.
    fn attempt(&self) -> Duration {
        self.delivery_timeout.get() * 2
    }

    fn history(&self, template: &str) -> Result<Arc<dyn History>, ConfigError> {
        let setup = OutboxSetup {
            template: template.to_owned(),
            authorization: self.outbox_authorization.as_ref().map(|secret| secret.expose().to_owned()),
            timeout: self.outbox_timeout.get(),
            page_bytes: self.backfill_page_bytes.get(),
        };
        let outboxes = OutboxCollection::new(setup);
        Ok(Arc::new(outboxes.map_err(|error| ConfigError::new("FED_OUTBOX_URL_TEMPLATE", error))?))
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), ConfigError> {
        self.nats.check()?;
        let spans = [
            ("FED_DELIVERY_HORIZON", self.horizon),
            ("FED_DELIVERY_TIMEOUT", self.delivery_timeout),
            ("FED_CONNECT_TIMEOUT", self.connect_timeout),
            ("FED_BACKOFF_MIN", self.backoff_min),
            ("FED_BREAKER_MIN", self.breaker_min),
            ("FED_OUTBOX_TIMEOUT", self.outbox_timeout),
            ("FED_DISCOVERY_INTERVAL", self.discovery_interval),
            ("FED_LANE_IDLE", self.lane_idle),
            ("FED_TRIM_INTERVAL", self.trim_interval),
        ];
        if let Some((name, _)) = spans.into_iter().find(|(_, span)| span.get().is_zero()) {
            return Err(ConfigError::new(name, "must be above zero"));
        }
        let bytes = [("FED_HELD_BYTES", self.held_bytes), ("FED_BACKFILL_PAGE_BYTES", self.backfill_page_bytes)];
        if let Some((name, _)) = bytes.into_iter().find(|(_, bytes)| bytes.get() == 0) {
            return Err(ConfigError::new(name, "must be above zero"));
        }
        if self.lease_ttl.get() < LEASE_TTL_MIN {
            let why = "must be 1s at least: the broker looks for what expired once a second";
            return Err(ConfigError::new("FED_LEASE_TTL", why));
        }
        if self.poison_attempts.get() == 0 {
            return Err(ConfigError::new("FED_POISON_ATTEMPTS", "must be above zero"));
        }
        for (min, max, below) in [
            (self.backoff_min, self.backoff_max, "FED_BACKOFF_MAX is below FED_BACKOFF_MIN"),
            (self.breaker_min, self.breaker_max, "FED_BREAKER_MAX is below FED_BREAKER_MIN"),
            (self.poison_after, self.poison_probed_after, "FED_POISON_PROBED_AFTER is below FED_POISON_AFTER"),
        ] {
            if max.get() < min.get() {
                return Err(ConfigError::between(below));
            }
        }
        if HeaderValue::from_str(&self.user_agent).is_err() {
            return Err(ConfigError::new("HTTP_USER_AGENT", "has a character that an HTTP header can't carry"));
        }
        if self.outbox_authorization.is_some() && self.outbox_url_template.is_none() {
            return Err(ConfigError::new("FED_OUTBOX_AUTHORIZATION", "says nothing without FED_OUTBOX_URL_TEMPLATE"));
        }
        Ok(())
    }
}

/// A page of a remote, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page(pub Option<String>);

impl std::str::FromStr for Page {
    type Err = NotA;

    fn from_str(text: &str) -> Result<Self, NotA> {
        match text.trim() {
            "off" => Ok(Self(None)),
            // Not `//`: that would be another host.
            path if path.starts_with('/')
                && !path.starts_with("//")
                && path.parse::<http::uri::PathAndQuery>().is_ok() =>
            {
                Ok(Self(Some(path.to_owned())))
            }
            _ => Err(NotA("a path that begins with /, or off")),
        }
    }
}

/// How many lanes a remote has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions(pub NonZeroU16);

impl std::str::FromStr for Partitions {
    type Err = NotA;

    fn from_str(text: &str) -> Result<Self, NotA> {
        text.trim().parse().map(Self).map_err(|_| NotA("a whole number from 1 to 65535"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_service::config::{Environment, load_from};

    fn load(extra: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let pairs: Vec<_> = [("FED_KEYS_DIR", "/nowhere")].iter().chain(extra).copied().collect();
        load_from(&SERVICE, &Environment::from_pairs(&pairs))
    }

    #[test]
    fn what_is_not_set_is_as_for_an_application_that_runs_its_own() {
        let (config, ours) = (load(&[]).expect("defaults"), Settings::default());
        assert_eq!(format!("{:?}", config.settings()), format!("{ours:?}"));
    }

    #[test]
    fn a_wrong_value_names_its_variable() {
        for (name, value) in [
            ("FED_SENDER_ID", "a.b"),
            ("FED_PARTITIONS", "0"),
            ("FED_POISON_ATTEMPTS", "0"),
            ("FED_POISON_PROBE", "nodeinfo"),
            ("FED_POISON_PROBE", "//b.example/"),
            ("FED_POISON_PROBED_AFTER", "1m"),
            ("FED_DELIVERY_HORIZON", "0"),
            ("FED_DELIVERY_TIMEOUT", "soon"),
            ("FED_DELIVERIES_MAX", "0"),
            ("FED_BACKOFF_MAX", "1s"),
            ("FED_BREAKER_MAX", "1s"),
            ("FED_LEASE_TTL", "500ms"),
            ("FED_HELD_BYTES", "0"),
            ("FED_OUTBOX_AUTHORIZATION", "Bearer x"),
            ("FED_PRIVATE_TARGETS", "perhaps"),
        ] {
            let error = load(&[(name, value)]).expect_err(value).to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn what_can_t_be_used_is_said_before_there_is_a_broker() {
        let error = |extra: &[(&str, &str)]| load(extra).expect("valid").ports().err().expect("unusable").to_string();
        assert!(error(&[]).starts_with("FED_KEYS_DIR: the directory of signing keys /nowhere can't be read"));
        let directory = tempfile::tempdir().expect("a directory");
        let keys = directory.path().to_str().expect("UTF-8");
        let template = error(&[("FED_KEYS_DIR", keys), ("FED_OUTBOX_URL_TEMPLATE", "http://127.0.0.1/outbox")]);
        assert!(template.starts_with("FED_OUTBOX_URL_TEMPLATE: "), "{template}");
        for odd in ["https://our.example/key", "\"https://our.example/{actor}\""] {
            let template = error(&[("FED_KEYS_DIR", keys), ("FED_KEY_ID_TEMPLATE", odd)]);
            assert!(template.starts_with("FED_KEY_ID_TEMPLATE: "), "{template}");
        }
    }
}
