//! Which lanes there are, and which are ours: the stream is asked, and each lane that holds something and belongs to this
//! process gets a task. Where there are more of them than FED_LANES_MAX, they take turns ([`crate::waiting`]).
//!
//! The members share lanes by a hash ([`fedstream_jetstream::members`]). A lane that belongs to another one now is drained
//! and given back, a few a second: a member that joins gets its part without a stop of the world.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fedstream_jetstream::{Created, Living, Members, StreamState, lanes};
use fedstream_lane::LaneName;
use fedstream_service::readiness::Readiness;
use fedstream_service::shutdown::CancellationToken;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tracing::field;

use crate::lane;
use crate::ownership::Shown;
use crate::registry::{LaneView, Standpoint};
use crate::sweep::Sweep;
use crate::turn::{OVERDUE_TURN, Turn};
use crate::waiting::{Carried, FarSide, Waiting};
use crate::{Direction, Shared};

/// Between two lanes that are given up because they belong to another member, or because others wait: four a second.
const GIVE_UP_EVERY: Duration = Duration::from_millis(250);

/// Telling the others that we leave takes a broker that is there milliseconds, and is worth that beyond the grace period.
const LEAVE_TIME_MIN: Duration = Duration::from_millis(250);

/// A look costs the broker a list of subjects: not more often than this, whatever changes.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(100);

/// Warnings about what is no lane are given once a subject, for at most this many.
const WARNED_MAX: usize = 1_000;

/// The lanes of this process, and the tasks that carry them.
pub struct Discovery<D: Direction> {
    shared: Arc<Shared<D>>,
    members: Members,
    stream: watch::Receiver<StreamState>,
    readiness: Readiness,
    tasks: JoinSet<()>,
    running: HashMap<D::Lane, Running>,
    given_up_at: Option<Instant>,
    warned: HashSet<String>,
    /// Lanes beyond FED_LANES_MAX, at the last look.
    waiting: Waiting<D::Lane>,
    sweep: Sweep,
}

struct Running {
    task: Id,
    turn: Turn,
    /// At the last look.
    is_empty: bool,
    /// Tells it what the bucket of leases shows of the lane.
    shown: watch::Sender<Shown>,
}

impl<D: Direction> Discovery<D> {
    /// Knows no lane yet.
    #[must_use]
    pub fn new(
        shared: Arc<Shared<D>>,
        members: Members,
        stream: watch::Receiver<StreamState>,
        readiness: Readiness,
    ) -> Self {
        let sweep = Sweep::new(shared.leases.clone());
        Self {
            shared,
            members,
            stream,
            readiness,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            given_up_at: None,
            warned: HashSet::new(),
            waiting: Waiting::default(),
            sweep,
        }
    }

