//! The shell of one lane: turns what happens into events of its `SendWindow`, and the window's actions into I/O.
//!
//! ```text
//!   reading ──▶ ┌────────────┐ ─Post──▶ way ──▶ outcomes, end ─┐
//!   lease ────▶ │ SendWindow │ ─Park──▶ FED_PARKED ─▶ acked ───┤
//!   settings ─▶ │            │ ─Trim──▶ purge ─▶ done ─────────┤
//!   deadline ─▶ └────────────┘ ◀───────────────────────────────┘
//! ```
//!
//! It decides nothing. One owner is one epoch: when the far side knows a later one, the stream was made anew, or the
//! batches are to go another way, the window is thrown away, and the lane starts again with what the stream holds.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use fedstream_jetstream::{Created, StoredMessage, definitions};
use fedstream_lane::{Epoch, Event, LaneName, Moment, PostId, SendWindow, Seq, Settle, Standing, Start};
use fedstream_service::shutdown::CancellationToken;
use fedstream_service::spans::KeyValue;
use fedstream_service::{attributes, spans};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Span;

use super::reports::Report;
use crate::budget::Share;
use crate::clock::WallClock;
use crate::held::{Held, HeldQueue};
use crate::ownership::{Claim, Ownership};
use crate::plan::{Plan, ReadPlan};
use crate::reading::{LaneReading, Reading};
use crate::registry::LaneView;
use crate::series::LaneSeries;
use crate::trouble::Trouble;
use crate::{Direction, Shared, Way};

/// Events that wait for the shell. Tasks wait in turn when it is full.
const EVENTS_MAX: usize = 256;

