//! What a window wants done: POSTs, copies, purges.

use std::sync::Arc;

use fedstream_jetstream::lane_settings::{self, LaneSettings};
use fedstream_jetstream::{definitions, purge};
use fedstream_lane::{Action, Answer, Batch, End, ParkReason, PostId, Seq, StopReason};
use fedstream_service::shutdown::CancellationToken;
use fedstream_service::spans::KeyValue;
use fedstream_service::{attributes, spans};
use tokio::sync::mpsc;
use tracing::{Instrument, Span};

use super::owner::{Came, Owner, Posted, Released};
use super::reports::Report;
use crate::ownership::NOT_RENEWED;
use crate::park;
use crate::{Attempt, Direction, Ended, Item, Way};

/// Where a POST tells what became of its items.
#[derive(Debug)]
pub struct Outcomes {
    post: PostId,
    reporter: mpsc::Sender<Report>,
}

impl Outcomes {
    /// An item has its outcome, the next in line of those that were posted.
    pub async fn tell(&self, seq: Seq, answer: Answer) {
        drop(self.reporter.send(Report::Outcome(self.post, seq, answer)).await); // refused only when the owner is gone
    }
}

impl<D: Direction> Owner<D> {
    /// Carries out what the window wants.
    pub(super) fn act(&mut self) {
        while let Some(action) = self.next_action() {
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

    fn next_action(&mut self) -> Option<Action> {
        self.look_at_lease();
        self.window.as_mut()?.poll(self.shared.now())
    }

    fn stop(&mut self, reason: StopReason) {
        let released = match reason {
            StopReason::Drained => self.drained(),
            StopReason::LeaseLost => self.lost(self.claim.lost().unwrap_or_else(|| NOT_RENEWED.to_owned())),
            StopReason::StaleEpoch { known } => Released::Stale { known, proven: self.proven, floor: self.floor() },
        };
        self.released.get_or_insert(released);
    }

    fn post(&mut self, batch: &Batch) {
        let attempts = self.begin_items(batch);
        let span = self.way.span(batch, &attempts);
        self.tell_how_it_came(&span, &attempts);
        let (reporter, post) = (self.reporter.clone(), batch.post);
        let cancel = CancellationToken::new();
        let outcomes = Outcomes { post, reporter: reporter.clone() };
        let posting = self.way.post(&self.plan, batch, attempts, cancel.clone(), outcomes);
        let unanswered = batch.items.iter().copied().collect();
        let posted = Posted { unanswered, cancel, span: span.clone() };
        self.posted.insert(post, posted);
        let task = async move {
            let ended = posting.await;
            tell(&Span::current(), &ended);
            drop(reporter.send(Report::Ended(post, ended)).await);
        };
        self.tasks.spawn(task.instrument(span));
    }

    fn begin_items(&mut self, batch: &Batch) -> Vec<Attempt<D::Item>> {
        let mut attempts = Vec::with_capacity(batch.items.len());
        for seq in &batch.items {
            let begun = self.held.get_mut(*seq).and_then(|held| held.begin(&self.lane, self.epoch, batch.post));
            let Some(attempt) = begun else {
                unreachable!("the window posts only what it was given as readable, and not yet settled: {seq}");
            };
            attempts.push(attempt);
        }
        attempts
    }

    /// Says on the first spans of this owner how the lane came to it.
    fn tell_how_it_came(&mut self, batch: &Span, attempts: &[Attempt<D::Item>]) {
        let Some((event, attributes)) = self.came.as_ref().map(Came::event) else { return };
        for span in attempts.iter().map(|attempt| &attempt.span).chain([batch]) {
            spans::event(span, event, attributes.clone());
        }
        // An empty batch only asks for the gate: whoever looks for an activity looks at the first that has any.
        self.came.take_if(|_| !attempts.is_empty());
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
        let activity_id = held.item.as_ref().map_or("", Item::activity_id);
        let (lane, epoch, seq_number) = (&self.lane, self.epoch.0, seq.0);
        let span = park::span(lane, self.epoch, held, reason);
        span.in_scope(|| {
            tracing::warn!(%lane, epoch, seq = seq_number, activity.id = activity_id, %reason, attempts, "an activity leaves its lane undelivered: a copy is parked");
        });
        let copy = park::Copy::new(&self.lane, self.created, held, reason, D::KEPT_HEADERS);
        self.shared.registry.update(&self.lane, |view| view.parked += 1);
        let (shared, reporter, series) = (Arc::clone(&self.shared), self.reporter.clone(), self.series.clone());
        let parking = async move {
            let trouble = |cause: String| {
                let why = KeyValue::new(attributes::CAUSE, cause.clone());
                spans::event(&Span::current(), attributes::PARK_FAILED, vec![why]);
                let report = reporter.send(Report::Trouble(cause));
                async { drop(report.await) } // refused only when the owner is gone
            };
            copy.store(&shared, trouble).await;
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
            if let Err(error) = lane_settings::update(&shared.broker, &lane.clone().into(), edit).await {
                tracing::warn!(%lane, %seq, %error, "park stays in the lane's settings, although that is done");
            }
        });
    }

    fn trim(&mut self, upto: Seq, count: u64) {
        let (shared, reporter) = (Arc::clone(&self.shared), self.reporter.clone());
        let (subject, created) = (self.subject.clone(), self.created);
        self.tasks.spawn(async move {
            let result =
                purge::trim(&shared.broker, &definitions::queue_of::<D::Lane>().name, &subject, upto, created).await;
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
