//! The settings in force, as the services see them: always valid ones, and beside them what was refused.
//!
//! The history of the bucket is followed, not its last entries: so a process that starts after a bad entry finds the
//! valid one before it, as long as that is among the five that the bucket keeps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Fault, Key, LaneSettings};
use crate::bucket::Bucket;
use crate::follow::{self, Follower, From, Plan};
use crate::{Broker, definitions, streams};

/// How often the broker is asked what the watch should have brought.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long the first list may take; the follower's own limit and a retry.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// Refusals that are shown; the rest is counted in the log only.
const REFUSALS_MAX: usize = 100;

/// So much of a key that is no lane's is shown.
const KEY_CHARS_MAX: usize = 200;

/// An entry that is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its key.
    pub key: String,
    /// The field; `key` of a key that is neither a default's nor a lane's, `entry` of one that can't be read at all.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The settings in force at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    entries: BTreeMap<Key, LaneSettings>,
    refused: BTreeMap<String, Vec<Fault>>,
    unknown: Option<String>,
}

impl Snapshot {
    /// What is in force for a lane: its own settings over the default's. A field that neither sets is the service's.
    #[must_use]
    pub fn for_lane(&self, lane: &(impl Clone + Into<Key>)) -> LaneSettings {
        let key: Key = lane.clone().into();
        match (self.entries.get(&key), self.entries.get(&key.default_of())) {
            (Some(own), Some(default)) => own.over(default),
            (own, default) => own.or(default).cloned().unwrap_or_default(),
        }
    }

    /// What is not in force, and why: at most 100, by key.
    #[must_use]
    pub fn refusals(&self) -> Vec<Refusal> {
        let all = self.refused.iter().flat_map(|(key, faults)| faults.iter().map(move |fault| (key, fault)));
        let refusal = |(key, fault): (&String, &Fault)| Refusal {
            key: key.chars().take(KEY_CHARS_MAX).collect(),
            field: fault.field.clone(),
            reason: fault.reason.clone(),
        };
        all.take(REFUSALS_MAX).map(refusal).collect()
    }

    /// Why the bucket can't be followed now: the settings in force are the last that were seen.
    #[must_use]
    pub fn unknown(&self) -> Option<&str> {
        self.unknown.as_deref()
    }
}

/// The background task that follows the bucket. Dropping it ends it.
pub struct LaneSettingsWatch {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    task: JoinHandle<()>,
}

impl LaneSettingsWatch {
    /// Opens the bucket, makes it where that is ours to do, and returns once every entry is read: no lane runs for a
    /// moment on settings that are not its own.
    ///
    /// # Errors
    /// The bucket is missing or dangerous, or the broker does not answer.
    pub async fn start(broker: &Broker) -> Result<Self, streams::Error> {
        let definition = definitions::lanes();
        drop(Bucket::open(broker, definition).await?);
        let (publish, mut snapshot) = watch::channel(Arc::default());
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let plan = Plan { definition, from: From::Oldest, look_every: LOOK_EVERY };
        let settings = Settings { list: None, publish, ready: Some(ready) };
        let task = tokio::spawn(follow::follow(broker.clone(), plan, settings));
        if !matches!(tokio::time::timeout(START_TIME_MAX, is_ready).await, Ok(Ok(()))) {
            task.abort();
            let cause = snapshot.borrow().unknown().unwrap_or("its entries did not come in time").to_owned();
            return Err(streams::Error::Unavailable { stream: definition.name.clone(), cause });
        }
        snapshot.mark_unchanged();
        Ok(Self { snapshot, task })
    }

