//! Which lanes there are, and which are ours: the stream is asked, and each lane that holds something and belongs to this
//! process gets a task.
//!
//! The members share lanes by a hash ([`fedstream_jetstream::members`]). A lane that belongs to another one now is drained
//! and given back, a few a second: a member that joins gets its part without a stop of the world.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fedstream_jetstream::{Living, Members, StreamState, lanes};
use fedstream_lane::LaneName;
use fedstream_service::readiness::Readiness;
use fedstream_service::shutdown::CancellationToken;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tracing::field;

use crate::lane;
use crate::registry::{LaneView, Standpoint};
use crate::{Direction, Shared};

/// Between two lanes that are given up because they belong to another member: four a second.
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
    waiting: usize,
}

struct Running {
    task: Id,
    /// Tells it to drain and to give the lane back.
    leave: CancellationToken,
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
        Self {
            shared,
            members,
            stream,
            readiness,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            given_up_at: None,
            warned: HashSet::new(),
            waiting: 0,
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
            (_, true) => self.readiness.ready("broker", "connected"),
        }
        let Some(facts) = state.facts() else {
            self.readiness.not_ready("stream", format!("{state:?}"));
            return;
        };
        let troubled = self.shared.registry.in_trouble();
        self.readiness.note("lanes", (troubled > 0).then(|| format!("{troubled} lanes do not move, see /lanes")));
        if !connected {
            return;
        }
        match lanes::backlog_of::<D::Lane>(&self.shared.broker).await {
            Ok(backlog) => {
                self.show_empty(&backlog);
                self.waiting = 0;
                for (subject, depth) in backlog {
                    self.found(&subject, depth, facts.created);
                }
                self.readiness.ready("stream", "present and fit");
                let waiting = format!("{} lanes wait: FED_LANES_MAX lanes are carried already", self.waiting);
                self.readiness.note("waiting lanes", (self.waiting > 0).then_some(waiting));
            }
            Err(error) => self.readiness.not_ready("stream", format!("the lanes are not known: {error}")),
        }
    }

    /// An empty lane is not in the answer, and one of another member that is empty is not shown.
    fn show_empty(&self, backlog: &[(String, u64)]) {
        let found: HashSet<D::Lane> =
            backlog.iter().filter_map(|(subject, _)| D::Lane::from_subject(subject).ok()).collect();
        let shown: HashSet<String> = self.running.keys().chain(&found).map(ToString::to_string).collect();
        self.shared.registry.retain(|lane| shown.contains(lane));
        for lane in self.running.keys().filter(|lane| !found.contains(*lane)) {
            self.shared.registry.update(lane, |view| view.depth = 0);
        }
    }

    fn found(&mut self, subject: &str, depth: u64, created: fedstream_jetstream::Created) {
        let lane = match D::Lane::from_subject(subject) {
            Ok(lane) => lane,
            Err(error) => return self.warn_once(subject, &format!("its messages stay where they are: {error}")),
        };
        let key = lane.key();
        let belongs_to = self.members.owner_of(&key);
        let ours = belongs_to.as_deref() == Some(self.members.id());
        let others =
            self.members.held(&key).is_some_and(|holder| !holder.released && holder.owner != self.members.id());
        if let Some(running) = self.running.get(&lane) {
            if belongs_to.is_some() && !ours && !running.leave.is_cancelled() && self.may_give_up() {
                let to = belongs_to.as_deref();
                tracing::info!(%lane, to, "the lane belongs to another sender now: it is drained and given back");
                running.leave.cancel();
                self.given_up_at = Some(Instant::now());
            }
        } else if depth == 0 {
            return;
        } else if !ours {
            self.show_anothers(&lane, &key, belongs_to);
        } else if self.running.len() >= usize::try_from(self.shared.options.lanes_max).unwrap_or(usize::MAX) {
            self.waiting += 1;
            let why = "it waits: FED_LANES_MAX lanes are carried already".to_owned();
            self.shared.registry.update(&lane, |view| (view.owner, view.trouble) = (None, Some(why)));
        } else {
            let leave = self.shared.drain.child_token();
            let carried = self.tasks.spawn(lane::carry(Arc::clone(&self.shared), lane.clone(), created, leave.clone()));
            self.running.insert(lane.clone(), Running { task: carried.id(), leave });
        }
        self.shared.registry.update(&lane, |view| {
            view.depth = depth;
            if view.standpoint != Standpoint::Owner {
                view.standpoint = if ours && !others { Standpoint::Heir } else { Standpoint::Others };
            }
        });
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
            self.readiness.note("subjects", Some(format!("{subject} is not carried: {why}")));
        }
    }
}
