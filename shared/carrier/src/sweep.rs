//! What stands in the bucket of leases for nobody's good: what a dead process left of lanes, and lanes that carry our own
//! session though no task of ours carries them.
//!
//! - **A dead process' lanes** with a backlog are taken over by their heirs. The others have to expire, and their heirs have
//!   them do so ([`Leases::clear`]).
//! - **A stray lane of our own**: the broker stored a write of ours, its ack came too late, and then the lane was told to
//!   leave. Our session would keep it for as long as this process lives, and whoever it belongs to would wait. It is given
//!   back ([`Leases::give_up`]) when two looks in a row show it in the same epoch: one that is just being given back needs no
//!   help. A task that takes the lane meanwhile has a higher epoch, and keeps it.
//!
//! It runs beside the looks, one sweep at a time: a slow broker delays no lane by it. What fails is tried at a later look.

use std::collections::BTreeMap;

use fedstream_jetstream::leases::Error;
use fedstream_jetstream::{Leases, Members};
use fedstream_lane::Epoch;
use tokio::task::JoinSet;

/// Entries written in one sweep: what a process with a thousand lanes left is cleared in half a minute, and a write in between
/// costs nobody anything.
const SWEPT_MAX: usize = 32;

/// Who sweeps. Dropped, it stops.
pub struct Sweep {
    leases: Leases,
    /// The sweep that is under way, if one is.
    task: JoinSet<()>,
    /// Our own session's lanes that nobody carried at the last look.
    stray: BTreeMap<String, Epoch>,
}

impl Sweep {
    /// Swept nothing yet.
    pub fn new(leases: Leases) -> Self {
        Self { leases, task: JoinSet::new(), stray: BTreeMap::new() }
    }

    /// Looks at what stands now, and begins to sweep where none is under way. Lanes by their keys: those with a backlog, and
    /// those that have a task here.
    pub fn look(&mut self, members: &Members, has_backlog: impl Fn(&str) -> bool, is_carried: impl Fn(&str) -> bool) {
        let held = self.leases.living_session().map(|session| members.held_in(&session)).unwrap_or_default();
        let stray = held.into_iter().filter(|(key, _)| !is_carried(key)).collect();
        let before = std::mem::replace(&mut self.stray, stray);
        while self.task.try_join_next().is_some() {}
        if !self.task.is_empty() {
            return;
        }
        let still = self.stray.iter().filter(|(key, epoch)| before.get(*key) == Some(epoch));
        let stray: Vec<_> = still.take(SWEPT_MAX).map(|(key, epoch)| (key.clone(), *epoch)).collect();
        let left = members.left_to_us(SWEPT_MAX, |key| !has_backlog(key));
        if !stray.is_empty() || !left.is_empty() {
            self.task.spawn(sweep(self.leases.clone(), stray, left));
        }
    }
}

async fn sweep(leases: Leases, stray: Vec<(String, Epoch)>, left: Vec<String>) {
    for (lane, epoch) in &stray {
        match leases.give_up(lane, *epoch).await {
            Ok(true) => {
                tracing::info!(lane, %epoch, "a lease that nobody here knew of is given back: its ack was lost")
            }
            Ok(false) => {} // it is another's by now, or a later owner's of ours
            Err(error) => return put_off(lane, &error),
        }
    }
    for lane in &left {
        if let Err(error) = leases.clear(lane).await {
            return put_off(lane, &error);
        }
    }
}

fn put_off(lane: &str, error: &Error) {
    tracing::debug!(lane, %error, "what stands of a lane that nobody carries stays for now");
}
