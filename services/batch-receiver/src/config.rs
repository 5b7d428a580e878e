//! What the batch-receiver is told: one table of variables, and the struct that holds their values.
//!
//! It relays to somebody's instance, so what it may reach has no default and no wildcard, and running without a
//! credential has to be said in so many words.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use envconfig::Envconfig;
use fedstream_lane::{GateLimits, InstanceName, MemoryLimits, Profile};
use fedstream_service::Service;
use fedstream_service::client_addr::{self, ClientRules, Network};
use fedstream_service::config::common::{self, CommonConfig};
use fedstream_service::config::{
    Bytes, Check, ConfigError, Count, List, Scheme, Secret, Span, Switch, UrlPath, Variable,
};
use fedstream_service::paths::PathPattern;
use http::uri::Authority;

use crate::credential;
use crate::witness::ProbePath;

/// What the headers of an activity may add to its body in a batch: the front door takes 16 KiB by default, and says
/// itself when it is told to take more than this.
const ITEM_HEADERS_BYTES: usize = 80 * 1024;

/// Bytes of memory for each remembered outcome: an id and a status take about 200, a rejection up to 4 KiB more.
const MEMORY_BYTES_PER_ITEM: usize = 512;

/// A batch-sender gives up after 30 s without a line; what it hears may be some seconds old.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// What is known and not told yet is asked again when this process is restarted: not much, for nothing is gained beyond.
const ANSWER_LINGER_MAX: Duration = Duration::from_secs(1);

/// The service and its variables.
pub static SERVICE: Service = Service {
    name: "batch-receiver",
    about: "Takes batches of activities from batch-senders and replays each one to your instance, in order, byte for byte.",
    version: env!("CARGO_PKG_VERSION"),
    variables: &[&VARIABLES, &client_addr::VARIABLES, &common::variables("127.0.0.1:9092")],
};

static VARIABLES: [Variable; 27] = [
    Variable::new::<SocketAddr>("FED_LISTEN", "127.0.0.1:8081", "address for batches").default("127.0.0.1:8081"),
    Variable::new::<UrlPath>("FED_BATCH_PATH", "/batch", "path for batches").default("/batch"),
    Variable::new::<Secret>("HTTP_BATCH_AUTHORIZATION", "s3cret", "what senders put behind \"Authorization: Bearer\"")
        .optional()
        .secret(),
    Variable::new::<Switch>("FED_OPEN_RECEIVER", "yes", "yes: without HTTP_BATCH_AUTHORIZATION anybody may send")
        .default("no"),
    Variable::new::<List<InstanceName>>(
        "FED_DESTINATIONS",
        "aussie.zone",
        "instances that batches may be for, by their Host",
    ),
    Variable::new::<List<PathPattern>>(
        "FED_INBOX_PATHS",
        "/inbox,/u/*/inbox",
        "paths that may be posted to; * stands for anything",
    )
    .default("*/inbox"),
    Variable::new::<Scheme>("OVERRIDE_DESTINATION_PROTOCOL", "http", "how the instance is reached: http or https")
        .default("https"),
    Variable::new::<Authority>(
        "OVERRIDE_DESTINATION_DOMAIN",
        "lemmy:8536",
        "where the instance is reached; unset: at the activity's Host",
    )
    .optional(),
    Variable::new::<PathBuf>(
        "OVERRIDE_DESTINATION_CA_FILE",
        "/etc/fedstream/instance-ca.pem",
        "certificate authorities (PEM) that the instance's certificate must come from, instead of the system's",
    )
    .optional(),
    Variable::new::<Profile>(
        "FED_PROFILE",
        "lemmy",
        "how a refusal (4xx) is read where a batch names no profile: lemmy and mastodon look into its body for an activity \
         that is known already, a signature too old, or a passing fault; generic goes by the status alone",
    )
    .default("generic"),
    Variable::new::<ProbePath>(
        "FED_DESTINATION_PROBE",
        "/nodeinfo/2.0",
        "path that is asked for after a 500 or 501: a 200 says that the activity is at fault, not the instance; off: never asked",
    )
    .default("/nodeinfo/2.1"),
    Variable::new::<Switch>(
        "FED_PASS_TRACEPARENT",
        "yes",
        "yes: the instance gets the traceparent of its delivery, unless the sender signed one of its own",
    )
    .default("no"),
    Variable::new::<Count>("FED_BATCH_ITEMS_MAX", "1000", "activities in a batch").default("1000"),
    Variable::new::<Bytes>("FED_BATCH_BODY_MAX", "64MiB", "bytes of a batch, inflated").default("64MiB"),
    Variable::new::<Bytes>(
        "FED_REQUEST_BODY_MAX",
        "32MiB",
        "bytes of a batch, as sent; at least 80KiB above FED_BODY_MAX",
    )
    .default("32MiB"),
    Variable::new::<Bytes>(
        "FED_BODY_MAX",
        "1MiB",
        "bytes of one activity; must not be smaller than the inbox-receiver's FED_BODY_MAX",
    )
    .default("1MiB"),
    Variable::new::<Span>("FED_BODY_TIMEOUT", "60s", "time for a batch to arrive").default("60s"),
    Variable::new::<Span>("FED_DELIVERY_TIMEOUT", "60s", "time for the instance to answer one activity").default("60s"),
    Variable::new::<Span>(
        "FED_SILENCE",
        "10s",
        "a sign of life is sent after this long without an outcome; at most 20s",
    )
    .default("10s"),
    Variable::new::<Span>(
        "FED_ANSWER_LINGER",
        "25ms",
        "outcomes that follow within this time after a line was sent leave together; 0 sends each by itself; at most 1s",
    )
    .default("25ms"),
    Variable::new::<Span>("FED_WAIT_MAX", "20s", "how long a batch waits for an earlier one of its lane").default("20s"),
    Variable::new::<Span>(
        "FED_V1_BATCH_TIME",
        "3m",
        "after this long nothing more of a v1 batch is begun; its answer comes at the end, one FED_DELIVERY_TIMEOUT later \
         at most",
    )
    .default("3m"),
    Variable::new::<Count>("FED_CONNECTIONS_MAX", "1024", "open connections").default("1024"),
    Variable::new::<Count>("FED_BATCHES_MAX", "1024", "batches that are here at once; a lane has a few")
        .default("1024"),
    Variable::new::<Bytes>("FED_INFLIGHT_BYTES", "256MiB", "bytes of all batches that are here at once, inflated")
        .default("256MiB"),
    Variable::new::<Count>(
        "FED_MEMORY_ITEMS",
        "4096",
        "outcomes remembered for each lane; not below FED_BATCH_ITEMS_MAX",
    )
    .default("4096"),
    Variable::new::<Count>("FED_LANES_MAX", "1000", "lanes; a lane is one sending instance to one destination")
        .default("1000"),
];

