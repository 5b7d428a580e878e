//! What the bucket says of members and lanes, kept up to date by a [`crate::follow`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fedstream_lane::{Epoch, Lane, LaneName};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use super::{Holder, Living};
use crate::follow::Follower;
use crate::leases::{Entry, session};

/// How the keys of members begin that carry lanes of this kind. Lanes' own keys begin with the kind.
///
/// Those who carry inbound lanes were there first, and their keys name no kind. The others' begin otherwise, so that no
/// version counts them among those.
pub fn prefix(kind: &str) -> String {
    if kind == Lane::KIND { "member.".to_owned() } else { format!("member-{kind}.") }
}

/// The JSON of a member's entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberEntry {
    /// Which process it is: two of one id are a mistake that must show.
    pub nonce: String,
    /// Since when, for people.
    pub joined_at: String,
}

/// A lane's entry, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    holder: Holder,
    /// The nonce of the session that it lives and dies with; none of an older version's, which expires by itself.
    session: Option<String>,
}

/// Who lives and who holds what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Members by id, with the nonce of their process.
    members: BTreeMap<String, String>,
    /// Sessions that stand, by nonce. Those of every kind: a nonce says nothing of it.
    sessions: BTreeSet<String>,
    /// Lanes by key.
    lanes: BTreeMap<String, Held>,
}

impl View {
    /// Takes in an entry; answers whether a lane got another holder by it, or may be had.
    fn apply(&mut self, prefix: &str, key: &str, value: Option<&[u8]>) -> bool {
        if let Some(id) = key.strip_prefix(prefix) {
            match value {
                None => drop(self.members.remove(id)),
                Some(value) => {
                    // One that can't be read is another program's, and alive all the same: never us.
                    let entry = serde_json::from_slice::<MemberEntry>(value);
                    let nonce = entry.map(|entry| entry.nonce).unwrap_or_default();
                    self.members.insert(id.to_owned(), nonce);
                }
            }
            return false;
        }
        if let Some(nonce) = session::nonce_of(key) {
            return match value {
                Some(_) => {
                    self.sessions.insert(nonce.to_owned()); // a new one holds nothing yet
                    false
                }
                None => self.sessions.remove(nonce),
            };
        }
        let held = value.and_then(|value| match Entry::read(value) {
            Ok(entry) => Some(Held::from(entry)),
            Err(error) => {
                tracing::debug!(key, error, "an entry that is no lease");
                None
            }
        });
        match held {
            None => self.lanes.remove(key).is_some(),
            Some(held) => self.lanes.insert(key.to_owned(), held.clone()) != Some(held),
        }
    }

    pub fn holder(&self, lane_key: &str) -> Option<&Holder> {
        self.lanes.get(lane_key).filter(|held| !self.is_left(held)).map(|held| &held.holder)
    }

    /// The lanes that a dead owner left behind.
    pub fn left(&self) -> impl Iterator<Item = &str> {
        self.lanes.iter().filter(|(_, held)| self.is_left(held)).map(|(key, _)| key.as_str())
    }

    /// The lanes that carry this session, and in which epoch.
    pub fn held_in(&self, nonce: &str) -> impl Iterator<Item = (&str, Epoch)> {
        let is_held = move |held: &Held| !held.holder.released && held.session.as_deref() == Some(nonce);
        self.lanes.iter().filter(move |(_, held)| is_held(held)).map(|(key, held)| (key.as_str(), held.holder.epoch))
    }

    fn is_left(&self, held: &Held) -> bool {
        !held.holder.released && held.session.as_ref().is_some_and(|nonce| !self.sessions.contains(nonce))
    }
}

impl From<Entry> for Held {
    fn from(entry: Entry) -> Self {
        let Entry { epoch, owner, nonce, session, released, .. } = entry;
        Self { holder: Holder { owner, epoch: Epoch(epoch), released }, session: session.then_some(nonce) }
    }
}

/// The lanes whose entries changed, until somebody asks.
#[derive(Clone, Debug, Default)]
pub struct ChangedLanes(Arc<Mutex<BTreeSet<String>>>);

impl ChangedLanes {
    fn add(&self, keys: impl IntoIterator<Item = String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
    }

