//! The one pipeline from a request to a stored activity: every decision of the front door, in the order of DESIGN section 4.
//! What each refusal looks like is in `refusal.rs`; what the broker's refusals are, in `store.rs`.
//!
//! Nothing here counts messages to decide "full": the broker's limits do, atomically. And nothing is answered 204 that the
//! broker has not acknowledged.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use fedstream_jetstream::Broker;
use fedstream_lane::{InstanceName, Lane};
use fedstream_service::client_addr::ClientRules;
use fedstream_service::paths::{self, PathPattern};
use fedstream_service::signature::Signature;
use fedstream_service::{attributes, context};
use fedstream_wire::stored::{StoredActivity, label, message_id};
use http::request::Parts;
use http::{HeaderMap, Method};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::activity::Activity;
use crate::age::Ages;
use crate::config::{Config, WithoutId};
use crate::headers::{self, Host};
use crate::inflight::InFlight;
use crate::lanes::Lanes;
use crate::refusal::Refusal;
use crate::rules::{LaneRules, Rules};
use crate::store::Store;
use crate::{body, deadline, source};

/// The rules, and what they are applied with.
pub struct Admission {
    clients: ClientRules,
    lanes: Lanes,
    inbox_paths: Vec<PathPattern>,
    public_scheme: &'static str,
    without_id: WithoutId,
    limits: Limits,
    inflight: InFlight,
    rules: Rules,
    ages: Ages,
    store: Store,
}

struct Limits {
    body: usize,
    header_bytes: usize,
    header_count: usize,
    body_timeout: Duration,
    answer_timeout: Duration,
}

/// A stored activity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Where it is.
    pub lane: Lane,
    /// It was stored before.
    pub duplicate: bool,
}

impl Admission {
    /// The rules of this configuration.
    pub fn new(config: &Config, broker: &Broker, store: Store, rules: Rules) -> Self {
        let lanes = Lanes::new(&config.destinations.0, &config.sources.0, config.lanes_max.get());
        Self {
            ages: Ages::new(broker, lanes.most()),
            rules,
            clients: config.client_rules(),
            lanes,
            inbox_paths: config.inbox_paths.0.clone(),
            public_scheme: config.public_scheme.as_str(),
            without_id: config.without_id,
            limits: Limits {
                body: config.body_max.get(),
                header_bytes: config.headers_max.get(),
                header_count: config.header_count_max.get(),
                body_timeout: config.body_timeout.get(),
                answer_timeout: config.publish_timeout.get(),
            },
            inflight: InFlight::new(config.inflight_bytes.get()),
            store,
        }
    }

    /// Counts a lane that holds something from before the start.
    pub fn remember(&self, lane: &Lane) {
        self.lanes.keep(lane);
    }

    /// Does the number of lanes have to be bounded here?
    pub fn bounds_lanes(&self) -> bool {
        self.lanes.bounded()
    }

    /// Lanes that there may be.
    pub fn lanes_most(&self) -> usize {
        self.lanes.most()
    }

    /// The bytes of bodies that are here now.
    pub fn inflight(&self) -> &InFlight {
        &self.inflight
    }

    /// What is known of the age of lanes.
    pub fn ages(&self) -> &Ages {
        &self.ages
    }