/// Why an owner let go of a lane.
pub(super) enum Released {
    /// Nothing came for a while, or it was told to leave.
    Done,
    /// Sequences mean something else now.
    Anew(String),
    /// Its batches are to go another way; why.
    Rerouted(&'static str),
    /// It is somebody else's, or may be; settled up to there.
    LeaseLost { why: String, floor: Seq },
    /// The far side knows a later owner. `proven`: this one had outcomes before.
    Stale { known: Epoch, proven: bool, floor: Seq },
}

/// A POST in flight, as far as the shell is concerned.
pub(super) struct Posted {
    /// What no line has answered yet, in lane order.
    pub(super) unanswered: VecDeque<Seq>,
    /// Calls it off.
    pub(super) cancel: CancellationToken,
    /// What traces show of it.
    pub(super) span: Span,
}

/// How a lane came to this owner: on the spans of its first batch.
pub(super) enum Came {
    /// With its lease; `again`: this process had it last.
    Taken { epoch: Epoch, again: bool },
    /// It had the lane under an earlier epoch, and why it has another.
    NewEpoch(Epoch, &'static str),
}

impl Came {
    pub(super) fn event(&self) -> (&'static str, Vec<KeyValue>) {
        let epoch = |epoch: &Epoch| KeyValue::new(attributes::EPOCH, attributes::number(epoch.0));
        match self {
            Self::Taken { epoch: taken, .. } => (attributes::LEASE_TAKEN, vec![epoch(taken)]),
            Self::NewEpoch(new, why) => {
                (attributes::NEW_EPOCH, vec![epoch(new), KeyValue::new(attributes::CAUSE, *why)])
            }
        }
    }
}

/// One owner of a lane: one epoch, one window.
pub(super) struct Owner<D: Direction> {
    pub(super) shared: Arc<Shared<D>>,
    pub(super) lane: D::Lane,
    pub(super) subject: String,
    pub(super) created: Created,
    pub(super) epoch: Epoch,
    pub(super) way: D::Way,
    pub(super) plan: Plan,
    /// Made with the first message: the floor is the sequence before it.
    pub(super) window: Option<SendWindow>,
    pub(super) held: HeldQueue<D::Item>,
    pub(super) posted: HashMap<PostId, Posted>,
    pub(super) reporter: mpsc::Sender<Report>,
    pub(super) tasks: JoinSet<()>,
    pub(super) trouble: Trouble,
    /// What is counted of the lane.
    pub(super) series: LaneSeries,
    /// It had an outcome: the far side has accepted its epoch.
    pub(super) proven: bool,
    /// A trim whose answer was lost may have happened: the next one may find less.
    pub(super) trim_uncertain: bool,
    pub(super) released: Option<Released>,
    /// Not told yet.
    pub(super) came: Option<Came>,
    reports: mpsc::Receiver<Report>,
    pub(super) claim: Claim,
    /// Until when the window thinks that the lane is ours.
    lease_until: Moment,
    reading: watch::Sender<ReadPlan>,
    leave: CancellationToken,
    share: Share,
    clock: WallClock,
    /// The lane could not be read when it was tried last.
    unread: bool,
    /// Why it drains, where its batches are to go another way.
    rerouted: Option<&'static str>,
    /// The operator's wish for this sequence is out of date, and is being taken out of the settings.
    pub(super) forgotten: Option<Seq>,
}

impl<D: Direction> Owner<D> {
    pub(super) fn new(
        shared: Arc<Shared<D>>,
        lane: D::Lane,
        created: Created,
        ownership: &Ownership,
        came: Came,
        leave: CancellationToken,
    ) -> Self {
        let (reporter, reports) = mpsc::channel(EVENTS_MAX);
        let (subject, trouble) = (lane.subject(), Trouble::none(&lane, &shared.registry));
        let epoch = ownership.epoch();
        let settings = shared.settings.for_lane(&lane);
        let way = D::way(&shared, &lane, created, epoch, &settings);
        let plan = way.plan(settings);
        let (reading, _) = watch::channel(plan.reader);
        shared.registry.update(&lane, |view| (view.epoch, view.trouble) = (epoch.0, None));
        Self {
            share: shared.budget.share(),
            series: if D::IN_METRICS { LaneSeries::of(&lane) } else { LaneSeries::none() },
            clock: WallClock::new(),
            shared,
            lane,
            subject,
            created,
            epoch,
            way,
            plan,
            window: None,
            held: HeldQueue::default(),
            posted: HashMap::new(),
            reporter,
            tasks: JoinSet::new(),
            trouble,
            proven: false,
            trim_uncertain: false,
            released: None,
            came: Some(came),
            reports,
            claim: ownership.claim(),
            lease_until: Moment(0),
            reading,
            leave,
            unread: false,
            rerouted: None,
            forgotten: None,
        }
    }

    /// Carries the lane; answers why it let go, and which way it went.
    pub(super) async fn run(mut self) -> (Released, D::Way) {
        if matches!(self.came, Some(Came::Taken { again: true, .. })) {
            // A quiet lane is given back after each activity: it has no news.
            tracing::debug!(lane = %self.lane, epoch = %self.epoch, "the lane is carried");
        } else {
            tracing::info!(lane = %self.lane, epoch = %self.epoch, "the lane is carried");
        }
        let stream = &definitions::queue_of::<D::Lane>().name;
        let options = self.reading.subscribe();
        let mut reading =
            LaneReading::start(self.shared.broker.clone(), stream, self.subject.clone(), self.created, options);
        let released = self.turn(&mut reading).await;
        self.tell_spans(&released);
        self.tasks.abort_all();
        reading.close().await;
        // What the next owner holds is its own, and it may be a while until there is one.
        self.shared.registry.update(&self.lane, LaneView::let_go);
        tracing::debug!(lane = %self.lane, epoch = %self.epoch, "the lane is let go");
        (released, self.way)
    }

