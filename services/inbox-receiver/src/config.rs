//! The front door's settings: one table, and the struct that holds what was read.

use std::net::SocketAddr;
use std::str::FromStr;

use envconfig::Envconfig;
use fedstream_lane::InstanceName;
use fedstream_service::Service;
use fedstream_service::client_addr::{self, ClientRules, Network};
use fedstream_service::config::common::{self, CommonConfig};
use fedstream_service::config::nats::{self, NatsConfig};
use fedstream_service::config::{Bytes, Check, ConfigError, Count, List, NotA, Scheme, Span, Switch, Variable};
use fedstream_service::paths::PathPattern;
use fedstream_wire::v2::HTTP_HEADERS_MAX;

/// Room for the headers of a stored message beside the body, in bytes: JetStream takes 64 KiB of them, and the
/// protocol some more (DESIGN section 2).
pub const HEADER_ROOM_BYTES: u64 = 80 * 1024;

/// Name, table and version of this service.
pub static SERVICE: Service = Service {
    name: "inbox-receiver",
    about: "The front door: takes signed activities from other instances and stores each in its lane before it says 204.",
    version: env!("CARGO_PKG_VERSION"),
    variables: &[&OWN, &STREAM, &client_addr::VARIABLES, &nats::VARIABLES, &COMMON],
};

static COMMON: [Variable; common::COUNT] = common::variables("127.0.0.1:9090");

static OWN: [Variable; 20] = [
    Variable::new::<SocketAddr>("FED_LISTEN", "0.0.0.0:8080", "address that takes activities")
        .default("127.0.0.1:8080"),
    Variable::new::<List<NamePattern>>(
        "FED_SOURCES",
        "lemmy.world,lemmy.ml",
        "instances that may send, by the host of their signing key; * for any",
    ),
    Variable::new::<List<NamePattern>>(
        "FED_DESTINATIONS",
        "aussie.zone",
        "instances that activities are taken for, by the Host header; * for any",
    ),
    Variable::new::<Count>("FED_LANES_MAX", "1000", "different lanes that * may make").default("1000"),
    Variable::new::<List<PathPattern>>("FED_INBOX_PATHS", "/inbox,/u/*/inbox", "paths that are inboxes; * is any text")
        .default("*/inbox"),
    Variable::new::<Scheme>("FED_PUBLIC_SCHEME", "https", "scheme that senders use, unless a trusted proxy says")
        .default("https"),
    Variable::new::<Switch>(
        "FED_OPEN_FRONT",
        "yes",
        "yes: run without HTTP_ALLOWED_IPS; until signatures are verified here, anyone can post as anyone, and a forged \
         copy of an activity suppresses the genuine one for ten minutes",
    )
    .default("no"),
    Variable::new::<WithoutId>(
        "FED_ACTIVITY_WITHOUT_ID",
        "accept",
        "refuse: 503, the sender keeps it; accept: stored under a generated id",
    )
    .default("refuse"),
    Variable::new::<Bytes>("FED_BODY_MAX", "1MiB", "largest body; the batch-receiver's FED_BODY_MAX must not be smaller")
        .default("1MiB"),
    Variable::new::<Bytes>("FED_HEADERS_MAX", "16KiB", "largest request line and headers together").default("16KiB"),
    Variable::new::<Count>("FED_HEADER_COUNT_MAX", "100", "most headers").default("100"),
    Variable::new::<Bytes>("FED_INFLIGHT_BYTES", "64MiB", "bodies held at once, being read or stored").default("64MiB"),
    Variable::new::<Span>("FED_PUBLISH_TIMEOUT", "5s", "from the last byte of a body to the answer").default("5s"),
    Variable::new::<Span>("FED_BODY_TIMEOUT", "10s", "time for a body to arrive").default("10s"),
    Variable::new::<Span>("FED_HEADER_TIMEOUT", "30s", "time for headers to arrive, and for an idle connection")
        .default("30s"),
    Variable::new::<Count>("FED_CONNECTIONS_MAX", "1024", "open connections").default("1024"),
    Variable::new::<Span>("FED_RETRY_AFTER", "10s", "Retry-After of a refusal that passes by itself").default("10s"),
    // 55 min: a Lemmy instance and Fedify accept a signature for one hour.
    Variable::new::<Span>(
        "FED_SIGNATURE_WINDOW",
        "55m",
        "how long after its date the destination accepts a signature; 0: it checks no dates",
    )
    .default("55m"),
    // 5 min: an activity must get through its lane and be answered while its signature holds. In a healthy lane that takes
    // seconds; this is for a backoff at its longest (1 min), a batch-sender or batch-receiver that is restarted, and clocks
    // that differ.
    Variable::new::<Span>("FED_SIGNATURE_MARGIN", "5m", "what must be left of a signature's time, or the sender signs anew")
        .default("5m"),
    // 10 min: what an outage that is longer than the signature window may cost, in activities that expire (DESIGN section 13).
    Variable::new::<Span>(
        "FED_LANE_AGE_MAX",
        "10m",
        "how long a lane's oldest activity may have waited before the lane takes no more; 0: as long as it takes, and what \
         then waits past its signature is parked as expired",
    )
    .default("10m"),
];

