//! One instance as its deliveries see it: what each of them said goes into the [`Evidence`], and after a fault the
//! instance is asked a question that no activity can be blamed for (`FED_DESTINATION_PROBE`).
//!
//! A probe is asked for after the fault is known, and nobody waits for it: it matters at the activity's next attempt.
//! One at a time goes to an instance, a few seconds apart; who comes meanwhile shares the next one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fedstream_lane::{InstanceName, Lane, MsgId, Seq};
use http::uri::{Authority, PathAndQuery};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::evidence::{Evidence, FaultyHead};
use crate::replay::Replay;
use crate::verdict::Verdict;

/// Between the beginnings of two probes: an instance in trouble needs no second reader. A sender's backoff is soon
/// longer than this.
const PROBE_PAUSE: Duration = Duration::from_secs(3);

/// Which path is asked for after a fault, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePath(Option<PathAndQuery>);

/// A text that is neither a path nor `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is neither a path nor off")]
pub struct InvalidProbePath;

impl std::str::FromStr for ProbePath {
    type Err = InvalidProbePath;

    fn from_str(text: &str) -> Result<Self, InvalidProbePath> {
        match text.trim() {
            "off" => Ok(Self(None)),
            path if path.starts_with('/') && !path.contains('#') => {
                path.parse().map(|path| Self(Some(path))).map_err(|_| InvalidProbePath)
            }
            _ => Err(InvalidProbePath),
        }
    }
}

/// The witnesses of all destinations: as many as are configured.
#[derive(Debug)]
pub struct Witnesses {
    of: HashMap<InstanceName, Arc<Witness>>,
}

/// The witness of one.
#[derive(Debug)]
pub struct Witness {
    destination: InstanceName,
    evidence: Mutex<Evidence>,
    path: ProbePath,
    replay: Arc<Replay>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Witnesses {
    /// Of these destinations. Probes are in `tasks`, and end when `stopping` is cancelled.
    pub fn new(
        destinations: &[InstanceName],
        path: &ProbePath,
        replay: &Arc<Replay>,
        tasks: &TaskTracker,
        stopping: &CancellationToken,
    ) -> Self {
        let witness = |destination: &InstanceName| Witness {
            destination: destination.clone(),
            evidence: Mutex::default(),
            path: path.clone(),
            replay: replay.clone(),
            tasks: tasks.clone(),
            stopping: stopping.clone(),
        };
        let of = destinations.iter().map(|destination| (destination.clone(), Arc::new(witness(destination))));
        Self { of: of.collect() }
    }

    /// Of the lane's destination; none where that is not configured.
    pub fn of(&self, lane: &Lane) -> Option<&Arc<Witness>> {
        self.of.get(&lane.destination)
    }

    /// The lane's faulty head, if it has one.
    pub fn faulty_head(&self, lane: &Lane) -> Option<FaultyHead> {
        self.of(lane)?.evidence().faulty_head(&lane.source)
    }
}

impl Witness {
    /// An item goes to the instance. The number is for [`Witness::heard`].
    pub fn begins(&self) -> u64 {
        self.evidence().begins()
    }

    /// Takes note of what became of an item that began then. For a fault: since this item's attempt before, is the instance known to
    /// have answered others? A fault is followed by a probe of the instance at `address`.
    pub fn heard(
        self: &Arc<Self>,
        began: u64,
        source: &InstanceName,
        seq: Seq,
        msg_id: &MsgId,
        verdict: &Verdict,
        address: &Authority,
    ) -> bool {
        match verdict {
            Verdict::Final(_) => {
                self.evidence().settled(source, began);
                false
            }
            Verdict::Retry { .. } => {
                let alive = self.evidence().failed(source, seq, msg_id, verdict.is_fault());
                if verdict.is_fault() {
                    self.probe_soon(address);
                }
                alive
            }
        }
    }

    fn probe_soon(self: &Arc<Self>, address: &Authority) {
        let Some(path) = self.path.0.clone() else { return };
        if !self.evidence().want_probe() {
            return;
        }
        let (witness, address) = (self.clone(), address.clone());
        self.tasks.spawn(async move {
            let stopping = witness.stopping.clone();
            // Dropped in the middle, it has been no evidence.
            stopping.run_until_cancelled(witness.probe(&address, &path)).await;
        });
    }

    /// Until nobody wants one any more.
    async fn probe(&self, address: &Authority, path: &PathAndQuery) {
        loop {
            let next = Instant::now() + PROBE_PAUSE;
            let began = self.evidence().probe_begins();
            let answered = self.replay.probe(address, &self.destination, path).await;
            tracing::debug!(destination = %self.destination, answered, "probed after a fault");
            // The pause belongs to the probe: one that is wanted in it is the next one.
            self.evidence().probed(began, answered);
            sleep_until(next).await;
            if !self.evidence().probe_ends() {
                return;
            }
        }
    }

    fn evidence(&self) -> MutexGuard<'_, Evidence> {
        // Nothing in there is left half done by a panic.
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_a_path_or_off() {
        let path = |text: &str| text.parse::<ProbePath>().map(|path| path.0.map(|path| path.to_string()));
        assert_eq!(path("/nodeinfo/2.1"), Ok(Some("/nodeinfo/2.1".into())));
        assert_eq!(path("/health?deep=1"), Ok(Some("/health?deep=1".into())));
        assert_eq!(path("off"), Ok(None));
        for wrong in ["nodeinfo", "https://b.example/nodeinfo", "/a b", "/a#b", "no"] {
            assert_eq!(path(wrong), Err(InvalidProbePath), "{wrong}");
        }
    }
}