    /// Looks for lanes until the service leaves, then waits for the lanes to drain, at most `grace`.
    /// Answers whether they did.
    pub async fn run(mut self, grace: Duration) -> bool {
        let drain = self.shared.drain.clone();
        let (mut changes, mut living) = (self.members.changes(), self.members.living());
        while !drain.is_cancelled() {
            tokio::select! {
                () = self.look() => {}
                () = drain.cancelled() => {} // a question to a broker that is away would take seconds of the grace
            }
            self.pause(&drain, &mut changes, &mut living).await;
        }
        let leave_by = Instant::now() + grace;
        let Self { shared, members, mut tasks, .. } = self;
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a lane's task ended badly");
                }
            }
        };
        // The others hear first that we leave: each lane is theirs as soon as it is given back, and none waits for another.
        let leave = tokio::time::timeout(grace.max(LEAVE_TIME_MIN), members.leave());
        let (left, drained) = tokio::join!(leave, tokio::time::timeout_at(leave_by, all));
        if left.is_err() {
            tracing::debug!("the broker does not answer: this member's entry is left to expire");
        }
        tasks.shutdown().await;
        shared.keepers.close();
        if tokio::time::timeout(LEAVE_TIME_MIN, shared.keepers.wait()).await.is_err() {
            tracing::debug!("the broker does not answer: leases are left to expire");
        }
        if tokio::time::timeout(LEAVE_TIME_MIN, shared.leases.close()).await.is_err() {
            tracing::debug!("the broker does not answer: the session is left to expire");
        }
        drained.is_ok()
    }

    /// Until the next look: the interval, however many lanes end meanwhile (a lane that can't be carried must not become a
    /// hot loop), or until a lane is to be had from another member.
    async fn pause(
        &mut self,
        drain: &CancellationToken,
        changes: &mut watch::Receiver<u64>,
        living: &mut watch::Receiver<Living>,
    ) {
        let interval = tokio::time::sleep(self.shared.options.discovery_interval);
        let shortest = tokio::time::sleep(LOOK_PAUSE_MIN);
        tokio::pin!(interval, shortest);
        let mut may_end_early = false;
        loop {
            tokio::select! {
                () = &mut interval => return,
                () = drain.cancelled() => return,
                () = &mut shortest, if !may_end_early => may_end_early = true,
                Ok(()) = changes.changed(), if may_end_early => return,
                Ok(()) = living.changed(), if may_end_early => return,
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => self.ended(&ended),
            }
        }
    }

    async fn look(&mut self) {
        let connected = self.shared.broker.connected();
        let state = self.stream.borrow_and_update().clone();
        match (&state, connected) {
            (_, false) => self.readiness.not_ready("broker", "there is no connection to the broker"),
            (_, true) => {
                self.readiness.ready("broker", "connected");
                self.show_leases(); // whatever becomes of the stream
            }
        }
        let Some(facts) = state.facts() else {
            self.readiness.not_ready(D::ON_THE_PAGE.stream, format!("{state:?}"));
            return;
        };
        let troubled = self.shared.registry.in_trouble();
        self.readiness
            .note(D::ON_THE_PAGE.lanes, (troubled > 0).then(|| format!("{troubled} lanes do not move, see /lanes")));
        if !connected {
            return;
        }
        match lanes::backlog_of::<D::Lane>(&self.shared.broker).await {
            Ok(backlog) => {
                self.show_empty(&backlog);
                let mut wanted = Vec::new();
                for (subject, depth) in &backlog {
                    wanted.extend(self.found(subject, *depth));
                }
                if self.is_member() {
                    self.share_out(wanted, facts.created);
                }
                self.readiness.ready(D::ON_THE_PAGE.stream, "present and fit");
                self.sweep_up(&backlog);
                let waiting = self.waiting.len();
                let note = format!("{waiting} lanes wait: FED_LANES_MAX lanes are carried already");
                self.readiness.note(D::ON_THE_PAGE.waiting, (waiting > 0).then_some(note));
            }
            Err(error) => {
                self.readiness.not_ready(D::ON_THE_PAGE.stream, format!("the lanes are not known: {error}"));
            }
        }
    }

    /// Each lane's own task makes sure of what looks odd to it.
    fn show_leases(&self) {
        for key in self.members.changed_lanes() {
            let lane = D::Lane::from_subject(&subject(&key)).ok();
            if let Some(running) = lane.and_then(|lane| self.running.get(&lane)) {
                running.shown.send_replace(self.members.held(&key));
            }
        }
    }

    /// After the lanes are shared out: what begins now is carried.
    fn sweep_up(&mut self, backlog: &[(String, u64)]) {
        let subjects: HashSet<&str> = backlog.iter().map(|(subject, _)| subject.as_str()).collect();
        let has_backlog = |key: &str| subjects.contains(subject(key).as_str());
        let is_carried = |key: &str| D::Lane::from_subject(&subject(key)).is_ok_and(|l| self.running.contains_key(&l));
        self.sweep.look(&self.members, has_backlog, is_carried);
    }

    /// An empty lane is not in the answer, and one of another member that is empty is not shown.
    fn show_empty(&mut self, backlog: &[(String, u64)]) {
        let found: HashSet<D::Lane> =
            backlog.iter().filter_map(|(subject, _)| D::Lane::from_subject(subject).ok()).collect();
        let shown: HashSet<String> = self.running.keys().chain(&found).map(ToString::to_string).collect();
        self.shared.registry.retain(|lane| shown.contains(lane));
        for (lane, running) in &mut self.running {
            running.is_empty = !found.contains(lane);
            if running.is_empty {
                self.shared.registry.update(lane, |view| view.depth = 0);
            }
        }
    }

    /// Answers the lane where it is to be carried here, and is not yet.
    fn found(&mut self, subject: &str, depth: u64) -> Option<D::Lane> {
        let lane = match D::Lane::from_subject(subject) {
            Ok(lane) => lane,
            Err(error) => {
                self.warn_once(subject, &format!("its messages stay where they are: {error}"));
                return None;
            }
        };
        let key = lane.key();
        let belongs_to = self.members.owner_of(&key);
        let ours = belongs_to.as_deref() == Some(self.members.id());
        let others =
            self.members.held(&key).is_some_and(|holder| !holder.released && holder.owner != self.members.id());
        let may_give_up = self.may_give_up();
        if let Some(running) = self.running.get_mut(&lane) {
            if belongs_to.is_some() && !ours && !running.turn.is_ending() && may_give_up {
                let (to, now) = (belongs_to.as_deref(), Instant::now());
                tracing::info!(%lane, to, "the lane belongs to another sender now: it is drained and given back");
                running.turn.end(now);
                self.given_up_at = Some(now);
            }
        } else if depth == 0 {
            return None;
        } else if !ours {
            self.show_anothers(&lane, &key, belongs_to);
        }
        self.shared.registry.update(&lane, |view| {
            view.depth = depth;
            if view.standpoint != Standpoint::Owner {
                view.standpoint = if ours && !others { Standpoint::Heir } else { Standpoint::Others };
            }
        });
        (ours && !self.running.contains_key(&lane)).then_some(lane)
    }

    /// As many begin as there is room for; the others wait, and who has no use for its turn makes room for them.
    fn share_out(&mut self, wanted: Vec<D::Lane>, created: Created) {
        let shared = Arc::clone(&self.shared);
        let far_side = |lane: &D::Lane| D::far_side(&shared, lane);
        let now = Instant::now();
        self.waiting.are(now, wanted);
        let most = usize::try_from(shared.options.lanes_max).unwrap_or(usize::MAX);
        for lane in self.waiting.admit(most.saturating_sub(self.running.len()), far_side) {
            self.begin(lane, created);
        }
        for lane in self.waiting.lanes() {
            let why = "it waits: FED_LANES_MAX lanes are carried already".to_owned();
            shared.registry.update(lane, |view| (view.owner, view.trouble) = (None, Some(why)));
        }
        let may = self.may_make_room();
        if self.waiting.len() == 0 || may == 0 {
            return;
        }
        let soon = OffsetDateTime::now_utc() + OVERDUE_TURN;
        let leaving = self.running.values().filter(|running| running.turn.ends_soon(now)).count();
        let could_do_without = |(lane, running): (&D::Lane, &Running)| {
            let Running { turn, is_empty, .. } = running;
            let had_its_turn = || turn.was_of_use(now, shared.registry.may_be_due(lane, soon));
            (*is_empty || far_side(lane) == FarSide::Closed && had_its_turn()).then(|| Carried {
                lane: lane.clone(),
                since: turn.since(),
                is_empty: *is_empty,
            })
        };
        let staying = self.running.iter().filter(|(_, running)| !running.turn.is_ending());
        let carried = staying.filter_map(could_do_without).collect();
        for lane in self.waiting.make_room(now, carried, leaving, may, far_side) {
            tracing::debug!(%lane, waiting = self.waiting.len(), "the lane has no use for its turn, and others wait: it is drained and given back");
            if let Some(running) = self.running.get_mut(&lane) {
                running.turn.end(now);
                self.given_up_at = Some(now);
            }
        }
    }

    fn begin(&mut self, lane: D::Lane, created: Created) {
        let leave = self.shared.drain.child_token();
        let (shown, seen) = watch::channel(self.members.held(&lane.key()));
        let carried = lane::carry(Arc::clone(&self.shared), lane.clone(), created, seen, leave.clone());
        let task = self.tasks.spawn(carried).id();
        let turn = Turn::begin(Instant::now(), leave);
        self.running.insert(lane, Running { task, turn, is_empty: false, shown });
    }

    /// How many may make room now: one for each pause since the last one, and for no more than one look.
    fn may_make_room(&self) -> usize {
        let look = self.shared.options.discovery_interval.max(GIVE_UP_EVERY);
        let since = self.given_up_at.map_or(look, |at| at.elapsed().min(look));
        usize::try_from(since.as_millis() / GIVE_UP_EVERY.as_millis()).unwrap_or(usize::MAX)
    }

    /// Whether we are seen among the living. Where that is not known, or our entry has to be written again, no lane is ours for
    /// a moment: who waits is not to lose his place by that.
    fn is_member(&self) -> bool {
        matches!(&*self.members.living().borrow(), Living::Known(ids) if ids.iter().any(|id| id == self.members.id()))
    }

    fn may_give_up(&self) -> bool {
        self.given_up_at.is_none_or(|at| at.elapsed() >= GIVE_UP_EVERY)
    }

    /// A lane of another member: who has it, as the bucket says.
    fn show_anothers(&self, lane: &D::Lane, key: &str, belongs_to: Option<String>) {
        let holder = self.members.held(key).filter(|holder| !holder.released);
        let why = match (&holder, &belongs_to) {
            (Some(_), _) => None,
            (None, Some(to)) => Some(format!("nobody has it yet; it belongs to {to}")),
            (None, None) => Some("nobody has it, and who lives is not known: is the broker there?".to_owned()),
        };
        self.shared.registry.update(lane, |view| {
            *view = LaneView { trouble: why, ..LaneView::default() };
            view.epoch = holder.as_ref().map_or(0, |holder| holder.epoch.0);
            view.owner = holder.map(|holder| holder.owner).or(belongs_to);
        });
    }

    fn ended(&mut self, ended: &Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => {
                let id = error.id();
                let lane =
                    self.running.iter().find(|(_, running)| running.task == id).map(|(lane, _)| field::display(lane));
                tracing::error!(lane, %error, "a lane's task ended badly, and is started again");
                id
            }
        };
        self.running.retain(|lane, running| {
            let stays = running.task != id;
            if !stays {
                self.shared.registry.remove(lane);
            }
            stays
        });
    }

    fn warn_once(&mut self, subject: &str, why: &str) {
        if self.warned.len() < WARNED_MAX && self.warned.insert(subject.to_owned()) {
            tracing::error!(subject, why, "a subject is not carried");
            self.readiness.note(D::ON_THE_PAGE.subjects, Some(format!("{subject} is not carried: {why}")));
        }
    }
}

/// Under which subject a lane's messages are, by its key in the bucket of leases.
fn subject(key: &str) -> String {
    format!("fed.{key}")
}