    /// What applies to each lane.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Stores the activity in the request, or says why not. Read it next to the table of DESIGN section 4.
    pub async fn admit(&self, peer: SocketAddr, request: &Parts, body: &mut Body) -> Result<Admitted, Refusal> {
        let received = OffsetDateTime::now_utc();

        // 405
        if request.method != Method::POST {
            return Err(Refusal::Method);
        }

        // 503: who sends, to whom, and where to. The sender keeps the activity, and an operator sees it.
        self.client(peer, &request.headers)?;
        let host = headers::host(request);
        let destination = self.destination(&host)?;
        let signature = Signature::of(&request.headers);
        let signing = signature.as_ref().map(source::of_signature).transpose()?;
        let signing = signing.map(|name| self.lanes.source(name)).transpose()?;
        let target = headers::target(&request.uri);
        if !paths::is_inbox(&self.inbox_paths, target) {
            return Err(Refusal::not_an_inbox(target));
        }

        // 415
        media_type(&request.headers)?;

        // 413, 431; and 503 for a body that does not come. Bytes count as in flight (503) while they come.
        self.header_limits(request)?;
        let mut held = self.inflight.hold();
        let announced = body::announced(&request.headers);
        let limits = &self.limits;
        let read = body::read(body, announced, limits.body, limits.body_timeout, &mut held, self.inflight.limit());
        let bytes = read.await?;
        let answer_by = Instant::now() + limits.answer_timeout; // one clock from the last body byte to the answer

        // 400: two hosts, not JSON, not an object, a Connection header that would break the signature.
        let (Some(destination), Host::One(host)) = (destination, host) else { return Err(Refusal::TwoHosts) };
        let activity = Activity::parse(&bytes).map_err(Refusal::NotAnActivity)?;
        let http = headers::to_store(&request.headers, &host, signature.as_ref())?;

        // 503: without a signature only the actor names the source, and that took the body.
        let source = match signing {
            Some(source) => source,
            None => self.lanes.source(source::of_actor(&activity)?)?,
        };
        let lane = Lane { destination, source };

        // 503: no id, unless such activities are taken.
        let msg_id = message_id(&lane, request.method.as_str(), target, &bytes);
        let activity_id = match activity.id {
            Some(id) => label(&id),
            None if self.without_id == WithoutId::Accept => format!("urn:fedstream:{}", msg_id.as_str()),
            None => return Err(Refusal::NoId),
        };
        let activity_type = activity.kind.as_deref().map(label); // both as long as a stranger likes, until here

        // (Signature verification: decided here, in a later step.)

        // 503: the destination would hardly accept the signature. This request's trouble alone.
        let rules = self.rules.of(&lane);
        let deadline = deadline::of(signature.as_ref(), &request.headers, received, rules.signature_window);
        in_time(&lane, deadline, &rules)?;

        // 503: the lane is paused; `*` has made too many; it stands still.
        if rules.paused {
            return Err(Refusal::LanePaused(lane));
        }
        self.lanes.open(&lane)?;
        if let Err(refusal) = self.age(&lane, &rules, answer_by).await {
            self.lanes.give_back(&lane);
            return Err(refusal);
        }
        describe(&lane, &activity_id, activity_type.as_deref());

        // 503: the broker's limits, and the broker. 204 only for what it acknowledged.
        let scheme = self.clients.scheme(peer, &request.headers).unwrap_or(self.public_scheme);
        let mut stored = StoredActivity {
            msg_id,
            activity_id,
            activity_type,
            received_at: received,
            target: target.to_owned(),
            scheme: scheme.to_owned(),
            http,
            deadline,
            traceparent: None,
            tracestate: None,
            body: bytes,
        };
        let span = publish_span(&lane, &stored);
        if let Some(trace) = context::of(&span) {
            stored.traceparent = Some(trace.traceparent);
            stored.tracestate = trace.tracestate;
        }
        match self.store.store(&lane, stored, answer_by).instrument(span).await {
            Ok(duplicate) => {
                self.lanes.keep(&lane);
                Ok(Admitted { lane, duplicate })
            }
            Err(refusal) => {
                if refusal.is_surely_not_stored() {
                    self.lanes.give_back(&lane);
                }
                Err(refusal)
            }
        }
    }

    fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> Result<(), Refusal> {
        let client = self.clients.client(peer, headers);
        if self.clients.allows(client) { Ok(()) } else { Err(Refusal::Client(client)) }
    }

    /// `None` where several hosts are named: that is a 400, and comes later.
    fn destination(&self, host: &Host) -> Result<Option<InstanceName>, Refusal> {
        let name = match host {
            Host::Several => return Ok(None),
            Host::Missing => return Err(Refusal::NoDestination),
            Host::One(host) => host.parse().map_err(|_| Refusal::NoDestination)?,
        };
        self.lanes.destination(name).map(Some)
    }

    /// Has the lane's oldest activity waited longer than it may? Once accepted nobody can sign this one anew.
    async fn age(&self, lane: &Lane, rules: &LaneRules, answer_by: Instant) -> Result<(), Refusal> {
        let Some(max) = rules.age_max else { return Ok(()) };
        let left = answer_by.saturating_duration_since(Instant::now());
        let checked = self.ages.check(lane, max, left).await;
        checked.map_err(|stale| Refusal::LaneTooOld { lane: lane.clone(), stale, max })
    }

