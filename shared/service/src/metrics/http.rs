//! What is measured of every HTTP request that a service answers, and how a status is shown.

use std::time::Duration;

use http::StatusCode;
use opentelemetry::KeyValue;

use super::table::SERVER_DURATION;
use crate::attributes::{HTTP_METHOD, HTTP_STATUS};

/// A request was answered. `method` is one that [`crate::refused::method_in_spans`] gave.
pub fn answered(method: &'static str, status: StatusCode, took: Duration) {
    let labels = [KeyValue::new(HTTP_METHOD, method), self::status(status.as_u16())];
    SERVER_DURATION.record(took.as_secs_f64(), &labels);
}

/// The label of a status. Of a code that nobody has defined it is the hundred that it is to be taken for (RFC 9110, section
/// 15): an instance may answer anything, and the label is bounded.
#[must_use]
pub fn status(code: u16) -> KeyValue {
    let is_defined = StatusCode::from_u16(code).is_ok_and(|status| status.canonical_reason().is_some());
    KeyValue::new(HTTP_STATUS, i64::from(if is_defined { code } else { code - code % 100 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::definition::STATUSES_MAX;
    use std::collections::BTreeSet;

    #[test]
    fn no_answer_goes_beyond_the_bound_of_statuses() {
        let shown = |code| status(code).value.to_string();
        assert_eq!([200, 429, 499, 599, 999].map(shown), ["200", "429", "400", "500", "900"]);
        let all: BTreeSet<_> = (100..1000).map(shown).collect();
        assert!(all.len() <= STATUSES_MAX, "{all:?}");
    }
}
