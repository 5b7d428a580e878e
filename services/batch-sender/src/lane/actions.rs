//! What a window wants done: POSTs, copies, purges.

use std::sync::Arc;
use std::time::Instant;

use fedstream_jetstream::lane_settings::{self, Key, LaneSettings};
use fedstream_jetstream::{definitions, purge};
use fedstream_lane::{Action, Batch, End, ParkReason, PostId, Seq, StopReason};
use fedstream_service::metrics::table::{BATCH_DURATION, BATCH_ITEMS};
use fedstream_service::shutdown::CancellationToken;
use fedstream_service::spans::KeyValue;
use fedstream_service::{attributes, context, spans};
use fedstream_wire::v2;
use tracing::{Instrument, Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::owner::{Came, Owner, Posted, Released};
use super::reports::Report;
use crate::link::Ended;
use crate::ownership::NOT_RENEWED;
use crate::park;

impl Owner {
    /// Carries out what the window wants.
    pub(super) fn act(&mut self) {
        while let Some(action) = self.window.as_mut().and_then(|window| window.poll(self.shared.now())) {
            match action {
                Action::Post(batch) => self.post(&batch),
                Action::Cancel { post } => self.cancel(post),
                Action::Park { seq, reason } => self.park(seq, reason),
                Action::Trim { upto, count } => self.trim(upto, count),
                Action::Stop(reason) => self.stop(reason),
            }
        }
        if let Some(window) = &self.window {
            self.held.release(window.floor());
        }
    }

    fn stop(&mut self, reason: StopReason) {
        let released = match reason {
            StopReason::Drained => self.drained(),
            StopReason::LeaseLost => self.lost(NOT_RENEWED.to_owned()),
            StopReason::StaleEpoch { known } => Released::Stale { known, proven: self.proven, floor: self.floor() },
        };
        self.released.get_or_insert(released);
    }

    fn post(&mut self, batch: &Batch) {
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
        BATCH_ITEMS.record(batch.items.len() as f64, &[]);
        let items = self.begin_items(batch, &span);
        let wire = v2::Batch { header: self.batch_header(batch), items };
        let (link, reporter, post) = (self.link.clone(), self.reporter.clone(), batch.post);
        let cancel = CancellationToken::new();
        let unanswered = batch.items.iter().copied().collect();
        let posted = Posted { unanswered, cancel: cancel.clone(), span: span.clone() };
        self.posted.insert(post, posted);
        let task = async move {
            let traceparent = context::current().map(|trace| trace.traceparent);
            let settle = |seq, answer| {
                let report = reporter.send(Report::Outcome(post, seq, answer));
                async { drop(report.await) } // refused only when the owner is gone
            };
            let began = Instant::now();
            let ended = link.post(&wire, traceparent, &cancel, settle).await;
            BATCH_DURATION.record(began.elapsed().as_secs_f64(), &[]);
            tell(&Span::current(), &ended);
            drop(reporter.send(Report::Ended(post, ended)).await);
        };
        self.tasks.spawn(task.instrument(span));
    }

    /// Begins an attempt of each item, and links the attempts and the batch both ways.
    fn begin_items(&mut self, batch: &Batch, span: &Span) -> Vec<v2::BatchItem> {
        let came = self.came.as_ref().map(Came::event);
        if let Some((event, attributes)) = came.clone() {
            spans::event(span, event, attributes);
        }
        let batch_context = span.context();
        let mut items = Vec::with_capacity(batch.items.len());
        for seq in &batch.items {
            let begun = self.held.get_mut(*seq).and_then(|held| held.begin(&self.lane, self.epoch, batch.post));
            let Some((item, attempt)) = begun else {
                unreachable!("the window posts only what it was given as readable, and not yet settled: {seq}");
            };
            context::link(span, Some(&attempt.context()));
            context::link(&attempt, Some(&batch_context));
            if let Some((event, attributes)) = came.clone() {
                spans::event(&attempt, event, attributes);
            }
            items.push(item);
        }
        // An empty batch only asks for the gate: whoever looks for an activity looks at the first that has any.
        self.came.take_if(|_| !batch.items.is_empty());
        items
    }

    fn batch_header(&self, batch: &Batch) -> v2::BatchHeader {
        v2::BatchHeader {
            origin: self.shared.config.origin(self.created),
            lane: self.lane.clone(),
            epoch: self.epoch,
            gate: batch.gate,
            floor: batch.floor,
            prev: batch.prev,
            profile: self.plan.profile,
        }
    }

    fn cancel(&mut self, post: PostId) {
        if let Some(posted) = self.posted.get(&post) {
            posted.cancel.cancel();
        }
    }

    fn park(&mut self, seq: Seq, reason: ParkReason) {
        let Some(held) = self.held.get_mut(seq) else {
            unreachable!("the window parks only what is not settled: {seq}");
        };
        let attempts = held.attempts.count;
        let activity_id = held.item.as_ref().map_or("", |item| item.activity_id.as_str());
        let (lane, epoch, seq_number) = (&self.lane, self.epoch.0, seq.0);
        let span = park::span(lane, self.epoch, held, reason);
        span.in_scope(|| {
            tracing::warn!(%lane, epoch, seq = seq_number, activity.id = activity_id, %reason, attempts, "an activity leaves its lane undelivered: a copy is parked");
        });
        let copy = park::Copy::new(&self.lane, self.created, held, reason);
        self.shared.registry.update(&self.lane, |view| view.parked += 1);
        let (publisher, reporter, series) = (self.shared.publisher.clone(), self.reporter.clone(), self.series.clone());
        let parking = async move {
            let trouble = |cause: String| {
                let why = KeyValue::new(attributes::CAUSE, cause.clone());
                spans::event(&Span::current(), attributes::PARK_FAILED, vec![why]);
                let report = reporter.send(Report::Trouble(cause));
                async { drop(report.await) } // refused only when the owner is gone
            };
            copy.store(publisher, trouble).await;
            series.parked(reason);
            drop(reporter.send(Report::Parked(seq)).await);
        };
        self.tasks.spawn(parking.instrument(span));
    }

    /// Takes the operator's wish to park a sequence out of the settings once that is settled, parked or not: it is no wish
    /// about another activity that gets this number from a stream that is made anew.
    pub(super) fn forget_park(&mut self) {
        let Some(seq) = self.plan.settings.park.filter(|seq| *seq <= self.floor()) else { return };
        if self.forgotten.replace(seq) == Some(seq) {
            return;
        }
        let (shared, lane) = (Arc::clone(&self.shared), self.lane.clone());
        self.tasks.spawn(async move {
            let edit = |settings: &mut LaneSettings| {
                settings.park.take_if(|park| *park == seq);
            };
            if let Err(error) = lane_settings::update(&shared.broker, &Key::Lane(lane.clone()), edit).await {
                tracing::warn!(%lane, %seq, %error, "park stays in the lane's settings, although that is done");
            }
        });
    }

    fn trim(&mut self, upto: Seq, count: u64) {
        let (shared, reporter) = (Arc::clone(&self.shared), self.reporter.clone());
        let (subject, created) = (self.subject.clone(), self.created);
        self.tasks.spawn(async move {
            let result = purge::trim(&shared.broker, &definitions::inbox().name, &subject, upto, created).await;
            drop(reporter.send(Report::Trimmed { count, result }).await);
        });
    }
}

/// Tells a POST's span how it ended.
fn tell(span: &Span, ended: &Ended) {
    span.record(attributes::BATCH_END, ended.name());
    let cause = ended.cause.clone().unwrap_or_default();
    if let Some(event) = ended.event() {
        spans::event(span, event, vec![KeyValue::new(attributes::CAUSE, cause.clone())]);
    }
    if !matches!(ended.end, End::Done | End::NewGate(_)) && ended.cause.is_some() {
        spans::failed(span, ended.name(), cause);
    }
}