/// The values.
#[derive(Debug, Clone, Envconfig)]
pub struct Config {
    /// Address for batches.
    #[envconfig(from = "FED_LISTEN")]
    pub listen: SocketAddr,
    /// Path for batches.
    #[envconfig(from = "FED_BATCH_PATH")]
    pub batch_path: UrlPath,
    /// The shared secret, with or without `Bearer ` in front.
    #[envconfig(from = "HTTP_BATCH_AUTHORIZATION")]
    pub authorization: Option<Secret>,
    /// May it run without a secret?
    #[envconfig(from = "FED_OPEN_RECEIVER")]
    pub open_receiver: Switch,
    /// Instances that batches may be for.
    #[envconfig(from = "FED_DESTINATIONS")]
    pub destinations: List<InstanceName>,
    /// Paths that may be posted to.
    #[envconfig(from = "FED_INBOX_PATHS")]
    pub inbox_paths: List<PathPattern>,
    /// How the instance is reached.
    #[envconfig(from = "OVERRIDE_DESTINATION_PROTOCOL")]
    pub protocol: Scheme,
    /// Where the instance is reached, if not at the activity's Host.
    #[envconfig(from = "OVERRIDE_DESTINATION_DOMAIN")]
    pub domain: Option<Authority>,
    /// Certificate authorities for it.
    #[envconfig(from = "OVERRIDE_DESTINATION_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// How a refusal is read where a batch names no profile.
    #[envconfig(from = "FED_PROFILE")]
    pub profile: Profile,
    /// Path that is asked for after a fault of the instance.
    #[envconfig(from = "FED_DESTINATION_PROBE")]
    pub destination_probe: ProbePath,
    /// The instance gets the traceparent of its delivery.
    #[envconfig(from = "FED_PASS_TRACEPARENT")]
    pub pass_traceparent: Switch,
    /// Activities in a batch.
    #[envconfig(from = "FED_BATCH_ITEMS_MAX")]
    pub batch_items_max: Count,
    /// Bytes of a batch, inflated.
    #[envconfig(from = "FED_BATCH_BODY_MAX")]
    pub batch_body_max: Bytes,
    /// Bytes of a batch, as sent.
    #[envconfig(from = "FED_REQUEST_BODY_MAX")]
    pub request_body_max: Bytes,
    /// Bytes of one activity.
    #[envconfig(from = "FED_BODY_MAX")]
    pub body_max: Bytes,
    /// Time for a batch to arrive.
    #[envconfig(from = "FED_BODY_TIMEOUT")]
    pub body_timeout: Span,
    /// Time for the instance to answer.
    #[envconfig(from = "FED_DELIVERY_TIMEOUT")]
    pub delivery_timeout: Span,
    /// A sign of life after this long without an outcome.
    #[envconfig(from = "FED_SILENCE")]
    pub silence: Span,
    /// The distance between two lines of an answer that are not sent together.
    #[envconfig(from = "FED_ANSWER_LINGER")]
    pub answer_linger: Span,
    /// How long a batch waits for an earlier one.
    #[envconfig(from = "FED_WAIT_MAX")]
    pub wait_max: Span,
    /// Time for a v1 batch, from its arrival to the beginning of its last activity.
    #[envconfig(from = "FED_V1_BATCH_TIME")]
    pub v1_batch_time: Span,
    /// Open connections.
    #[envconfig(from = "FED_CONNECTIONS_MAX")]
    pub connections_max: Count,
    /// Batches that are here at once.
    #[envconfig(from = "FED_BATCHES_MAX")]
    pub batches_max: Count,
    /// Bytes of all batches that are here at once.
    #[envconfig(from = "FED_INFLIGHT_BYTES")]
    pub inflight_bytes: Bytes,
    /// Outcomes remembered for each lane.
    #[envconfig(from = "FED_MEMORY_ITEMS")]
    pub memory_items: Count,
    /// Lanes.
    #[envconfig(from = "FED_LANES_MAX")]
    pub lanes_max: Count,
    /// Client addresses that may send.
    #[envconfig(from = "HTTP_ALLOWED_IPS")]
    pub allowed_ips: Option<List<Network>>,
    /// Proxies whose word about the client counts.
    #[envconfig(from = "HTTP_TRUSTED_PROXIES")]
    pub trusted_proxies: Option<List<Network>>,
    /// Logs, traces, the admin listener, shutdown.
    #[envconfig(nested)]
    pub common: CommonConfig,
}

