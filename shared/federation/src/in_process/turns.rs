//! Turns: how many requests are made at a time, in all and to one remote.
//!
//! The remote's own limit comes first, so that who waits for a remote that hangs waits there, and takes nothing from the
//! others; and what hangs at several remotes together gives its place on after a few seconds ([`Room`]). A turn is held while a delivery is tried, never while it waits for its next attempt.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fedstream_lane::InstanceName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::room::{Place, Room};

/// Requests to one remote at a time: a small server's share, and few enough that a handful of remotes that hang leave room.
const OF_A_REMOTE: usize = 4;

/// All turns there are.
pub(super) struct Turns {
    all: Room,
    of_a_remote: usize,
    /// Of remotes that are asked, or waited for; the others have none.
    remotes: Mutex<HashMap<InstanceName, Arc<Semaphore>>>,
}

/// One request's turn. Given back on drop.
pub(super) struct Turn<'t> {
    turns: &'t Turns,
    remote: &'t InstanceName,
    of_remote: Option<OwnedSemaphorePermit>,
    place: Option<Place<'t>>,
}

impl Turns {
    pub(super) fn new(at_a_time: usize) -> Self {
        // Half at most: one remote that hangs must not have them all.
        let of_a_remote = OF_A_REMOTE.min((at_a_time / 2).max(1));
        Self { all: Room::new(at_a_time), of_a_remote, remotes: Mutex::default() }
    }

    /// Waits for a turn at this remote; `fails` says that it is known to fail.
    pub(super) async fn take<'t>(&'t self, remote: &'t InstanceName, fails: bool) -> Turn<'t> {
        let of_remote = {
            let mut remotes = self.remotes();
            remotes.entry(remote.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.of_a_remote))).clone()
        };
        // It is never closed, so it is never refused.
        let mut turn = Turn { turns: self, remote, of_remote: of_remote.acquire_owned().await.ok(), place: None };
        turn.place = Some(self.all.enter(fails).await);
        turn
    }

    fn remotes(&self) -> MutexGuard<'_, HashMap<InstanceName, Arc<Semaphore>>> {
        self.remotes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Makes the request that it is for.
    pub(super) async fn during<T>(&mut self, request: impl Future<Output = T>) -> T {
        match &mut self.place {
            Some(place) => place.during(request).await,
            None => request.await,
        }
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
    use std::time::Duration;
    use tokio::time::{Instant, sleep};

    #[tokio::test]
    async fn a_remote_has_its_share_and_is_forgotten_when_nobody_asks_it() {
        let (turns, dead, well) = (Turns::new(6), "dead.example".parse(), "well.example".parse());
        let (dead, well) = (dead.expect("a name"), well.expect("a name"));
        let first = turns.take(&dead, false).await;
        let second = turns.take(&dead, false).await;
        let third = turns.take(&dead, false).await;
        assert!(turns.take(&dead, false).now_or_never().is_none(), "three are half of six");
        let other = turns.take(&well, false).now_or_never().expect("there is room for others");
        assert_eq!(turns.remotes().len(), 2);
        drop((first, second, third, other));
        assert!(turns.remotes().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn eight_remotes_that_begin_to_hang_at_once_hold_a_ninth_up_for_seconds() {
        let turns = Turns::new(32);
        let name = |text: String| -> InstanceName { text.parse().expect("a name") };
        let hanging: Vec<_> = (0..32).map(|number| name(format!("hangs{}.example", number % 8))).collect();
        let well = name("well.example".to_owned());
        let began = Instant::now();
        let hang = async |remote| turns.take(remote, false).await.during(sleep(Duration::from_secs(60))).await;
        let asks = async {
            sleep(Duration::from_millis(1)).await; // behind them
            drop(turns.take(&well, false).await);
            began.elapsed()
        };
        let (waited, _) = tokio::join!(asks, futures::future::join_all(hanging.iter().map(hang)));
        assert!(waited < Duration::from_secs(10), "{waited:?}");
    }
}