    /// Those since the last time; no more than there are lanes.
    pub fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where the follower's findings go.
pub struct Roster {
    /// How the keys of members begin that share lanes with us, and how those lanes' do.
    prefix: String,
    lanes: String,
    id: String,
    nonce: String,
    /// The list that is being read.
    list: Option<View>,
    view: watch::Sender<View>,
    living: watch::Sender<Living>,
    changes: watch::Sender<u64>,
    changed: ChangedLanes,
    ready: Option<oneshot::Sender<()>>,
}

/// What [`Roster`] writes to, read.
pub struct Findings {
    pub view: watch::Receiver<View>,
    pub living: watch::Receiver<Living>,
    pub changes: watch::Receiver<u64>,
    pub changed: ChangedLanes,
    /// Comes when the first list is complete.
    pub ready: oneshot::Receiver<()>,
}

impl Roster {
    pub fn new(kind: &str, id: &str, nonce: &str) -> (Self, Findings) {
        let (view, seen_view) = watch::channel(View::default());
        let (living, seen_living) = watch::channel(Living::Unknown("not asked yet".to_owned()));
        let (changes, seen_changes) = watch::channel(0);
        let (ready, is_ready) = oneshot::channel();
        let (id, nonce) = (id.to_owned(), nonce.to_owned());
        let (prefix, lanes) = (prefix(kind), format!("{kind}."));
        let changed = ChangedLanes::default();
        let seen_changed = changed.clone();
        let roster = Self { prefix, lanes, id, nonce, list: None, view, living, changes, changed, ready: Some(ready) };
        let findings = Findings {
            view: seen_view,
            living: seen_living,
            changes: seen_changes,
            changed: seen_changed,
            ready: is_ready,
        };
        (roster, findings)
    }

    /// Says who lives, if that is another answer than before.
    fn publish_living(&self) {
        let members = &self.view.borrow().members;
        let found = match members.get(&self.id) {
            Some(nonce) if *nonce != self.nonce => {
                Living::Unknown(format!("another process runs under the id {} (FED_SENDER_ID)", self.id))
            }
            _ => Living::Known(members.keys().cloned().collect()),
        };
        self.living.send_if_modified(|known| {
            let modified = *known != found;
            if modified {
                tell(known, &found);
                *known = found;
            }
            modified
        });
    }
}

impl Follower for Roster {
    fn begin(&mut self, _ttl: Duration) {
        self.list = Some(View::default());
    }

    fn entry(&mut self, key: &str, _revision: u64, value: Option<Bytes>) {
        let is_member = key.starts_with(&self.prefix);
        if !is_member && !key.starts_with(&self.lanes) && session::nonce_of(key).is_none() {
            return; // of those who carry other lanes
        }
        if let Some(list) = &mut self.list {
            list.apply(&self.prefix, key, value.as_deref());
            return;
        }
        let mut to_be_had = false;
        self.view.send_if_modified(|view| {
            to_be_had = view.apply(&self.prefix, key, value.as_deref());
            to_be_had || is_member // the renewal of a session changes nothing
        });
        if to_be_had {
            if key.starts_with(&self.lanes) {
                self.changed.add([key.to_owned()]);
            }
            self.changes.send_modify(|count| *count += 1);
        }
        if is_member {
            self.publish_living();
        }
    }

    fn current(&mut self) {
        let Some(list) = self.list.take() else {
            return;
        };
        let before = self.view.send_replace(list.clone());
        let all = before.lanes.keys().chain(list.lanes.keys());
        self.changed.add(all.filter(|key| before.lanes.get(*key) != list.lanes.get(*key)).cloned());
        self.changes.send_modify(|count| *count += 1);
        self.publish_living();
        if let Some(ready) = self.ready.take() {
            ready.send(()).ok(); // nobody waits any more: the join timed out
        }
    }

