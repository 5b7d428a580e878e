//! The variables of this service.

use std::path::PathBuf;
use std::time::Duration;

use envconfig::Envconfig;
use fedstream_carrier::Options;
use fedstream_jetstream::Created;
use fedstream_lane::{Backoff, Origin, WindowLimits};
use fedstream_service::Service;
use fedstream_service::config::common::{self, CommonConfig};
use fedstream_service::config::nats::{self, NatsConfig};
use fedstream_service::config::{
    Bytes, Check, ConfigError, Count, NotA, Scheme, Secret, SenderId, Span, UrlPath, Variable,
};
use fedstream_wire::encoding::Encoding;
use fedstream_wire::protocol::Protocol;
use fedstream_wire::v1;
use http::HeaderValue;

/// Name, `--help` and the table of variables.
pub static SERVICE: Service = Service {
    name: "batch-sender",
    about: "Reads each lane of FED_INBOX in order, and posts its activities in batches to a batch-receiver far away.",
    version: env!("CARGO_PKG_VERSION"),
    variables: &[&VARIABLES, &nats::VARIABLES, &common::variables("127.0.0.1:9091")],
};

const VARIABLES: [Variable; 32] = [
    Variable::new::<SiteName>(
        "FED_SITE",
        "singapore-1",
        "name of this site: one site feeds a lane, and the far side checks it",
    ),
    Variable::new::<SenderId>("FED_SENDER_ID", "sender-a", "name of this process in leases and logs, its own; unset: random")
        .optional(),
    Variable::new::<String>(
        "BATCH_RECEIVER_DOMAIN",
        "batch.aussie.zone",
        "host, and port if any, of the batch-receiver",
    ),
    Variable::new::<Scheme>("BATCH_RECEIVER_PROTOCOL", "https", "http or https").default("https"),
    Variable::new::<UrlPath>("BATCH_RECEIVER_PATH", "/batch", "path of the batch endpoint").default("/batch"),
    Variable::new::<PathBuf>(
        "BATCH_RECEIVER_CA_FILE",
        "/etc/fedstream/back-ca.pem",
        "certificate authorities (PEM) that the batch-receiver's certificate must come from, instead of the system's",
    )
    .optional(),
    Variable::new::<BatchProtocol>(
        "BATCH_PROTOCOL",
        "v1",
        "batch format: auto (each batch-receiver is asked, by a GET), v1 (the existing batcher's) or v2",
    )
    .default("auto"),
    Variable::new::<Secret>("HTTP_BATCH_AUTHORIZATION", "s3cret", "credential of the batch-receiver (Bearer)")
        .optional()
        .secret(),
    Variable::new::<String>("HTTP_USER_AGENT", "fedstream/0.1.0", "User-Agent of batch requests")
        .default(concat!("fedstream/", env!("CARGO_PKG_VERSION"))),
    Variable::new::<Count>("HTTP_BATCH_SIZE", "100", "most activities in a batch").default("100"),
    Variable::new::<Bytes>("FED_BATCH_BYTES", "1MiB", "most bytes of activities in a batch; a larger one goes alone")
        .default("1MiB"),
    Variable::new::<Span>("FED_BATCH_LINGER", "20ms", "how long after the one before it a batch goes that isn't full")
        .default("20ms"),
    Variable::new::<Span>("HTTP_BATCH_MAX_WAIT", "1s", "upper bound of the linger; an idle lane posts at once").optional(),
    Variable::new::<Count>("FED_WINDOW_BATCHES", "16", "batches of a lane in flight").default("16"),
    Variable::new::<Count>("FED_WINDOW_ITEMS", "1000", "activities of a lane in flight").default("1000"),
    Variable::new::<Bytes>("FED_WINDOW_BYTES", "4MiB", "bytes of a lane in flight; a larger activity goes alone")
        .default("4MiB"),
    Variable::new::<Bytes>(
        "FED_HELD_BYTES",
        "512MiB",
        "bytes that all lanes hold in memory together; beyond it a lane reads only when it holds nothing. For a v1 receiver they \
         count twice: held, and as JSON on their way",
    )
    .default("512MiB"),
    Variable::new::<Encoding>("FED_BATCH_COMPRESSION", "zstd", "zstd, gzip or none").default("zstd"),
    Variable::new::<Span>(
        "FED_ANSWER_TIMEOUT",
        "30s",
        "a batch is given up after so long without a line of its answer",
    )
    .default("30s"),
    Variable::new::<Bytes>(
        "FED_V1_BATCH_BYTES",
        "19MiB",
        "most bytes of a v1 batch, in base64 and all; the existing batch-receiver takes 20 MB",
    )
    .default("19MiB"),
    Variable::new::<Span>(
        "FED_V1_ANSWER_TIMEOUT",
        "10m",
        "a v1 batch is given up after so long: its answer comes when all is delivered (100 activities of 6 s)",
    )
    .default("10m"),
    Variable::new::<Span>("FED_BACKOFF_MIN", "500ms", "pause after a first failure; doubled with each further one")
        .default("500ms"),
    Variable::new::<Span>("FED_BACKOFF_MAX", "60s", "longest pause").default("60s"),
    Variable::new::<Span>("FED_RETRY_AFTER_MAX", "5m", "a Retry-After is honoured up to this").default("5m"),
    Variable::new::<Count>(
        "FED_REJECTIONS_MAX",
        "20",
        "refusals in a row after which a lane pauses and tries single activities; 0: never",
    )
    .default("20"),
    Variable::new::<Count>("FED_POISON_ATTEMPTS", "5", "so often an activity has to fail with 500 or 501 to be parked")
        .default("5"),
    Variable::new::<Span>("FED_POISON_AFTER", "2m", "and over so long, while the instance answers others").default("2m"),
    Variable::new::<Span>(
        "FED_LEASE_TTL",
        "15s",
        "a dead batch-sender's lanes are taken over after so long; where the bucket fed_leases is there already, its max_age counts",
    )
    .default("15s"),
    Variable::new::<Span>("FED_TRIM_INTERVAL", "200ms", "shortest time between two purges of a lane").default("200ms"),
    Variable::new::<Span>(
        "FED_DISCOVERY_INTERVAL",
        "500ms",
        "how often the stream is asked which lanes hold something",
    )
    .default("500ms"),
    Variable::new::<Span>("FED_LANE_IDLE", "60s", "a lane's consumer is deleted after so long without an activity")
        .default("60s"),
    Variable::new::<Count>(
        "FED_LANES_MAX",
        "1000",
        "most lanes at a time; each with a backlog costs a consumer and its buffers",
    )
    .default("1000"),
];

