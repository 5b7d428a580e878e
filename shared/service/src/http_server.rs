//! An HTTP/1.1 and HTTP/2 (prior knowledge) server with limits on everything a stranger can use up: connections,
//! header bytes, header time, idle time, time to take our answer, and at the end the time to finish.
//!
//! axum's own `serve` bounds none of these, so it is never used. What a request may be is the service's business: the
//! limits here are well above a service's own, so that the refusal is the service's, with its reason, and not a
//! bare status of the HTTP library.

mod open;
mod socket;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use open::{Answer, Open, Requests};
use socket::Socket;

/// What one listener allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections; further ones wait in the kernel's queue.
    pub connections: usize,
    /// From the first byte of a request, or the end of the one before, to the end of its headers. As long may a client
    /// leave our answer unread in its socket.
    pub header_timeout: Duration,
    /// Requests of one HTTP/2 connection that are worked on at once; HTTP/1 has one.
    pub streams: u32,
    /// Bytes of request line and headers that are read at all; of HTTP/2 never more than 32 KiB.
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
            streams: 128,
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

/// Headers of one HTTP/2 request, with the 32 bytes that each counts more there: each of many streams can have as many.
const HEADER_LIST_MAX: u32 = 32 * 1024;

/// Between two attempts to accept when the process has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `app` until `shutdown`, then lets requests in flight finish within the grace period.
///
/// Returns whether all of them did.
pub async fn serve(listener: TcpListener, app: Router, limits: Limits, shutdown: CancellationToken) -> bool {
    let builder = Arc::new(builder(&limits));
    let slots = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    loop {
        let (stream, peer, slot) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (builder, app, shutdown) = (builder.clone(), app.clone(), shutdown.clone());
        connections.spawn(async move {
            converse(&builder, stream, peer, app, limits.header_timeout, shutdown).await;
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    tracing::debug!(connections = connections.len(), "no longer accepting");
    tokio::time::timeout(limits.grace, connections.wait()).await.is_ok()
}

/// One connection, until it ends. At shutdown, and when it has no request for `patience`, it is asked to end; when it has
/// none for as long again, it is dropped. (hyper does the like for HTTP/1 only.)
async fn converse(
    builder: &Builder<TokioExecutor>,
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    patience: Duration,
    shutdown: CancellationToken,
) {
    let requests = Requests::none();
    let of_service = requests.clone();
    let app = TowerToHyperService::new(app);
    let service = service_fn(move |request| answer(app.clone(), peer, request, of_service.clone()));
    let io = TokioIo::new(Socket::new(stream, patience));
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    // A peer that hangs up is its own business; an operator who looks for it finds it.
                    tracing::debug!(%peer, error = %error, "connection ended");
                }
                return;
            }
            () = shutdown.cancelled(), if !ending => {}
            () = requests.idle(patience) => {
                if ending {
                    tracing::debug!(%peer, "connection dropped: idle");
                    return;
                }
            }
        }
        ending = true;
        connection.as_mut().graceful_shutdown();
    }
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
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX).min(HEADER_LIST_MAX));
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
    requests: Requests,
) -> Result<http::Response<Answer>, Infallible> {
    let open = Open::new(requests);
    request.extensions_mut().insert(Peer(peer));
    let response = app.call(request).await?;
    Ok(response.map(|body| Answer { body, _open: open }))
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

    /// An HTTP/2 client with nothing to say but what its connection needs.
    async fn http2(
        address: SocketAddr,
    ) -> (hyper::client::conn::http2::SendRequest<axum::body::Body>, JoinHandle<hyper::Result<()>>) {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        (client, tokio::spawn(connection))
    }

    fn get(value: &str) -> Request<axum::body::Body> {
        Request::get("http://a/").header("x-a", value).body(axum::body::Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn an_idle_http2_connection_is_ended_gracefully() {
        let limits = Limits { header_timeout: Duration::from_millis(100), ..Limits::default() };
        let (address, _stop, _server) = start(echo_target(), limits).await;
        let (mut client, connection) = http2(address).await;
        assert_eq!(client.send_request(get("1")).await.unwrap().status(), 200);
        timeout(PATIENCE, connection).await.unwrap().unwrap().expect("no error, but GOAWAY");
    }

    #[tokio::test]
    async fn an_answer_that_takes_longer_than_an_idle_connection_may_last_is_given() {
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(500)).await; // the passing of time is what is tested
            "done"
        };
        let limits = Limits { header_timeout: Duration::from_millis(100), ..Limits::default() };
        let (address, _stop, _server) = start(Router::new().fallback(any(slow)), limits).await;
        let (mut client, _connection) = http2(address).await;
        assert_eq!(client.send_request(get("1")).await.unwrap().status(), 200);
        let answer = talk(address, "GET / HTTP/1.1\r\nhost: a-rather-long-name\r\n\r\n").await;
        assert!(answer.ends_with("done"), "{answer}");
    }

    #[tokio::test]
    async fn http2_headers_have_a_bound_of_their_own() {
        let (address, _stop, _server) = start(echo_target(), Limits::default()).await;
        let (mut client, _connection) = http2(address).await;
        assert_eq!(client.send_request(get(&"v".repeat(30_000))).await.unwrap().status(), 200);
        let refused = client.send_request(get(&"v".repeat(33_000))).await;
        assert!(refused.map_or(true, |answer| answer.status() == 431));
    }

    struct Endless;

    impl hyper::body::Body for Endless {
        type Data = axum::body::Bytes;
        type Error = Infallible;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Infallible>>> {
            let data = axum::body::Bytes::from_static(&[0; 64 * 1024]);
            std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(data))))
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_its_answer_is_dropped() {
        let large = || async { axum::body::Body::new(Endless) };
        let limits = Limits { connections: 1, header_timeout: Duration::from_millis(100), ..Limits::default() };
        let (address, stop, server) = start(Router::new().fallback(any(large)), limits).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a-rather-long-name\r\n\r\n").await.unwrap();
        let begun = timeout(PATIENCE, client.read_u8()).await.unwrap();
        assert!(begun.is_ok());
        stop.cancel();
        assert!(timeout(PATIENCE, server).await.unwrap().unwrap(), "it would wait for the whole grace period");
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
