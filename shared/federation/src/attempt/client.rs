//! The way to the remotes: HTTP/1.1 over TLS, with a bound on everything a stranger could make large or slow.
//!
//! hyper-util's client, and not a friendlier one: the connector has to be ours ([`GuardedConnector`]), redirects are signed
//! anew, and nothing is read from the environment (a proxy would resolve names in our place).

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, HeaderName, LOCATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pooled;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use tokio::time::{Instant, timeout_at};
use url::Url;

use crate::guard::{Guard, GuardedConnector, Names, SystemNames};
use crate::keys::pem_fault;

/// Connections kept for one remote: lanes come and go together.
const IDLE_MAX: usize = 4;

/// Many servers close an idle connection at 5 s; one that is closing is not used again.
const IDLE: Duration = Duration::from_secs(4);

/// What is kept of an answer, bytes: enough for a reason.
const ANSWER_KEPT_BYTES: usize = 2 * 1024;

/// How long the body of an answer to a POST is waited for: the status is known, and that is what counts.
const REASON: Duration = Duration::from_secs(2);

/// What a client is given.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From the request to the end of the answer.
    pub request: Duration,
    /// All of an attempt to deliver, with its forms of signature and its redirects.
    pub attempt: Duration,
    /// To connect, TLS aside.
    pub connect: Duration,
    /// What is read of an answer. The rest is dropped with its connection.
    pub answer_bytes: usize,
    /// The head of an answer: status line and headers.
    pub head_bytes: usize,
    /// Headers of an answer.
    pub headers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30), // Mastodon waits 10 s for us, but a busy small instance needs longer
            attempt: Duration::from_secs(60), // two requests that hang; the circuit breaker waits twice as long for a probe
            connect: Duration::from_secs(10),
            answer_bytes: 64 * 1024,
            head_bytes: 32 * 1024,
            headers: 100,
        }
    }
}

/// A client can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No certificate could ever be checked.
    #[error("the system's certificate authorities (package ca-certificates) can't be read: {0}")]
    Authorities(#[source] std::io::Error),
    /// Those of a file.
    #[error("the certificate authorities in {path}: {fault}", path = .path.display())]
    AuthoritiesFile {
        /// The file.
        path: PathBuf,
        /// Not readable, not PEM, or nothing in it.
        fault: String,
    },
    /// The TLS library has none of the protocol versions.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// A name that can't stand in a header.
    #[error("{0:?} can't be sent as User-Agent")]
    UserAgent(String),
}

/// No answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Unanswered {
    /// Of which kind.
    pub kind: NoAnswer,
    cause: String,
}

/// Why there is none: few words, for metrics and spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// No connection: nobody there, a certificate that is not theirs, an address that the guard refuses.
    Connect,
    /// Not within the time that it has.
    Timeout,
    /// The connection ended first, or what came is no HTTP.
    BrokenOff,
    /// There was no request to send.
    NoRequest,
}

impl NoAnswer {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::BrokenOff => "broken_off",
            Self::NoRequest => "no_request",
        }
    }

    fn because(self, cause: String) -> Unanswered {
        Unanswered { kind: self, cause }
    }
}

/// A remote's answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
    pub(crate) location: Option<String>,
    /// The beginning of its body, as text.
    pub(crate) body: Option<String>,
}

/// The way to the remotes. Cheap to clone; all clones share connections.
#[derive(Clone)]
pub struct Client {
    pooled: Pooled<HttpsConnector<GuardedConnector>, Full<Bytes>>,
    guard: Arc<Guard>,
    limits: Limits,
    user_agent: HeaderValue,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("guard", &self.guard).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What a [`Client`] is made of.
pub struct Setup {
    /// What may be connected to.
    pub guard: Guard,
    /// How names become addresses.
    pub names: Arc<dyn Names>,
    /// Bounds.
    pub limits: Limits,
    /// Trusted in place of the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// `User-Agent`.
    pub user_agent: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            guard: Guard::public(),
            names: Arc::new(SystemNames),
            limits: Limits::default(),
            ca_file: None,
            user_agent: concat!("fedstream/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl Client {
    /// A client without connections.
    ///
    /// # Errors
    /// TLS can't be set up, or the name can't stand in a header.
    pub fn new(setup: Setup) -> Result<Self, ClientError> {
        let Setup { guard, names, limits, ca_file, user_agent } = setup;
        let tls = tls(&guard, ca_file)?;
        let tcp = GuardedConnector::new(guard.clone(), names, limits.connect);
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let pooled = Pooled::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .http1_max_buf_size(limits.head_bytes.max(8 * 1024)) // hyper takes nothing smaller
            .http1_max_headers(limits.headers)
            .set_host(false) // it is signed, so it is ours to write
            .build(https);
        let user_agent = HeaderValue::from_str(&user_agent).map_err(|_| ClientError::UserAgent(user_agent))?;
        Ok(Self { pooled, guard: Arc::new(guard), limits, user_agent })
    }

    /// What may be connected to.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// What it is bounded by.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A POST with these headers, and its answer. With its head there is one: a body that breaks off, or does not end, is as
    /// long as it came. Taken for no answer, a delivery that the remote has would be made a second time.
    pub(crate) async fn post(&self, to: &Url, mut headers: HeaderMap, body: Bytes) -> Result<Answer, Unanswered> {
        headers.insert(ACCEPT, HeaderValue::from_static("application/activity+json"));
        let deadline = Instant::now() + self.limits.request;
        let (parts, incoming) = self.send(Method::POST, to, headers, body, deadline).await?;
        let mut body = BytesMut::new();
        let reading = read(incoming, self.limits.answer_bytes, ANSWER_KEPT_BYTES, &mut body);
        drop(timeout_at(deadline.min(Instant::now() + REASON), reading).await); // what was read is enough
        let header =
            |name: &HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Answer {
            status: parts.status.as_u16(),
            retry_after: header(&RETRY_AFTER),
            location: header(&LOCATION),
            body: Some(String::from_utf8_lossy(&body).into_owned()).filter(|text| !text.is_empty()),
        })
    }

