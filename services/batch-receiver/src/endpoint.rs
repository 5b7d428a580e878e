//! `POST /batch`: what is decided before the 200, in this order, and the stream of lines after it. A batch of the
//! existing batcher's format comes the same way, told by its Content-Type, and goes on in [`v1`].
//!
//! | case | answer |
//! |---|---|
//! | method other than POST | 405 + Allow, and Accept-Post: which formats are taken, best first |
//! | client address not allowed | 503 |
//! | credential wrong or missing | 401 |
//! | Content-Type neither `application/cbor-seq` nor `application/json`; an unknown Content-Encoding | 415 + Accept-Post |
//! | stopping, or no room for another batch | 503 `overloaded` + Retry-After |
//! | body over the limit as sent or inflated, or too slow | 413, 408 |
//! | not a batch, or not of version 2 | 400, names item and field |
//! | destination, Host or path not on the lists | 403, names the entry to add |
//! | an activity that can't be replayed byte for byte | 400 |
//! | meant for another life of this receiver; an owner replaced; another site; a lane that v1 batches feed | 409 |
//! | a lane too many | 503 |
//!
//! A refused batch is read away first, within bounds, so that its sender hears why: see [`body`].
//!
//! Never 200 for a batch of which a part was not understood or not allowed. Every answer says which life of the
//! receiver gave it.

mod v1;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use fedstream_lane::{Head, Profile, Refusal};
use fedstream_service::client_addr::ClientRules;
use fedstream_service::http_server::Peer;
use fedstream_service::problem::Problem;
use fedstream_service::refused;
use fedstream_service::spans::KeyValue;
use fedstream_service::{attributes, context, metrics, spans};
use fedstream_wire::encoding::{self, Encoding};
use fedstream_wire::protocol::{ACCEPT_POST, ACCEPT_POST_HEADER, Protocol};
use fedstream_wire::v1::{OWNER_HEADER, Owner};
use fedstream_wire::v2::{self, ANSWER_CONTENT_TYPE, Batch, GATE_HEADER, RefusalKind};
use futures::StreamExt;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, field};

use crate::clock::Clock;
use crate::config::Config;
use crate::credential::Credential;
use crate::delivery::Deliveries;
use crate::feeders::{self, Feeders, QUIET};
use crate::gates::{self, Gates};
use crate::lines::Lines;
use crate::replay::Replay;
use crate::room::{Full, Place, Room};
use crate::rules::{self, Rules};
use crate::series::{self, Taken};
use crate::strangers::Strangers;
use crate::visit::{BatchVisit, COME_BACK};
use crate::witness::Witnesses;

/// Of a refused body, read away for a stranger, bytes: what a socket's buffer holds without anybody's doing.
const STRANGERS_BYTES_MAX: usize = 64 * 1024;

/// The same for a sender of our own: batches are 1 MiB by default, before they are compressed.
const SENDERS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Time for either.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// How soon a sender that found no room should come back: batches take a few seconds.
const NO_ROOM_RETRY: Duration = Duration::from_secs(1);

/// How soon a sender that an operator has to let in should come back.
const OPERATOR_RETRY: Duration = Duration::from_secs(60);

/// Everything that a POST needs.
#[derive(Debug)]
pub struct Endpoint {
    clients: ClientRules,
    credential: Credential,
    rules: Rules,
    room: Room,
    gates: Gates,
    feeders: Arc<Feeders>,
    replay: Arc<Replay>,
    witnesses: Witnesses,
    /// For a batch that names none.
    profile: Profile,
    clock: Clock,
    limits: Limits,
    strangers: Strangers,
    /// Batches and deliveries that are under way.
    tasks: TaskTracker,
    stopping: CancellationToken,
}

#[derive(Debug)]
struct Limits {
    request_bytes: usize,
    batch_bytes: usize,
    items: usize,
    body_timeout: Duration,
    silence: Duration,
    linger: Duration,
    wait_max: Duration,
    v1_batch_time: Duration,
}

