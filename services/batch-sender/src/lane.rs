//! The shell of one lane: turns what happens into events of its `SendWindow`, and the window's actions into I/O.
//!
//! ```text
//!   reading ─▶ ┌────────────┐ ─Post─▶ link ─▶ outcomes, end ─┐
//!              │ SendWindow │ ─Park─▶ FED_PARKED ─▶ acked ───┤
//!   deadline ▶ │            │ ─Trim─▶ purge ─▶ done ─────────┤
//!              └────────────┘ ◀──────────────────────────────┘
//! ```
//!
//! It decides nothing. One owner is one epoch: when the far side knows a later one, or the stream was made anew, the
//! window is thrown away, and the lane starts again with what the stream holds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fedstream_jetstream::{Broker, Created, Publisher, definitions, epochs, identity, purge};
use fedstream_lane::{
    Action, Answer, Batch, End, Epoch, Event, GateId, Lane, Moment, ParkReason, PostId, SendWindow, Seq, StopReason,
};
use fedstream_service::context;
use fedstream_service::shutdown::CancellationToken;
use fedstream_wire::v2;
use opentelemetry::trace::Status;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::config::Config;
use crate::held::{Held, HeldQueue};
use crate::link::{Ended, Link};
use crate::park;
use crate::reading::{LaneReading, Reading};
use crate::registry::Registry;
use crate::trouble::Trouble;

/// Between two tries to take an epoch.
const EPOCH_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A lane that another sender took is tried again after this. Until leases say who owns a lane, two senders on one
/// lane take turns at this pace, safely and loudly; and a lane whose other sender died does not stand for ever.
const RETAKE_AFTER: Duration = Duration::from_secs(60);

/// Events that wait for the shell. Tasks wait in turn when it is full.
const EVENTS_MAX: usize = 256;

/// What all lanes of a process share.
pub struct Shared {
    /// Settings.
    pub config: Config,
    /// The broker.
    pub broker: Broker,
    /// For parked copies.
    pub publisher: Publisher,
    /// To the batch-receiver.
    pub link: Link,
    /// Name of this process.
    pub sender_id: String,
    /// For `/lanes`.
    pub registry: Registry,
    /// The batch-receiver's current life, as the last lane learnt it.
    pub gate: KnownGate,
    /// Zero of every [`Moment`].
    pub started: Instant,
    /// Set when lanes are to be drained.
    pub drain: CancellationToken,
}

/// The gate id that a lane begins with. A wrong one costs a round trip, as an unknown one does.
#[derive(Debug, Default)]
pub struct KnownGate(Mutex<Option<GateId>>);

impl KnownGate {
    fn known(&self) -> Option<GateId> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, gate: GateId) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(gate);
    }
}

