//! How many POSTs are on their way at once: over HTTP/1.1 each has a connection of its own, at both ends.
//!
//! A few are each lane's own, whatever the other lanes do: one whose instance hangs takes nothing from them. What a busy
//! lane on a long link needs beyond that comes out of a pool that all lanes share. So a thousand lanes whose instances
//! hang open four thousand connections and the pool, not sixteen thousand.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

/// Each lane's own: enough for full batches, of which each keeps an instance busy for a round trip and longer.
const OF_A_LANE: usize = 4;

/// Beyond that, for all lanes together: a quarter of the connections that a batch-receiver takes (its
/// FED_CONNECTIONS_MAX), which is twenty lanes with sixteen batches each.
const SHARED: usize = 256;

/// What one lane may open. Clones share it.
#[derive(Clone, Debug)]
pub struct Connections {
    shared: Arc<Semaphore>,
    own: Arc<Semaphore>,
    /// Batches of a lane go in the order in which they ask: the receiver holds one that comes before its predecessor.
    turn: Arc<Mutex<()>>,
}

impl Connections {
    /// A pool, and the connections of one lane.
    #[must_use]
    pub fn new() -> Self {
        Self::with(Arc::new(Semaphore::new(SHARED)))
    }

    /// Those of another lane, beside the same pool.
    #[must_use]
    pub fn of_another_lane(&self) -> Self {
        Self::with(Arc::clone(&self.shared))
    }

    fn with(shared: Arc<Semaphore>) -> Self {
        Self { shared, own: Arc::new(Semaphore::new(OF_A_LANE)), turn: Arc::default() }
    }

    /// Waits until one may be used; it is given back when the permit is dropped. Cancel safe.
    pub async fn take(&self) -> Option<OwnedSemaphorePermit> {
        let _turn = self.turn.lock().await;
        let (own, shared) = (Arc::clone(&self.own), Arc::clone(&self.shared));
        // The semaphores are never closed, so there always is one.
        tokio::select! {
            biased;
            permit = own.acquire_owned() => permit.ok(),
            permit = shared.acquire_owned() => permit.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_lane_has_its_own_whatever_the_others_took() {
        let first = Connections::new();
        let second = first.of_another_lane();
        let take = |lane: &Connections| lane.take().now_or_never().flatten();
        let taken: Vec<_> = std::iter::from_fn(|| take(&first)).collect();
        assert_eq!(taken.len(), OF_A_LANE + SHARED);
        let own: Vec<_> = std::iter::from_fn(|| take(&second)).collect();
        assert_eq!(own.len(), OF_A_LANE);
        drop(taken);
        assert!(take(&second).is_some(), "the pool is there again");
    }

    #[tokio::test]
    async fn batches_of_a_lane_go_in_the_order_in_which_they_ask() {
        let lane = Connections::with(Arc::new(Semaphore::new(0)));
        let mut taken: Vec<_> = std::iter::from_fn(|| lane.take().now_or_never().flatten()).collect();
        let (mut first, mut second) = (Box::pin(lane.take()), Box::pin(lane.take()));
        assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
        taken.pop();
        assert!(futures::poll!(&mut second).is_pending(), "it is the other one's turn");
        assert!(first.await.is_some());
    }
}
