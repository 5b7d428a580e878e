//! The link to the batch-receiver: one POST, and what its answer means to the window.
//!
//! A batch is understood or not before the 200; after it, lines come as outcomes are known. Only what
//! [`AnswerReader`] lets through counts. Nothing is retried here: the window decides what is posted again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fedstream_lane::{Answer, End, GateId, Seq};
use fedstream_wire::encoding::Encoding;
use fedstream_wire::v2::{self, AnswerReader, Batch, Closing, Line, RefusalKind};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, StatusCode};
use reqwest::{Certificate, Client, Response};

use crate::config::Config;

/// A connection that can't be made in this time won't be: three round trips of the worst link, twice.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A proxy on the way may close an idle connection after 60 s; ours goes first.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// After the closing line: how long to wait for the end of the answer, so that the connection can be used again.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest refusal that is read, bytes.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// A batch-receiver that lives sends a line every 10 s. A proxy that collects the answer first is the usual cause of none.
const HELD_BACK: &str = "is the far side away, or does a proxy hold the answer back?";

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

/// How a POST ended, and the reason in words where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// For the window.
    pub end: End,
    /// For people.
    pub cause: Option<String>,
}

impl Ended {
    fn because(end: End, cause: impl Into<String>) -> Self {
        Self { end, cause: Some(cause.into()) }
    }
}

