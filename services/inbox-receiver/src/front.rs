//! The HTTP side of the front door: a span for each request, the answer, and the counting. It decides nothing; that is
//! `admit.rs`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use fedstream_service::context;
use fedstream_service::http_server::Peer;
use fedstream_service::refused;
use http::StatusCode;
use tracing::{Instrument, Span};

use crate::admit::Admission;
use crate::tally::Tally;

/// A refused body is read away up to this many times the body limit: a sender with a slightly too large activity must get
/// its 413, one with a very large one may get a reset instead.
const DISCARDED_BODIES: usize = 4;

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
    // The pipeline's future holds a whole activity in pieces; on the heap it is moved by its pointer.
    Box::pin(front.answer(request)).instrument(span).await
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
                tracing::debug!(lane = %admitted.lane, duplicate = admitted.duplicate, "stored");
                StatusCode::NO_CONTENT.into_response()
            }
            Err(refusal) => {
                self.tally.refused(&refusal);
                let mut problem = refusal.into_problem(self.retry_after);
                if !problem.close {
                    problem.close = !self.read_away(&mut body, waits).await;
                }
                problem.into_response()
            }
        };
        let status = response.status();
        Span::current().record("http.response.status_code", status.as_u16());
        if status.is_server_error() {
            Span::current().record("otel.status_code", "ERROR");
        }
        response
    }

    async fn read_away(&self, body: &mut Body, waits: bool) -> bool {
        let most = self.body_max.saturating_mul(DISCARDED_BODIES);
        refused::discard(body, waits, most, self.body_timeout).await
    }
}

/// A trace of our own for each request. What a stranger sent as its trace is linked, never continued: it would choose our
/// trace ids and our sampling.
fn server_span(request: &Request) -> Span {
    let method = refused::method_in_spans(request.method());
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.ip().to_string());
    let span = tracing::info_span!(
        "POST /inbox",
        otel.kind = "server",
        http.request.method = method,
        network.peer.address = peer,
        http.route = "/inbox",
        http.response.status_code = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
        fedstream.lane = tracing::field::Empty,
        activitypub.activity.id = tracing::field::Empty,
        activitypub.activity.type = tracing::field::Empty,
        activitypub.remote.host = tracing::field::Empty,
    );
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    context::link(&span, context::extract(text("traceparent"), text("tracestate")).as_ref());
    span
}
