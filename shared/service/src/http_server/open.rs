//! The requests of one connection that are open, from their headers to the last byte of their answers; and for how long
//! there has been none. hyper looks after idle connections of HTTP/1 only.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

/// The requests of one connection. It signals nothing: a request that begins or ends runs in the task that would be woken, and
/// the scheduler would wake another thread for it, twice a request.
#[derive(Clone)]
pub(super) struct Requests(Arc<Mutex<Count>>);

struct Count {
    open: usize,
    /// When the last one ended.
    ended: Instant,
}

impl Requests {
    /// None so far.
    pub(super) fn none() -> Self {
        Self(Arc::new(Mutex::new(Count { open: 0, ended: Instant::now() })))
    }

    /// Returns when there has been no request for so long, from now on.
    pub(super) async fn idle(&self, patience: Duration) {
        let from = Instant::now();
        loop {
            let due = self.with(|count| {
                let since = if count.open == 0 { count.ended.max(from) } else { Instant::now() };
                since + patience
            });
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Count) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner)) // two numbers: nothing is left half done
    }
}

/// One open request.
pub(super) struct Open(Requests);

impl Open {
    pub(super) fn new(requests: Requests) -> Self {
        requests.with(|count| count.open += 1);
        Self(requests)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.with(|count| {
            count.open -= 1;
            count.ended = Instant::now();
        });
    }
}

/// An answer's body, which keeps its request open.
pub(super) struct Answer {
    pub(super) body: axum::body::Body,
    pub(super) _open: Open,
}

impl Body for Answer {
    type Data = axum::body::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn idle_is_counted_from_the_end_of_the_last_request_and_from_when_it_was_asked() {
        let (requests, began) = (Requests::none(), Instant::now());
        let [first, second] = [(); 2].map(|()| Open::new(requests.clone()));
        let ends = async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop(first);
            tokio::time::sleep(PATIENCE * 3).await;
            drop(second);
            began.elapsed()
        };
        let ((), ended) = tokio::join!(requests.idle(PATIENCE), ends);
        assert!(began.elapsed() >= ended + PATIENCE && began.elapsed() < ended + PATIENCE * 2, "{:?}", began.elapsed());
        let again = Instant::now();
        requests.idle(PATIENCE).await;
        assert!(again.elapsed() >= PATIENCE, "a connection that was asked to end has as long again");
    }
}