static STREAM: [Variable; 2] = [
    Variable::new::<Count>("FED_LANE_MESSAGES_MAX", "5000", "activities that one lane may hold").default("5000"),
    Variable::new::<Bytes>("FED_STREAM_BYTES_MAX", "4GiB", "bytes that all lanes together may hold").default("4GiB"),
];

/// What was read.
#[derive(Debug, Clone, Envconfig)]
#[allow(missing_docs, reason = "each field is a variable of the table above, with its meaning there")]
pub struct Config {
    #[envconfig(from = "FED_LISTEN")]
    pub listen: SocketAddr,
    #[envconfig(from = "FED_SOURCES")]
    pub sources: List<NamePattern>,
    #[envconfig(from = "FED_DESTINATIONS")]
    pub destinations: List<NamePattern>,
    #[envconfig(from = "FED_LANES_MAX")]
    pub lanes_max: Count,
    #[envconfig(from = "FED_INBOX_PATHS")]
    pub inbox_paths: List<PathPattern>,
    #[envconfig(from = "FED_PUBLIC_SCHEME")]
    pub public_scheme: Scheme,
    #[envconfig(from = "HTTP_ALLOWED_IPS")]
    pub allowed_ips: Option<List<Network>>,
    #[envconfig(from = "HTTP_TRUSTED_PROXIES")]
    pub trusted_proxies: Option<List<Network>>,
    #[envconfig(from = "FED_OPEN_FRONT")]
    pub open_front: Switch,
    #[envconfig(from = "FED_ACTIVITY_WITHOUT_ID")]
    pub without_id: WithoutId,
    #[envconfig(from = "FED_BODY_MAX")]
    pub body_max: Bytes,
    #[envconfig(from = "FED_HEADERS_MAX")]
    pub headers_max: Bytes,
    #[envconfig(from = "FED_HEADER_COUNT_MAX")]
    pub header_count_max: Count,
    #[envconfig(from = "FED_INFLIGHT_BYTES")]
    pub inflight_bytes: Bytes,
    #[envconfig(from = "FED_PUBLISH_TIMEOUT")]
    pub publish_timeout: Span,
    #[envconfig(from = "FED_BODY_TIMEOUT")]
    pub body_timeout: Span,
    #[envconfig(from = "FED_HEADER_TIMEOUT")]
    pub header_timeout: Span,
    #[envconfig(from = "FED_CONNECTIONS_MAX")]
    pub connections_max: Count,
    #[envconfig(from = "FED_RETRY_AFTER")]
    pub retry_after: Span,
    #[envconfig(from = "FED_SIGNATURE_WINDOW")]
    pub signature_window: Span,
    #[envconfig(from = "FED_SIGNATURE_MARGIN")]
    pub signature_margin: Span,
    #[envconfig(from = "FED_LANE_AGE_MAX")]
    pub lane_age_max: Span,
    #[envconfig(from = "FED_LANE_MESSAGES_MAX")]
    pub lane_messages_max: Count,
    #[envconfig(from = "FED_STREAM_BYTES_MAX")]
    pub stream_bytes_max: Bytes,
    #[envconfig(nested)]
    pub nats: NatsConfig,
    #[envconfig(nested)]
    pub common: CommonConfig,
}

/// Largest header bytes that can be stored: as JSON each may take two bytes, and JetStream takes 64 KiB in all.
const HEADERS_MAX_HIGHEST: u64 = 24 * 1024;

/// Most headers that a batch takes beside `host`, which HTTP/2 senders don't count among theirs.
const HEADER_COUNT_MAX_HIGHEST: usize = HTTP_HEADERS_MAX - 1;

