//! One activity at the instance, in a task of its own: hyper cancels a handler whose connection closes, and an
//! activity that was begun must have its outcome known here whatever becomes of the batch that brought it.
//!
//! Two lines a delivery, at debug level, are a record that somebody else can check: what was at the instance from when
//! to when, in which order, and whose it was. Between them the gate lets nothing else of the lane begin.

use std::sync::Arc;

use fedstream_lane::{Epoch, GateId, Lane, Profile};
use fedstream_service::context;
use fedstream_service::metrics::KeyValue;
use http::uri::Authority;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::delivery_span;
use crate::feeders::Feeding;
use crate::lane_gate::AtInstance;
use crate::parcel::Parcel;
use crate::replay::Replay;
use crate::room::Place;
use crate::series;
use crate::verdict::Verdict;
use crate::witness::Witness;

/// What a batch's deliveries share.
#[derive(Clone, Debug)]
pub struct Deliveries {
    /// The way to the instance.
    pub replay: Arc<Replay>,
    /// Waited for at shutdown.
    pub tasks: TaskTracker,
    /// Where the instance is.
    pub address: Authority,
    /// The batch's lane.
    pub lane: Lane,
    /// The lane's label in metrics.
    pub series: KeyValue,
    /// Its owner's epoch.
    pub epoch: Epoch,
    /// The life of the gate that it is for.
    pub gate: GateId,
    /// How the instance's refusals are read.
    pub profile: Profile,
    /// What is known of the instance.
    pub witness: Option<Arc<Witness>>,
    /// The batch's span.
    pub batch: Span,
    /// What the batch holds, for as long as the visit or a delivery goes on: each activity is a part of the batch's
    /// one buffer.
    #[expect(dead_code, reason = "kept, never read")]
    pub place: Arc<Place>,
    /// That the lane is fed by batches of this format, for as long.
    #[expect(dead_code, reason = "kept, never read")]
    pub feeding: Arc<Feeding>,
}

/// What became of one.
#[derive(Debug)]
pub struct Ended {
    /// What the instance's answer means.
    pub verdict: Verdict,
    /// For an activity that the instance failed on: since the attempt before, is it known to have answered others?
    pub alive: bool,
}

impl Deliveries {
    /// Begins one. The handle only listens: dropped, the delivery goes on, and the gate hears of its end.
    pub fn begin(&self, parcel: Parcel, at_instance: AtInstance) -> JoinHandle<Ended> {
        let span = self.span(&parcel);
        let this = self.clone();
        let task = async move {
            let this = this; // all of it, or the task would leave the batch's place behind
            let (lane, seq, epoch, gate, msg_id) = (&this.lane, parcel.seq, this.epoch.0, this.gate, &parcel.msg_id);
            tracing::debug!(%lane, seq = seq.0, epoch, %gate, %msg_id, "delivery begun");
            let began = this.witness.as_ref().map(|witness| witness.begins());
            let verdict = this.replay.deliver(&this.address, this.profile, &parcel).await;
            series::delivered(&this.series, &verdict);
            let (outcome, status) = (verdict.name(), verdict.status());
            tracing::debug!(%lane, seq = seq.0, epoch, %gate, %msg_id, outcome, status, "delivery ended");
            delivery_span::tell(&parcel, lane, Some(parcel.seq), &verdict);
            // Before the next one begins: what is heard of it counts as later.
            let alive = this.witness.as_ref().zip(began).is_some_and(|(witness, began)| {
                witness.heard(began, &lane.source, seq, msg_id, &verdict, &this.address)
            });
            at_instance.finish(&verdict);
            Ended { verdict, alive }
        };
        self.tasks.spawn(task.instrument(span))
    }

    /// In the activity's own trace, and linked to the batch that it came in.
    fn span(&self, parcel: &Parcel) -> Span {
        let url = self.replay.url(&self.address, parcel);
        let span = delivery_span::begin(&url, &self.address, parcel, &self.lane, Some(parcel.seq));
        let batch = self.batch.context();
        match context::extract(parcel.traceparent.as_deref(), parcel.tracestate.as_deref()) {
            Some(activity) => {
                context::continue_from(&span, Some(activity));
                context::link(&span, Some(&batch));
            }
            None => context::continue_from(&span, Some(batch)),
        }
        span
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, SERVICE};
    use crate::room::{Full, Room};
    use bytes::Bytes;
    use fedstream_lane::{MsgId, Seq};
    use fedstream_service::config::{Environment, load_from};
    use fedstream_wire::v2::BatchItem;
    use opentelemetry::trace::{SpanKind, TracerProvider as _};
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    use tracing_subscriber::layer::SubscriberExt;