    /// A GET with these headers: status and body, the whole of it or an error.
    pub(crate) async fn get(&self, from: &Url, headers: HeaderMap) -> Result<(u16, Bytes), Unanswered> {
        let deadline = Instant::now() + self.limits.request;
        let (parts, incoming) = self.send(Method::GET, from, headers, Bytes::new(), deadline).await?;
        let mut body = BytesMut::new();
        let max = self.limits.answer_bytes;
        match timeout_at(deadline, read(incoming, max, usize::MAX, &mut body)).await {
            Ok(Ok(())) => Ok((parts.status.as_u16(), body.freeze())),
            Ok(Err(fault)) => Err(fault),
            Err(_elapsed) => Err(self.waited()),
        }
    }

    /// A request, and the head of its answer.
    async fn send(
        &self,
        method: Method,
        to: &Url,
        headers: HeaderMap,
        body: Bytes,
        deadline: Instant,
    ) -> Result<(http::response::Parts, Incoming), Unanswered> {
        let uri: Uri = to
            .as_str()
            .parse()
            .map_err(|error| NoAnswer::NoRequest.because(format!("no request can be written ({error}) for {to}")))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        request.headers_mut().insert(USER_AGENT, self.user_agent.clone());
        match timeout_at(deadline, self.pooled.request(request)).await {
            Ok(Ok(response)) => Ok(response.into_parts()),
            Ok(Err(error)) => {
                let kind = if error.is_connect() { NoAnswer::Connect } else { NoAnswer::BrokenOff };
                Err(kind.because(cause(&error)))
            }
            Err(_elapsed) => Err(self.waited()),
        }
    }

    fn waited(&self) -> Unanswered {
        NoAnswer::Timeout.because(format!("no answer within {} s", self.limits.request.as_secs_f32()))
    }
}

/// Reads the body into `bytes`, of which `keep` is enough: the rest is passed over, to `max`.
async fn read(mut body: Incoming, max: usize, keep: usize, bytes: &mut BytesMut) -> Result<(), Unanswered> {
    let mut seen = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| NoAnswer::BrokenOff.because(format!("the answer broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        if seen > max {
            return Err(NoAnswer::BrokenOff.because(format!("the answer is larger than {max} bytes")));
        }
        let room = keep.saturating_sub(bytes.len());
        bytes.extend_from_slice(&data[..data.len().min(room)]);
    }
    Ok(())
}

fn tls(guard: &Guard, ca_file: Option<PathBuf>) -> Result<rustls::ClientConfig, ClientError> {
    let provider = rustls::crypto::ring::default_provider();
    let builder = rustls::ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions()?;
    let builder = match ca_file {
        Some(path) => builder.with_root_certificates(authorities(path)?),
        None => match builder.clone().with_native_roots() {
            Ok(builder) => builder,
            // On a developer's machine a missing package must not be in the way of plain HTTP.
            Err(_) if guard.allows_plain_http() => builder.with_root_certificates(RootCertStore::empty()),
            Err(error) => return Err(ClientError::Authorities(error)),
        },
    };
    Ok(builder.with_no_client_auth())
}

fn authorities(path: PathBuf) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    let mut read = || -> Result<(), String> {
        for certificate in CertificateDer::pem_file_iter(&path).map_err(|error| pem_said(&error))? {
            let certificate = certificate.map_err(|error| pem_said(&error))?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        Ok(())
    };
    match read() {
        Ok(()) if roots.is_empty() => {
            Err(ClientError::AuthoritiesFile { path, fault: "has no certificate in it".to_owned() })
        }
        Ok(()) => Ok(roots),
        Err(fault) => Err(ClientError::AuthoritiesFile { path, fault }),
    }
}

/// An operating system's reason is said; a line of the file never is: somebody may have named a file of keys.
fn pem_said(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        other => pem_fault(other).to_owned(),
    }
}

/// The reason of a failed request down to its root: "client error (Connect)" alone helps nobody.
fn cause(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = if error.is_connect() { "no connection".to_owned() } else { "no answer".to_owned() };
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