    fn header_limits(&self, request: &Parts) -> Result<(), Refusal> {
        let (count, bytes) = (request.headers.len(), headers::size(request));
        let limits = &self.limits;
        let found = if count > limits.header_count {
            format!("{count} headers are more than {}", limits.header_count)
        } else if bytes > limits.header_bytes {
            format!("target and headers of {bytes} bytes are more than {}", limits.header_bytes)
        } else {
            return Ok(());
        };
        Err(Refusal::HeadersTooLarge { found })
    }
}

/// Is enough left of the time in which the destination accepts the signature?
fn in_time(lane: &Lane, deadline: Option<OffsetDateTime>, rules: &LaneRules) -> Result<(), Refusal> {
    let Some(deadline) = deadline else { return Ok(()) };
    let (left, margin) = (deadline - OffsetDateTime::now_utc(), rules.signature_margin);
    if left >= margin {
        return Ok(());
    }
    Err(Refusal::SignatureTooOld { lane: lane.clone(), left_s: left.whole_seconds(), margin })
}

/// One of ActivityPub's two types, without parameters, in any case; and no encoding over it.
fn media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let essence = headers
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .map(|value| value.trim().to_ascii_lowercase());
    if !matches!(essence.as_deref(), Some("application/activity+json" | "application/ld+json")) {
        return Err(Refusal::MediaType);
    }
    if headers.contains_key("content-encoding") {
        return Err(Refusal::ContentEncoding);
    }
    Ok(())
}

/// Tells the request's span what it is about.
fn describe(lane: &Lane, activity_id: &str, kind: Option<&str>) {
    let span = Span::current();
    span.record(attributes::LANE, tracing::field::display(lane));
    span.record(attributes::ACTIVITY_ID, activity_id);
    span.record(attributes::REMOTE_HOST, lane.source.as_str());
    if let Some(kind) = kind {
        span.record(attributes::ACTIVITY_TYPE, kind);
    }
}

/// The creation of the message (OpenTelemetry's messaging conventions). Its context travels in the message, and everything
/// that happens to the activity later hangs below it.
fn publish_span(lane: &Lane, stored: &StoredActivity) -> Span {
    tracing::info_span!(
        "publish fed.inbox.{destination}.{source}",
        otel.kind = "producer",
        { attributes::MESSAGING_SYSTEM } = attributes::NATS,
        { attributes::MESSAGING_OPERATION } = "publish",
        { attributes::MESSAGING_OPERATION_TYPE } = "send",
        { attributes::MESSAGING_DESTINATION } = lane.subject(),
        { attributes::MESSAGING_TEMPLATE } = attributes::INBOX_TEMPLATE,
        { attributes::MESSAGE_ID } = stored.msg_id.as_str(),
        { attributes::MESSAGE_BODY_SIZE } = attributes::number(stored.body.len()),
        { attributes::ACTIVITY_ID } = stored.activity_id,
        { attributes::ACTIVITY_TYPE } = stored.activity_type,
        { attributes::REMOTE_HOST } = lane.source.as_str(),
        { attributes::LANE } = %lane,
        { attributes::SEQ } = tracing::field::Empty,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(lines: &[(&'static str, &str)]) -> Result<(), Refusal> {
        media_type(&lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect())
    }

    #[test]
    fn both_types_of_activitypub_are_taken_whatever_their_parameters_and_case() {
        for right in [
            "application/activity+json",
            "Application/Activity+JSON; charset=utf-8",
            "application/ld+json; profile=\"https://www.w3.org/ns/activitystreams\"",
        ] {
            assert_eq!(types(&[("content-type", right)]), Ok(()), "{right}");
        }
        for wrong in ["application/json", "text/html", "", "application/activity+jsonx"] {
            assert_eq!(types(&[("content-type", wrong)]), Err(Refusal::MediaType), "{wrong}");
        }
        assert_eq!(types(&[]), Err(Refusal::MediaType));
    }

    #[test]
    fn an_encoded_body_is_not_taken() {
        let encoded = types(&[("content-type", "application/activity+json"), ("content-encoding", "gzip")]);
        assert_eq!(encoded, Err(Refusal::ContentEncoding));
    }
}
