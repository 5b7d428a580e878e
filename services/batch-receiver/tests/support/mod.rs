//! A real batch-receiver, an instance whose answers the test gives one by one, and a sender of batches.

#![allow(dead_code, missing_docs, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::any;
use batch_receiver::{Config, SERVICE};
use bytes::{Bytes, BytesMut};
use fedstream_lane::{Answer, Epoch, Final, GateId, Lane, MsgId, Origin, Seq};
use fedstream_service::config::{Environment, load_from};
use fedstream_service::http_server::{self, Limits};
use fedstream_wire::v2::{self, Batch, BatchHeader, BatchItem, Closing, Line};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const SECRET: &str = "s3cret";

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    timeout(PATIENCE, future).await.with_context(|| format!("waited in vain for {what}"))
}

/// A port of our own on loopback.
pub async fn listener() -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// The receiver under test.
pub struct Receiver {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub stop: CancellationToken,
    pub task: JoinHandle<Result<(), batch_receiver::Error>>,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
}

impl Receiver {
    /// For `b.example` at `instance`, with further variables.
    pub async fn start(instance: SocketAddr, more: &[(&str, &str)]) -> Result<Self> {
        let instance = instance.to_string();
        let mut pairs = vec![
            ("FED_DESTINATIONS", "b.example"),
            ("HTTP_BATCH_AUTHORIZATION", SECRET),
            ("OVERRIDE_DESTINATION_PROTOCOL", "http"),
            ("OVERRIDE_DESTINATION_DOMAIN", instance.as_str()),
        ];
        pairs.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
        pairs.extend(more);
        let config: Config = load_from(&SERVICE, &Environment::from_pairs(&pairs))?;
        let (listening, address) = listener().await?;
        let (admin_listening, admin) = listener().await?;
        let stop = CancellationToken::new();
        let task = tokio::spawn(batch_receiver::run(config, listening, admin_listening, stop.clone()));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { address, admin, stop, task, client })
    }

    /// A request for the endpoint, as a sender makes it.
    pub fn request(&self, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        Request::post(format!("http://{}/batch", self.address))
            .header("content-type", v2::CONTENT_TYPE)
            .header("authorization", format!("Bearer {SECRET}"))
            .body(Full::new(body.into()))
            .expect("a request")
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Reply> {
        let response = soon("the answer's head", self.client.request(request)).await??;
        let (parts, body) = response.into_parts();
        Ok(Reply { status: parts.status, headers: parts.headers, body, unread: BytesMut::new() })
    }

    pub async fn post(&self, batch: &Batch) -> Result<Reply> {
        self.send(self.request(batch.encode())).await
    }

    /// The current life, learnt as a sender learns it.
    pub async fn gate(&self) -> Result<GateId> {
        let reply = self.post(&batch(None, 1, 0, &[])).await?;
        reply.gate()
    }

    /// A page of the admin listener.
    pub async fn page(&self, path: &str) -> Result<(StatusCode, serde_json::Value)> {
        let request = Request::get(format!("http://{}{path}", self.admin)).body(Full::default())?;
        let reply = self.send(request).await?;
        Ok((reply.status, serde_json::from_slice(&reply.bytes().await?)?))
    }

    /// What `/lanes` says of the only lane, once it is like this.
    pub async fn lane(&self, like: impl Fn(&serde_json::Value) -> bool) -> Result<serde_json::Value> {
        let seen = async {
            loop {
                let (_, mut page) = self.page("/lanes").await?;
                let lane = page["lanes"][0].take();
                if like(&lane) {
                    return Ok(lane);
                }
            }
        };
        soon("the lane to be so", seen).await?
    }

    /// What `run` returned.
    pub async fn stopped(self) -> Result<()> {
        Ok(soon("the end of run", self.task).await???)
    }
}

/// An answer, whose lines are read one at a time.
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    unread: BytesMut,
}

impl Reply {
    pub fn gate(&self) -> Result<GateId> {
        Ok(self.headers.get(v2::GATE_HEADER).context("no gate id")?.to_str()?.parse()?)
    }

    pub async fn bytes(self) -> Result<Bytes> {
        Ok(soon("the answer's body", self.body.collect()).await??.to_bytes())
    }

    pub async fn problem(self) -> Result<serde_json::Value> {
        Ok(serde_json::from_slice(&self.bytes().await?)?)
    }

    /// The next line, or none at the end.
    pub async fn line(&mut self) -> Result<Option<Line>> {
        loop {
            if let Some(at) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line = self.unread.split_to(at + 1);
                return Ok(Some(Line::parse(&line[..at])?));
            }
            match soon("a line", self.body.frame()).await? {
                Some(frame) => self.unread.extend_from_slice(&frame?.into_data().unwrap_or_default()),
                None if self.unread.is_empty() => return Ok(None),
                None => bail!("the answer ends in the middle of a line"),
            }
        }
    }

    /// All lines that are still to come, signs of life aside.
    pub async fn lines(&mut self) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await? {
            if line != Line::Silence {
                lines.push(line);
            }
        }
        Ok(lines)
    }
}

