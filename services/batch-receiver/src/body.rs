//! What is left of a refused request's body, read away before the answer.
//!
//! A connection that is closed with bytes unread is reset, and a reset can overtake the answer: the sender would see a
//! lost connection, try the same batch again, and never hear why it is refused. So the body goes first, within bounds.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::HeaderMap;
use http::header::EXPECT;
use http_body_util::BodyExt;
use tokio::time::timeout;

/// Read away for a stranger, bytes: what a socket's buffer holds without anybody's doing.
pub const STRANGERS_BYTES_MAX: usize = 64 * 1024;

/// Read away for a sender of our own, bytes: batches are 1 MiB by default, before they are compressed.
pub const SENDERS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Time for either.
pub const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads what is left and throws it away; false if it is too much or too slow, and the connection of no further use.
pub async fn discard(body: &mut Body, headers: &HeaderMap, most: usize, within: Duration) -> bool {
    if body.is_end_stream() {
        return true;
    }
    // A client that waits to be asked for its body is not asked.
    if headers.contains_key(EXPECT) || body.size_hint().lower() > most as u64 {
        return false;
    }
    let reading = async {
        let mut left = most;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => return false,
            }
        }
        true
    };
    timeout(within, reading).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    /// A body that doesn't say how long it is.
    fn pieces(pieces: &[&'static str]) -> Body {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, std::convert::Infallible>(*piece)).collect();
        Body::from_stream(futures::stream::iter(pieces))
    }

    #[tokio::test]
    async fn what_is_left_is_read_away_within_bounds() {
        let none = HeaderMap::new();
        assert!(discard(&mut Body::empty(), &none, 0, DISCARD_TIMEOUT).await);
        assert!(discard(&mut Body::from("1234"), &none, 4, DISCARD_TIMEOUT).await);
        assert!(!discard(&mut Body::from("12345"), &none, 4, DISCARD_TIMEOUT).await);
        assert!(discard(&mut pieces(&["12", "34"]), &none, 4, DISCARD_TIMEOUT).await);
        assert!(!discard(&mut pieces(&["12", "345"]), &none, 4, DISCARD_TIMEOUT).await);
        let waits = HeaderMap::from_iter([(EXPECT, HeaderValue::from_static("100-continue"))]);
        assert!(!discard(&mut Body::from("1"), &waits, 4, DISCARD_TIMEOUT).await);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for_long() {
        let mut body = Body::from_stream(futures::stream::pending::<Result<Bytes, std::convert::Infallible>>());
        assert!(!discard(&mut body, &HeaderMap::new(), 4, Duration::from_millis(10)).await);
    }
}
