//! A real OTLP/gRPC endpoint inside the test: what the services export ends here and can be asked for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use tokio::net::TcpListener;
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
    /// Links: trace and span.
    pub links: Vec<(String, String)>,
    /// Kind by number of the protocol: 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
}

/// The endpoint. Gone on drop.
pub struct OtlpSink {
    addr: SocketAddr,
    spans: Spans,
    serving: JoinHandle<()>,
}

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

impl OtlpSink {
    /// Listens on a free port.
    ///
    /// # Errors
    /// The listener can't be bound.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let spans = Spans::default();
        let service = TraceServiceServer::new(spans.clone());
        let serving = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            if let Err(error) = server.serve_with_incoming(TcpListenerStream::new(listener)).await {
                eprintln!("the OTLP sink ended: {error}");
            }
        });
        Ok(Self { addr, spans, serving })
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
impl TraceService for Spans {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let mut spans = self.lock();
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
                    attributes: attributes(span.attributes),
                    links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
                    kind: span.kind,
                });
            }
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
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