    const ACTIVITY: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parcel(traceparent: Option<&str>) -> Parcel {
        Parcel::of(BatchItem {
            seq: Seq(7),
            msg_id: MsgId::new("m7"),
            received_at_us: 0,
            scheme: "https".into(),
            target: "/inbox?x".into(),
            http: vec![("host".into(), Bytes::from_static(b"b.example"))],
            body: Bytes::new(),
            activity_id: "https://a.example/7".into(),
            traceparent: traceparent.map(str::to_owned),
            tracestate: None,
        })
        .expect("fit")
    }

    fn deliveries(address: &str, place: Place) -> Deliveries {
        let pairs = [
            ("FED_OPEN_RECEIVER", "yes"),
            ("FED_DESTINATIONS", "b.example"),
            ("OVERRIDE_DESTINATION_PROTOCOL", "http"),
        ];
        let config: Config = load_from(&SERVICE, &Environment::from_pairs(&pairs)).expect("configuration");
        Deliveries {
            replay: Arc::new(Replay::new(&config).expect("a client")),
            tasks: TaskTracker::new(),
            address: address.parse().expect("an address"),
            lane: Lane { destination: "b.example".parse().expect("name"), source: "a.example".parse().expect("name") },
            series: KeyValue::new("lane", "b.example/a.example"),
            epoch: Epoch(1),
            gate: GateId(1),
            profile: Profile::Generic,
            witness: None,
            batch: tracing::info_span!("batch"),
            place: Arc::new(place),
            feeding: Arc::new(Feeding::of_no_lane()),
        }
    }

    #[tokio::test]
    async fn an_abandoned_delivery_keeps_its_batchs_place() {
        let instance = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let room = Room::new(1, 1);
        let address = instance.local_addr().expect("address").to_string();
        let deliveries = deliveries(&address, room.place().expect("room"));
        let tasks = deliveries.tasks.clone();
        drop(deliveries.begin(parcel(None), AtInstance::of_no_gate()));
        drop(deliveries);
        let (stream, _) = instance.accept().await.expect("a connection");
        assert_eq!(room.place().err(), Some(Full), "its body is still here");
        drop(stream);
        tasks.close();
        tokio::time::timeout(std::time::Duration::from_secs(20), tasks.wait()).await.expect("it ends");
        assert!(room.place().is_ok());
    }

    #[test]
    fn a_delivery_is_in_its_activitys_trace_and_linked_to_its_batch() {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        // Two, for with a single one tracing asks the thread that meets a span first, and remembers its "nobody listens" for all:
        // another test's thread has no subscriber.
        let subscriber = tracing::Dispatch::new(tracing_subscriber::registry().with(layer));
        let _second = tracing::Dispatch::new(tracing_subscriber::registry());
        tracing::dispatcher::with_default(&subscriber, || {
            let deliveries = deliveries("lemmy:8536", Room::new(1, 1).place().expect("room"));
            for traceparent in [Some(ACTIVITY), None] {
                let parcel = parcel(traceparent);
                let span = deliveries.span(&parcel);
                let _entered = span.enter();
                delivery_span::tell(&parcel, &deliveries.lane, Some(parcel.seq), &Verdict::unanswered("no connection"));
            }
        });
        let spans = exporter.get_finished_spans().expect("spans");
        let [with, without, batch] = &spans[..] else { panic!("three spans: {spans:?}") };
        assert_eq!((with.name.as_ref(), &with.span_kind), ("POST /inbox", &SpanKind::Client));
        assert_eq!(with.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(with.parent_span_id.to_string(), "00f067aa0ba902b7");
        assert_eq!(with.links.iter().map(|link| &link.span_context).collect::<Vec<_>>(), [&batch.span_context]);
        let attribute =
            |key: &str| with.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.to_string());
        for (key, value) in [
            ("activitypub.activity.id", "https://a.example/7"),
            ("fedstream.lane", "b.example/a.example"),
            ("fedstream.seq", "7"),
            ("fedstream.outcome", "retry"),
            ("error.type", "no_answer"),
            ("url.full", "http://lemmy:8536/inbox?…"),
            ("server.address", "lemmy"),
            ("server.port", "8536"),
        ] {
            assert_eq!(attribute(key).as_deref(), Some(value), "{key}");
        }
        assert_eq!(with.status, opentelemetry::trace::Status::error("no connection"));
        assert_eq!(
            without.parent_span_id,
            batch.span_context.span_id(),
            "an activity without a trace is in its batch's"
        );
    }
}
