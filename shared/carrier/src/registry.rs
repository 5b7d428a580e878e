//! What is known of each lane, for `/lanes` and for people: one line says why a lane does not move.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use crate::held::Deadline;

/// One lane as `/lanes` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaneView {
    /// Messages in the stream, as of the last discovery.
    pub depth: u64,
    /// What this process has to do with it.
    #[serde(skip)]
    pub standpoint: Standpoint,
    /// Since when the lane's oldest activity waits, RFC 3339; none where nothing is read of it here.
    #[serde(serialize_with = "as_rfc3339")]
    pub oldest: Option<OffsetDateTime>,
    /// The nearest deadline of what is held here.
    #[serde(skip)]
    pub deadline: Option<Deadline>,
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
    /// Its settings pause it.
    #[serde(skip)]
    pub paused: bool,
    /// Why the lane does not move, in one line; none when it does.
    pub why: Option<String>,
    /// What is odd about it, though it moves; seen since this owner started.
    pub note: Option<String>,
}

/// What a process has to do with a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standpoint {
    /// It has the lease.
    Owner,
    /// The lane belongs to it, and nobody is known to have it.
    Heir,
    /// Somebody else has it, or ought to.
    #[default]
    Others,
}

impl LaneView {
    /// Its owner has let go of the lane, and of all that it held.
    pub fn let_go(&mut self) {
        (self.held, self.in_flight, self.posts) = (0, 0, 0);
        (self.oldest, self.deadline, self.stands, self.refusing) = (None, None, None, false);
    }

    /// How long the lane's oldest activity waits at that moment; none where that is not known.
    #[must_use]
    pub fn oldest_for(&self, now: OffsetDateTime) -> Option<time::Duration> {
        Some((now - self.oldest?).max(time::Duration::ZERO))
    }
}

fn as_rfc3339<S: Serializer>(at: &Option<OffsetDateTime>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(fedstream_wire::rfc3339).serialize(serializer)
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
            view.oldest_age_s = view.oldest_for(now).and_then(|age| u64::try_from(age.whole_seconds()).ok());
        }
        serde_json::json!({ "lanes": lanes })
    }

    /// Looks at each lane, in the order of their names. Nothing changes meanwhile, so it should be short.
    pub fn each(&self, mut look: impl FnMut(&str, &LaneView)) {
        self.lock().iter().for_each(|(lane, view)| look(lane, view));
    }

    /// Whether something of a lane has a deadline before that moment. While nothing is read of it here, it may.
    #[must_use]
    pub fn may_be_due(&self, lane: &impl Display, before: OffsetDateTime) -> bool {
        let lanes = self.lock();
        let read = lanes.get(&lane.to_string()).filter(|view| view.oldest.is_some());
        read.is_none_or(|view| view.deadline.is_some_and(|deadline| deadline.at < before))
    }

    /// Lanes that this process has the lease of.
    #[must_use]
    pub fn owned(&self) -> usize {
        self.lock().values().filter(|view| view.standpoint == Standpoint::Owner).count()
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_not_read_yet_may_be_due_and_what_was_read_is_where_its_deadline_is_near() {
        let (registry, now) = (Registry::default(), OffsetDateTime::now_utc());
        let deadline = |at| Some(Deadline { at, received_at: Some(now) });
        assert!(registry.may_be_due(&"a", now));
        registry.update(&"a", |view| view.depth = 3);
        assert!(registry.may_be_due(&"a", now), "it is admitted, and nothing is read");
        registry.update(&"a", |view| view.oldest = Some(now));
        assert!(!registry.may_be_due(&"a", now), "nothing in it has a deadline");
        registry.update(&"a", |view| view.deadline = deadline(now));
        assert!(!registry.may_be_due(&"a", now));
        assert!(registry.may_be_due(&"a", now + Duration::from_secs(1)));
    }
}
