//! Refusals over HTTP: `application/problem+json` (RFC 9457), with a stable `type` and the reason in words.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value};

/// What `type` begins with: stable, and needs no web site.
pub const TYPE_PREFIX: &str = "urn:fedstream:problem:";

/// A refusal. `kind` is the same for every request refused for the same reason; `detail` is about this one.
#[derive(Debug, Clone)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// Last part of `type`, in words joined by dashes: `lane-full`.
    pub kind: &'static str,
    /// What happened to this request, in a sentence.
    pub detail: String,
    /// When the sender should come back.
    pub retry_after: Option<Duration>,
    /// The methods of a 405.
    pub allow: Option<&'static str>,
    /// The connection can't be used further (its body was not read to the end).
    pub close: bool,
    members: Map<String, Value>,
}

impl Problem {
    /// A refusal without Retry-After.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), retry_after: None, allow: None, close: false, members: Map::new() }
    }

    /// Asks the sender to come back after this long (whole seconds, rounded up).
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Names the methods that are allowed.
    #[must_use]
    pub fn allow(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// Ends the connection after this answer.
    #[must_use]
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Adds an extension member, for readers that are programs.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The body.
    pub fn json(&self) -> Value {
        let mut object = self.members.clone();
        object.insert("type".into(), format!("{TYPE_PREFIX}{}", self.kind).into());
        object.insert("title".into(), self.kind.replace('-', " ").into());
        object.insert("status".into(), self.status.as_u16().into());
        object.insert("detail".into(), self.detail.clone().into());
        Value::Object(object)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after) = self.retry_after {
            // Rounded up: 0 would mean "at once" (RFC 9110, section 10.2.3 knows whole seconds only).
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(methods) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        if self.close {
            headers.insert(HeaderName::from_static("connection"), HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_a_stable_type_and_a_rounded_up_retry_after() {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "lane-full", "5000 of 5000")
            .retry_after(Duration::from_millis(9500))
            .with("lane", "a/b");
        assert_eq!(problem.json()["type"], "urn:fedstream:problem:lane-full");
        assert_eq!(problem.json()["title"], "lane full");
        assert_eq!(problem.json()["lane"], "a/b");
        let response = problem.into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "10");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
}