/// A refusal; boxed, since it is the rare case.
type Refused = Box<Problem>;

impl Endpoint {
    /// An endpoint that lets nothing more in once `stopping` is cancelled.
    #[must_use]
    pub fn new(config: &Config, rules: Rules, replay: Replay, stopping: CancellationToken) -> Self {
        let (replay, tasks) = (Arc::new(replay), TaskTracker::new());
        let destinations = config.destinations.as_slice();
        let witnesses = Witnesses::new(destinations, &config.destination_probe, &replay, &tasks, &stopping);
        Self {
            clients: config.client_rules(),
            credential: Credential::new(config.authorization.as_ref().map(|secret| secret.expose())),
            rules,
            room: Room::new(config.batches_max.get(), config.inflight_bytes.get()),
            gates: Gates::new(config.gate_limits(), config.lanes_max.get()),
            feeders: Arc::new(Feeders::new(config.lanes_max.get(), QUIET)),
            replay,
            witnesses,
            profile: config.profile,
            clock: Clock::start(),
            limits: Limits {
                request_bytes: config.request_body_max.get(),
                batch_bytes: config.batch_body_max.get(),
                items: config.batch_items_max.get(),
                body_timeout: config.body_timeout.get(),
                silence: config.silence.get(),
                linger: config.answer_linger.get(),
                wait_max: config.wait_max.get(),
                v1_batch_time: config.v1_batch_time.get(),
            },
            strangers: Strangers::default(),
            tasks,
            stopping,
        }
    }

    /// The gates.
    #[must_use]
    pub fn gates(&self) -> &Gates {
        &self.gates
    }

    /// What is known of each lane, for the admin page.
    #[must_use]
    pub fn lanes_page(&self) -> serde_json::Value {
        let mut page = self.gates.page(|lane| self.witnesses.faulty_head(lane));
        page["feeders"] = self.feeders.page();
        page
    }

    /// Shows in metrics how much is here.
    pub fn observe(&self) {
        series::observe(&self.room);
    }

    /// What is under way, waited for at shutdown.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Answers a request for the batch path.
    pub async fn answer(self: Arc<Self>, request: Request) -> Response {
        let span = self.span(&request);
        let (method, began) = (refused::method_in_spans(request.method()), Instant::now());
        let (parts, mut body) = request.into_parts();
        let sender = self.check_sender(&parts);
        let is_stranger = sender.is_err();
        let decided = match sender {
            Ok(()) => self.decide(&parts, &mut body, &span).instrument(span.clone()).await,
            Err(problem) => Err(problem),
        };
        let response = match decided {
            Ok(response) => response,
            Err(problem) => {
                series::refused(problem.kind);
                if problem.status.is_server_error() {
                    spans::failed(&span, problem.kind, problem.detail.clone());
                }
                span.in_scope(|| self.tell(&problem, is_stranger));
                let most = if is_stranger { STRANGERS_BYTES_MAX } else { SENDERS_BYTES_MAX };
                refusal(*problem, &parts.headers, body, most).await
            }
        };
        let status = response.status().as_u16();
        spans::set(&span, KeyValue::new(attributes::HTTP_STATUS, i64::from(status)));
        metrics::http::answered(method, response.status(), began.elapsed());
        self.signed(response)
    }

    /// Answers a request for anything else.
    pub async fn not_found(self: Arc<Self>) -> Response {
        let problem = Problem::new(StatusCode::NOT_FOUND, "not-found", "nothing is here; batches go to FED_BATCH_PATH");
        self.signed(problem.into_response())
    }

    /// With the current life's id.
    fn signed(&self, mut response: Response) -> Response {
        if let Ok(id) = HeaderValue::try_from(self.gates.id().to_string()) {
            response.headers_mut().insert(HeaderName::from_static(GATE_HEADER), id);
        }
        response
    }

