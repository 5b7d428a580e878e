//! What the application published, and what the remotes made of it: nothing lost, nothing altered, the order of each actor
//! and remote kept, repeats counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::instance::{Instance, Seen};

/// (remote, actor).
type Way = (String, String);

/// All that was published. Clones are the same list.
#[derive(Clone, Default)]
pub struct Sent(Arc<Mutex<BTreeMap<Way, Vec<Entry>>>>);

#[derive(Clone, Debug)]
struct Entry {
    id: String,
    /// The broker has it.
    stored: bool,
}

/// The comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Activities that the broker has acked.
    pub stored: usize,
    /// Of them, those that a remote took or refused for good.
    pub settled: usize,
    /// Of them, those that no remote gave a final answer to.
    pub lost: Vec<String>,
    /// What was first settled after one that was published later, of the same actor to the same remote.
    pub out_of_order: Vec<String>,
    /// Taken once more than once.
    pub repeats: usize,
    /// Requests whose digest or signature a remote did not verify.
    pub unverified: Vec<String>,
    /// Of an actor, two requests at one remote at the same time.
    pub side_by_side: usize,
}

impl Sent {
    /// The next activity of an actor for a remote.
    #[must_use]
    pub fn compose(&self, remote: &str, actor: &str) -> Value {
        let mut ways = self.ways();
        let entries = ways.entry((remote.to_owned(), actor.to_owned())).or_default();
        let id = format!("http://our.test/activities/{actor}/{remote}/{}", entries.len());
        entries.push(Entry { id: id.clone(), stored: false });
        activity(&id, actor)
    }

    /// The broker has it.
    pub fn stored(&self, remote: &str, actor: &str, id: &str) {
        let mut ways = self.ways();
        let entries = ways.entry((remote.to_owned(), actor.to_owned())).or_default();
        for entry in entries.iter_mut().filter(|entry| entry.id == id) {
            entry.stored = true;
        }
    }

    /// What was published elsewhere, in this order: a history.
    pub fn enter(&self, remote: &str, actor: &str, ids: impl IntoIterator<Item = String>) {
        let mut ways = self.ways();
        let entries = ways.entry((remote.to_owned(), actor.to_owned())).or_default();
        entries.extend(ids.into_iter().map(|id| Entry { id, stored: true }));
    }

    /// How many the broker has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ways().values().flatten().filter(|entry| entry.stored).count()
    }

    /// Compares with what these remotes saw.
    pub fn compare<'i>(&self, remotes: impl Iterator<Item = &'i Instance>) -> Verdict {
        let mut verdict = Verdict::default();
        let mut seen: HashMap<Way, Vec<Seen>> = HashMap::new();
        for remote in remotes {
            let name = remote.addr().to_string();
            for request in remote.seen() {
                if let Err(error) = &request.signature {
                    verdict.unverified.push(format!("{}: {error}", request.id));
                }
                seen.entry((name.clone(), actor_of(&request))).or_default().push(request);
            }
        }
        for (way, entries) in self.ways().iter() {
            let requests = seen.remove(way).unwrap_or_default();
            judge(entries, &requests, &mut verdict);
        }
        verdict
    }

    fn ways(&self) -> MutexGuard<'_, BTreeMap<Way, Vec<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One actor at one remote.
fn judge(entries: &[Entry], requests: &[Seen], verdict: &mut Verdict) {
    let place: HashMap<&str, usize> = entries.iter().enumerate().map(|(at, entry)| (entry.id.as_str(), at)).collect();
    let mut settled: HashMap<usize, usize> = HashMap::new();
    let mut highest = None;
    for request in requests.iter().filter(|request| request.is_final()) {
        let Some(at) = place.get(request.id.as_str()) else { continue };
        let times = settled.entry(*at).or_default();
        *times += 1;
        if *times > 1 {
            verdict.repeats += 1;
        } else if highest.is_some_and(|highest| *at < highest) {
            verdict.out_of_order.push(request.id.clone());
        } else {
            highest = Some(*at);
        }
    }
    let overlap = |pair: &&[Seen]| pair[0].ended.is_none_or(|ended| pair[1].arrived < ended);
    verdict.side_by_side += requests.windows(2).filter(overlap).count();
    for (at, entry) in entries.iter().enumerate().filter(|(_, entry)| entry.stored) {
        verdict.stored += 1;
        if settled.contains_key(&at) { verdict.settled += 1 } else { verdict.lost.push(entry.id.clone()) }
    }
}

impl Verdict {
    /// Nothing lost, altered or out of order; repeats are told by the test, for a kill may cause some.
    ///
    /// # Panics
    /// With what is wrong.
    pub fn assert_whole(&self, stored: usize) {
        assert_eq!(self.stored, stored, "{self:?}");
        assert!(self.lost.is_empty(), "lost: {self:?}");
        assert!(self.out_of_order.is_empty(), "out of order: {self:?}");
        assert!(self.unverified.is_empty(), "not verified: {self:?}");
    }
}

/// An activity of an actor.
pub(super) fn activity(id: &str, actor: &str) -> Value {
    json!({
        "@context": "https://www.w3.org/ns/activitystreams",
        "id": id,
        "type": "Create",
        "actor": actor,
        "object": { "type": "Note", "content": "\u{fc}n\u{ef}c\u{f6}de" }
    })
}

fn actor_of(request: &Seen) -> String {
    let json: Value = serde_json::from_slice(&request.message.body).unwrap_or_default();
    json["actor"].as_str().unwrap_or_default().to_owned()
}
