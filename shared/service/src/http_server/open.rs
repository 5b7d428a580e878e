//! The requests of one connection that are open, from their headers to the last byte of their answers; and for how long
//! there has been none. hyper looks after idle connections of HTTP/1 only.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::watch;

/// Returns when there has been no request for so long.
pub(super) async fn idle(open: &mut watch::Receiver<usize>, patience: Duration) {
    loop {
        if open.wait_for(|requests| *requests == 0).await.is_err() {
            return std::future::pending().await; // the connection is over, and its own future says so
        }
        match tokio::time::timeout(patience, open.changed()).await {
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// One open request.
pub(super) struct Open(watch::Sender<usize>);

impl Open {
    pub(super) fn new(requests: watch::Sender<usize>) -> Self {
        requests.send_modify(|open| *open += 1);
        Self(requests)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
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
