//! What is measured of every HTTP request that a service answers.

use std::time::Duration;

use http::StatusCode;
use opentelemetry::KeyValue;

use super::table::SERVER_DURATION;
use crate::attributes::{HTTP_METHOD, HTTP_STATUS};

/// A request was answered. `method` is one that [`crate::refused::method_in_spans`] gave.
pub fn answered(method: &'static str, status: StatusCode, took: Duration) {
    let labels = [KeyValue::new(HTTP_METHOD, method), KeyValue::new(HTTP_STATUS, i64::from(status.as_u16()))];
    SERVER_DURATION.record(took.as_secs_f64(), &labels);
}