/// Half of what a batch-receiver remembers (its FED_MEMORY_ITEMS): what is in flight, and as much that was answered.
const WINDOW_ITEMS_MAX: usize = 2_000;

/// A shorter one would be lost to a broker that pauses for a moment.
const LEASE_TTL_MIN: Duration = Duration::from_secs(1);

/// All settings.
#[derive(Clone, Debug, Envconfig)]
pub struct Config {
    /// Origin of every batch.
    #[envconfig(from = "FED_SITE")]
    pub site: SiteName,
    /// Name in leases and logs.
    #[envconfig(from = "FED_SENDER_ID")]
    pub sender_id: Option<SenderId>,
    /// Where batches go: host and port.
    #[envconfig(from = "BATCH_RECEIVER_DOMAIN")]
    pub receiver_domain: String,
    /// Scheme.
    #[envconfig(from = "BATCH_RECEIVER_PROTOCOL")]
    pub receiver_protocol: Scheme,
    /// Path.
    #[envconfig(from = "BATCH_RECEIVER_PATH")]
    pub receiver_path: UrlPath,
    /// Certificate authorities for it.
    #[envconfig(from = "BATCH_RECEIVER_CA_FILE")]
    pub receiver_ca_file: Option<PathBuf>,
    /// Batch format.
    #[envconfig(from = "BATCH_PROTOCOL")]
    pub protocol: BatchProtocol,
    /// Credential.
    #[envconfig(from = "HTTP_BATCH_AUTHORIZATION")]
    pub authorization: Option<Secret>,
    /// User-Agent.
    #[envconfig(from = "HTTP_USER_AGENT")]
    pub user_agent: String,
    /// Activities a batch.
    #[envconfig(from = "HTTP_BATCH_SIZE")]
    pub batch_items: Count,
    /// Bytes a batch.
    #[envconfig(from = "FED_BATCH_BYTES")]
    pub batch_bytes: Bytes,
    /// How long a batch waits for more.
    #[envconfig(from = "FED_BATCH_LINGER")]
    pub batch_linger: Span,
    /// Its upper bound: the existing batcher's setting.
    #[envconfig(from = "HTTP_BATCH_MAX_WAIT")]
    pub batch_max_wait: Option<Span>,
    /// Batches in flight.
    #[envconfig(from = "FED_WINDOW_BATCHES")]
    pub window_batches: Count,
    /// Activities in flight.
    #[envconfig(from = "FED_WINDOW_ITEMS")]
    pub window_items: Count,
    /// Bytes in flight.
    #[envconfig(from = "FED_WINDOW_BYTES")]
    pub window_bytes: Bytes,
    /// Bytes of all lanes in memory.
    #[envconfig(from = "FED_HELD_BYTES")]
    pub held_bytes: Bytes,
    /// Content-Encoding of batches.
    #[envconfig(from = "FED_BATCH_COMPRESSION")]
    pub compression: Encoding,
    /// Longest silence of an answer.
    #[envconfig(from = "FED_ANSWER_TIMEOUT")]
    pub answer_timeout: Span,
    /// Bytes of a v1 batch.
    #[envconfig(from = "FED_V1_BATCH_BYTES")]
    pub v1_batch_bytes: Bytes,
    /// Until a v1 batch is answered.
    #[envconfig(from = "FED_V1_ANSWER_TIMEOUT")]
    pub v1_answer_timeout: Span,
    /// First pause.
    #[envconfig(from = "FED_BACKOFF_MIN")]
    pub backoff_min: Span,
    /// Longest pause.
    #[envconfig(from = "FED_BACKOFF_MAX")]
    pub backoff_max: Span,
    /// Bound of Retry-After.
    #[envconfig(from = "FED_RETRY_AFTER_MAX")]
    pub retry_after_max: Span,
    /// Refusals in a row.
    #[envconfig(from = "FED_REJECTIONS_MAX")]
    pub rejections_max: Count,
    /// Failures of one activity.
    #[envconfig(from = "FED_POISON_ATTEMPTS")]
    pub poison_attempts: Count,
    /// And over how long.
    #[envconfig(from = "FED_POISON_AFTER")]
    pub poison_after: Span,
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
    /// Whose stream the sequences of a batch are of.
    #[must_use]
    pub fn origin(&self, created: Created) -> Origin {
        Origin { site: self.site.0.as_str().into(), created_us: created.unix_micros() }
    }