impl Shared {
    fn now(&self) -> Moment {
        Moment(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn instant(&self, moment: Moment) -> Instant {
        self.started + Duration::from_millis(moment.0)
    }
}

/// Why an owner let go of a lane.
enum Released {
    /// Nothing came for a while, or the service leaves.
    Done,
    /// Sequences mean something else now.
    Anew(String),
    /// A later owner is known. `proven`: this one had outcomes before.
    Stale { known: Epoch, proven: bool },
}

/// Carries a lane of the stream that was created at `created`, until it is idle, the service leaves, or the stream is
/// another one.
pub async fn carry(shared: Arc<Shared>, lane: Lane, created: Created) {
    let mut at_least = Epoch(0);
    let mut retaken = false;
    loop {
        let Some(epoch) = take_epoch(&shared, &lane, at_least).await else { return };
        let owner = Owner::new(Arc::clone(&shared), lane.clone(), created, epoch);
        match Box::pin(owner.run()).await {
            Released::Done => return,
            Released::Anew(why) => {
                tracing::warn!(%lane, %epoch, why, "the lane is let go, and starts again under a new epoch");
                return; // the next discovery starts it again
            }
            // Never accepted: our clock is behind and the entry of the last epoch has expired. Once, that is all there is.
            Released::Stale { known, proven: false } if !retaken => {
                tracing::warn!(%lane, %epoch, %known, "stale epoch: the clock is behind the lane's last epoch");
                at_least = Epoch(known.0.saturating_add(1));
                retaken = true;
            }
            Released::Stale { known, .. } => {
                let retake_s = RETAKE_AFTER.as_secs();
                let why = "another batch-sender took the lane";
                tracing::error!(%lane, %epoch, %known, retake_s, why, "stale epoch: this owner stops posting the lane");
                shared
                    .registry
                    .update(&lane, |view| view.trouble = Some(format!("{why}; taken again in {retake_s} s")));
                at_least = Epoch(known.0.saturating_add(1));
                tokio::select! {
                    () = tokio::time::sleep(RETAKE_AFTER) => {}
                    () = shared.drain.cancelled() => return,
                }
            }
        }
    }
}

/// One compare-and-set; none when the service leaves before it succeeds.
async fn take_epoch(shared: &Shared, lane: &Lane, at_least: Epoch) -> Option<Epoch> {
    let mut trouble = Trouble::none(lane, &shared.registry);
    loop {
        match epochs::take(&shared.broker, &lane.key(), &shared.sender_id, at_least).await {
            Ok(epoch) => return Some(epoch),
            Err(error) => trouble.failed(0, format!("no epoch yet: {error}")),
        }
        tokio::select! {
            () = tokio::time::sleep(EPOCH_RETRY_AFTER) => {}
            () = shared.drain.cancelled() => return None,
        }
    }
}

/// What the tasks of an owner report.
enum Report {
    Outcome(PostId, Seq, Answer),
    Ended(PostId, Ended),
    Parked(Seq),
    Trouble(String),
    Trimmed { count: u64, result: Result<u64, purge::Error> },
}

/// One owner of a lane: one epoch, one window.
struct Owner {
    shared: Arc<Shared>,
    lane: Lane,
    subject: String,
    created: Created,
    epoch: Epoch,
    /// Made with the first message: the floor is the sequence before it.
    window: Option<SendWindow>,
    held: HeldQueue,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    tasks: JoinSet<()>,
    trouble: Trouble,
    /// The lane could not be read when it was tried last.
    unread: bool,
    /// It had an outcome: the far side has accepted its epoch.
    proven: bool,
    /// A trim whose answer was lost may have happened: the next one may find less.
    trim_uncertain: bool,
    released: Option<Released>,
}

impl Owner {
    fn new(shared: Arc<Shared>, lane: Lane, created: Created, epoch: Epoch) -> Self {
        let (reporter, reports) = mpsc::channel(EVENTS_MAX);
        let (subject, trouble) = (lane.subject(), Trouble::none(&lane, &shared.registry));
        shared.registry.update(&lane, |view| (view.epoch, view.trouble) = (epoch.0, None));
        Self {
            shared,
            lane,
            subject,
            created,
            epoch,
            window: None,
            held: HeldQueue::default(),
            reports,
            reporter,
            tasks: JoinSet::new(),
            trouble,
            unread: false,
            proven: false,
            trim_uncertain: false,
            released: None,
        }
    }

    async fn run(mut self) -> Released {
        tracing::info!(lane = %self.lane, epoch = %self.epoch, "the lane is carried");
        let inbox = &definitions::inbox().name;
        let mut reading = LaneReading::start(self.shared.broker.clone(), inbox, self.subject.clone(), self.created);
        let released = self.turn(&mut reading).await;
        self.held.end_attempts("released");
        self.tasks.abort_all();
        reading.close().await;
        tracing::debug!(lane = %self.lane, epoch = %self.epoch, "the lane is let go");
        released
    }

    async fn turn(&mut self, reading: &mut LaneReading) -> Released {
        let idle_after = self.shared.config.lane_idle.get();
        let mut busy_at = Instant::now();
        loop {
            self.act();
            self.show();
            if let Some(released) = self.released.take() {
                return released;
            }
            let (has_room, idle, deadline) = match &self.window {
                None => (true, true, None),
                Some(window) => (window.has_room(), window.is_idle(), window.next_deadline()),
            };
            if !idle {
                busy_at = Instant::now();
            }
            let wake_at = deadline.map(|moment| self.shared.instant(moment));
            tokio::select! {
                biased; // what settles goes before what adds
                Some(report) = self.reports.recv() => self.take_in(report),
                () = self.shared.drain.cancelled(), if !self.is_draining() => self.drain(),
                () = sleep_until(wake_at), if wake_at.is_some() => {}
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => pass_a_panic_on(ended),
                read = reading.next(), if has_room => match read {
                    Some(Reading::Message(message)) => {
                        busy_at = Instant::now();
                        self.read(message);
                    }
                    Some(Reading::Trouble(cause)) => {
                        busy_at = Instant::now(); // closed as idle, nobody would see it
                        self.unread = true;
                        self.trouble.failed(self.epoch.0, cause);
                    }
                    Some(Reading::Anew(why)) => return Released::Anew(why),
                    None => return Released::Anew("the lane's reader ended badly".to_owned()),
                },
                () = tokio::time::sleep_until(busy_at + idle_after), if idle => return Released::Done,
            }
        }
    }

    fn is_draining(&self) -> bool {
        self.window.as_ref().is_some_and(SendWindow::is_draining)
    }

    fn drain(&mut self) {
        match &mut self.window {
            Some(window) => window.handle(self.shared.now(), Event::Drain),
            None => self.released = Some(Released::Done),
        }
    }

    fn read(&mut self, message: fedstream_jetstream::StoredMessage) {
        if std::mem::take(&mut self.unread) {
            self.trouble.over(self.epoch.0);
        }
        let held = Held::new(message);
        let event = match (&held.item, held.batch_bytes()) {
            (Err(why), _) => {
                tracing::error!(lane = %self.lane, seq = held.seq.0, why, "a message can't be read: it will be parked");
                Event::ReadUnreadable { seq: held.seq, bytes: held.message_bytes() }
            }
            (Ok(_), bytes) => Event::Read { seq: held.seq, bytes: bytes.unwrap_or_default() },
        };
        let config = &self.shared.config;
        let before_first = Seq(held.seq.0.saturating_sub(1));
        let window = self.window.get_or_insert_with(|| {
            SendWindow::new(
                self.epoch,
                before_first,
                self.shared.gate.known(),
                config.window_limits(),
                config.backoff(),
            )
        });
        window.handle(self.shared.now(), event);
        self.held.push(held);
    }

    /// Carries out what the window wants.
    fn act(&mut self) {
        while let Some(action) = self.window.as_mut().and_then(|window| window.poll(self.shared.now())) {
            match action {
                Action::Post(batch) => self.post(&batch),
                Action::Park { seq, reason, attempts } => self.park(seq, reason, attempts),
                Action::Trim { upto, count } => self.trim(upto, count),
                Action::Stop(StopReason::Drained) => self.released = Some(Released::Done),
                Action::Stop(StopReason::StaleEpoch { known }) => {
                    self.released = Some(Released::Stale { known, proven: self.proven });
                }
            }
        }
        if let Some(window) = &self.window {
            self.held.release(window.floor());
        }
    }

    fn post(&mut self, batch: &Batch) {
        let span = tracing::info_span!(
            "POST /batch",
            otel.name = "POST /batch",
            otel.kind = "client",
            messaging.system = "nats",
            messaging.operation.name = "send",
            messaging.operation.r#type = "send",
            messaging.batch.message_count = batch.items.len(),
            url.full = self.shared.link.url(),
            http.request.method = "POST",
            fedstream.lane = %self.lane,
            fedstream.epoch = self.epoch.0,
            fedstream.end = tracing::field::Empty,
        );
        let items = self.begin_items(batch, &span);
        let wire = v2::Batch { header: self.batch_header(batch), items };
        let (shared, reporter, post) = (Arc::clone(&self.shared), self.reporter.clone(), batch.post);
        let task = async move {
            let traceparent = context::current().map(|trace| trace.traceparent);
            let settle = |seq, answer| {
                let report = reporter.send(Report::Outcome(post, seq, answer));
                async { drop(report.await) } // refused only when the owner is gone
            };
            let ended = shared.link.post(&wire, traceparent, settle).await;
            let span = Span::current();
            span.record("fedstream.end", tracing::field::debug(ended.end));
            if let (Some(cause), false) = (&ended.cause, matches!(ended.end, End::Done | End::NewGate(_))) {
                span.set_status(Status::error(cause.clone()));
            }
            drop(reporter.send(Report::Ended(post, ended)).await);
        };
        self.tasks.spawn(task.instrument(span));
    }

    /// Begins an attempt of each item, and links the attempts and the batch both ways.
    fn begin_items(&mut self, batch: &Batch, span: &Span) -> Vec<v2::BatchItem> {
        let batch_context = span.context();
        let mut items = Vec::with_capacity(batch.items.len());
        for seq in &batch.items {
            let begun = self.held.get_mut(*seq).and_then(|held| held.begin(&self.lane));
            let Some((item, attempt)) = begun else {
                unreachable!("the window posts only what it was given as readable, and not yet settled: {seq}");
            };
            context::link(span, Some(&attempt.context()));
            context::link(&attempt, Some(&batch_context));
            items.push(item);
        }
        items
    }

    fn batch_header(&self, batch: &Batch) -> v2::BatchHeader {
        v2::BatchHeader {
            origin: fedstream_lane::Origin {
                site: self.shared.config.site.0.as_str().into(),
                created_us: self.created.unix_micros(),
            },
            lane: self.lane.clone(),
            epoch: self.epoch,
            gate: batch.gate,
            floor: batch.floor,
            prev: batch.prev,
            profile: None,
        }
    }

    fn park(&mut self, seq: Seq, reason: ParkReason, attempts: u32) {
        let Some(held) = self.held.get_mut(seq) else {
            unreachable!("the window parks only what is not settled: {seq}");
        };
        let copy = park::Copy::new(&self.lane, self.created, held, reason, attempts);
        let (publisher, reporter) = (self.shared.publisher.clone(), self.reporter.clone());
        self.tasks.spawn(async move {
            let trouble = |cause| {
                let report = reporter.send(Report::Trouble(cause));
                async { drop(report.await) } // refused only when the owner is gone
            };
            copy.store(publisher, trouble).await;
            drop(reporter.send(Report::Parked(seq)).await);
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

    fn take_in(&mut self, report: Report) {
        let event = match report {
            Report::Outcome(post, seq, answer) => self.outcome(post, seq, answer),
            Report::Ended(post, ended) => self.ended(post, ended),
            Report::Parked(seq) => {
                self.trouble.over(self.epoch.0);
                Event::Parked { seq }
            }
            Report::Trouble(cause) => return self.trouble.failed(self.epoch.0, cause),
            Report::Trimmed { count, result } => self.trimmed(count, result),
        };
        let now = self.shared.now();
        let Some(window) = &mut self.window else { return };
        let new_gate = matches!(event, Event::Ended { end: End::NewGate(_), .. });
        window.handle(now, event);
        if new_gate && window.gate_alternates() {
            let help = "a lane needs one batch-receiver: route replicas by lane, or run one";
            tracing::warn!(lane = %self.lane, epoch = %self.epoch, help, "two batch-receivers answer in turn");
        }
    }

    fn outcome(&mut self, post: PostId, seq: Seq, answer: Answer) -> Event {
        let outcome = answer.outcome;
        if let Some(held) = self.held.get_mut(seq) {
            let status = (answer.status != 0).then_some(answer.status);
            held.end(outcome.as_str(), status);
            if outcome.park_reason().is_some() {
                let activity_id = held.item.as_ref().map_or("", |item| item.activity_id.as_str());
                tracing::warn!(lane = %self.lane, seq = seq.0, activity.id = activity_id, status = answer.status, "rejected by the instance: a copy is parked");
                held.rejection = Some(answer);
            }
        }
        self.proven = true;
        self.trouble.over(self.epoch.0);
        self.shared.registry.update(&self.lane, |view| {
            view.settled += 1;
            view.rejected += u64::from(outcome.park_reason().is_some());
        });
        Event::Outcome { post, seq, outcome }
    }

    fn ended(&mut self, post: PostId, ended: Ended) -> Event {
        self.held.end_attempts("again");
        match (ended.end, ended.cause) {
            (End::Done, None) => {}
            (End::NewGate(gate), _) => {
                let lane = &self.lane;
                tracing::info!(%lane, epoch = %self.epoch, %gate, "the batch-receiver is in a new life, or new to us");
                self.shared.gate.learn(gate);
            }
            (_, cause) => {
                let cause = cause.unwrap_or_else(|| "the answer left activities out".to_owned());
                self.trouble.failed(self.epoch.0, cause);
            }
        }
        Event::Ended { post, end: ended.end, jitter: fastrand::u16(0..=1000) }
    }

    fn trimmed(&mut self, count: u64, result: Result<u64, purge::Error>) -> Event {
        match result {
            Ok(purged) => {
                if purged > count {
                    tracing::error!(lane = %self.lane, count, purged, "more was purged than was settled: the reader skipped something");
                } else if purged < count && !self.trim_uncertain {
                    tracing::warn!(lane = %self.lane, count, purged, "less was purged than was settled: somebody else purged the lane");
                }
                if std::mem::take(&mut self.trim_uncertain) {
                    self.trouble.over(self.epoch.0);
                }
                Event::Trimmed { done: true }
            }
            // What was to be trimmed went with its stream.
            Err(purge::Error::Identity(error @ identity::Error::MadeAnew { .. })) => {
                self.released.get_or_insert(Released::Anew(error.to_string()));
                Event::Trimmed { done: true }
            }
            Err(purge::Error::Identity(identity::Error::Missing { .. })) if self.is_draining() => {
                Event::Trimmed { done: true }
            }
            Err(error) => {
                self.trouble.failed(self.epoch.0, format!("what is settled can't be trimmed: {error}"));
                self.trim_uncertain = true;
                Event::Trimmed { done: false }
            }
        }
    }

    fn show(&self) {
        let Some(window) = &self.window else { return };
        self.shared.registry.update(&self.lane, |view| {
            (view.floor, view.held, view.failures) = (window.floor().0, window.len(), window.failures());
        });
    }
}

/// A task that panicked reports nothing, and the window would wait for it for ever: the lane's own task ends with it, and
/// discovery starts the lane again.
fn pass_a_panic_on(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