    fn unknown(&mut self, cause: &str) {
        self.list = None;
        self.living.send_if_modified(|known| {
            let modified = matches!(known, Living::Known(_));
            if modified {
                let found = Living::Unknown(cause.to_owned());
                tell(known, &found);
                *known = found;
            }
            modified
        });
    }
}

/// One log line for each change of who lives.
fn tell(before: &Living, now: &Living) {
    match (before, now) {
        (_, Living::Known(members)) => tracing::info!(?members, "living senders"),
        (Living::Known(_), Living::Unknown(cause)) => tracing::warn!(cause, "who else sends is not known"),
        (Living::Unknown(_), Living::Unknown(cause)) => tracing::debug!(cause, "who else sends is not known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(nonce: &str) -> Option<Bytes> {
        let entry = MemberEntry { nonce: nonce.to_owned(), joined_at: String::new() };
        Some(serde_json::to_vec(&entry).expect("an entry").into())
    }

    #[test]
    fn a_list_that_is_not_complete_is_not_shown_and_a_renewal_is_no_change() {
        let (mut roster, findings) = Roster::new("inbox", "b", "n2");
        roster.begin(Duration::ZERO);
        roster.entry("member.b", 1, member("n2"));
        assert!(matches!(&*findings.living.borrow(), Living::Unknown(_)));
        roster.entry("member.a", 2, member("n1"));
        roster.current();
        assert_eq!(*findings.living.borrow(), Living::Known(vec!["a".into(), "b".into()]));
        let lease = br#"{"epoch":7,"owner":"a","nonce":"n1","taken_at":""}"#;
        roster.entry("inbox.x.y", 3, Some(Bytes::from_static(lease)));
        let changes = *findings.changes.borrow();
        roster.entry("inbox.x.y", 4, Some(Bytes::from_static(lease)));
        roster.entry("member.a", 5, member("n1"));
        assert_eq!(*findings.changes.borrow(), changes);
        roster.entry("inbox.x.y", 6, None);
        assert_eq!(*findings.changes.borrow(), changes + 1);
        assert_eq!(findings.view.borrow().holder("inbox.x.y"), None);
    }

    #[test]
    fn a_lane_of_a_session_that_is_gone_is_nobodys_and_left_behind() {
        let lease = |nonce: &str, released: bool| {
            let json = format!(
                r#"{{"epoch":7,"owner":"a","nonce":"{nonce}","session":true,"taken_at":"","released":{released}}}"#
            );
            Some(Bytes::from(json))
        };
        let alive = || Some(Bytes::from_static(b"{}"));
        let (mut roster, findings) = Roster::new("inbox", "b", "n2");
        roster.begin(Duration::ZERO);
        roster.entry("inbox.x.y", 1, lease("s1", false));
        roster.entry("inbox.x.z", 2, lease("s0", false));
        roster.entry("session.s1", 3, alive()); // renewed: behind what it holds
        roster.current();
        let view = findings.view.clone();
        assert!(view.borrow().holder("inbox.x.y").is_some());
        assert_eq!(view.borrow().holder("inbox.x.z"), None);
        assert_eq!(view.borrow().left().collect::<Vec<_>>(), ["inbox.x.z"]);
        let changes = *findings.changes.borrow();
        roster.entry("session.s1", 4, alive());
        assert_eq!(*findings.changes.borrow(), changes, "a renewal is no change");
        roster.entry("session.s1", 5, None);
        assert_eq!(*findings.changes.borrow(), changes + 1);
        assert_eq!(view.borrow().holder("inbox.x.y"), None);
        assert_eq!(view.borrow().left().count(), 2);
        findings.changed.take();
        roster.entry("inbox.x.z", 6, lease("s0", true));
        assert_eq!(view.borrow().left().collect::<Vec<_>>(), ["inbox.x.y"]);
        assert!(view.borrow().holder("inbox.x.z").is_some_and(|holder| holder.released));
        assert_eq!(findings.changed.take().into_iter().collect::<Vec<_>>(), ["inbox.x.z"]);
        assert!(findings.changed.take().is_empty());
    }

    #[test]
    fn members_that_carry_other_lanes_are_nobody_here() {
        let lease = Some(Bytes::from_static(br#"{"epoch":7,"owner":"a","nonce":"n1","taken_at":""}"#));
        for (kind, own, other) in [("inbox", "member.a", "member-outbox.b"), ("outbox", "member-outbox.a", "member.b")]
        {
            let (mut roster, findings) = Roster::new(kind, "a", "n1");
            roster.begin(Duration::ZERO);
            roster.entry(own, 1, member("n1"));
            roster.entry(other, 2, member("n2"));
            roster.current();
            assert_eq!(*findings.living.borrow(), Living::Known(vec!["a".into()]));
            for lanes in ["inbox", "outbox"] {
                roster.entry(&format!("{lanes}.x.1"), 3, lease.clone());
                let is_held = findings.view.borrow().holder(&format!("{lanes}.x.1")).is_some();
                assert_eq!(is_held, lanes == kind);
            }
        }
    }

    #[test]
    fn a_second_process_of_our_id_makes_the_answer_unknown() {
        let (mut roster, findings) = Roster::new("inbox", "a", "n1");
        roster.begin(Duration::ZERO);
        roster.current();
        roster.entry("member.a", 1, member("n1"));
        assert_eq!(*findings.living.borrow(), Living::Known(vec!["a".into()]));
        roster.entry("member.a", 2, member("n2"));
        assert!(matches!(&*findings.living.borrow(), Living::Unknown(why) if why.contains("FED_SENDER_ID")));
    }
}
