//! The HTTP side of the front door: a span for each request, the answer, and the counting. It decides nothing; that is
//! `admit.rs`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use fedstream_service::http_server::Peer;
use fedstream_service::spans::KeyValue;
use fedstream_service::{attributes, context, metrics, refused, spans};
use http::StatusCode;
use tracing::{Instrument, Span, field};

use crate::admit::Admission;
use crate::refusal::Refusal;
use crate::tally::Tally;

/// A refused body is read away up to this many times the body limit: a sender with a slightly too large activity must get
/// its 413, one with a very large one may get a reset instead.
const DISCARDED_BODIES: usize = 4;

/// What traces call every inbox: the paths are the destinations' own business, and are in `url.path`.
const ROUTE: &str = "/inbox";

/// So much of a path tells which inbox was meant.
const PATH_CHARS_MAX: usize = 200;

/// What every request needs.
pub struct Front {
    /// The decisions.
    pub admission: Arc<Admission>,
    /// The counts.
    pub tally: Arc<Tally>,
    /// Retry-After of what passes by itself.
    pub retry_after: Duration,
    /// FED_BODY_MAX.
    pub body_max: usize,
    /// FED_BODY_TIMEOUT.
    pub body_timeout: Duration,
}

/// Every path and method is the front door's: what is no inbox is refused in words, too.
pub fn router(front: Front) -> Router {
    Router::new().fallback(any(take)).with_state(Arc::new(front))
}

async fn take(State(front): State<Arc<Front>>, request: Request) -> Response {
    let span = server_span(&request);
    let (method, began) = (refused::method_in_spans(request.method()), Instant::now());
    // The pipeline's future holds a whole activity in pieces; on the heap it is moved by its pointer.
    let response = Box::pin(front.answer(request)).instrument(span).await;
    metrics::http::answered(method, response.status(), began.elapsed());
    response
}

impl Front {
    async fn answer(&self, request: Request) -> Response {
        let (parts, mut body) = request.into_parts();
        // Every connection has a peer; without one nothing would be allowed.
        let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let peer = parts.extensions.get::<Peer>().map_or(nobody, |peer| peer.0);
        let waits = refused::waits_to_be_asked(&parts.headers);
        let admitted = self.admission.admit(peer, &parts, &mut body).await;
        drop(parts); // up to 128 KiB of headers, not to be held while a slow body is read away
        let response = match admitted {
            Ok(admitted) => {
                self.tally.stored(&admitted.lane, admitted.duplicate);
                spans::set(&Span::current(), KeyValue::new(attributes::DUPLICATE, admitted.duplicate));
                tracing::debug!(lane = %admitted.lane, duplicate = admitted.duplicate, "stored");
                StatusCode::NO_CONTENT.into_response()
            }
            Err(refusal) => {
                refusal_span(&refusal).in_scope(|| self.tally.refused(&refusal));
                let (status, kind) = refusal.status_and_kind();
                if status.is_server_error() {
                    spans::failed(&Span::current(), kind, refusal.detail());
                }
                let mut problem = refusal.into_problem(self.retry_after);
                if !problem.close {
                    problem.close = !self.read_away(&mut body, waits).await;
                }
                problem.into_response()
            }
        };
        let status = i64::from(response.status().as_u16());
        spans::set(&Span::current(), KeyValue::new(attributes::HTTP_STATUS, status));
        response
    }

    async fn read_away(&self, body: &mut Body, waits: bool) -> bool {
        let most = self.body_max.saturating_mul(DISCARDED_BODIES);
        refused::discard(body, waits, most, self.body_timeout).await
    }
}

/// A trace of our own for each request. What a stranger sent as its trace is linked, never continued: it would choose our
/// trace ids and our sampling. Of it only the ids are taken: its `tracestate` would be exported as it is, and means nothing here.
fn server_span(request: &Request) -> Span {
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_string());
    let span = tracing::info_span!(
        "POST /inbox",
        otel.name = format!("{} {ROUTE}", refused::method_in_names(request.method())),
        otel.kind = "server",
        { attributes::HTTP_METHOD } = refused::method_in_spans(request.method()),
        { attributes::HTTP_ROUTE } = ROUTE,
        { attributes::URL_SCHEME } = "http",
        { attributes::URL_PATH } = beginning(request.uri().path()),
        { attributes::PEER_ADDRESS } = peer,
        { attributes::LANE } = field::Empty,
        { attributes::ACTIVITY_ID } = field::Empty,
        { attributes::ACTIVITY_TYPE } = field::Empty,
        { attributes::REMOTE_HOST } = field::Empty,
    );
    let theirs = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    context::link(&span, context::extract(theirs, None).as_ref());
    span
}

/// A refusal is exported whatever share of requests is: below the request's own span, which may not be.
fn refusal_span(refusal: &Refusal) -> Span {
    let (status, kind) = refusal.status_and_kind();
    let lane = refusal.lane();
    tracing::info_span!(
        "refuse",
        otel.kind = "internal",
        otel.status_code = "ERROR",
        otel.status_description = refusal.detail(),
        { attributes::ALWAYS_SAMPLED } = true,
        { attributes::ERROR_TYPE } = kind,
        { attributes::HTTP_STATUS } = i64::from(status.as_u16()),
        { attributes::LANE } = lane.map(field::display),
        { attributes::REMOTE_HOST } = lane.map(|lane| lane.source.as_str()),
    )
}

/// Of a stranger's path: an attribute is no place for kilobytes.
fn beginning(path: &str) -> String {
    path.chars().take(PATH_CHARS_MAX).collect()
}