    /// A batch that brings the credential is from one of our own senders: its trace goes on here.
    fn span(&self, request: &Request) -> Span {
        let span = tracing::info_span!(
            "batch",
            otel.name = format!("{} {}", refused::method_in_names(request.method()), request.uri().path()),
            otel.kind = "server",
            { attributes::HTTP_METHOD } = refused::method_in_spans(request.method()),
            { attributes::HTTP_ROUTE } = request.uri().path(),
            { attributes::URL_SCHEME } = "http",
            { attributes::URL_PATH } = request.uri().path(),
            { attributes::PEER_ADDRESS } = request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_string()),
            { attributes::BATCH_MESSAGE_COUNT } = field::Empty,
            { attributes::LANE } = field::Empty,
            { attributes::EPOCH } = field::Empty,
            { attributes::BATCH_END } = field::Empty,
        );
        if self.credential.allows(request.headers()) {
            let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
            context::continue_from(&span, context::extract(header("traceparent"), header("tracestate")));
        }
        span
    }

    /// Is it one of our own senders? Until then it is a stranger.
    fn check_sender(&self, request: &Parts) -> Result<(), Refused> {
        if request.method != Method::POST {
            return Err(problem(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "batches are posted")
                .allow("POST")
                .into());
        }
        self.check_client(request)?;
        if !self.credential.allows(&request.headers) {
            return Err(problem(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "Authorization is missing, or has another secret",
            )
            .into());
        }
        Ok(())
    }

    async fn decide(self: &Arc<Self>, request: &Parts, body: &mut Body, span: &Span) -> Result<Response, Refused> {
        let (protocol, encoding) = check_type(&request.headers)?;
        if self.stopping.is_cancelled() {
            return Err(overloaded("this receiver stops", COME_BACK));
        }
        let mut place = self.room.place().map_err(no_room)?;
        let sent = self.receive(&request.headers, body, &mut place).await?;
        let (whole, place) = self.inflate(encoding, sent, place).await?;
        if protocol == Protocol::V1 {
            let owner = request.headers.get(OWNER_HEADER).and_then(|owner| Owner::read(owner.to_str().ok()?));
            return self.take_v1(whole, place, owner, span).await;
        }
        let batch = Batch::decode(&whole, self.limits.items).map_err(malformed)?;
        let taken = if batch.items.is_empty() { Taken::Empty } else { Taken::Accepted };
        let response = self.begin(batch, place, span)?;
        series::taken(taken);
        Ok(response)
    }

    fn check_client(&self, request: &Parts) -> Result<(), Refused> {
        let peer = request.extensions.get::<Peer>().map(|peer| peer.0);
        let client = peer.and_then(|peer: SocketAddr| self.clients.client(peer, &request.headers));
        if self.clients.allows(client) {
            return Ok(());
        }
        let who = client.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string());
        let detail = format!("{who} may not send; HTTP_ALLOWED_IPS has no entry for it");
        Err(problem(StatusCode::SERVICE_UNAVAILABLE, "client-not-allowed", detail).retry_after(OPERATOR_RETRY).into())
    }

    /// The body as sent. Its bytes find room as they come: what a header says about them is only a first look.
    async fn receive(&self, headers: &HeaderMap, body: &mut Body, place: &mut Place) -> Result<Bytes, Refused> {
        let most = self.limits.request_bytes;
        let too_large = || too_large(format!("the body is larger than {most} bytes (FED_REQUEST_BODY_MAX)"));
        let said = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if said.is_some_and(|said| said > most) {
            return Err(too_large());
        }
        let reading = async {
            let mut bytes = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(broken_off)?.into_data() else { continue };
                if bytes.len() + data.len() > most {
                    return Err(too_large());
                }
                place.hold(bytes.len() + data.len()).map_err(no_room)?;
                bytes.extend_from_slice(&data);
            }
            Ok(bytes.freeze())
        };
        timeout(self.limits.body_timeout, reading).await.unwrap_or_else(|_| {
            let detail = "the batch did not arrive within FED_BODY_TIMEOUT";
            Err(problem(StatusCode::REQUEST_TIMEOUT, "body-timeout", detail).into())
        })
    }

    /// The batch behind the body. A thread that inflates can't be stopped, so the turn and the place are its own
    /// meanwhile: a client that goes takes away neither.
    async fn inflate(&self, encoding: Encoding, sent: Bytes, mut place: Place) -> Result<(Bytes, Place), Refused> {
        let most = self.limits.batch_bytes;
        if encoding == Encoding::Identity {
            // Nothing to inflate, so nothing to copy either.
            return if sent.len() > most {
                Err(not_inflated(encoding::Error::TooLarge { limit: most }))
            } else {
                Ok((sent, place))
            };
        }
        let turn = self.room.turn_to_inflate().await;
        let inflating = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let whole = encoding.inflate(&sent, most).map_err(not_inflated)?;
            place.hold(whole.len()).map_err(no_room)?;
            Ok((whole.into(), place))
        });
        inflating.await.unwrap_or_else(|_| Err(overloaded("inflating the batch was interrupted", COME_BACK)))
    }

    /// Lets an understood batch in: from here on its sender hears line by line.
    fn begin(&self, batch: Batch, place: Place, span: &Span) -> Result<Response, Refused> {
        let header = batch.header.clone();
        span.record(attributes::LANE, field::display(&header.lane));
        span.record(attributes::EPOCH, attributes::number(header.epoch.0));
        span.record(attributes::BATCH_MESSAGE_COUNT, attributes::number(batch.items.len()));
        let allowed = self.rules.check(batch).map_err(|error| not_allowed(&error, error.to_string()))?;
        for parcel in &allowed.parcels {
            let activity = context::extract(parcel.traceparent.as_deref(), parcel.tracestate.as_deref());
            context::link(span, activity.as_ref());
        }
        let head = Head { gate: header.gate, origin: header.origin.clone(), epoch: header.epoch, floor: header.floor };
        let profile = header.profile.unwrap_or(self.profile);
        let admitted = self.gates.admit(&header.lane, &head, profile).map_err(not_admitted)?;
        let (lane, epoch, origin, floor) = (&header.lane, header.epoch.0, &header.origin, header.floor.0);
        if admitted.first {
            tracing::info!(%lane, epoch, %origin, floor, "a new owner of the lane");
        } else if admitted.adopted {
            // Of the same site, and in order: a lane that is quiet now and then has one each time.
            tracing::debug!(%lane, epoch, %origin, floor, "a new owner of the lane");
        }
        let owner = feeders::Owner { origin: header.origin, epoch: header.epoch };
        let feeding = self.feeders.enter(&header.lane, Protocol::V2, Some(owner)).map_err(v1::not_fed)?;
        let (lines, chunks) = Lines::new(self.limits.silence, self.limits.linger);
        let visit = BatchVisit {
            gate: admitted.gate,
            deliveries: Deliveries {
                replay: self.replay.clone(),
                tasks: self.tasks.clone(),
                address: allowed.address,
                witness: self.witnesses.of(&header.lane).cloned(),
                series: series::of_lane(&header.lane),
                lane: header.lane,
                epoch: header.epoch,
                gate: self.gates.id(),
                profile,
                batch: span.clone(),
                place: Arc::new(place),
                feeding: Arc::new(feeding),
            },
            clock: self.clock,
            stopping: self.stopping.clone(),
            prev: header.prev,
            lines,
        };
        self.tasks.spawn(visit.run(allowed.parcels).instrument(span.clone()));
        Ok(streaming(chunks))
    }

    /// A refusal in the log. A new gate is how every sender begins, and a GET how one asks which formats are taken: no news.
    fn tell(&self, problem: &Problem, is_stranger: bool) {
        let (status, kind, detail) = (problem.status.as_u16(), problem.kind, &problem.detail);
        let left_out = if problem.status == StatusCode::METHOD_NOT_ALLOWED {
            None
        } else if is_stranger {
            self.strangers.refused(kind, Instant::now())
        } else {
            (kind != RefusalKind::NewGate.as_str()).then_some(0)
        };
        match left_out {
            None => tracing::debug!(status, kind, detail, "batch refused"),
            Some(0) => tracing::warn!(status, kind, detail, "batch refused"),
            Some(left_out) => tracing::warn!(status, kind, detail, left_out, "batch refused, others like it before"),
        }
    }
}