impl Check for Config {
    fn check(&self) -> Result<(), ConfigError> {
        self.nats.check()?;
        if self.allowed_ips.is_none() && !self.open_front.is_on() {
            return Err(ConfigError::between(
                "HTTP_ALLOWED_IPS: is required, for signatures are not verified here and anyone could post as anyone; \
                 set it to the addresses of your senders (a proxy in front of you goes into HTTP_TRUSTED_PROXIES, or \
                 everybody behind it may send), or say FED_OPEN_FRONT=yes",
            ));
        }
        let sizes = [
            ("FED_BODY_MAX", self.body_max),
            ("FED_HEADERS_MAX", self.headers_max),
            ("FED_STREAM_BYTES_MAX", self.stream_bytes_max), // JetStream takes 0 for "no limit"
        ];
        let spans = [
            ("FED_BODY_TIMEOUT", self.body_timeout),
            ("FED_HEADER_TIMEOUT", self.header_timeout),
            ("FED_PUBLISH_TIMEOUT", self.publish_timeout),
        ];
        let zero_size = sizes.into_iter().find(|(_, size)| size.0 == 0).map(|(name, _)| name);
        let zero_span = spans.into_iter().find(|(_, span)| span.get().is_zero()).map(|(name, _)| name);
        if let Some(name) = zero_size.or(zero_span) {
            return Err(ConfigError::new(name, "must be above zero"));
        }
        if self.headers_max.0 > HEADERS_MAX_HIGHEST {
            return Err(ConfigError::new(
                "FED_HEADERS_MAX",
                format_args!("{} is above 24KiB, which is all that fits beside an activity", self.headers_max),
            ));
        }
        if self.header_count_max.get() > HEADER_COUNT_MAX_HIGHEST {
            return Err(ConfigError::new(
                "FED_HEADER_COUNT_MAX",
                format_args!(
                    "{} is above {HEADER_COUNT_MAX_HIGHEST}: no batch-receiver takes an activity with more",
                    self.header_count_max
                ),
            ));
        }
        if self.inflight_bytes < self.body_max {
            return Err(ConfigError::between(format_args!(
                "FED_INFLIGHT_BYTES: {} is below FED_BODY_MAX ({}): the largest activity would be refused for ever",
                self.inflight_bytes, self.body_max
            )));
        }
        self.check_times()
    }
}

impl Config {
    /// A window, a margin and an age that leave room for each other.
    fn check_times(&self) -> Result<(), ConfigError> {
        let (window, margin, age) = (self.signature_window, self.signature_margin, self.lane_age_max);
        if window.get().is_zero() {
            return Ok(());
        }
        if margin >= window {
            return Err(ConfigError::between(format_args!(
                "FED_SIGNATURE_MARGIN: {margin} is not below FED_SIGNATURE_WINDOW ({window}): every signature would be too \
                 old, however fresh"
            )));
        }
        if age.get() >= window.get() - margin.get() {
            return Err(ConfigError::between(format_args!(
                "FED_LANE_AGE_MAX: {age} is not below FED_SIGNATURE_WINDOW less FED_SIGNATURE_MARGIN ({window} less {margin}): \
                 a lane would hold activities past their deadline; lower it, or set it to 0 if that is wanted"
            )));
        }
        Ok(())
    }
}

impl Config {
    /// Who may send, and whose word about the client counts.
    pub fn client_rules(&self) -> ClientRules {
        ClientRules {
            allowed: self.allowed_ips.as_ref().map(|list| list.0.clone()),
            trusted: self.trusted_proxies.as_ref().map(|list| list.0.clone()).unwrap_or_default(),
        }
    }

    /// May every address send?
    pub fn is_open(&self) -> bool {
        self.allowed_ips.is_none()
    }

    /// Is an address allowed that a proxy would have, and no proxy named? Then whoever reaches the proxy may send.
    pub fn allows_an_untrusted_proxy(&self) -> bool {
        let private = |list: &List<Network>| list.0.iter().any(|network| network.is_private());
        self.trusted_proxies.is_none() && self.allowed_ips.as_ref().is_some_and(private)
    }

    /// The largest message that may have to be stored, headers included.
    pub fn message_bytes_max(&self) -> u64 {
        self.body_max.0.saturating_add(HEADER_ROOM_BYTES)
    }
}

/// An entry of FED_SOURCES or FED_DESTINATIONS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePattern {
    /// `*`.
    Any,
    /// One instance.
    One(InstanceName),
}

impl FromStr for NamePattern {
    type Err = fedstream_lane::InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" { Ok(Self::Any) } else { text.parse().map(Self::One) }
    }
}

/// What happens to an activity without an `id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutId {
    /// 503: the existing batcher's safety rule.
    Refuse,
    /// Stored under an id made from its content.
    Accept,
}

