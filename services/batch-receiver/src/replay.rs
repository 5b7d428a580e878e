//! The request to the instance, byte for byte as its sender made it, over HTTP/1.1.
//!
//! With hyper-util's client, since URL libraries normalise (`/a/../inbox`, `'`) and friendlier clients add headers,
//! follow redirects and read proxies from the environment. This one sends what a [`Parcel`] holds and nothing else.
//!
//! TLS names and checks the host in the address: with `OVERRIDE_DESTINATION_DOMAIN` that is the override, not the
//! activity's Host.

use std::error::Error as _;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use fedstream_lane::{InstanceName, Profile};
use fedstream_service::config::Scheme;
use fedstream_service::config::Span;
use fedstream_service::context;
use http::header::{ACCEPT, HOST, RETRY_AFTER, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::{Instant, timeout, timeout_at};

use crate::coding;
use crate::config::Config;
use crate::parcel::Parcel;
use crate::passing;
use crate::series;
use crate::verdict::{self, Verdict};

/// An instance may close an idle connection at 5 s (actix does); one that is closing is not used again.
const POOL_IDLE: Duration = Duration::from_secs(3);

/// Idle connections kept for one instance: lanes come and go together.
const POOL_IDLE_MAX: usize = 64;

/// An instance is near; one that needs longer to accept is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What is read of an answer. The rest is dropped with its connection.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// For a probe, from the connection to the last byte: it asks whether the instance is well.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of anything but a refusal changes nothing and is read only so that the connection can be used again.
const UNNEEDED_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// A cause is a line for people.
const CAUSE_CHARS_MAX: usize = 300;

/// The way to the instance.
#[derive(Clone, Debug)]
pub struct Replay {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    protocol: Scheme,
    timeout: Duration,
    /// The instance gets the delivery's traceparent.
    passes_traceparent: bool,
}

/// What came of a request.
#[derive(Debug)]
pub struct Exchanged {
    /// What the answer means.
    pub verdict: Verdict,
    /// The answer itself, where there was one; its status is in the verdict.
    pub answer: Option<Received>,
    /// Why there is none, or not all of it: one of the metric's words.
    pub failed: Option<&'static str>,
}

/// An instance's answer.
#[derive(Debug)]
pub struct Received {
    /// Its headers.
    pub headers: HeaderMap,
    /// What was read of its body; none where that broke off.
    pub body: Option<Bytes>,
}

impl Exchanged {
    fn unanswered(failed: &'static str, cause: impl Into<String>) -> Self {
        Self { verdict: Verdict::unanswered(cause), answer: None, failed: Some(failed) }
    }
}

/// It can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No certificate could ever be checked.
    #[error(
        "OVERRIDE_DESTINATION_PROTOCOL=https needs the system's certificate authorities (package ca-certificates): {0}"
    )]
    Authorities(#[source] std::io::Error),
    /// Those that the operator names.
    #[error("OVERRIDE_DESTINATION_CA_FILE={path}: {fault}", path = .path.display())]
    AuthoritiesFile {
        /// The file.
        path: PathBuf,
        /// Not readable, not PEM, or nothing in it.
        fault: String,
    },
    /// The TLS library has none of the protocol versions.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl Replay {
    /// A client without connections.
    ///
    /// # Errors
    /// TLS is wanted and can't be set up.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false); // it connects for TLS too
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(config)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(POOL_IDLE_MAX)
            .set_host(false)
            // The client tries again by itself only if not a byte of the request was written, on a connection that turned
            // out to be closed: the instance has seen nothing of it, so that is no repeat.
            .retry_canceled_requests(true)
            .build(https);
        let passes_traceparent = config.pass_traceparent.is_on();
        Ok(Self { client, protocol: config.protocol, timeout: config.delivery_timeout.get(), passes_traceparent })
    }

    /// What is asked for it, for people.
    pub fn url(&self, address: &Authority, parcel: &Parcel) -> String {
        format!("{}://{address}{}", self.protocol.as_str(), parcel.target)
    }

    /// Takes one activity to the instance, whose refusals are read as `profile` says.
    pub async fn deliver(&self, address: &Authority, profile: Profile, parcel: &Parcel) -> Verdict {
        self.exchange(address, profile, parcel).await.verdict
    }

    /// The same, with the instance's own answer beside what it means.
    pub async fn exchange(&self, address: &Authority, profile: Profile, parcel: &Parcel) -> Exchanged {
        let began = Instant::now();
        let exchanged = self.ask(address, profile, parcel).await;
        series::requested(&exchanged, began.elapsed());
        exchanged
    }

    async fn ask(&self, address: &Authority, profile: Profile, parcel: &Parcel) -> Exchanged {
        let request = match self.request(address, parcel) {
            Ok(request) => request,
            Err(error) => return Exchanged::unanswered("no_request", format!("no request can be made: {error}")),
        };
        let deadline = Instant::now() + self.timeout;
        let response = match timeout_at(deadline, self.client.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let failed = if error.is_connect() { "connect" } else { "broken_off" };
                return Exchanged::unanswered(failed, cause(&error));
            }
            Err(_) => {
                let cause = format!("the instance did not answer within {}", Span(self.timeout));
                return Exchanged::unanswered("timeout", cause);
            }
        };
        let (status, retry_after) = (response.status().as_u16(), header(&response, &RETRY_AFTER));
        let now = SystemTime::now();
        let (head, body) = response.into_parts();
        if let Some(verdict) = verdict::by_head(status, retry_after.as_deref(), now) {
            let body = timeout(UNNEEDED_BODY_TIMEOUT, read(body)).await.ok().and_then(Result::ok);
            return Exchanged { verdict, answer: Some(Received { headers: head.headers, body }), failed: None };
        }
        let body = within(deadline, read(body)).await.map(|body| {
            let readable = coding::read(&head.headers, body, ANSWER_BYTES_MAX);
            readable.unwrap_or_else(|error| Bytes::from(error.to_string()))
        });
        let verdict = match &body {
            Some(body) => verdict::by_body(profile, status, retry_after.as_deref(), body, now),
            // A refusal is for good; half a reason is none.
            None => Verdict::Retry {
                status: Some(status),
                retry_after_s: None,
                cause: format!("the instance answered {status}, but its answer broke off"),
            },
        };
        let failed = body.is_none().then_some("broken_off");
        Exchanged { verdict, answer: Some(Received { headers: head.headers, body }), failed }
    }

    /// Does the instance answer 200 to a question that is about no activity? Asked as the deliveries are: the same way,
    /// under the destination's name, as somebody who came by https.
    pub async fn probe(&self, address: &Authority, destination: &InstanceName, path: &PathAndQuery) -> bool {
        let uri = Uri::builder().scheme(self.protocol.as_str()).authority(address.clone()).path_and_query(path.clone());
        let request = uri.build().and_then(|uri| {
            Request::get(uri)
                .header(HOST, destination.as_str())
                .header(USER_AGENT, concat!("fedstream/", env!("CARGO_PKG_VERSION")))
                .header(ACCEPT, "application/json")
                // Some instances send everybody else to https.
                .header("x-forwarded-proto", Scheme::Https.as_str())
                .body(Full::new(Bytes::new()))
        });
        let Ok(request) = request else { return false };
        let asking = async {
            let response = self.client.request(request).await.ok()?;
            let status = response.status();
            read(response.into_body()).await.ok().map(|_| status)
        };
        timeout(PROBE_TIMEOUT, asking).await.ok().flatten() == Some(StatusCode::OK)
    }

    fn request(&self, address: &Authority, parcel: &Parcel) -> Result<Request<Full<Bytes>>, http::Error> {
        let uri = Uri::builder()
            .scheme(self.protocol.as_str())
            .authority(address.clone())
            .path_and_query(parcel.target.clone());
        let mut request = Request::new(Full::new(parcel.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.build()?;
        *request.headers_mut() = parcel.headers.clone();
        if let (true, Some(trace)) = (self.passes_traceparent, context::current()) {
            passing::put(request.headers_mut(), trace);
        }
        Ok(request)
    }
}

fn tls(config: &Config) -> Result<rustls::ClientConfig, Error> {
    let provider = rustls::crypto::ring::default_provider();
    let builder = rustls::ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions()?;
    let roots = match (config.protocol, &config.ca_file) {
        (_, Some(path)) => builder.with_root_certificates(authorities(path)?),
        (Scheme::Https, None) => builder.with_native_roots().map_err(Error::Authorities)?,
        // Never asked; a machine without certificate authorities must not be a reason not to start.
        (Scheme::Http, None) => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(roots.with_no_client_auth())
}

/// The certificates of OVERRIDE_DESTINATION_CA_FILE.
fn authorities(path: &Path) -> Result<RootCertStore, Error> {
    let fault = |fault: String| Error::AuthoritiesFile { path: path.to_owned(), fault };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| fault(error.to_string()))? {
        let certificate = certificate.map_err(|error| fault(error.to_string()))?;
        roots.add(certificate).map_err(|error| fault(error.to_string()))?;
    }
    if roots.is_empty() { Err(fault("has no certificate in it".to_owned())) } else { Ok(roots) }
}

fn header(response: &Response<Incoming>, name: &http::HeaderName) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

async fn within<T, E>(deadline: Instant, read: impl Future<Output = Result<T, E>>) -> Option<T> {
    timeout_at(deadline, read).await.ok()?.ok()
}

/// The beginning of the body.
async fn read(mut body: Incoming) -> Result<Bytes, hyper::Error> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        let room = ANSWER_BYTES_MAX - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            break;
        }
    }
    Ok(bytes.freeze())
}

/// The reason of a failed request down to its root: "client error (Connect)" alone helps nobody.
fn cause(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = if error.is_connect() {
        "no connection to the instance".to_owned()
    } else {
        "no answer from the instance".to_owned()
    };
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text.chars().take(CAUSE_CHARS_MAX).collect()
}
