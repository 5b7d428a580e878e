//! Every refusal of the front door: its status, its stable problem type, and its reason in words. One list.
//!
//! The rule behind the statuses (DESIGN section 4): a sender drops an activity for good on most 4xx, so 4xx is only for what
//! will never be right. What an operator can put right is a 503: the sender keeps the activity and tries again.

use std::time::Duration;

use fedstream_jetstream::Refused;
use fedstream_lane::{InstanceName, Lane};
use fedstream_service::attributes;
use fedstream_service::config::Span;
use fedstream_service::metrics::table::BROKER_REFUSALS;
use fedstream_service::problem::Problem;
use http::StatusCode;

use crate::age::Stale;
use crate::config::HEADER_ROOM_BYTES;

/// A target comes from a stranger, and goes into the log and the answer: this much of it tells what it was.
const TARGET_CHARS_MAX: usize = 200;

/// Why a request is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Not a POST.
    Method,
    /// Not in HTTP_ALLOWED_IPS; the address, if it is known.
    Client(Option<std::net::IpAddr>),
    /// `Host` is missing or names nothing.
    NoDestination,
    /// Not in FED_DESTINATIONS.
    UnknownDestination(InstanceName),
    /// Nobody can be told from the signature or the actor; what was looked at.
    NoSource(&'static str),
    /// Not in FED_SOURCES.
    UnknownSource(InstanceName),
    /// Not in FED_INBOX_PATHS; the target's beginning, see [`Refusal::not_an_inbox`].
    NotAnInbox(String),
    /// Neither of the two types of ActivityPub.
    MediaType,
    /// A Content-Encoding: the bytes that the signature's digest covers would not be what is parsed.
    ContentEncoding,
    /// Larger than FED_BODY_MAX.
    BodyTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// More than FED_HEADERS_MAX or FED_HEADER_COUNT_MAX.
    HeadersTooLarge {
        /// What was found and what the limit is, in words.
        found: String,
    },
    /// The body did not come within FED_BODY_TIMEOUT.
    BodyTimeout,
    /// The connection ended before the body did.
    BodyIncomplete,
    /// More than one Host.
    TwoHosts,
    /// Connection names a header that must arrive: it would be lost on the way.
    ConnectionNamesSigned(String),
    /// Not JSON, or not an object.
    NotAnActivity(String),
    /// An object without `id`, and FED_ACTIVITY_WITHOUT_ID=refuse.
    NoId,
    /// The destination would hardly accept the signature any more.
    SignatureTooOld {
        /// The lane; it takes other requests.
        lane: Lane,
        /// What is left, in seconds; below zero: it has run out.
        left_s: i64,
        /// FED_SIGNATURE_MARGIN, or what the lane's own window leaves of it.
        margin: Duration,
    },
    /// An operator has closed the lane for a while.
    LanePaused(Lane),
    /// The lane's oldest activity has waited too long.
    LaneTooOld {
        /// The lane.
        lane: Lane,
        /// How long, or since when that is not known.
        stale: Stale,
        /// FED_LANE_AGE_MAX, or what the lane's own window leaves of it.
        max: Duration,
    },
    /// `*` has made as many lanes as FED_LANES_MAX allows.
    TooManyLanes {
        /// The limit.
        limit: usize,
    },
    /// FED_INFLIGHT_BYTES is used up.
    InFlightFull {
        /// The limit in bytes.
        limit: usize,
    },
    /// The stream's configuration became dangerous: what would be accepted could be lost.
    StreamUnsafe(String),
    /// The broker did not store it.
    Broker {
        /// What it said.
        refused: Refused,
        /// The lane.
        lane: Lane,
        /// More that helps: the lane's limit, or the lane that holds the most.
        more: Option<String>,
    },
}

impl Refusal {
    /// The refusal of this target: its query is in no log, span or answer.
    pub fn not_an_inbox(target: &str) -> Self {
        Self::NotAnInbox(attributes::without_query(target).chars().take(TARGET_CHARS_MAX).collect())
    }