/// The refusal as an answer, once the body is out of its way.
async fn refusal(mut problem: Problem, headers: &HeaderMap, mut body: Body, most: usize) -> Response {
    let status = problem.status;
    // A body that is late had its time.
    problem.close = status == StatusCode::REQUEST_TIMEOUT
        || !refused::discard(&mut body, refused::waits_to_be_asked(headers), most, DISCARD_TIMEOUT).await;
    let mut response = problem.into_response();
    if matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNSUPPORTED_MEDIA_TYPE) {
        response
            .headers_mut()
            .insert(HeaderName::from_static(ACCEPT_POST_HEADER), HeaderValue::from_static(ACCEPT_POST));
    }
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The 200, whose body is written as outcomes become known.
fn streaming(chunks: mpsc::Receiver<Bytes>) -> Response {
    let chunks = futures::stream::unfold(chunks, |mut chunks| async move { Some((chunks.recv().await?, chunks)) });
    let mut response = Response::new(Body::from_stream(chunks.map(Ok::<_, std::convert::Infallible>)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(ANSWER_CONTENT_TYPE));
    // A proxy that collects the answer, or compresses it, would keep outcomes from the sender.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// The type must be that of a batch; says of which format, and how the body is encoded.
fn check_type(headers: &HeaderMap) -> Result<(Protocol, Encoding), Refused> {
    let text = |name| headers.get(name).map_or("", |value: &HeaderValue| value.to_str().unwrap_or("?"));
    let unsupported =
        |detail: String| problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail).into();
    // Parameters change nothing: JSON is UTF-8, whatever a charset says (RFC 8259, section 8.1).
    let essence = text(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    let is = |wanted: &str| essence.eq_ignore_ascii_case(wanted);
    let protocol = if is(v2::CONTENT_TYPE) {
        Protocol::V2
    } else if is(fedstream_wire::v1::CONTENT_TYPE) {
        Protocol::V1
    } else {
        return Err(unsupported(format!("{essence:?} is not accepted here; {ACCEPT_POST} are")));
    };
    if headers.get_all(CONTENT_ENCODING).iter().count() > 1 {
        return Err(unsupported("more than one Content-Encoding".to_owned()));
    }
    let name = text(CONTENT_ENCODING);
    match name.parse() {
        Ok(encoding) => Ok((protocol, encoding)),
        Err(_) => {
            Err(unsupported(format!("Content-Encoding {name:?} is not accepted here; zstd, gzip and identity are")))
        }
    }
}

fn problem(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(status, kind, detail)
}

fn overloaded(detail: &str, after: Duration) -> Refused {
    problem(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail).retry_after(after).into()
}

fn no_room(Full: Full) -> Refused {
    let detail = "no room for another batch (FED_BATCHES_MAX, FED_INFLIGHT_BYTES)";
    problem(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail).retry_after(NO_ROOM_RETRY).into()
}

fn too_large(detail: String) -> Refused {
    problem(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail).into()
}

fn broken_off(error: axum::Error) -> Refused {
    problem(StatusCode::BAD_REQUEST, "body-incomplete", format!("the body broke off: {error}")).into()
}

fn not_inflated(error: encoding::Error) -> Refused {
    let status = match error {
        encoding::Error::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        encoding::Error::Ratio | encoding::Error::Corrupt(..) => StatusCode::BAD_REQUEST,
    };
    let kind = if status == StatusCode::BAD_REQUEST { "malformed-body" } else { "too-large" };
    problem(status, kind, error.to_string()).into()
}

fn malformed(error: v2::batch::Error) -> Refused {
    let (status, kind) = match error {
        v2::batch::Error::TooMany { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
        _ => (StatusCode::BAD_REQUEST, "malformed-batch"),
    };
    problem(status, kind, error.to_string()).into()
}

fn not_allowed(error: &rules::Error, detail: String) -> Refused {
    let (status, kind) = match error {
        rules::Error::Destination(_) | rules::Error::Host { .. } => (StatusCode::FORBIDDEN, "destination-not-allowed"),
        rules::Error::Path { .. } => (StatusCode::FORBIDDEN, "path-not-allowed"),
        rules::Error::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
        rules::Error::Unfit { .. } => (StatusCode::BAD_REQUEST, "malformed-batch"),
    };
    problem(status, kind, detail).into()
}

fn not_admitted(error: gates::Error) -> Refused {
    let conflict = |kind: RefusalKind, detail: &str| problem(StatusCode::CONFLICT, kind.as_str(), detail);
    match error {
        gates::Error::Refused(Refusal::NewGate(id)) => {
            conflict(RefusalKind::NewGate, "the batch is not for this life of the receiver")
                .with("gate", id.to_string())
        }
        gates::Error::Refused(Refusal::StaleEpoch(known)) => {
            conflict(RefusalKind::StaleEpoch, "the lane has a later owner").with("epoch", known.0)
        }
        gates::Error::Refused(Refusal::OtherOrigin(known)) => {
            let detail = format!("the lane is fed by {known}; two sources have no common order");
            conflict(RefusalKind::OtherOrigin, &detail).with("origin", known.to_string())
        }
        gates::Error::TooManyLanes(_) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, "too-many-lanes", error.to_string()).retry_after(OPERATOR_RETRY)
        }
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SERVICE;
    use fedstream_service::config::{Environment, load_from};
    use std::pin::pin;

    fn endpoint(more: &[(&str, &str)]) -> Endpoint {
        let mut pairs = vec![
            ("FED_OPEN_RECEIVER", "yes"),
            ("FED_DESTINATIONS", "b.example"),
            ("OVERRIDE_DESTINATION_PROTOCOL", "http"),
        ];
        pairs.extend(more);
        let config: Config = load_from(&SERVICE, &Environment::from_pairs(&pairs)).expect("configuration");
        let (rules, replay) = (Rules::new(&config).expect("rules"), Replay::new(&config).expect("a client"));
        Endpoint::new(&config, rules, replay, CancellationToken::new())
    }

    #[test]
    fn a_client_that_goes_does_not_free_what_is_still_being_inflated() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let endpoint = endpoint(&[("FED_BATCHES_MAX", "1")]);
            // The one thread is taken, so the batch is inflated when the test says so.
            let (go, told) = std::sync::mpsc::channel::<()>();
            let thread = tokio::task::spawn_blocking(move || told.recv().is_err());
            let sent = Encoding::Gzip.compress(vec![b'x'; 4096]).1;
            let place = endpoint.room.place().expect("room");
            {
                let mut inflating = pin!(endpoint.inflate(Encoding::Gzip, sent.into(), place));
                assert!(futures::poll!(&mut inflating).is_pending(), "the client goes now");
            }
            assert_eq!(endpoint.room.place().err(), Some(Full));
            drop(go);
            assert!(thread.await.expect("the thread is free"));
            let room = async {
                while endpoint.room.place().is_err() {
                    tokio::task::yield_now().await;
                }
            };
            timeout(Duration::from_secs(20), room).await.expect("room again once it is inflated");
        });
    }
}