    /// What is in flight is abandoned: its spans say why.
    fn tell_spans(&mut self, released: &Released) {
        let (event, why) = match released {
            Released::LeaseLost { why, .. } => (attributes::LEASE_LOST, why.as_str()),
            Released::Stale { .. } => (attributes::STALE_EPOCH, "the far side knows a later owner"),
            Released::Anew(why) => (attributes::REWIND, why.as_str()),
            Released::Done | Released::Rerouted(_) => (attributes::REWIND, "given back"),
        };
        self.held.let_go(event, why);
        for posted in self.posted.values() {
            spans::event(&posted.span, event, vec![KeyValue::new(attributes::CAUSE, why.to_owned())]);
            posted.span.record(attributes::BATCH_END, "abandoned");
        }
    }

    async fn turn(&mut self, reading: &mut LaneReading) -> Released {
        let idle_after = self.shared.options.lane_idle;
        let mut settings = self.shared.settings.snapshot();
        let mut ways = self.way.changes();
        let mut busy_at = Instant::now();
        let claim = self.claim.clone();
        settings.mark_changed();
        ways.mark_changed();
        loop {
            if let Some(ahead_ms) = self.clock.step() {
                tracing::warn!(lane = %self.lane, epoch = %self.epoch, ahead_ms, "the wall clock stepped: deadlines are worked out anew");
                self.tell(Event::ClockStepped { ahead_ms });
            }
            self.act();
            self.forget_park();
            self.show();
            if let Some(released) = self.released.take() {
                return released;
            }
            let (has_room, idle, deadline) = match &self.window {
                None => (true, true, None),
                Some(window) => (window.has_room() && self.share.has_room(), window.is_idle(), window.next_deadline()),
            };
            if !idle {
                busy_at = Instant::now();
            }
            let wake_at = deadline.map(|moment| self.shared.instant(moment));
            tokio::select! {
                biased; // what settles goes before what adds
                Some(report) = self.reports.recv() => self.take_in(report),
                why = claim.is_lost() => return self.lost(why),
                () = self.leave.cancelled(), if !self.is_draining() => self.drain(),
                Ok(()) = settings.changed() => {
                    settings.mark_unchanged();
                    self.settings_changed();
                }
                Ok(()) = ways.changed() => {
                    ways.mark_unchanged();
                    self.reroute();
                }
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

    pub(super) fn is_draining(&self) -> bool {
        self.window.as_ref().is_some_and(SendWindow::is_draining)
    }

    /// Why it let go, when nothing is in flight any more.
    pub(super) fn drained(&self) -> Released {
        self.rerouted.map_or(Released::Done, Released::Rerouted)
    }

    pub(super) fn lost(&self, why: String) -> Released {
        Released::LeaseLost { why, floor: self.floor() }
    }

    /// Everything up to here is settled; 0 where nothing was read yet.
    pub(super) fn floor(&self) -> Seq {
        self.window.as_ref().map_or(Seq(0), SendWindow::floor)
    }

    fn drain(&mut self) {
        match &mut self.window {
            Some(window) => {
                let settle = if self.rerouted.is_some() { Settle::All } else { Settle::Oldest };
                window.handle(self.shared.now(), Event::Drain(settle));
            }
            None => self.released = Some(self.drained()),
        }
    }

    /// Tells the window until when the lane is ours, where that is another moment than it knows: before each thing that
    /// depends on it, and not with each renewal, of which there is one every few seconds for all lanes that rest.
    pub(super) fn look_at_lease(&mut self) {
        let until = self.shared.moment(self.claim.until());
        if let Some(window) = &mut self.window
            && until != self.lease_until
        {
            self.lease_until = until;
            window.handle(self.shared.now(), Event::Lease { until });
        }
    }

    /// Other settings hold from now on; another way only after a drain.
    fn settings_changed(&mut self) {
        let plan = self.way.plan(self.shared.settings.for_lane(&self.lane));
        if plan == self.plan {
            return;
        }
        tracing::info!(lane = %self.lane, epoch = %self.epoch, settings = ?plan.settings, "the lane's settings changed");
        for event in plan.changes_from(&self.plan) {
            self.tell(event);
        }
        self.reading.send_if_modified(|options| std::mem::replace(options, plan.reader) != plan.reader);
        self.plan = plan;
        self.reroute();
    }

    /// Where its batches are to go another way, what is in flight is over before anything goes there.
    fn reroute(&mut self) {
        if let Some(why) = self.way.reroutes(&self.plan, &mut self.tasks) {
            self.rerouted = Some(why);
            self.drain();
        }
    }

    fn tell(&mut self, event: Event) {
        let now = self.shared.now();
        if let Some(window) = &mut self.window {
            window.handle(now, event);
        }
    }

    fn read(&mut self, message: StoredMessage) {
        if std::mem::take(&mut self.unread) {
            self.trouble.over(self.epoch.0);
        }
        let read = self.way.read(&message);
        let held = Held::new(message, read);
        let event = match &held.item {
            Err(why) => {
                tracing::error!(lane = %self.lane, epoch = %self.epoch, seq = held.seq.0, why, "a message can't be read: it will be parked");
                Event::ReadUnreadable { seq: held.seq, bytes: held.bytes }
            }
            Ok(_) => {
                let deadline = held.deadline.map(|deadline| self.shared.moment_of(deadline));
                Event::Read { seq: held.seq, bytes: held.bytes, deadline }
            }
        };
        if self.window.is_none() {
            self.lease_until = self.shared.moment(self.claim.until());
            self.window = Some(self.new_window(Seq(held.seq.0.saturating_sub(1))));
        }
        self.tell(event);
        self.held.push(held);
        self.share.set(self.way.memory(self.window.as_ref().map_or(0, SendWindow::bytes)));
    }

    fn new_window(&self, floor: Seq) -> SendWindow {
        let start = Start { epoch: self.epoch, floor, gate: self.way.gate(), lease_until: self.lease_until };
        let mut window = SendWindow::new(start, self.plan.limits, self.shared.options.backoff.clone());
        for event in self.plan.at_start() {
            window.handle(self.shared.now(), event);
        }
        window
    }

    fn show(&mut self) {
        let Some(window) = &self.window else { return };
        self.share.set(self.way.memory(window.bytes()));
        let oldest = self.held.head().map(Held::waits_since);
        let deadline = self.held.nearest_deadline();
        let drains =
            || window.is_draining().then(|| format!("it drains, {}", self.rerouted.unwrap_or("to be given back")));
        let standing = window.standing();
        let paused = matches!(standing, Some(Standing::Paused));
        let stands = standing.map(|standing| self.in_words(standing)).or_else(drains);
        self.shared.registry.update(&self.lane, |view| {
            (view.floor, view.held, view.failures) = (window.floor().0, window.len(), window.failures());
            (view.in_flight, view.posts) = (window.in_flight(), window.posts());
            (view.oldest, view.deadline, view.paused) = (oldest, deadline, paused);
            view.stands = stands;
            view.refusing = window.is_paused_by_rejections();
        });
    }

    fn in_words(&self, standing: Standing) -> String {
        match standing {
            Standing::Paused => "paused by its settings".to_owned(),
            Standing::Rejections => {
                let most = self.plan.limits.rejections_max;
                format!("{most} refusals in a row: single activities are tried (a wrong override or a firewall?)")
            }
            Standing::ParkingTheHead(seq) => format!("sequence {seq} is being parked"),
            Standing::BackingOff { until, .. } => {
                let left = self.shared.instant(until).saturating_duration_since(Instant::now());
                let when = if left.is_zero() { "now".to_owned() } else { format!("in {} s", left.as_secs()) };
                // The window counts failures no further than its longest pause.
                format!("it fails for {} s now, and is tried again {when}", self.trouble.lasts().as_secs())
            }
            Standing::AskingForTheGate => "the batch-receiver has not answered yet".to_owned(),
        }
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