    /// Status, and last part of the problem type. Stable: senders' operators and dashboards name them.
    pub fn status_and_kind(&self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::Method => (S::METHOD_NOT_ALLOWED, "method-not-allowed"),
            Self::Client(_) => (S::SERVICE_UNAVAILABLE, "client-not-allowed"),
            Self::NoDestination => (S::SERVICE_UNAVAILABLE, "destination-not-found"),
            Self::UnknownDestination(_) => (S::SERVICE_UNAVAILABLE, "destination-not-configured"),
            Self::NoSource(_) => (S::SERVICE_UNAVAILABLE, "source-not-found"),
            Self::UnknownSource(_) => (S::SERVICE_UNAVAILABLE, "source-not-configured"),
            Self::NotAnInbox(_) => (S::SERVICE_UNAVAILABLE, "not-an-inbox"),
            Self::MediaType => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type"),
            Self::ContentEncoding => (S::UNSUPPORTED_MEDIA_TYPE, "content-encoding"),
            Self::BodyTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "body-too-large"),
            Self::HeadersTooLarge { .. } => (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large"),
            Self::BodyTimeout => (S::SERVICE_UNAVAILABLE, "body-timeout"),
            Self::BodyIncomplete => (S::BAD_REQUEST, "body-incomplete"),
            Self::TwoHosts => (S::BAD_REQUEST, "two-hosts"),
            Self::ConnectionNamesSigned(_) => (S::BAD_REQUEST, "connection-names-signed-header"),
            Self::NotAnActivity(_) => (S::BAD_REQUEST, "not-an-activity"),
            Self::NoId => (S::SERVICE_UNAVAILABLE, "activity-without-id"),
            Self::SignatureTooOld { .. } => (S::SERVICE_UNAVAILABLE, "signature-too-old"),
            Self::LanePaused(_) => (S::SERVICE_UNAVAILABLE, "lane-paused"),
            Self::LaneTooOld { .. } => (S::SERVICE_UNAVAILABLE, "lane-too-old"),
            Self::TooManyLanes { .. } => (S::SERVICE_UNAVAILABLE, "too-many-lanes"),
            Self::InFlightFull { .. } => (S::SERVICE_UNAVAILABLE, "in-flight-full"),
            Self::StreamUnsafe(_) => (S::SERVICE_UNAVAILABLE, "stream-unsafe"),
            Self::Broker { refused, .. } => (S::SERVICE_UNAVAILABLE, broker_kind(refused)),
        }
    }

    /// Does waiting help? Only then is there a Retry-After: a name that is not configured has no time to give, and a request
    /// whose own signature is too old may be signed anew at once. (A pause is an operator's too, but ends as it began.)
    pub fn passes_by_itself(&self) -> bool {
        matches!(
            self,
            Self::BodyTimeout
                | Self::InFlightFull { .. }
                | Self::LanePaused(_)
                | Self::LaneTooOld { .. }
                | Self::StreamUnsafe(_)
                | Self::Broker { .. }
        )
    }

    /// The lane that it is about, where it was decided for a lane.
    pub fn lane(&self) -> Option<&Lane> {
        match self {
            Self::SignatureTooOld { lane, .. }
            | Self::LanePaused(lane)
            | Self::LaneTooOld { lane, .. }
            | Self::Broker { lane, .. } => Some(lane),
            _ => None,
        }
    }

    /// Do refusals of this kind have a [`Refusal::lane`]?
    pub fn is_about_a_lane(kind: &str) -> bool {
        matches!(kind, "signature-too-old" | "lane-paused" | "lane-too-old") || BROKER_REFUSALS.contains(&kind)
    }

    /// Is it certain that the broker has not stored the activity, and will not?
    pub fn is_surely_not_stored(&self) -> bool {
        !matches!(self, Self::Broker { refused: Refused::TimedOut | Refused::Other(_), .. })
    }

    /// The reason, about this request.
    pub fn detail(&self) -> String {
        match self {
            Self::Method => "an inbox takes POST only".to_owned(),
            Self::Client(Some(address)) => format!("{address} is not among the addresses that may send"),
            Self::Client(None) => "the client's address can't be told from X-Forwarded-For".to_owned(),
            Self::NoDestination => "the Host header is missing or names no host".to_owned(),
            Self::UnknownDestination(name) => format!("activities for {name} are not taken here"),
            Self::NoSource(looked_at) => format!("the sending instance can't be told: {looked_at}"),
            Self::UnknownSource(name) => format!("activities from {name} are not taken here"),
            Self::NotAnInbox(target) => format!("{target:?} is not an inbox"),
            Self::MediaType => "the content type must be application/activity+json or application/ld+json".to_owned(),
            Self::ContentEncoding => "a body with a Content-Encoding is not taken".to_owned(),
            Self::BodyTooLarge { limit } => format!("the body is larger than {limit} bytes"),
            Self::HeadersTooLarge { found } => found.clone(),
            Self::BodyTimeout => "the body did not arrive in time".to_owned(),
            Self::BodyIncomplete => "the body ended early".to_owned(),
            Self::TwoHosts => "the request names more than one host".to_owned(),
            Self::ConnectionNamesSigned(name) => {
                format!("Connection names {name}, which the signature needs: it would not reach the destination")
            }
            Self::NotAnActivity(fault) => fault.clone(),
            Self::NoId => "the activity has no id".to_owned(),
            Self::SignatureTooOld { lane, left_s, margin } => {
                let (left, margin) = (Span(Duration::from_secs(left_s.unsigned_abs())), Span(whole(*margin)));
                if *left_s < 0 {
                    format!("lane {lane}: the request's signature ran out {left} ago; sign it anew")
                } else {
                    format!(
                        "lane {lane}: the request's signature holds for another {left}, {margin} are needed; sign it anew"
                    )
                }
            }
            Self::LanePaused(lane) => format!("lane {lane} is paused"),
            Self::LaneTooOld { lane, stale: Stale::Waited(waited), max } => {
                let (waited, max) = (Span(whole(*waited)), Span(whole(*max)));
                format!("lane {lane}: its oldest activity has waited {waited}, the limit is {max}")
            }
            Self::LaneTooOld { lane, stale: Stale::Unknown(since), .. } => {
                format!("lane {lane}: for {} the broker has not told how old it is", Span(whole(*since)))
            }
            Self::TooManyLanes { limit } => format!("there are {limit} lanes already (FED_LANES_MAX)"),
            Self::InFlightFull { limit } => {
                format!("{limit} bytes are being stored at this moment (FED_INFLIGHT_BYTES)")
            }
            Self::StreamUnsafe(reason) => reason.clone(),
            Self::Broker { refused, lane, more } => {
                let more = more.as_ref().map(|more| format!("; {more}")).unwrap_or_default();
                format!("lane {lane}: {}{more}", refused.limit())
            }
        }
    }

    /// What an operator would change, for the log; never told to the sender.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Client(Some(address)) => Some(format!("add {address} to HTTP_ALLOWED_IPS")),
            Self::UnknownDestination(name) => Some(format!("add {name} to FED_DESTINATIONS")),
            Self::UnknownSource(name) => Some(format!("add {name} to FED_SOURCES")),
            Self::NotAnInbox(_) => Some("add its pattern to FED_INBOX_PATHS".to_owned()),
            Self::NoId => {
                Some("FED_ACTIVITY_WITHOUT_ID=accept; a strictly sequential sender waits until then".to_owned())
            }
            Self::SignatureTooOld { .. } => Some(
                "none, if its next try is stored; if each is refused: its clock is behind, or its signatures expire within \
                 FED_SIGNATURE_MARGIN (lower it)"
                    .to_owned(),
            ),
            Self::LanePaused(lane) => Some(format!("set paused to false in fed_lanes, {} or default", lane.key())),
            Self::LaneTooOld { stale: Stale::Waited(_), .. } => {
                Some("see why the lane does not move: /lanes of the batch-sender (FED_LANE_AGE_MAX)".to_owned())
            }
            Self::LaneTooOld { stale: Stale::Unknown(_), .. } => {
                Some("allow $JS.API.STREAM.MSG.GET.FED_INBOX; see /readyz".to_owned())
            }
            Self::TooManyLanes { .. } => Some("raise FED_LANES_MAX, or name the instances".to_owned()),
            Self::Broker { refused: Refused::TooLarge, .. } => {
                Some(format!("raise max_payload of the broker to FED_BODY_MAX and {HEADER_ROOM_BYTES} bytes"))
            }
            _ => None,
        }
    }

    /// What the log line is about, so that the same trouble is told once and not for every request.
    pub fn subject(&self) -> String {
        match self {
            Self::Client(address) => address.map(|address| address.to_string()).unwrap_or_default(),
            Self::UnknownDestination(name) | Self::UnknownSource(name) => name.to_string(),
            _ => self.lane().map(ToString::to_string).unwrap_or_default(),
        }
    }

    /// The answer.
    pub fn into_problem(self, retry_after: Duration) -> Problem {
        let (status, kind) = self.status_and_kind();
        let mut problem = Problem::new(status, kind, self.detail());
        if let Some(lane) = self.lane() {
            problem = problem.with("lane", lane.to_string());
        }
        match &self {
            Self::Method => problem.allow("POST"),
            // Not a 408: some senders drop an activity for good on any 4xx.
            Self::BodyTimeout => problem.close().retry_after(retry_after),
            Self::BodyIncomplete => problem.close(),
            _ if self.passes_by_itself() => problem.retry_after(retry_after),
            _ => problem,
        }
    }
}

