//! The second listener: `/healthz`, `/readyz`, `/metrics` and `/lanes`, for supervisors, Prometheus and people. It says nothing about anybody's
//! activities, and is on loopback unless told otherwise.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http_server::{self, Limits};
use crate::metrics;
use crate::readiness::Readiness;

type LanesPage = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Value> + Send>> + Send + Sync>;

/// What the admin listener shows.
#[derive(Clone)]
pub struct Admin {
    readiness: Readiness,
    lanes: Option<LanesPage>,
}

impl Admin {
    /// `/healthz`, `/readyz` and `/metrics` only.
    pub fn new(readiness: Readiness) -> Self {
        Self { readiness, lanes: None }
    }

    /// Adds `/lanes`: what the service knows of each lane, made anew for each request.
    #[must_use]
    pub fn lanes<F, R>(mut self, page: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Value> + Send + 'static,
    {
        self.lanes = Some(Arc::new(move || Box::pin(page())));
        self
    }

    /// The pages.
    pub fn router(self) -> Router {
        Router::new()
            // Alive is: it answers. A broker that is away is no reason to be restarted.
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_page))
            .route("/lanes", get(lanes))
            .with_state(self)
    }

    /// Serves the pages until `shutdown`. Give it a token of its own that is cancelled last, so that `/healthz` answers
    /// while the service finishes its work.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let limits = Limits { connections: 64, grace: Duration::from_secs(1), ..Limits::default() };
        http_server::serve(listener, self.router(), limits, shutdown).await;
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let status = if admin.readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(admin.readiness.report())).into_response()
}

async fn metrics_page() -> Response {
    match metrics::text() {
        Some(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn lanes(State(admin): State<Admin>) -> Response {
    match admin.lanes {
        Some(page) => Json(page().await).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http::Request;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    use serde_json::json;

    async fn status(admin: &Admin, path: &str) -> StatusCode {
        let request = Request::get(path).body(Body::empty()).unwrap();
        TowerToHyperService::new(admin.clone().router()).call(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn readyz_follows_the_checks_and_healthz_does_not() {
        let readiness = Readiness::new(&["broker"]);
        let admin = Admin::new(readiness.clone());
        assert_eq!(status(&admin, "/readyz").await, 503);
        assert_eq!(status(&admin, "/healthz").await, 200);
        readiness.ready("broker", "connected");
        assert_eq!(status(&admin, "/readyz").await, 200);
    }

    #[tokio::test]
    async fn lanes_is_there_when_the_service_has_any() {
        let admin = Admin::new(Readiness::new(&[]));
        assert_eq!(status(&admin, "/lanes").await, 404);
        let admin = admin.lanes(|| async { json!([]) });
        assert_eq!(status(&admin, "/lanes").await, 200);
    }
}
