//! Where inbound lanes go: to a batch-receiver, in batches of the format that it takes.

use std::sync::Arc;

use fedstream_carrier::{Attempt, Direction, Ended, Loaded, Outcomes, Ownership, Plan, Way};
use fedstream_jetstream::{Created, LaneSettings, StoredMessage};
use fedstream_lane::{Batch, End, Epoch, GateId, Lane};
use fedstream_service::shutdown::CancellationToken;
use fedstream_service::{attributes, context};
use fedstream_wire::protocol::Protocol;
use fedstream_wire::stored::header;
use fedstream_wire::v2;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::config::Config;
use crate::gates::KnownGates;
use crate::link::{Link, V1_GATE, v1_bytes_of};
use crate::moving;
use crate::outgoing::{self, Outgoing};
use crate::plan::{batch_url, memory, plan};

/// What all lanes of a batch-sender share.
pub type Shared = fedstream_carrier::Shared<Inbound>;

/// What all inbound lanes have in common.
pub struct Inbound {
    /// The service's settings.
    pub config: Config,
    /// To the batch-receiver that lanes go to which name no other.
    pub link: Link,
    /// The lives of the batch-receivers, as lanes learnt them.
    pub gates: KnownGates,
}

/// One lane's batch-receiver, during one epoch.
pub struct ToReceiver {
    shared: Arc<Shared>,
    lane: Lane,
    created: Created,
    epoch: Epoch,
    link: Link,
    /// It drains because its batches are to go elsewhere.
    moving: bool,
    /// It drains because its receiver takes another format.
    reformatting: bool,
}

impl Direction for Inbound {
    type Lane = Lane;
    type Item = Outgoing;
    type Way = ToReceiver;

    const KEPT_HEADERS: &'static [&'static str] = &[
        header::MSG_ID,
        header::VERSION,
        header::ACTIVITY_ID,
        header::ACTIVITY_TYPE,
        header::RECEIVED_AT,
        header::TARGET,
        header::SCHEME,
        header::HTTP,
        header::DEADLINE,
        header::TRACEPARENT,
        header::TRACESTATE,
    ];

    fn way(shared: &Arc<Shared>, lane: &Lane, created: Created, epoch: Epoch, settings: &LaneSettings) -> ToReceiver {
        let link = shared.direction.link.to(&batch_url(&shared.direction.config, settings));
        shared.registry.update(lane, |view| {
            view.batch_url = Some(link.url().to_owned());
            view.protocol = link.known_protocol().map(|known| known.to_string());
        });
        let (shared, lane) = (Arc::clone(shared), lane.clone());
        ToReceiver { shared, lane, created, epoch, link, moving: false, reformatting: false }
    }

    /// The gate of the receiver that it went to before is closed first.
    async fn prepare(
        shared: &Shared,
        lane: &Lane,
        created: Created,
        ownership: &Ownership,
        former: Option<ToReceiver>,
        leave: &CancellationToken,
    ) -> bool {
        let from = former.filter(|former| former.moving).map(|former| former.link.url().to_owned());
        moving::close_the_gate_before(shared, lane, created, ownership, from, leave).await
    }
}

impl Way for ToReceiver {
    type Item = Outgoing;

    fn plan(&self, settings: LaneSettings) -> Plan {
        plan(&self.shared.direction.config, settings, self.link.protocol())
    }

    fn gate(&self) -> Option<GateId> {
        match self.link.protocol() {
            Protocol::V1 => Some(V1_GATE),
            Protocol::V2 => self.shared.direction.gates.known(self.link.url()),
        }
    }

    fn read(&self, message: &StoredMessage) -> Result<Loaded<Outgoing>, String> {
        let (item, received_at, deadline) = outgoing::read(message)?;
        let bytes = match self.link.protocol() {
            // One that can't go in a batch has no size in it, and takes memory all the same.
            Protocol::V1 => v1_bytes_of(&item.0, usize::MAX).unwrap_or_else(|_| item.0.size_hint()),
            Protocol::V2 => item.0.size_hint(),
        };
        Ok(Loaded { item, bytes, received_at, deadline })
    }

    fn memory(&self, bytes: usize) -> usize {
        memory(bytes, self.link.protocol())
    }

    /// Attempts and batch are linked both ways.
    fn span(&self, batch: &Batch, attempts: &[Attempt<Outgoing>]) -> Span {
        let (host, port) = self.link.server();
        let span = tracing::info_span!(
            parent: None,
            "POST /batch",
            otel.kind = "client",
            { attributes::HTTP_METHOD } = "POST",
            { attributes::URL_FULL } = self.link.url(),
            { attributes::SERVER_ADDRESS } = host,
            { attributes::SERVER_PORT } = port,
            { attributes::BATCH_MESSAGE_COUNT } = attributes::number(batch.items.len()),
            { attributes::LANE } = %self.lane,
            { attributes::EPOCH } = attributes::number(self.epoch.0),
            { attributes::BATCH_END } = field::Empty,
        );
        for attempt in attempts {
            context::link(&span, Some(&attempt.span.context()));
        }
        // It begins here, with its links: that an activity in it is kept decides whether it is kept itself.
        let batch_context = span.context();
        for attempt in attempts {
            context::link(&attempt.span, Some(&batch_context));
        }
        span
    }

    fn post(
        &self,
        plan: &Plan,
        batch: &Batch,
        attempts: Vec<Attempt<Outgoing>>,
        called_off: CancellationToken,
        outcomes: Outcomes,
    ) -> impl Future<Output = Ended> + Send + use<> {
        let header = v2::BatchHeader {
            origin: self.shared.direction.config.origin(self.created),
            lane: self.lane.clone(),
            epoch: self.epoch,
            gate: batch.gate,
            floor: batch.floor,
            prev: batch.prev,
            profile: plan.settings.profile,
        };
        let items = attempts.into_iter().map(|attempt| attempt.item.0).collect();
        let wire = v2::Batch { header, items };
        let (shared, link) = (Arc::clone(&self.shared), self.link.clone());
        async move {
            let traceparent = context::current().map(|trace| trace.traceparent);
            let ended = link.post(&wire, traceparent, &called_off, |seq, answer| outcomes.tell(seq, answer)).await;
            if let End::NewGate(gate) = ended.end {
                shared.direction.gates.learn(link.url(), gate);
            }
            ended
        }
    }

    /// Receivers whose format is found to be another one.
    fn changes(&self) -> watch::Receiver<u64> {
        self.link.formats().changes()
    }

    fn reroutes(&mut self, plan: &Plan, tasks: &mut JoinSet<()>) -> Option<&'static str> {
        let known = self.link.known_protocol();
        self.shared.registry.update(&self.lane, |view| view.protocol = known.map(|known| known.to_string()));
        let (lane, epoch, url) = (&self.lane, self.epoch, self.link.url());
        let to = batch_url(&self.shared.direction.config, &plan.settings);
        if to != url && !self.moving {
            tracing::info!(%lane, %epoch, to, "the lane drains, to go to another receiver");
            self.moving = true;
            // Written down before the drain: a crash in between must not forget whose gate is to be closed.
            let (shared, lane, from) = (Arc::clone(&self.shared), lane.clone(), url.to_owned());
            tasks.spawn(async move { moving::note_former(&shared, &lane, &from).await });
            return Some("to go to another receiver");
        }
        let from = self.link.protocol();
        if known.is_some_and(|known| known != from) && !self.reformatting && !self.moving {
            tracing::info!(%lane, %epoch, to = url, %from, "the lane drains: its batch-receiver takes another format");
            self.reformatting = true;
            return Some("to go on in another batch format");
        }
        None
    }
}
