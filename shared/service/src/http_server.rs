//! An HTTP/1.1 and HTTP/2 (prior knowledge) server with limits on everything a stranger can use up: connections,
//! header bytes, header time, and at the end the time to finish.
//!
//! axum's own `serve` bounds none of these, so it is never used. What a request may be is the service's business: the
//! limits here are well above a service's own, so that the refusal is the service's, with its reason, and not a
//! bare status of the HTTP library.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// What one listener allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections; further ones wait in the kernel's queue.
    pub connections: usize,
    /// From the first byte of a request, or the end of the one before, to the end of its headers.
    pub header_timeout: Duration,
    /// Bytes of request line and headers that are read at all.
    pub header_bytes: usize,
    /// Headers that are read at all.
    pub header_count: usize,
    /// After the shutdown token: time for requests in flight.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            header_timeout: Duration::from_secs(30),
            // Senders with 64 kB of headers exist in tests only; they deserve a reason all the same.
            header_bytes: 128 * 1024,
            header_count: 2048,
            grace: Duration::from_secs(20),
        }
    }
}

/// The other end of the connection, in each request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Requests of one HTTP/2 connection that are worked on at once; HTTP/1 has one.
const STREAMS_MAX: u32 = 128;

/// Between two attempts to accept when the process has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `app` until `shutdown`, then lets requests in flight finish within the grace period.
///
/// Returns whether all of them did.
pub async fn serve(listener: TcpListener, app: Router, limits: Limits, shutdown: CancellationToken) -> bool {
    let builder = Arc::new(builder(&limits));
    let slots = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    loop {
        let (stream, peer, slot) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let app = TowerToHyperService::new(app.clone());
        let service = service_fn(move |request| answer(app.clone(), peer, request));
        let io = TokioIo::new(Greeting::new(stream, limits.header_timeout));
        let connection = graceful.watch(builder.serve_connection(io, service).into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // A peer that hangs up is its own business; an operator who looks for it finds it.
                tracing::debug!(%peer, error = %error, "connection ended");
            }
            drop(slot);
        });
    }
    drop(listener);
    let in_flight = graceful.count();
    tracing::debug!(connections = in_flight, "no longer accepting");
    tokio::time::timeout(limits.grace, graceful.shutdown()).await.is_ok()
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(limits.header_count)
        // hyper panics below 8192.
        .max_buf_size(limits.header_bytes.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.header_timeout)
        .keep_alive_timeout(limits.header_timeout)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX));
    builder
}

/// One connection with its slot. The slot comes first: what can't be served waits in the kernel's queue.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit) {
    loop {
        let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
            // The semaphore is never closed; waiting forever is what an unreachable case may do.
            std::future::pending::<()>().await;
            continue;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and awaited one by one: Nagle's algorithm would hold them back.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY");
                }
                return (stream, peer, slot);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(
    app: TowerToHyperService<Router>,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response, Infallible> {
    request.extensions_mut().insert(Peer(peer));
    app.call(request).await
}

/// A connection that must say something. hyper's header timeout starts once the protocol is known, so until then, for
/// as many bytes as the HTTP/2 preface has, this one does; else a silent client would keep its slot for ever.
struct Greeting {
    stream: TcpStream,
    timer: Option<Pin<Box<Sleep>>>,
    seen: usize,
}

impl Greeting {
    /// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n` (RFC 9113, section 3.4).
    const PREFACE_BYTES: usize = 24;

    fn new(stream: TcpStream, timeout: Duration) -> Self {
        Self { stream, timer: Some(Box::pin(tokio::time::sleep(timeout))), seen: 0 }
    }
}

impl AsyncRead for Greeting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.seen += buf.filled().len() - before;
            if self.seen >= Self::PREFACE_BYTES {
                self.timer = None;
            }
            return read;
        }
        match self.timer.as_mut().map(|timer| timer.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was said"))),
            _ => Poll::Pending,
        }
    }
}

impl AsyncWrite for Greeting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::Request as AxumRequest;
    use axum::routing::any;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn start(app: Router, limits: Limits) -> (SocketAddr, CancellationToken, JoinHandle<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, app, limits, stop.clone()));
        (address, stop, server)
    }

    async fn talk(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn echo_target() -> Router {
        Router::new().fallback(any(|request: AxumRequest| async move {
            let peer = request.extensions().get::<Peer>().is_some();
            format!("{} peer={peer} headers={}", request.uri(), request.headers().len())
        }))
    }

    #[tokio::test]
    async fn the_target_reaches_the_service_as_received() {
        let (address, _stop, _server) = start(echo_target(), Limits::default()).await;
        let answer =
            talk(address, "GET /a/../u/%40b/inbox?x='1' HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(answer.contains("/a/../u/%40b/inbox?x='1' peer=true"), "{answer}");
    }

    #[tokio::test]
    async fn a_hundred_kilobytes_of_headers_reach_the_service() {
        let (address, _stop, _server) = start(echo_target(), Limits::default()).await;
        let headers = format!("x-a: {}\r\n", "v".repeat(1000)).repeat(100);
        let answer = talk(address, &format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_or_too_little_is_let_go() {
        let limits = Limits { header_timeout: Duration::from_millis(100), ..Limits::default() };
        let (address, _stop, _server) = start(echo_target(), limits).await;
        for beginning in ["", "PRI * HT", "GET / HTTP/1.1\r\nhost: a-rather-long-name\r\nx-a:"] {
            talk(address, beginning).await;
        }
    }

    #[tokio::test]
    async fn connections_over_the_limit_wait_for_their_turn() {
        let limits = Limits { connections: 1, header_timeout: Duration::from_millis(200), ..Limits::default() };
        let (address, _stop, _server) = start(echo_target(), limits).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        let answer = talk(address, "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn shutdown_finishes_what_is_in_flight_and_accepts_nothing_more() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let finished = Arc::new(AtomicUsize::new(0));
        let handler = {
            let (begun, go_on, finished) = (begun.clone(), go_on.clone(), finished.clone());
            move || async move {
                begun.notify_one();
                go_on.notified().await;
                finished.fetch_add(1, Ordering::SeqCst);
                "done"
            }
        };
        let (address, stop, server) = start(Router::new().fallback(any(handler)), Limits::default()).await;
        let request = tokio::spawn(async move { talk(address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await });
        timeout(PATIENCE, begun.notified()).await.unwrap();
        stop.cancel();
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        go_on.notify_one();
        assert!(timeout(PATIENCE, request).await.unwrap().unwrap().contains("done"));
        assert!(timeout(PATIENCE, server).await.unwrap().unwrap());
        assert_eq!(finished.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn shutdown_gives_up_after_the_grace_period() {
        let begun = Arc::new(Notify::new());
        let handler = {
            let begun = begun.clone();
            move || async move {
                begun.notify_one();
                std::future::pending::<&'static str>().await
            }
        };
        let limits = Limits { grace: Duration::from_millis(50), ..Limits::default() };
        let (address, stop, server) = start(Router::new().fallback(any(handler)), limits).await;
        let _request = tokio::spawn(async move { talk(address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await });
        timeout(PATIENCE, begun.notified()).await.unwrap();
        stop.cancel();
        assert!(!timeout(PATIENCE, server).await.unwrap().unwrap());
    }
}
