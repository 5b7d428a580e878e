//! The link to a batch-receiver: one POST, and what its answer means to the window, in either batch format.
//!
//! ```text
//!   post ─▶ probe: which format does it take? ─┬─▶ v2: a line for each outcome, as soon as it is known
//!           (a GET, where that is not sure)    └─▶ v1: one array, when all is over
//! ```
//!
//! Nothing is retried here, and nothing is posted in a format that the receiver is not known to take: the window
//! decides what is posted again, and a lane whose receiver takes the other format starts anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fedstream_carrier::Ended;
use fedstream_lane::{Answer, End, GateId, Seq};
use fedstream_service::metrics::table::{BATCH_DURATION, BATCH_ITEMS, BATCH_SIZE};
use fedstream_service::shutdown::CancellationToken;
use fedstream_service::spans::KeyValue;
use fedstream_service::{attributes, spans};
use fedstream_wire::encoding::Encoding;
use fedstream_wire::protocol::Protocol;
use fedstream_wire::v2::{Batch, GATE_HEADER};
use http::header::{AUTHORIZATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, RequestBuilder, Response};
use tracing::Span;

use connections::Connections;
pub use probe::Formats;
pub use v1::bytes_of as v1_bytes_of;

use crate::config::Config;

mod connections;
mod probe;
mod v1;
mod v2;

/// A connection that can't be made in this time won't be: three round trips of the worst link, twice.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A proxy on the way may close an idle connection after 60 s; ours goes first.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Longest refusal that is read, bytes.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// The gate of every v1 receiver, for windows: it has none, and is never asked for one.
pub const V1_GATE: GateId = GateId(1);

/// Why the link can't be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP client.
    #[error("the HTTP client can't be made")]
    Client(#[from] reqwest::Error),
    /// The certificate authorities.
    #[error("BATCH_RECEIVER_CA_FILE={path}: {fault}", path = .path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Not readable, not PEM, or nothing in it.
        fault: String,
    },
    /// The credential has a character that an HTTP header can't carry. Its value is in no message.
    #[error("HTTP_BATCH_AUTHORIZATION has a character that an HTTP header can't carry")]
    Authorization,
    /// The user agent has one.
    #[error("HTTP_USER_AGENT has a character that an HTTP header can't carry")]
    UserAgent,
}

/// Posts batches to one URL, in one format.
#[derive(Clone, Debug)]
pub struct Link {
    client: Client,
    connections: Connections,
    url: String,
    protocol: Protocol,
    formats: Arc<Formats>,
    authorization: Option<HeaderValue>,
    user_agent: HeaderValue,
    compression: Encoding,
    answer_timeout: Duration,
    v1: v1::Bounds,
}