    /// The URL of the batch endpoint.
    #[must_use]
    pub fn batch_url(&self) -> String {
        format!("{}://{}{}", self.receiver_protocol, self.receiver_domain, self.receiver_path)
    }

    /// The credential without its scheme. The existing batcher puts `Bearer ` in front where it is missing; its
    /// operators' settings go on working.
    #[must_use]
    pub fn bearer_token(&self) -> Option<&str> {
        let text = self.authorization.as_ref()?.expose().trim();
        Some(text.strip_prefix("Bearer ").map_or(text, str::trim))
    }

    /// Bounds and pace of one lane's window, where the lane has no settings of its own. It holds what is in flight and
    /// one batch that waits behind it.
    #[must_use]
    pub fn window_limits(&self) -> WindowLimits {
        let linger =
            self.batch_max_wait.map_or(self.batch_linger, |most| Span(most.get().min(self.batch_linger.get())));
        WindowLimits {
            batch_items: self.batch_items.get(),
            batch_bytes: self.batch_bytes.get(),
            posts: self.window_batches.get(),
            in_flight_items: self.window_items.get(),
            in_flight_bytes: self.window_bytes.get(),
            items: self.window_items.get() + self.batch_items.get(),
            bytes: self.window_bytes.get() + self.batch_bytes.get(),
            linger_ms: millis(linger),
            rate_per_s: None,
            trim_interval_ms: millis(self.trim_interval),
            rejections_max: self.rejections_max.0,
            poison_attempts: self.poison_attempts.0,
            poison_after_ms: millis(self.poison_after),
        }
    }