impl FromStr for WithoutId {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        match text.trim() {
            "refuse" => Ok(Self::Refuse),
            "accept" => Ok(Self::Accept),
            _ => Err(NotA("refuse or accept")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_service::config::{Environment, load_from};

    const NEEDED: [(&str, &str); 3] =
        [("FED_SOURCES", "lemmy.world"), ("FED_DESTINATIONS", "aussie.zone"), ("HTTP_ALLOWED_IPS", "192.0.2.1")];

    fn with(more: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let pairs: Vec<_> = NEEDED.iter().chain(more).copied().collect();
        load_from(&SERVICE, &Environment::from_pairs(&pairs))
    }

    #[test]
    fn three_variables_are_enough() {
        let config = with(&[]).unwrap();
        assert_eq!(config.listen.port(), 8080);
        assert_eq!(config.message_bytes_max(), (1 << 20) + 80 * 1024);
    }

    #[test]
    fn every_default_and_example_is_right() {
        for variable in SERVICE.all_variables() {
            variable.check(variable.example).unwrap();
            variable.default.map(|default| variable.check(default)).transpose().unwrap();
        }
    }

    #[test]
    fn an_open_front_must_be_asked_for_by_name() {
        let open = [("FED_SOURCES", "*"), ("FED_DESTINATIONS", "aussie.zone"), ("FED_OPEN_FRONT", "yes")];
        let error = load_from::<Config>(&SERVICE, &Environment::from_pairs(&open[..2])).unwrap_err().to_string();
        assert!(error.contains("HTTP_ALLOWED_IPS") && error.contains("FED_OPEN_FRONT"), "{error}");
        assert!(load_from::<Config>(&SERVICE, &Environment::from_pairs(&open)).is_ok());
    }

    #[test]
    fn limits_that_would_refuse_for_ever_are_refused_now() {
        let error = with(&[("FED_INFLIGHT_BYTES", "64KiB")]).unwrap_err().to_string();
        assert!(error.starts_with("FED_INFLIGHT_BYTES: 64KiB is below FED_BODY_MAX (1MiB)"), "{error}");
        assert!(with(&[("FED_HEADERS_MAX", "64KiB")]).unwrap_err().to_string().starts_with("FED_HEADERS_MAX"));
        assert!(with(&[("FED_BODY_MAX", "0")]).unwrap_err().to_string().starts_with("FED_BODY_MAX"));
        let error = with(&[("FED_HEADER_COUNT_MAX", "256")]).unwrap_err().to_string();
        assert!(error.starts_with("FED_HEADER_COUNT_MAX: 256 is above 255"), "{error}");
        assert!(with(&[("FED_HEADER_COUNT_MAX", "255")]).is_ok());
    }

    #[test]
    fn times_that_leave_no_room_for_each_other_are_refused_by_their_names() {
        let error = with(&[("FED_SIGNATURE_WINDOW", "5m")]).unwrap_err().to_string();
        assert!(error.starts_with("FED_SIGNATURE_MARGIN: 5m is not below FED_SIGNATURE_WINDOW (5m)"), "{error}");
        let error = with(&[("FED_LANE_AGE_MAX", "50m")]).unwrap_err().to_string();
        assert!(error.starts_with("FED_LANE_AGE_MAX: 50m is not below"), "{error}");
        assert!(error.contains("FED_SIGNATURE_WINDOW") && error.contains("FED_SIGNATURE_MARGIN"), "{error}");
        for right in [
            &[("FED_LANE_AGE_MAX", "49m")][..],
            &[("FED_LANE_AGE_MAX", "90m"), ("FED_SIGNATURE_WINDOW", "0")],
            &[("FED_LANE_AGE_MAX", "0"), ("FED_SIGNATURE_WINDOW", "6m")],
            &[("FED_LANE_AGE_MAX", "1m"), ("FED_SIGNATURE_WINDOW", "5m"), ("FED_SIGNATURE_MARGIN", "0")],
        ] {
            with(right).unwrap();
        }
    }

    #[test]
    fn a_private_address_is_told_from_a_sender_unless_proxies_are_named() {
        let allows = |ips, proxies: &[(&str, &str)]| {
            let all: Vec<_> = [("HTTP_ALLOWED_IPS", ips)].iter().chain(proxies).copied().collect();
            with(&all).unwrap().allows_an_untrusted_proxy()
        };
        assert!(!allows("192.0.2.1", &[]));
        assert!(allows("192.0.2.1,127.0.0.1", &[]));
        assert!(!allows("192.0.2.1,127.0.0.1", &[("HTTP_TRUSTED_PROXIES", "127.0.0.1")]));
    }

    #[test]
    fn a_wrong_instance_name_is_shown_with_its_list() {
        let error = with(&[("FED_DESTINATIONS", "aussie.zone,a..b")]).unwrap_err().to_string();
        assert!(
            error.starts_with("FED_DESTINATIONS: \"aussie.zone,a..b\" has a wrong entry: \"a..b\" is not"),
            "{error}"
        );
    }
}