/// A batch on the lane a.example -> b.example, whose items come after one another.
pub fn batch(gate: Option<GateId>, epoch: u64, prev: u64, seqs: &[u64]) -> Batch {
    let lane = Lane { destination: "b.example".parse().expect("name"), source: "a.example".parse().expect("name") };
    let origin = Origin { site: "near".into(), created_us: 1 };
    let header = BatchHeader { origin, lane, epoch: Epoch(epoch), gate, floor: Seq(0), prev: Seq(prev), profile: None };
    Batch { header, items: seqs.iter().map(|seq| item(*seq)).collect() }
}

pub fn item(seq: u64) -> BatchItem {
    BatchItem {
        seq: Seq(seq),
        msg_id: MsgId::new(format!("m{seq}")),
        received_at_us: 0,
        scheme: "https".into(),
        target: "/inbox".into(),
        http: vec![
            ("host".into(), Bytes::from_static(b"b.example")),
            ("content-type".into(), Bytes::from_static(b"application/activity+json")),
        ],
        body: Bytes::from(seq.to_string()),
        activity_id: format!("https://a.example/{seq}"),
        traceparent: None,
        tracestate: None,
    }
}

pub fn outcome(seq: u64, outcome: Final, status: u16) -> Line {
    Line::Outcome(Seq(seq), Answer { outcome, status, body: None })
}

pub fn delivered(seq: u64) -> Line {
    outcome(seq, Final::Delivered, 202)
}

pub const DONE: Line = Line::End(Closing::Done);

/// An instance that asks the test what to answer.
pub struct Instance {
    pub address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Asked>,
    probes: mpsc::UnboundedReceiver<Asked>,
    at_once: Arc<AtomicUsize>,
}

/// A request that waits for its answer.
pub struct Asked {
    pub target: String,
    pub body: String,
    pub headers: HeaderMap,
    answer: oneshot::Sender<Response>,
}

impl Asked {
    pub fn answer(self, status: u16) {
        self.answer_with(status, &[], "");
    }

    pub fn answer_with(self, status: u16, headers: &[(&'static str, &str)], body: impl AsRef<[u8]>) {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        // Whoever asked may have gone.
        drop(self.answer.send(response.body(Body::from(body.as_ref().to_vec())).expect("a response")));
    }
}

impl Instance {
    pub async fn start() -> Result<Self> {
        let (listening, address) = listener().await?;
        let (asking, requests) = mpsc::unbounded_channel();
        let (probing, probes) = mpsc::unbounded_channel();
        let (now, at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let most = at_once.clone();
        let handler = move |request: axum::extract::Request| {
            let is_activity = request.method() == Method::POST;
            let asking = if is_activity { asking.clone() } else { probing.clone() };
            let (now, most) = (now.clone(), most.clone());
            async move {
                let one = usize::from(is_activity);
                most.fetch_max(now.fetch_add(one, Ordering::SeqCst) + one, Ordering::SeqCst);
                let (parts, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let (answer, answered) = oneshot::channel();
                let body = String::from_utf8_lossy(&body).into_owned();
                let target = parts.uri.to_string();
                asking.send(Asked { target, body, headers: parts.headers, answer }).expect("the test is there");
                let response = answered.await.unwrap_or_else(|_| Response::new(Body::empty()));
                now.fetch_sub(one, Ordering::SeqCst);
                response
            }
        };
        let app = Router::new().fallback(any(handler));
        tokio::spawn(http_server::serve(listening, app, Limits::default(), CancellationToken::new()));
        Ok(Self { address, requests, probes, at_once })
    }

    /// The next request.
    pub async fn asked(&mut self) -> Result<Asked> {
        soon("a request at the instance", self.requests.recv()).await?.context("the instance has gone")
    }

    /// The next question that is about no activity.
    pub async fn probed(&mut self) -> Result<Asked> {
        soon("a probe at the instance", self.probes.recv()).await?.context("the instance has gone")
    }

    /// Takes the next request, which must be for this activity.
    pub async fn takes(&mut self, seq: u64) -> Result<()> {
        let asked = self.asked().await?;
        assert_eq!(asked.body, seq.to_string());
        asked.answer(202);
        Ok(())
    }

    /// Has nobody asked for anything more?
    pub fn is_idle(&mut self) -> bool {
        self.requests.is_empty()
    }

    /// Has nobody asked how it is?
    pub fn is_unprobed(&mut self) -> bool {
        self.probes.is_empty()
    }

    /// The most activities that were here at once.
    pub fn most_at_once(&self) -> usize {
        self.at_once.load(Ordering::SeqCst)
    }
}