    /// How lanes are carried.
    #[must_use]
    pub fn carrier_options(&self) -> Options {
        Options {
            sender_id: self.sender_id.clone().map(|id| id.0),
            lanes_max: self.lanes_max.0,
            held_bytes: self.held_bytes.get(),
            lease_ttl: self.lease_ttl.get(),
            discovery_interval: self.discovery_interval.get(),
            lane_idle: self.lane_idle.get(),
            backoff: self.backoff(),
        }
    }

    /// How a failing lane waits.
    fn backoff(&self) -> Backoff {
        Backoff::new(millis(self.backoff_min), millis(self.backoff_max), millis(self.retry_after_max))
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), ConfigError> {
        self.nats.check()?;
        let counts = [
            ("HTTP_BATCH_SIZE", self.batch_items.get()),
            ("FED_BATCH_BYTES", self.batch_bytes.get()),
            ("FED_WINDOW_BATCHES", self.window_batches.get()),
            ("FED_WINDOW_ITEMS", self.window_items.get()),
            ("FED_WINDOW_BYTES", self.window_bytes.get()),
            ("FED_HELD_BYTES", self.held_bytes.get()),
            ("FED_POISON_ATTEMPTS", self.poison_attempts.get()),
            ("FED_V1_BATCH_BYTES", self.v1_batch_bytes.get()),
            ("FED_LANES_MAX", self.lanes_max.get()),
        ];
        let spans = [
            ("FED_ANSWER_TIMEOUT", self.answer_timeout),
            ("FED_V1_ANSWER_TIMEOUT", self.v1_answer_timeout),
            ("FED_BACKOFF_MIN", self.backoff_min),
            ("FED_DISCOVERY_INTERVAL", self.discovery_interval),
            ("FED_LANE_IDLE", self.lane_idle),
            ("FED_TRIM_INTERVAL", self.trim_interval),
        ];
        let zero_count = counts.into_iter().find(|(_, count)| *count == 0).map(|(name, _)| name);
        let zero_span = spans.into_iter().find(|(_, span)| span.get().is_zero()).map(|(name, _)| name);
        if let Some(name) = zero_count.or(zero_span) {
            return Err(ConfigError::new(name, "must be above zero"));
        }
        if self.v1_batch_bytes.get() > v1::REQUEST_BYTES_MAX {
            return Err(ConfigError::new(
                "FED_V1_BATCH_BYTES",
                "must be 20000000 at most: the existing batch-receiver takes no more",
            ));
        }
        if self.window_items.get() > WINDOW_ITEMS_MAX {
            return Err(ConfigError::new(
                "FED_WINDOW_ITEMS",
                "must be 2000 at most: a receiver remembers 4096 outcomes",
            ));
        }
        if self.lease_ttl.get() < LEASE_TTL_MIN {
            return Err(ConfigError::new(
                "FED_LEASE_TTL",
                "must be 1s at least: the broker looks for what expired once a second",
            ));
        }
        if self.backoff_max.get() < self.backoff_min.get() {
            return Err(ConfigError::between("FED_BACKOFF_MAX is below FED_BACKOFF_MIN"));
        }
        if HeaderValue::from_str(&self.user_agent).is_err() {
            return Err(ConfigError::new("HTTP_USER_AGENT", "has a character that an HTTP header can't carry"));
        }
        if self.bearer_token().is_some_and(|token| token.is_empty() || token.eq_ignore_ascii_case("bearer")) {
            return Err(ConfigError::new("HTTP_BATCH_AUTHORIZATION", "has no secret in it, only the word Bearer"));
        }
        if self.authorization.as_ref().is_some_and(|secret| HeaderValue::from_str(secret.expose()).is_err()) {
            return Err(ConfigError::new(
                "HTTP_BATCH_AUTHORIZATION",
                "the value (not shown) has a character that an HTTP header can't carry",
            ));
        }
        // It is in spans and on /lanes; the value is not shown here either.
        if self.receiver_domain.contains('@') {
            let reason = "has a user or a password in it; the credential goes into HTTP_BATCH_AUTHORIZATION";
            return Err(ConfigError::new("BATCH_RECEIVER_DOMAIN", reason));
        }
        if self.batch_url().parse::<http::Uri>().ok().and_then(|uri| uri.authority().cloned()).is_none() {
            return Err(ConfigError::new("BATCH_RECEIVER_DOMAIN", "is not a host, for example batch.aussie.zone"));
        }
        Ok(())
    }
}