impl Config {
    /// Who may send.
    #[must_use]
    pub fn client_rules(&self) -> ClientRules {
        let networks = |list: &Option<List<Network>>| list.as_ref().map(|list| list.as_slice().to_vec());
        ClientRules {
            allowed: networks(&self.allowed_ips),
            trusted: networks(&self.trusted_proxies).unwrap_or_default(),
        }
    }

    /// The bounds of each lane's gate.
    #[must_use]
    pub fn gate_limits(&self) -> GateLimits {
        let items = self.memory_items.get();
        GateLimits {
            memory: MemoryLimits { items, bytes: items.saturating_mul(MEMORY_BYTES_PER_ITEM) },
            wait_max_ms: u64::try_from(self.wait_max.get().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), ConfigError> {
        if self.authorization.is_none() && !self.open_receiver.is_on() {
            return Err(ConfigError::new(
                "HTTP_BATCH_AUTHORIZATION",
                "is required: without it anybody could post as anybody; FED_OPEN_RECEIVER=yes allows that",
            ));
        }
        if self.authorization.as_ref().is_some_and(|secret| !credential::is_secret(secret.expose())) {
            return Err(ConfigError::new(
                "HTTP_BATCH_AUTHORIZATION",
                "has no secret in it: nothing is left without the word Bearer",
            ));
        }
        if self.domain.as_ref().is_some_and(|domain| domain.as_str().contains('@')) {
            return Err(ConfigError::new(
                "OVERRIDE_DESTINATION_DOMAIN",
                "has a user in it, for example OVERRIDE_DESTINATION_DOMAIN=lemmy:8536",
            ));
        }
        if self.batch_body_max.get() < self.body_max.get().saturating_add(ITEM_HEADERS_BYTES) {
            return Err(ConfigError::between(
                "FED_BATCH_BODY_MAX and FED_BODY_MAX: a batch must have room for one activity and its headers",
            ));
        }
        if self.request_body_max.get() < self.body_max.get().saturating_add(ITEM_HEADERS_BYTES) {
            return Err(ConfigError::between(
                "FED_REQUEST_BODY_MAX and FED_BODY_MAX: a batch, as sent, must have room for one activity and its headers (80KiB)",
            ));
        }
        if self.memory_items < self.batch_items_max {
            return Err(ConfigError::between(
                "FED_MEMORY_ITEMS: is below FED_BATCH_ITEMS_MAX, so that a batch whose answer was lost would be repeated in part",
            ));
        }
        if self.inflight_bytes < self.batch_body_max || self.inflight_bytes < self.request_body_max {
            return Err(ConfigError::between(
                "FED_INFLIGHT_BYTES: is below FED_BATCH_BODY_MAX or FED_REQUEST_BODY_MAX, so that a full batch would never be taken",
            ));
        }
        for (name, span) in [
            ("FED_BODY_TIMEOUT", self.body_timeout),
            ("FED_DELIVERY_TIMEOUT", self.delivery_timeout),
            ("FED_SILENCE", self.silence),
            ("FED_V1_BATCH_TIME", self.v1_batch_time),
        ] {
            if span.get().is_zero() {
                return Err(ConfigError::new(name, "must be above zero"));
            }
        }
        if self.answer_linger.get() > ANSWER_LINGER_MAX {
            return Err(ConfigError::new(
                "FED_ANSWER_LINGER",
                "must be at most 1s: outcomes that are not told yet are asked again after a restart",
            ));
        }
        if self.silence.get() > SILENCE_MAX {
            return Err(ConfigError::new(
                "FED_SILENCE",
                "must be at most 20s: senders give up after 30s without a line",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_service::config::{Environment, load_from};

    fn load(pairs: &[(&str, &str)]) -> Result<Config, String> {
        load_from(&SERVICE, &Environment::from_pairs(pairs)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_destination_and_a_credential_are_all_it_needs() {
        let config = load(&[("FED_DESTINATIONS", "Aussie.Zone, b.example:8443"), ("HTTP_BATCH_AUTHORIZATION", "x")])
            .expect("loads");
        let names: Vec<_> = config.destinations.as_slice().iter().map(InstanceName::as_str).collect();
        assert_eq!(names, ["aussie.zone", "b.example:8443"]);
        assert_eq!(config.batch_path.as_str(), "/batch");
        assert_eq!(config.protocol, Scheme::Https);
        assert_eq!(config.profile, Profile::Generic);
        assert_eq!(config.destination_probe, "/nodeinfo/2.1".parse().expect("a path"));
    }

    #[test]
    fn without_a_credential_it_refuses_to_start_unless_told() {
        let error = load(&[("FED_DESTINATIONS", "b.example")]).expect_err("no credential");
        assert!(
            error.starts_with("HTTP_BATCH_AUTHORIZATION: is required") && error.contains("FED_OPEN_RECEIVER=yes"),
            "{error}"
        );
        load(&[("FED_DESTINATIONS", "b.example"), ("FED_OPEN_RECEIVER", "yes")]).expect("told to run open");
    }

    #[test]
    fn what_it_may_reach_has_no_default_and_no_wildcard() {
        assert!(load(&[("FED_OPEN_RECEIVER", "yes")]).expect_err("none").starts_with("FED_DESTINATIONS: is required"));
        let error = load(&[("FED_OPEN_RECEIVER", "yes"), ("FED_DESTINATIONS", "b.example,*")]).expect_err("wildcard");
        assert!(error.starts_with("FED_DESTINATIONS: ") && error.contains("\"*\""), "{error}");
    }

    #[test]
    fn limits_that_contradict_each_other_are_named() {
        let with = |name, value| {
            load(&[("FED_OPEN_RECEIVER", "yes"), ("FED_DESTINATIONS", "b.example"), (name, value)]).expect_err(name)
        };
        assert!(with("FED_BATCH_BODY_MAX", "1MiB").contains("FED_BATCH_BODY_MAX and FED_BODY_MAX"));
        assert!(with("FED_INFLIGHT_BYTES", "16MiB").starts_with("FED_INFLIGHT_BYTES"));
        assert!(with("FED_REQUEST_BODY_MAX", "1MiB").starts_with("FED_REQUEST_BODY_MAX and FED_BODY_MAX"));
        assert!(with("FED_MEMORY_ITEMS", "999").starts_with("FED_MEMORY_ITEMS: is below FED_BATCH_ITEMS_MAX"));
        assert!(with("FED_SILENCE", "21s").starts_with("FED_SILENCE: must be at most 20s"));
        assert!(with("HTTP_BATCH_AUTHORIZATION", "Bearer ").starts_with("HTTP_BATCH_AUTHORIZATION: has no secret"));
        assert!(with("FED_SILENCE", "0").starts_with("FED_SILENCE: must be above zero"));
        assert!(with("FED_BATCH_PATH", "/{batch}").starts_with("FED_BATCH_PATH: "));
        assert!(with("OVERRIDE_DESTINATION_PROTOCOL", "ftp").starts_with("OVERRIDE_DESTINATION_PROTOCOL: "));
        assert!(with("FED_PROFILE", "misskey").contains("not one of generic, lemmy, mastodon"));
        assert!(with("FED_DESTINATION_PROBE", "nodeinfo").starts_with("FED_DESTINATION_PROBE: "));
        assert!(with("OVERRIDE_DESTINATION_DOMAIN", "u@lemmy").starts_with("OVERRIDE_DESTINATION_DOMAIN: "));
    }
}