impl Link {
    /// The link of this configuration. Nothing is connected yet.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(config: &Config) -> Result<Self, Error> {
        // reqwest needs a process-wide TLS provider: `Broker::connect` has installed it.
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            // One connection a POST: over HTTP/2 all lanes would share one, and its bound on streams would let the lanes of
            // a destination that hangs starve the others.
            .http1_only()
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(path) = &config.receiver_ca_file {
            // Instead of the system's, not beside them: who names an authority means that one.
            builder = builder.tls_certs_only(authorities(path)?);
        }
        let client = builder.build()?;
        let authorization = match config.bearer_token() {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Error::Authorization)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let formats = Formats::new(config.protocol.fixed());
        let url = config.batch_url();
        Ok(Self {
            client,
            connections: Connections::new(),
            protocol: formats.of(&url).unwrap_or(Protocol::V2),
            url,
            formats: Arc::new(formats),
            authorization,
            user_agent: HeaderValue::from_str(&config.user_agent).map_err(|_| Error::UserAgent)?,
            compression: config.compression,
            answer_timeout: config.answer_timeout.get(),
            v1: v1::Bounds { batch_bytes: config.v1_batch_bytes.get(), answer_timeout: config.v1_answer_timeout.get() },
        })
    }

    /// The same link for another lane, to its batch-receiver: in the format that this one is known to take, and ours as
    /// long as that is not known. The credential goes along: who may change a lane's settings may name its receiver.
    #[must_use]
    pub fn to(&self, url: &str) -> Self {
        let protocol = self.formats.of(url).unwrap_or(Protocol::V2);
        let connections = self.connections.of_another_lane();
        Self { url: url.to_owned(), protocol, connections, ..self.clone() }
    }

    /// Where batches go.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whose server that is, for spans: host, and port where the URL has one.
    #[must_use]
    pub fn server(&self) -> (&str, Option<i64>) {
        let rest = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or_default();
        match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            _ => (authority, None),
        }
    }

    /// In which format.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What is known of all receivers.
    #[must_use]
    pub fn formats(&self) -> &Formats {
        &self.formats
    }

    /// The format that the receiver takes, as far as is known now.
    #[must_use]
    pub fn known_protocol(&self) -> Option<Protocol> {
        self.formats.of(&self.url)
    }

    /// Which format the receiver takes: as it is known, or as it says now.
    ///
    /// # Errors
    /// It doesn't say.
    pub async fn ask(&self) -> Result<Protocol, String> {
        self.formats.find(self).await.map(|found| found.protocol)
    }

    /// Posts a batch, calls `settle` for each outcome as it is known, and says how it ended. Called off, it waits for
    /// nothing more; what it knows by then is settled all the same: a v1 receiver would deliver it again.
    pub async fn post<F, S>(
        &self,
        batch: &Batch,
        traceparent: Option<String>,
        called_off: &CancellationToken,
        settle: F,
    ) -> Ended
    where
        F: FnMut(Seq, Answer) -> S,
        S: Future<Output = ()>,
    {
        if !self.formats.is_sure(&self.url) {
            let Some(found) = unless(called_off, self.formats.find(self)).await else { return Ended::called_off() };
            match found {
                // Nothing was sent: no activity can have been at the instance.
                Err(cause) => return Ended::because(End::Refused { retry_after_ms: None }, cause),
                Ok(found) if found.protocol != self.protocol => return Ended::called_off(),
                // The batch was empty, and only asks for the gate: that is in the answer already.
                Ok(found) if batch.header.gate.is_none() && found.gate.is_some() => {
                    let end = found.gate.map_or(End::Lost, End::NewGate);
                    return Ended { end, cause: None };
                }
                Ok(_) => {}
            }
        }
        let Some(_connection) = unless(called_off, self.connections.take()).await else { return Ended::called_off() };
        match self.protocol {
            Protocol::V1 => self.post_v1(batch, traceparent, called_off, settle).await,
            Protocol::V2 => self.post_v2(batch, traceparent, called_off, settle).await,
        }
    }

    /// What every batch request has.
    fn request(&self, traceparent: Option<String>) -> RequestBuilder {
        let mut request = self.client.post(&self.url).header(USER_AGENT, &self.user_agent);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        request
    }

    /// Notes whether an answer's head is one that a receiver of this format gives.
    fn note_answer(&self, response: &Response) {
        let status = i64::from(response.status().as_u16());
        spans::set(&Span::current(), KeyValue::new(attributes::HTTP_STATUS, status));
        let ours = gate_of(response.headers()).is_some();
        match self.protocol {
            Protocol::V2 if ours => self.formats.confirm(&self.url),
            Protocol::V1 if !ours && response.status().is_success() => self.formats.confirm(&self.url),
            _ => self.formats.doubt(&self.url),
        }
    }

    /// Nothing came, or not all of it: perhaps it is another receiver by the next time.
    fn lost(&self, cause: impl Into<String>) -> Ended {
        self.formats.doubt(&self.url);
        Ended::lost(cause)
    }
}

/// What comes of it, unless it is called off first. What is there already goes before.
async fn unless<T>(called_off: &CancellationToken, coming: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        came = coming => Some(came),
        () = called_off.cancelled() => None,
    }
}

/// Which life of our batch-receiver an answer is from; the existing batcher's has none.
fn gate_of(headers: &HeaderMap) -> Option<GateId> {
    headers.get(GATE_HEADER)?.to_str().ok()?.trim().parse().ok()
}

/// The beginning of a refusal's body; what can't be read in time is left out.
async fn refusal_body(response: &mut Response, within: Duration) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(within, response.chunk()).await {
        body.extend_from_slice(&chunk);
        if body.len() > REFUSAL_BYTES_MAX {
            break;
        }
    }
    body
}

/// The certificates of BATCH_RECEIVER_CA_FILE.
fn authorities(path: &Path) -> Result<Vec<Certificate>, Error> {
    let fault = |fault: String| Error::Authorities { path: path.to_owned(), fault };
    let pem = std::fs::read(path).map_err(|error| fault(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| fault(chain(&error)))?;
    if certificates.is_empty() { Err(fault("has no certificate in it".to_owned())) } else { Ok(certificates) }
}

/// A request with a batch, measured until it is dropped, called off or not. A batch that ends before it is sent is none.
struct Measured {
    began: Instant,
}

impl Measured {
    fn begin(items: usize) -> Self {
        BATCH_ITEMS.record(items as f64, &[]);
        Self { began: Instant::now() }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        BATCH_DURATION.record(self.began.elapsed().as_secs_f64(), &[]);
    }
}

/// A body as it is sent, measured.
fn sized(body: Vec<u8>) -> Vec<u8> {
    BATCH_SIZE.record(body.len() as f64, &[]);
    body
}

fn retry_after_ms(response: &Response) -> Option<u64> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(seconds_to_ms)
}

fn seconds_to_ms(seconds: u64) -> u64 {
    seconds.saturating_mul(1000)
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