fn millis(span: Span) -> u64 {
    u64::try_from(span.get().as_millis()).unwrap_or(u64::MAX)
}

/// Which batch format is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchProtocol {
    /// The one that the batch-receiver takes; it is asked.
    Auto,
    /// This one, and nobody is asked.
    Fixed(Protocol),
}

impl BatchProtocol {
    /// The format that is spoken to everybody, if one is.
    #[must_use]
    pub fn fixed(self) -> Option<Protocol> {
        match self {
            Self::Auto => None,
            Self::Fixed(protocol) => Some(protocol),
        }
    }
}

impl std::str::FromStr for BatchProtocol {
    type Err = NotA;

    fn from_str(text: &str) -> Result<Self, NotA> {
        if text.trim().eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        text.parse().map(Self::Fixed).map_err(|_| NotA("auto, v1 or v2"))
    }
}

/// The name of a site: letters, digits and dashes, at most 63.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteName(pub String);

impl std::str::FromStr for SiteName {
    type Err = NotA;

    fn from_str(text: &str) -> Result<Self, NotA> {
        let ok = (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if ok { Ok(Self(text.to_owned())) } else { Err(NotA("a name of letters, digits and dashes")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_service::config::{Environment, load_from};

    const REQUIRED: [(&str, &str); 2] = [("FED_SITE", "near"), ("BATCH_RECEIVER_DOMAIN", "far.example:8443")];

    fn load(extra: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let pairs: Vec<_> = REQUIRED.iter().chain(extra).copied().collect();
        load_from(&SERVICE, &Environment::from_pairs(&pairs))
    }

    #[test]
    fn the_table_fills_every_field() {
        let config = load(&[]).unwrap();
        assert_eq!(config.batch_url(), "https://far.example:8443/batch");
        let limits = config.window_limits();
        assert_eq!((limits.batch_items, limits.items, limits.linger_ms), (100, 1100, 20));
    }

    #[test]
    fn the_existing_batchers_longest_wait_bounds_the_linger() {
        assert_eq!(load(&[("HTTP_BATCH_MAX_WAIT", "5ms")]).unwrap().window_limits().linger_ms, 5);
        assert_eq!(load(&[("HTTP_BATCH_MAX_WAIT", "10")]).unwrap().window_limits().linger_ms, 20);
    }

    #[test]
    fn a_credential_in_the_receivers_domain_is_refused_and_not_repeated() {
        let error = load(&[("BATCH_RECEIVER_DOMAIN", "me:s3cret@far.example")]).unwrap_err().to_string();
        assert!(error.contains("HTTP_BATCH_AUTHORIZATION") && !error.contains("s3cret"), "{error}");
    }

    #[test]
    fn a_wrong_value_names_its_variable() {
        for (name, value) in [
            ("FED_SITE", "a b"),
            ("FED_SENDER_ID", "a.b"),
            ("BATCH_RECEIVER_PROTOCOL", "ftp"),
            ("BATCH_RECEIVER_PATH", "batch"),
            ("BATCH_PROTOCOL", "v3"),
            ("FED_V1_BATCH_BYTES", "20MiB"),
            ("FED_V1_ANSWER_TIMEOUT", "0"),
            ("BATCH_RECEIVER_DOMAIN", "a b"),
            ("FED_BATCH_COMPRESSION", "lzma"),
            ("HTTP_BATCH_SIZE", "0"),
            ("HTTP_BATCH_AUTHORIZATION", "Bearer "),
            ("FED_BATCH_BYTES", "0"),
            ("FED_WINDOW_BATCHES", "0"),
            ("FED_WINDOW_ITEMS", "2001"),
            ("FED_POISON_ATTEMPTS", "0"),
            ("FED_DISCOVERY_INTERVAL", "0"),
            ("FED_BACKOFF_MAX", "1ms"),
            ("FED_LEASE_TTL", "500ms"),
        ] {
            let error = load(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
