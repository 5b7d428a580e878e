//! Turns: how many requests are made at a time, in all and to one remote.
//!
//! The remote's own limit comes first, so that who waits for a remote that hangs waits there, and takes nothing from the
//! others. A turn is held while a delivery is tried, never while it waits for its next attempt.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fedstream_lane::InstanceName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Requests to one remote at a time: a small server's share, and few enough that a handful of remotes that hang leave room.
const OF_A_REMOTE: usize = 4;

/// All turns there are.
pub(super) struct Turns {
    all: Semaphore,
    of_a_remote: usize,
    /// Of remotes that are asked, or waited for; the others have none.
    remotes: Mutex<HashMap<InstanceName, Arc<Semaphore>>>,
}

/// One request's turn. Given back on drop.
pub(super) struct Turn<'t> {
    turns: &'t Turns,
    remote: &'t InstanceName,
    of_remote: Option<OwnedSemaphorePermit>,
    _of_all: Option<SemaphorePermit<'t>>,
}

impl Turns {
    pub(super) fn new(at_a_time: usize) -> Self {
        let at_a_time = at_a_time.clamp(1, Semaphore::MAX_PERMITS);
        // Half at most: one remote that hangs must not have them all.
        let of_a_remote = OF_A_REMOTE.min((at_a_time / 2).max(1));
        Self { all: Semaphore::new(at_a_time), of_a_remote, remotes: Mutex::default() }
    }

    pub(super) async fn take<'t>(&'t self, remote: &'t InstanceName) -> Turn<'t> {
        let of_remote = {
            let mut remotes = self.remotes();
            remotes.entry(remote.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.of_a_remote))).clone()
        };
        // Neither is ever closed, so neither is ever refused.
        let mut turn = Turn { turns: self, remote, of_remote: of_remote.acquire_owned().await.ok(), _of_all: None };
        turn._of_all = self.all.acquire().await.ok();
        turn
    }

    fn remotes(&self) -> MutexGuard<'_, HashMap<InstanceName, Arc<Semaphore>>> {
        self.remotes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.of_remote = None;
        let mut remotes = self.turns.remotes();
        // Who holds one or waits for one holds the semaphore too.
        if remotes.get(self.remote).is_some_and(|turns| Arc::strong_count(turns) == 1) {
            remotes.remove(self.remote);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_remote_has_its_share_and_is_forgotten_when_nobody_asks_it() {
        let (turns, dead, well) = (Turns::new(6), "dead.example".parse(), "well.example".parse());
        let (dead, well) = (dead.expect("a name"), well.expect("a name"));
        let first = turns.take(&dead).await;
        let second = turns.take(&dead).await;
        let third = turns.take(&dead).await;
        assert!(turns.take(&dead).now_or_never().is_none(), "three are half of six");
        let other = turns.take(&well).now_or_never().expect("there is room for others");
        assert_eq!(turns.remotes().len(), 2);
        drop((first, second, third, other));
        assert!(turns.remotes().is_empty());
        assert_eq!(turns.all.available_permits(), 6);
    }
}
