//! A request body, read within its limits.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::inflight::Held;
use crate::refusal::Refusal;

/// Reserved at once for an announced body; a client can announce anything.
const RESERVED_MAX: usize = 64 * 1024;

/// The whole body, held in flight as it comes.
pub async fn read(
    body: &mut Body,
    announced: Option<u64>,
    limit: usize,
    within: Duration,
    held: &mut Held,
    inflight_limit: usize,
) -> Result<Bytes, Refusal> {
    let announced = announced.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    if announced > limit {
        return Err(Refusal::BodyTooLarge { limit });
    }
    let deadline = Instant::now() + within;
    let mut read = BytesMut::with_capacity(announced.min(RESERVED_MAX));
    loop {
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| Refusal::BodyTimeout)?;
        let Some(frame) = frame else { return Ok(read.freeze()) };
        // Trailers are no part of the body, and no signature covers them.
        let Ok(data) = frame.map_err(|_| Refusal::BodyIncomplete)?.into_data() else { continue };
        if read.len() + data.len() > limit {
            return Err(Refusal::BodyTooLarge { limit });
        }
        if !held.grow(data.len()) {
            return Err(Refusal::InFlightFull { limit: inflight_limit });
        }
        read.extend_from_slice(&data);
    }
}

/// What Content-Length says, if it says anything that can be read.
pub fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get("content-length")?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflight::InFlight;

    const SOON: Duration = Duration::from_secs(5);

    async fn read_all(body: Vec<u8>, announced: Option<u64>, limit: usize, inflight: usize) -> Result<Bytes, Refusal> {
        let inflight = InFlight::new(inflight);
        let mut held = inflight.hold();
        read(&mut Body::from(body), announced, limit, SOON, &mut held, inflight.limit()).await
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        assert_eq!(read_all(vec![7; 10], Some(10), 10, 10).await.unwrap().len(), 10);
        assert_eq!(read_all(vec![7; 11], None, 10, 100).await, Err(Refusal::BodyTooLarge { limit: 10 }));
        assert_eq!(read_all(vec![], Some(11), 10, 100).await, Err(Refusal::BodyTooLarge { limit: 10 }));
        assert_eq!(read_all(vec![7; 10], None, 10, 9).await, Err(Refusal::InFlightFull { limit: 9 }));
    }
}
