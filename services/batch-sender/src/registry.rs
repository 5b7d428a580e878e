//! What is known of each lane, for `/lanes` and for people: one line says why a lane does not move.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fedstream_lane::Lane;
use serde::Serialize;

/// One lane as `/lanes` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaneView {
    /// Messages in the stream, as of the last discovery.
    pub depth: u64,
    /// This owner's fencing token.
    pub epoch: u64,
    /// Everything up to here is settled.
    pub floor: u64,
    /// Activities held in memory.
    pub held: usize,
    /// Settled since this owner started.
    pub settled: u64,
    /// Rejected by the instance since this owner started.
    pub rejected: u64,
    /// Failures in a row.
    pub failures: u32,
    /// Why the lane does not move; none when it does.
    pub trouble: Option<String>,
}

/// All lanes of this process. Clones are the same registry.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    lanes: Arc<Mutex<BTreeMap<String, LaneView>>>,
}

impl Registry {
    /// Changes what is known of a lane.
    pub fn update(&self, lane: &Lane, change: impl FnOnce(&mut LaneView)) {
        change(self.lock().entry(lane.to_string()).or_default());
    }

    /// The lane is closed.
    pub fn remove(&self, lane: &Lane) {
        self.lock().remove(&lane.to_string());
    }

    /// The page.
    #[must_use]
    pub fn page(&self) -> serde_json::Value {
        serde_json::json!({ "lanes": *self.lock() })
    }

    /// How many lanes don't move, for the readiness page.
    #[must_use]
    pub fn in_trouble(&self) -> usize {
        self.lock().values().filter(|view| view.trouble.is_some()).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, LaneView>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