/// In whole seconds: nobody acts on the rest.
fn whole(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs())
}

/// The broker's refusals, by the same names.
pub fn broker_kind(refused: &Refused) -> &'static str {
    match refused {
        Refused::LaneFull => "lane-full",
        Refused::StreamFull(_) => "stream-full",
        Refused::StorageFull(_) => "storage-full",
        Refused::TooLarge => "broker-payload-limit",
        Refused::StreamMissing => "stream-missing",
        Refused::NotConnected => "broker-unavailable",
        Refused::TimedOut => "publish-timeout",
        Refused::DuplicateNotStored => "duplicate-not-stored",
        Refused::Other(_) => "broker-refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;

    fn lane() -> Lane {
        Lane { destination: "aussie.zone".parse().unwrap(), source: "lemmy.world".parse().unwrap() }
    }

    #[test]
    fn a_full_lane_names_itself_and_when_to_come_back() {
        let refusal = Refusal::Broker { refused: Refused::LaneFull, lane: lane(), more: Some("limit 5000".into()) };
        let problem = refusal.into_problem(Duration::from_secs(10));
        assert!(problem.detail.starts_with("lane aussie.zone/lemmy.world: "), "{}", problem.detail);
        assert!(problem.detail.ends_with("; limit 5000"), "{}", problem.detail);
        let response = problem.into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "10");
    }

    #[test]
    fn a_lane_that_stands_still_says_for_how_long_and_when_to_come_back() {
        let old = |stale| Refusal::LaneTooOld { lane: lane(), stale, max: Duration::from_secs(600) };
        let waited = old(Stale::Waited(Duration::from_millis(725_400)));
        assert_eq!(
            waited.detail(),
            "lane aussie.zone/lemmy.world: its oldest activity has waited 12m 5s, the limit is 10m"
        );
        let unknown = old(Stale::Unknown(Duration::from_secs(600)));
        assert_eq!(unknown.detail(), "lane aussie.zone/lemmy.world: for 10m the broker has not told how old it is");
        assert!(unknown.remedy().unwrap().contains("STREAM.MSG.GET"));
        for (refusal, kind) in
            [(waited, "lane-too-old"), (unknown, "lane-too-old"), (Refusal::LanePaused(lane()), "lane-paused")]
        {
            assert!(refusal.is_surely_not_stored());
            let problem = refusal.into_problem(Duration::from_secs(10));
            assert_eq!((problem.kind, problem.json()["lane"].as_str()), (kind, Some("aussie.zone/lemmy.world")));
            let response = problem.into_response();
            assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "10"));
        }
    }

    #[test]
    fn a_kind_says_whether_it_is_about_a_lane() {
        let too_old = Refusal::SignatureTooOld { lane: lane(), left_s: 0, margin: Duration::ZERO };
        let stands = Refusal::LaneTooOld { lane: lane(), stale: Stale::Waited(Duration::ZERO), max: Duration::ZERO };
        let full = Refusal::Broker { refused: Refused::LaneFull, lane: lane(), more: None };
        let of_none = [Refusal::Method, Refusal::NoId, Refusal::TooManyLanes { limit: 1 }];
        for refusal in [too_old, stands, full, Refusal::LanePaused(lane())].into_iter().chain(of_none) {
            let (_, kind) = refusal.status_and_kind();
            assert_eq!(Refusal::is_about_a_lane(kind), refusal.lane().is_some(), "{kind}");
        }
    }

    #[test]
    fn a_signature_that_is_too_old_is_the_requests_own_trouble_and_signed_anew_at_once() {
        let old = |left_s| Refusal::SignatureTooOld { lane: lane(), left_s, margin: Duration::from_secs(300) };
        assert!(
            old(299).detail().ends_with("holds for another 4m 59s, 5m are needed; sign it anew"),
            "{}",
            old(299).detail()
        );
        assert!(old(-65).detail().ends_with("ran out 1m 5s ago; sign it anew"), "{}", old(-65).detail());
        let response = old(0).into_problem(Duration::from_secs(10)).into_response();
        assert_eq!(response.status(), 503);
        assert!(response.headers().get("retry-after").is_none());
    }

    #[test]
    fn what_waits_for_an_operator_has_no_retry_after_and_a_remedy_in_the_log() {
        let refusal = Refusal::UnknownSource("lemmy.ml".parse().unwrap());
        assert_eq!(refusal.remedy().unwrap(), "add lemmy.ml to FED_SOURCES");
        let problem = refusal.into_problem(Duration::from_secs(10));
        assert!(!problem.detail.contains("FED_SOURCES"));
        assert!(problem.into_response().headers().get("retry-after").is_none());
    }

    #[test]
    fn a_slow_sender_is_asked_to_come_back_on_another_connection() {
        let problem = Refusal::BodyTimeout.into_problem(Duration::from_secs(10));
        assert!(problem.close);
        let response = problem.into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "10");
    }

    #[test]
    fn a_target_is_shown_up_to_a_bound() {
        let detail = Refusal::not_an_inbox(&"/é".repeat(10_000)).detail();
        assert_eq!(detail.chars().count(), TARGET_CHARS_MAX + "\"\" is not an inbox".len());
    }

    #[test]
    fn a_targets_query_is_not_shown() {
        let detail = Refusal::not_an_inbox("/outbox?token=s3cret").detail();
        assert_eq!(detail, "\"/outbox?…\" is not an inbox");
    }

    #[test]
    fn only_what_the_broker_did_not_answer_may_be_stored_all_the_same() {
        let broker = |refused| Refusal::Broker { refused, lane: lane(), more: None };
        assert!(broker(Refused::LaneFull).is_surely_not_stored());
        assert!(broker(Refused::NotConnected).is_surely_not_stored());
        assert!(Refusal::StreamUnsafe(String::new()).is_surely_not_stored());
        assert!(!broker(Refused::TimedOut).is_surely_not_stored());
        assert!(!broker(Refused::Other("?".into())).is_surely_not_stored());
    }

    #[test]
    fn a_405_names_the_method() {
        let response = Refusal::Method.into_problem(Duration::ZERO).into_response();
        assert_eq!(response.headers()["allow"], "POST");
    }
}
