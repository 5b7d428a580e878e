//! Which lanes there are: the stream is asked, and each lane that holds something gets a task.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fedstream_jetstream::{StreamState, lanes};
use fedstream_lane::Lane;
use fedstream_service::readiness::Readiness;
use fedstream_service::shutdown::CancellationToken;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};

use crate::lane::{self, Shared};

/// Warnings about what is no lane are given once a subject, for at most this many.
const WARNED_MAX: usize = 1_000;

/// The lanes of this process, and the tasks that carry them.
pub struct Discovery {
    shared: Arc<Shared>,
    stream: watch::Receiver<StreamState>,
    readiness: Readiness,
    tasks: JoinSet<()>,
    running: HashMap<Lane, Id>,
    warned: HashSet<String>,
    /// Lanes beyond FED_LANES_MAX, at the last look.
    waiting: usize,
}

impl Discovery {
    /// Knows no lane yet.
    #[must_use]
    pub fn new(shared: Arc<Shared>, stream: watch::Receiver<StreamState>, readiness: Readiness) -> Self {
        Self {
            shared,
            stream,
            readiness,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            warned: HashSet::new(),
            waiting: 0,
        }
    }

    /// Looks for lanes until the service leaves, then waits for the lanes to drain, at most `grace`.
    /// Answers whether they did.
    pub async fn run(mut self, grace: Duration) -> bool {
        let drain = self.shared.drain.clone();
        while !drain.is_cancelled() {
            tokio::select! {
                () = self.look() => {}
                () = drain.cancelled() => {} // a question to a broker that is away would take seconds of the grace
            }
            self.pause(&drain).await;
        }
        let all = async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                self.ended(&ended);
            }
        };
        tokio::time::timeout(grace, all).await.is_ok()
    }

    /// The whole interval, however many lanes end meanwhile: a lane that can't be carried must not become a hot loop.
    async fn pause(&mut self, drain: &CancellationToken) {
        let interval = tokio::time::sleep(self.shared.config.discovery_interval.get());
        tokio::pin!(interval);
        loop {
            tokio::select! {
                () = &mut interval => return,
                () = drain.cancelled() => return,
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
        match lanes::backlog(&self.shared.broker).await {
            Ok(backlog) => {
                for lane in self.running.keys() {
                    self.shared.registry.update(lane, |view| view.depth = 0); // an empty lane is not in the answer
                }
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

    fn found(&mut self, subject: &str, depth: u64, created: fedstream_jetstream::Created) {
        let lane = match Lane::from_subject(subject) {
            Ok(lane) => lane,
            Err(error) => return self.warn_once(subject, &format!("its messages stay where they are: {error}")),
        };
        if !self.running.contains_key(&lane) {
            if depth == 0 {
                return;
            }
            if self.running.len() >= self.shared.config.lanes_max.get() {
                self.waiting += 1;
                return;
            }
            let carried = self.tasks.spawn(lane::carry(Arc::clone(&self.shared), lane.clone(), created));
            self.running.insert(lane.clone(), carried.id());
        }
        self.shared.registry.update(&lane, |view| view.depth = depth);
    }

    fn ended(&mut self, ended: &Result<(Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => {
                tracing::error!(%error, "a lane's task ended badly, and is started again");
                error.id()
            }
        };
        self.running.retain(|lane, running| {
            let stays = *running != id;
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
