//! What every HTTP service does with a request that it refuses: the body is read away before the answer, and what a
//! stranger wrote does not become a name in spans.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use http::header::EXPECT;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use tokio::time::timeout;

/// Does the client wait to be asked for the body? (RFC 9110, section 10.1.1)
#[must_use]
pub fn waits_to_be_asked(headers: &HeaderMap) -> bool {
    headers.contains_key(EXPECT)
}

/// Reads what is left of a refused request's body and throws it away; false if that is more than `most` bytes or takes
/// longer than `within`, and the connection is of no further use.
///
/// A connection that is closed with bytes unread is reset, and a reset can overtake the answer: the sender would see a
/// lost connection and never hear the reason. A client that waits to be asked for its body is not asked.
pub async fn discard(body: &mut Body, waits_to_be_asked: bool, most: usize, within: Duration) -> bool {
    if body.is_end_stream() {
        return true;
    }
    if waits_to_be_asked || body.size_hint().lower() > most as u64 {
        return false;
    }
    let reading = async {
        let mut left = most;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            match left.checked_sub(frame.data_ref().map_or(0, bytes::Bytes::len)) {
                Some(rest) => left = rest,
                None => return false,
            }
        }
        true
    };
    timeout(within, reading).await.unwrap_or(false)
}

/// A method as it may stand in a span: strangers can send any word (OpenTelemetry, HTTP spans, `http.request.method`).
#[must_use]
pub fn method_in_spans(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
    KNOWN.into_iter().find(|known| method.as_str() == *known).unwrap_or("_OTHER")
}

/// The same as the beginning of a span's name (OpenTelemetry, HTTP spans, name).
#[must_use]
pub fn method_in_names(method: &Method) -> &'static str {
    match method_in_spans(method) {
        "_OTHER" => "HTTP",
        known => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const SOON: Duration = Duration::from_secs(5);

    /// A body that doesn't say how long it is.
    fn pieces(pieces: &[&'static str]) -> Body {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, Infallible>(*piece)).collect();
        Body::from_stream(futures::stream::iter(pieces))
    }

    #[tokio::test]
    async fn what_is_left_is_read_away_within_bounds() {
        assert!(discard(&mut Body::empty(), false, 0, SOON).await);
        assert!(discard(&mut Body::from("1234"), false, 4, SOON).await);
        assert!(!discard(&mut Body::from("12345"), false, 4, SOON).await);
        assert!(discard(&mut pieces(&["12", "34"]), false, 4, SOON).await);
        assert!(!discard(&mut pieces(&["12", "345"]), false, 4, SOON).await);
        assert!(!discard(&mut Body::from("1"), true, 4, SOON).await);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for_long() {
        let mut body = Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, Infallible>>());
        assert!(!discard(&mut body, false, 4, Duration::from_millis(10)).await);
    }

    #[test]
    fn a_method_that_nobody_knows_has_no_name_in_spans() {
        for (method, name) in [("POST", "POST"), ("TRACE", "TRACE"), ("post", "_OTHER"), ("X-RANDOM-1", "_OTHER")] {
            assert_eq!(method_in_spans(&method.parse().expect("a token")), name);
        }
        for (method, name) in [("GET", "GET"), ("X-RANDOM-1", "HTTP")] {
            assert_eq!(method_in_names(&method.parse().expect("a token")), name);
        }
    }
}