/// Posts batches to one URL.
#[derive(Clone, Debug)]
pub struct Link {
    client: Client,
    url: String,
    authorization: Option<HeaderValue>,
    user_agent: HeaderValue,
    compression: Encoding,
    answer_timeout: Duration,
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
        Ok(Self {
            client,
            url: config.batch_url(),
            authorization,
            user_agent: HeaderValue::from_str(&config.user_agent).map_err(|_| Error::UserAgent)?,
            compression: config.compression,
            answer_timeout: config.answer_timeout.get(),
        })
    }

    /// The same link to another batch-receiver. The credential goes along: who may change a lane's settings may name
    /// its receiver.
    #[must_use]
    pub fn to(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// Where batches go.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Posts a batch, calls `settle` for each outcome as it comes, and says how it ended.
    pub async fn post<F, S>(&self, batch: &Batch, traceparent: Option<String>, mut settle: F) -> Ended
    where
        F: FnMut(Seq, Answer) -> S,
        S: Future<Output = ()>,
    {
        let response = match tokio::time::timeout(self.answer_timeout, self.send(batch, traceparent)).await {
            Err(_) => {
                return Ended::because(End::Lost, format!("no answer within {:?}: {HELD_BACK}", self.answer_timeout));
            }
            Ok(Err(error)) => return Ended::because(End::Lost, chain(&error.without_url())),
            Ok(Ok(response)) => response,
        };
        if response.status() != StatusCode::OK {
            return self.refused(response).await;
        }
        if let Some(fault) = not_an_answer(&response, batch.header.gate) {
            return Ended::because(End::Lost, fault);
        }
        self.read(response, batch, &mut settle).await
    }

    async fn send(&self, batch: &Batch, traceparent: Option<String>) -> Result<Response, reqwest::Error> {
        let (encoding, body) = self.compression.compress(batch.encode());
        let mut request = self
            .client
            .post(&self.url)
            .header(CONTENT_TYPE, v2::CONTENT_TYPE)
            .header(ACCEPT, v2::ANSWER_CONTENT_TYPE)
            .header(USER_AGENT, &self.user_agent)
            .body(body);
        if let Some(name) = encoding.name() {
            request = request.header(CONTENT_ENCODING, name);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        request.send().await
    }

    async fn read<F, S>(&self, mut response: Response, batch: &Batch, settle: &mut F) -> Ended
    where
        F: FnMut(Seq, Answer) -> S,
        S: Future<Output = ()>,
    {
        let mut reader = AnswerReader::new(batch.items.iter().map(|item| item.seq));
        let mut closing = None;
        let lost = loop {
            // After the closing line all is said: whatever happens to the connection then changes nothing.
            let patience = if closing.is_some() { END_TIMEOUT } else { self.answer_timeout };
            let chunk = match tokio::time::timeout(patience, response.chunk()).await {
                Err(_) => break format!("no line of the answer for {patience:?}: {HELD_BACK}"),
                Ok(Err(error)) => break chain(&error.without_url()),
                Ok(Ok(None)) => break "the answer ended without its closing line".to_owned(),
                Ok(Ok(Some(chunk))) => chunk,
            };
            let mut outcomes = Vec::new();
            let result = reader.push(&chunk, |line| match line {
                Line::Silence => {}
                Line::Outcome(seq, answer) => outcomes.push((seq, answer)),
                Line::End(end) => closing = Some(end),
            });
            for (seq, answer) in outcomes {
                settle(seq, answer).await;
            }
            if let Err(error) = result {
                break error.to_string();
            }
        };
        closing.map_or_else(|| Ended::because(End::Lost, lost), ended)
    }

    /// An answer that isn't 200.
    async fn refused(&self, mut response: Response) -> Ended {
        let status = response.status();
        let retry_after_ms = retry_after_ms(&response);
        let mut body = Vec::new();
        while let Ok(Ok(Some(chunk))) = tokio::time::timeout(self.answer_timeout, response.chunk()).await {
            body.extend_from_slice(&chunk);
            if body.len() > REFUSAL_BYTES_MAX {
                break;
            }
        }
        let refusal: v2::Refusal = serde_json::from_slice(&body).unwrap_or_default();
        let cause = if refusal.detail.is_empty() {
            format!("the batch-receiver answered {status}")
        } else {
            format!("the batch-receiver answered {status}: {}", refusal.detail)
        };
        let end = match (status, refusal.kind()) {
            (StatusCode::CONFLICT, RefusalKind::NewGate) => refusal.current_gate().map(End::NewGate),
            (StatusCode::CONFLICT, RefusalKind::StaleEpoch) => refusal.known_epoch().map(End::StaleEpoch),
            (StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::PAYLOAD_TOO_LARGE, _) => Some(End::Unfit),
            (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _) => {
                Some(End::Overloaded { retry_after_ms })
            }
            _ => None,
        };
        Ended::because(end.unwrap_or(End::Refused { retry_after_ms }), cause)
    }
}

/// The certificates of BATCH_RECEIVER_CA_FILE.
fn authorities(path: &Path) -> Result<Vec<Certificate>, Error> {
    let fault = |fault: String| Error::Authorities { path: path.to_owned(), fault };
    let pem = std::fs::read(path).map_err(|error| fault(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| fault(chain(&error)))?;
    if certificates.is_empty() { Err(fault("has no certificate in it".to_owned())) } else { Ok(certificates) }
}

/// A 200 that no batch-receiver gave, or another one than was meant.
fn not_an_answer(response: &Response, gate: Option<GateId>) -> Option<String> {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if content_type.split(';').next().map(str::trim) != Some(v2::ANSWER_CONTENT_TYPE) {
        return Some(format!("200 with content type {content_type:?}: is BATCH_RECEIVER_DOMAIN a batch-receiver?"));
    }
    let answered = response
        .headers()
        .get(v2::GATE_HEADER)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    (gate.is_none() || answered != gate)
        .then(|| "200 from another life of the batch-receiver than the batch was meant for".to_owned())
}

fn ended(closing: Closing) -> Ended {
    match closing {
        Closing::Done => Ended { end: End::Done, cause: None },
        Closing::Retry { seq, status, retry_after_s, alive, cause } => {
            let retry_after_ms = retry_after_s.map(seconds_to_ms);
            Ended::because(End::Retry { seq, status, alive, retry_after_ms }, cause)
        }
        Closing::Gap { last } => {
            Ended::because(End::Gap, format!("an earlier batch is missing; the far side has sequence {last}"))
        }
        Closing::Overloaded { retry_after_s } => Ended::because(
            End::Overloaded { retry_after_ms: retry_after_s.map(seconds_to_ms) },
            "the batch-receiver has no room, or is leaving",
        ),
        Closing::StaleEpoch { known } => {
            Ended::because(End::StaleEpoch(known), "a later owner's batch came in between")
        }
    }
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
