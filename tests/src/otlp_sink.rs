//! A real OTLP/gRPC endpoint inside the test: what the services export ends here and can be asked for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::span;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;

use crate::eventually::{TimedOut, becomes_true};

/// One finished span, ids in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// `service.name` of the exporter.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its trace.
    pub trace_id: String,
    /// Itself.
    pub span_id: String,
    /// Its parent; empty for a root.
    pub parent_id: String,
    /// Attributes as text.
    pub attributes: HashMap<String, String>,
    /// Those of them that are whole numbers.
    pub numbers: HashMap<String, i64>,
    /// Links: trace and span.
    pub links: Vec<(String, String)>,
    /// The `tracestate` of each link; empty where it has none.
    pub link_states: Vec<String>,
    /// What happened during it.
    pub events: Vec<Event>,
    /// Kind by number of the protocol: 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    /// By number of the protocol: 0 unset, 1 ok, 2 error; and what was said about it.
    pub status: (i32, String),
    /// Trace flags: 1 is sampled.
    pub flags: u32,
    /// Unix time in nanoseconds.
    pub began_ns: u64,
    /// Unix time in nanoseconds.
    pub ended_ns: u64,
}

/// What happened at one moment of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// Attributes as text.
    pub attributes: HashMap<String, String>,
    /// Unix time in nanoseconds.
    pub at_ns: u64,
}

impl Span {
    /// An attribute as text; empty where there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// The first event of this name.
    #[must_use]
    pub fn event(&self, name: &str) -> Option<&Event> {
        self.events.iter().find(|event| event.name == name)
    }

    /// Whether it failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.status.0 == 2
    }

    /// How long it took.
    #[must_use]
    pub fn took(&self) -> Duration {
        Duration::from_nanos(self.ended_ns.saturating_sub(self.began_ns))
    }
}

/// What the endpoint does with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Takes it.
    Takes,
    /// Answers that it is not available.
    Refuses,
    /// Does not answer.
    Hangs,
}

/// The endpoint. Gone on drop.
pub struct OtlpSink {
    addr: SocketAddr,
    spans: Spans,
    mood: watch::Sender<Mood>,
    serving: JoinHandle<()>,
}

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

/// The service as the endpoint offers it.
struct Endpoint {
    spans: Spans,
    mood: watch::Receiver<Mood>,
}

impl OtlpSink {
    /// Listens on a free port.
    ///
    /// # Errors
    /// The listener can't be bound.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let spans = Spans::default();
        let (mood, followed) = watch::channel(Mood::Takes);
        let service = TraceServiceServer::new(Endpoint { spans: spans.clone(), mood: followed });
        let serving = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            if let Err(error) = server.serve_with_incoming(TcpListenerStream::new(listener)).await {
                eprintln!("the OTLP sink ended: {error}");
            }
        });
        Ok(Self { addr, spans, mood, serving })
    }

    /// Does so from now on, also with what it has not answered yet.
    pub fn behave(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// All spans so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().clone()
    }

    /// The spans of a service.
    #[must_use]
    pub fn of_service(&self, service: &str) -> Vec<Span> {
        self.matching(|span| span.service == service)
    }

    /// The spans of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Vec<Span> {
        self.matching(|span| span.name == name)
    }

    /// The spans of a trace.
    #[must_use]
    pub fn of_trace(&self, trace_id: &str) -> Vec<Span> {
        self.matching(|span| span.trace_id == trace_id)
    }

    /// Waits until the spans fulfil a condition.
    ///
    /// # Errors
    /// They don't in time; the error lists what came.
    pub async fn until(
        &self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&[Span]) -> bool,
    ) -> Result<(), TimedOut> {
        becomes_true(what, within, || condition(&self.spans.lock())).await.map_err(|timeout| {
            let mut came: Vec<String> = self.spans().iter().map(|s| format!("{}: {}", s.service, s.name)).collect();
            came.sort();
            came.dedup();
            TimedOut { what: format!("{}; came: {came:?}", timeout.what), within }
        })
    }

    fn matching(&self, matches: impl Fn(&Span) -> bool) -> Vec<Span> {
        self.spans.lock().iter().filter(|span| matches(span)).cloned().collect()
    }
}

impl Drop for OtlpSink {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Spans {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl TraceService for Endpoint {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let mut mood = self.mood.clone();
        let mood = mood.wait_for(|mood| *mood != Mood::Hangs).await.map_or(Mood::Takes, |mood| *mood);
        if mood == Mood::Refuses {
            return Err(tonic::Status::unavailable("told to refuse"));
        }
        let mut spans = self.spans.lock();
        for of_resource in request.into_inner().resource_spans {
            let resource = attributes(of_resource.resource.map(|resource| resource.attributes).unwrap_or_default());
            let service = resource.get("service.name").cloned().unwrap_or_default();
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(Span {
                    service: service.clone(),
                    name: span.name,
                    trace_id: hex(&span.trace_id),
                    span_id: hex(&span.span_id),
                    parent_id: hex(&span.parent_span_id),
                    numbers: numbers(&span.attributes),
                    attributes: attributes(span.attributes),
                    links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
                    link_states: span.links.iter().map(|link| link.trace_state.clone()).collect(),
                    events: span.events.into_iter().map(event).collect(),
                    kind: span.kind,
                    status: span.status.map(|status| (status.code, status.message)).unwrap_or_default(),
                    flags: span.flags & 1,
                    began_ns: span.start_time_unix_nano,
                    ended_ns: span.end_time_unix_nano,
                });
            }
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn event(event: span::Event) -> Event {
    Event { name: event.name, attributes: attributes(event.attributes), at_ns: event.time_unix_nano }
}

fn numbers(pairs: &[KeyValue]) -> HashMap<String, i64> {
    let number = |pair: &KeyValue| match pair.value.as_ref()?.value.as_ref()? {
        Value::IntValue(number) => Some((pair.key.clone(), *number)),
        _ => None,
    };
    pairs.iter().filter_map(number).collect()
}

fn attributes(pairs: Vec<KeyValue>) -> HashMap<String, String> {
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
