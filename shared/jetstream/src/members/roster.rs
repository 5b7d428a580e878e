//! What the bucket says of members and lanes, kept up to date by a [`crate::follow`].

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fedstream_lane::{Epoch, Lane, LaneName};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use super::{Holder, Living};
use crate::follow::Follower;
use crate::leases::Entry;

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

/// Who lives and who holds what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Members by id, with the nonce of their process.
    members: BTreeMap<String, String>,
    /// Lanes by key.
    holders: BTreeMap<String, Holder>,
}

impl View {
    fn apply(&mut self, prefix: &str, key: &str, value: Option<&[u8]>) {
        match (key.strip_prefix(prefix), value) {
            (Some(id), None) => drop(self.members.remove(id)),
            (Some(id), Some(value)) => {
                // One that can't be read is another program's, and alive all the same: never us.
                let nonce = serde_json::from_slice::<MemberEntry>(value).map(|entry| entry.nonce).unwrap_or_default();
                self.members.insert(id.to_owned(), nonce);
            }
            (None, None) => drop(self.holders.remove(key)),
            (None, Some(value)) => match Entry::read(value) {
                Ok(Entry { owner, epoch, released, .. }) => {
                    self.holders.insert(key.to_owned(), Holder { owner, epoch: Epoch(epoch), released });
                }
                Err(error) => {
                    tracing::debug!(key, error, "an entry that is no lease");
                    self.holders.remove(key);
                }
            },
        }
    }

    pub fn holder(&self, lane_key: &str) -> Option<&Holder> {
        self.holders.get(lane_key)
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
    ready: Option<oneshot::Sender<()>>,
}

/// What [`Roster`] writes to, read.
pub struct Findings {
    pub view: watch::Receiver<View>,
    pub living: watch::Receiver<Living>,
    pub changes: watch::Receiver<u64>,
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
        let roster = Self { prefix, lanes, id, nonce, list: None, view, living, changes, ready: Some(ready) };
        (roster, Findings { view: seen_view, living: seen_living, changes: seen_changes, ready: is_ready })
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
        if !key.starts_with(&self.prefix) && !key.starts_with(&self.lanes) {
            return; // of those who carry other lanes
        }
        if let Some(list) = &mut self.list {
            list.apply(&self.prefix, key, value.as_deref());
            return;
        }
        let mut handed_over = false;
        self.view.send_modify(|view| {
            let before = view.holders.get(key).cloned();
            view.apply(&self.prefix, key, value.as_deref());
            handed_over = before.as_ref() != view.holders.get(key); // a renewal changes nothing
        });
        if handed_over {
            self.changes.send_modify(|count| *count += 1);
        }
        if key.starts_with(&self.prefix) {
            self.publish_living();
        }
    }

    fn current(&mut self) {
        let Some(list) = self.list.take() else {
            return;
        };
        self.view.send_replace(list);
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
