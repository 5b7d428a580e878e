//! A real OTLP/gRPC endpoint for metrics inside the test: what the services export ends here and can be asked for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, metric::Data, number_data_point};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;

use crate::eventually::{TimedOut, becomes_true};

/// One metric of one service, as it came last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exported {
    /// Its unit.
    pub unit: String,
    /// What it says.
    pub description: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// Labels and value of each series; of a histogram the count.
    pub series: Vec<(BTreeMap<String, String>, f64)>,
}

impl Exported {
    /// The sum over the series that have this label.
    #[must_use]
    pub fn sum(&self, key: &str, value: &str) -> f64 {
        let has = |labels: &BTreeMap<String, String>| labels.get(key).is_some_and(|found| found == value);
        self.series.iter().filter(|(labels, _)| has(labels)).map(|(_, value)| value).sum()
    }
}

/// By service and name.
type All = BTreeMap<(String, String), Exported>;

/// The endpoint. Gone on drop.
pub struct MetricsSink {
    addr: SocketAddr,
    store: Store,
    takes: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

/// What came, and the service that takes it.
#[derive(Clone)]
struct Store {
    all: Arc<Mutex<All>>,
    takes: watch::Receiver<bool>,
}

impl MetricsSink {
    /// Listens on a free port.
    ///
    /// # Errors
    /// The listener can't be bound.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (takes, followed) = watch::channel(true);
        let store = Store { all: Arc::default(), takes: followed };
        let service = MetricsServiceServer::new(store.clone());
        let serving = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            if let Err(error) = server.serve_with_incoming(TcpListenerStream::new(listener)).await {
                eprintln!("the metrics sink ended: {error}");
            }
        });
        Ok(Self { addr, store, takes, serving })
    }

    /// Value for `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// From now on it answers nothing until told otherwise, or all again.
    pub fn answer(&self, answers: bool) {
        self.takes.send_replace(answers);
    }

    /// A metric as it came last; nothing yet: an empty one.
    #[must_use]
    pub fn metric(&self, service: &str, name: &str) -> Exported {
        self.store.lock().get(&(service.to_owned(), name.to_owned())).cloned().unwrap_or_default()
    }

    /// The names that came from a service.
    #[must_use]
    pub fn names(&self, service: &str) -> Vec<String> {
        let all = self.store.lock();
        all.keys().filter(|(of, _)| of == service).map(|(_, name)| name.clone()).collect()
    }

    /// Waits until a metric looks so.
    ///
    /// # Errors
    /// It does not in time; the error shows how it looked last.
    pub async fn until(
        &self,
        (service, name): (&str, &str),
        within: Duration,
        mut looks: impl FnMut(&Exported) -> bool,
    ) -> Result<Exported, TimedOut> {
        let waited = becomes_true(format!("{name} of {service}"), within, || looks(&self.metric(service, name))).await;
        let last = self.metric(service, name);
        waited.map_err(|timeout| TimedOut { what: format!("{}; it looks so: {last:?}", timeout.what), within })?;
        Ok(last)
    }
}

impl Drop for MetricsSink {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl MetricsService for Store {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        let mut takes = self.takes.clone();
        drop(takes.wait_for(|takes| *takes).await.map(|_| ())); // closed: the test is over
        for of_resource in request.into_inner().resource_metrics {
            let resource = labels(of_resource.resource.map(|resource| resource.attributes).unwrap_or_default());
            let service = resource.get("service.name").cloned().unwrap_or_default();
            for metric in of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                let key = (service.clone(), metric.name.clone());
                self.lock().insert(key, exported(metric));
            }
        }
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn exported(metric: Metric) -> Exported {
    let Metric { unit, description, data, .. } = metric;
    let (kind, series) = match data {
        Some(Data::Sum(sum)) => (if sum.is_monotonic { "counter" } else { "sum" }, numbers(sum.data_points)),
        Some(Data::Gauge(gauge)) => ("gauge", numbers(gauge.data_points)),
        Some(Data::Histogram(histogram)) => {
            let series = histogram.data_points.into_iter().map(|point| (labels(point.attributes), point.count as f64));
            ("histogram", series.collect())
        }
        _ => ("", Vec::new()),
    };
    Exported { unit, description, kind: kind.to_owned(), series }
}

fn numbers(points: Vec<NumberDataPoint>) -> Vec<(BTreeMap<String, String>, f64)> {
    let number = |point: NumberDataPoint| {
        let value = match point.value {
            Some(number_data_point::Value::AsDouble(number)) => number,
            Some(number_data_point::Value::AsInt(number)) => number as f64,
            None => f64::NAN,
        };
        (labels(point.attributes), value)
    };
    points.into_iter().map(number).collect()
}

fn labels(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}
