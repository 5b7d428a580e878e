//! Whether the service can do its work now: named checks, each with a sentence.
//!
//! Not ready means "nothing could be stored (or posted) now" and takes the process out of service. What is worth
//! knowing but leaves it in service (one lane in trouble, a broker whose sync setting can't be seen) is a note.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// A handle on the checks; clones are the same checks.
#[derive(Debug, Clone)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    checks: BTreeMap<&'static str, Check>,
    notes: BTreeMap<&'static str, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    ready: bool,
    sentence: String,
}

impl Readiness {
    /// Checks that all start as not ready: a service that never reports on one stays out of service.
    pub fn new(names: &[&'static str]) -> Self {
        let starting = || Check { ready: false, sentence: "starting".to_owned() };
        let checks = names.iter().map(|name| (*name, starting())).collect();
        Self { state: Arc::new(Mutex::new(State { checks, notes: BTreeMap::new() })) }
    }

    /// The check holds; the sentence says what was seen.
    pub fn ready(&self, name: &'static str, sentence: impl Into<String>) {
        self.set(name, Check { ready: true, sentence: sentence.into() });
    }

    /// The check doesn't hold; the sentence says why, and what would help.
    pub fn not_ready(&self, name: &'static str, sentence: impl Into<String>) {
        self.set(name, Check { ready: false, sentence: sentence.into() });
    }

    /// Shows a sentence on the page, or takes it away, without touching readiness.
    pub fn note(&self, name: &'static str, sentence: Option<String>) {
        let mut state = self.lock();
        match sentence {
            Some(sentence) => drop(state.notes.insert(name, sentence)),
            None => drop(state.notes.remove(name)),
        }
    }

    /// Do all checks hold?
    pub fn is_ready(&self) -> bool {
        self.lock().checks.values().all(|check| check.ready)
    }

    /// The readiness page.
    pub fn report(&self) -> Value {
        let state = self.lock();
        let checks: Vec<Value> = state
            .checks
            .iter()
            .map(|(name, check)| json!({ "name": name, "ready": check.ready, "reason": check.sentence }))
            .collect();
        let notes: Vec<Value> =
            state.notes.iter().map(|(name, sentence)| json!({ "name": name, "note": sentence })).collect();
        json!({ "ready": state.checks.values().all(|check| check.ready), "checks": checks, "notes": notes })
    }

    fn set(&self, name: &'static str, check: Check) {
        let changed = {
            let mut state = self.lock();
            let before = state.checks.insert(name, check.clone());
            before.is_none_or(|before| before.ready != check.ready)
        };
        // Told once a change, so that a flapping check is seen and a steady one is quiet.
        if changed && check.ready {
            tracing::info!(check = name, reason = check.sentence, "ready");
        } else if changed {
            tracing::warn!(check = name, reason = check.sentence, "not ready");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held, and a half-written check would still be a check.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_every_check() {
        let readiness = Readiness::new(&["broker", "stream"]);
        assert!(!readiness.is_ready());
        readiness.ready("broker", "connected");
        assert!(!readiness.is_ready());
        readiness.ready("stream", "present");
        assert!(readiness.is_ready());
        readiness.not_ready("stream", "gone");
        assert_eq!(readiness.report()["ready"], false);
    }

    #[test]
    fn a_note_is_shown_and_changes_nothing() {
        let readiness = Readiness::new(&[]);
        readiness.note("sync", Some("can't be seen".to_owned()));
        assert!(readiness.is_ready());
        assert_eq!(readiness.report()["notes"][0]["note"], "can't be seen");
        readiness.note("sync", None);
        assert_eq!(readiness.report()["notes"], json!([]));
    }
}
