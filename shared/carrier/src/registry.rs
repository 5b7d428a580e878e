//! What is known of each lane, for `/lanes` and for people: one line says why a lane does not move.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// One lane as `/lanes` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaneView {
    /// Messages in the stream, as of the last discovery.
    pub depth: u64,
    /// Since when the lane's oldest activity waits, RFC 3339; none where nothing is read of it here.
    pub oldest: Option<String>,
    /// The same, in seconds, when the page is asked for.
    pub oldest_age_s: Option<u64>,
    /// Who owns the lane.
    pub owner: Option<String>,
    /// This owner's fencing token.
    pub epoch: u64,
    /// Everything up to here is settled.
    pub floor: u64,
    /// Activities held in memory.
    pub held: usize,
    /// Activities in flight.
    pub in_flight: usize,
    /// Batches in flight.
    pub posts: usize,
    /// Where its batches go.
    pub batch_url: Option<String>,
    /// In which format, as far as is known.
    pub protocol: Option<String>,
    /// What became of an activity last, and when.
    pub last_outcome: Option<String>,
    /// Parked since this owner started.
    pub parked: u64,
    /// Settled since this owner started.
    pub settled: u64,
    /// Refused by the instance since this owner started.
    pub rejected: u64,
    /// Failures in a row.
    pub failures: u32,
    /// What failed last and does not work again yet.
    pub trouble: Option<String>,
    /// What its window waits for.
    #[serde(skip)]
    pub stands: Option<String>,
    /// Nothing but refusals: activities leave the lane, one by one.
    #[serde(skip)]
    pub refusing: bool,
    /// Why the lane does not move, in one line; none when it does.
    pub why: Option<String>,
}

/// All lanes of this process. Clones are the same registry.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    lanes: Arc<Mutex<BTreeMap<String, LaneView>>>,
}

impl Registry {
    /// Changes what is known of a lane.
    pub fn update(&self, lane: &impl Display, change: impl FnOnce(&mut LaneView)) {
        change(self.lock().entry(lane.to_string()).or_default());
    }

    /// The lane is closed.
    pub fn remove(&self, lane: &impl Display) {
        self.lock().remove(&lane.to_string());
    }

    /// Forgets the lanes that are not to be kept.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.lock().retain(|lane, _| keep(lane));
    }

    /// The page.
    #[must_use]
    pub fn page(&self) -> serde_json::Value {
        let mut lanes = self.lock().clone();
        let now = OffsetDateTime::now_utc();
        for view in lanes.values_mut() {
            view.why = match (&view.stands, &view.trouble) {
                (Some(stands), Some(trouble)) => Some(format!("{stands}: {trouble}")),
                (stands, trouble) => stands.clone().or_else(|| trouble.clone()),
            };
            let oldest = view.oldest.as_deref().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
            view.oldest_age_s = oldest.and_then(|oldest| u64::try_from((now - oldest).whole_seconds()).ok());
        }
        serde_json::json!({ "lanes": lanes })
    }

    /// How many lanes don't move, for the readiness page.
    #[must_use]
    pub fn in_trouble(&self) -> usize {
        self.lock().values().filter(|view| view.trouble.is_some() || view.refusing).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, LaneView>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