    /// What is in force now, and from now on.
    #[must_use]
    pub fn snapshot(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// What is in force for a lane now.
    #[must_use]
    pub fn for_lane(&self, lane: &(impl Clone + Into<Key>)) -> LaneSettings {
        self.snapshot.borrow().for_lane(lane)
    }

    /// What is not in force now, and why.
    #[must_use]
    pub fn refusals(&self) -> Vec<Refusal> {
        self.snapshot.borrow().refusals()
    }
}

impl Drop for LaneSettingsWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Settings {
    /// The list that is being read; what is in force stays in force until it is complete.
    list: Option<Snapshot>,
    publish: watch::Sender<Arc<Snapshot>>,
    ready: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Follower for Settings {
    fn begin(&mut self, _ttl: Duration) {
        self.list = Some(Snapshot::default());
    }

    fn entry(&mut self, key: &str, revision: u64, value: Option<Bytes>) {
        let in_force = self.publish.borrow().clone();
        if let Some(list) = &mut self.list {
            apply(list, &in_force, key, value.as_deref());
            return;
        }
        let mut next = Snapshot::clone(&in_force);
        apply(&mut next, &in_force, key, value.as_deref());
        match next.refused.get(key) {
            Some(faults) => tell(key, revision, faults),
            None => tracing::info!(key, revision, removed = value.is_none(), "settings of a lane changed"),
        }
        self.put_in_force(next);
    }

    fn current(&mut self) {
        if let Some(list) = self.list.take() {
            let known = self.publish.borrow().refused.clone();
            for (key, faults) in list.refused.iter().filter(|(key, faults)| known.get(*key) != Some(faults)) {
                tell(key, 0, faults);
            }
            self.put_in_force(list);
        }
        if let Some(ready) = self.ready.take() {
            ready.send(()).ok(); // nobody waits any more: the start timed out
        }
    }

    fn unknown(&mut self, cause: &str) {
        self.list = None;
        let mut next = Snapshot::clone(&self.publish.borrow());
        if next.unknown.is_none() {
            tracing::warn!(cause, "the settings of lanes can't be followed: those in force stay in force");
        }
        next.unknown = Some(cause.to_owned());
        self.put_in_force(next);
    }
}

impl Settings {
    fn put_in_force(&self, next: Snapshot) {
        self.publish.send_if_modified(|known| {
            let modified = **known != next;
            if modified {
                *known = Arc::new(next);
            }
            modified
        });
    }
}

/// One entry into a snapshot. One that is not valid leaves what the snapshot has, else what is in force.
fn apply(snapshot: &mut Snapshot, in_force: &Snapshot, name: &str, value: Option<&[u8]>) {
    snapshot.refused.remove(name);
    let key = match (name.parse::<Key>(), value) {
        (Ok(key), _) => key,
        (Err(_), None) => return,
        (Err(_), Some(_)) => {
            let reason =
                "neither `default`, `outbox` nor a lane's (inbox.<destination>.<source>, outbox.<remote>.<partition>)"
                    .to_owned();
            snapshot.refused.insert(name.to_owned(), vec![Fault { field: "key".to_owned(), reason }]);
            return;
        }
    };
    match value.map(|value| key.read(value)) {
        None => drop(snapshot.entries.remove(&key)),
        Some(Ok(settings)) => drop(snapshot.entries.insert(key, settings)),
        Some(Err(faults)) => {
            if let Some(settings) = in_force.entries.get(&key) {
                snapshot.entries.entry(key).or_insert_with(|| settings.clone());
            }
            snapshot.refused.insert(name.to_owned(), faults.0);
        }
    }
}

/// One log line for each entry that is refused.
fn tell(key: &str, revision: u64, faults: &[Fault]) {
    for Fault { field, reason } in faults {
        tracing::error!(key, revision, field, reason, "settings refused: the last valid ones stay in force");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_lane::{Lane, LaneName, OutboxLane};

    const KEY: &str = "inbox.a_example.b_example";

    fn lane() -> Lane {
        Lane::from_subject(&format!("fed.{KEY}")).expect("a lane")
    }

    #[test]
    fn an_invalid_entry_leaves_the_last_valid_one_and_a_deleted_one_the_default() {
        let mut now = Snapshot::default();
        let nothing = Snapshot::default();
        let mut entry = |name: &str, value: Option<&str>| {
            apply(&mut now, &nothing, name, value.map(str::as_bytes));
            (now.for_lane(&lane()).batch_items, now.refusals().len())
        };
        assert_eq!(entry("default", Some(r#"{"batch_items":5}"#)), (Some(5), 0));
        assert_eq!(entry(KEY, Some(r#"{"batch_items":7}"#)), (Some(7), 0));
        assert_eq!(entry(KEY, Some(r#"{"batch_items":0}"#)), (Some(7), 1));
        assert_eq!(entry("default", Some("{")), (Some(7), 2));
        assert_eq!(entry("what.is.this", Some("{}")), (Some(7), 3));
        assert_eq!(entry(KEY, None), (Some(5), 2));
        assert_eq!(entry("what.is.this", None), (Some(5), 1));
        assert_eq!(entry("default", None), (None, 0));
    }

    #[test]
    fn outbound_lanes_have_a_default_of_their_own() {
        let mut now = Snapshot::default();
        let out = OutboxLane::from_subject("fed.outbox.a_example.3").expect("a lane");
        for (name, json) in [
            ("default", r#"{"rate_per_s":1}"#),
            ("outbox", r#"{"rate_per_s":2,"max_batch":9}"#),
            ("outbox.a_example.3", r#"{"rate_per_s":3}"#),
        ] {
            apply(&mut now, &Snapshot::default(), name, Some(json.as_bytes()));
        }
        assert_eq!(now.refusals(), []);
        assert_eq!(now.for_lane(&lane()).rate_per_s, Some(1));
        assert_eq!((now.for_lane(&out).rate_per_s, now.for_lane(&out).max_batch), (Some(3), Some(9)));
        assert_eq!(now.for_lane(&OutboxLane { partition: 4, ..out }).rate_per_s, Some(2));
    }

    #[test]
    fn a_new_list_with_an_invalid_entry_keeps_what_was_in_force() {
        let mut in_force = Snapshot::default();
        apply(&mut in_force, &Snapshot::default(), KEY, Some(br#"{"batch_items":7}"#));
        let mut list = Snapshot::default();
        apply(&mut list, &in_force, KEY, Some(b"nonsense"));
        assert_eq!(list.for_lane(&lane()).batch_items, Some(7));
        assert_eq!(list.refusals()[0].field, "entry");
    }
}
