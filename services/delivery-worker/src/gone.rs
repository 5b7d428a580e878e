//! Inboxes that answer "gone" to whatever they are sent: a history for one of them ends there, instead of being refused and told of
//! activity by activity. It is what an inbox says to one user: it may know no more of what that one sends, and take another's.
//!
//! Only what this process was answered, and only while a walk is on its way: a follower who left and came back is asked anew. A lane
//! that another worker carries is not heard here; then the history goes on to its end, as any other delivery does.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

const ENOUGH: usize = federation::backfill::GONE_AFTER as usize;

/// Inboxes that are remembered; beyond it all are forgotten, which costs some of them a few refusals more.
const INBOXES_MAX: usize = 1_024;

/// When each was last answered so, to whom.
#[derive(Debug, Default)]
pub struct Gone(Mutex<HashMap<(Url, Uuid), VecDeque<Instant>>>);

impl Gone {
    /// What an inbox answered for good to this user's activity.
    pub fn heard(&self, now: Instant, inbox: &Url, owner: Uuid, status: Option<u16>) {
        let mut inboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (inbox.clone(), owner);
        if !matches!(status, Some(404 | 410)) {
            inboxes.remove(&key);
            return;
        }
        if inboxes.len() >= INBOXES_MAX && !inboxes.contains_key(&key) {
            inboxes.clear();
        }
        let times = inboxes.entry(key).or_default();
        times.push_back(now);
        if times.len() > ENOUGH {
            times.pop_front();
        }
    }

    /// Whether it has answered this user nothing else since then, and that often enough.
    #[must_use]
    pub fn is_gone(&self, inbox: &Url, owner: Uuid, since: Instant) -> bool {
        let inboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inboxes.get(&(inbox.clone(), owner)).is_some_and(|times| times.len() >= ENOUGH && times.front() >= Some(&since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_inbox_is_gone_when_it_says_so_again_and_again_and_nothing_else() {
        let (gone, began) = (Gone::default(), Instant::now());
        let inbox: Url = "https://a.example/inbox".parse().expect("a URL");
        let (owner, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let hear = |status| gone.heard(began + Duration::from_secs(1), &inbox, owner, Some(status));
        let is_gone = || gone.is_gone(&inbox, owner, began);
        [410, 404, 202, 410, 410, 422, 404, 404].into_iter().for_each(hear);
        assert!(!is_gone(), "two in a row");
        hear(410);
        assert!(is_gone());
        assert!(!gone.is_gone(&inbox, owner, began + Duration::from_secs(2)), "that was before");
        assert!(!gone.is_gone(&inbox, other, began), "nobody said so to another user");
        hear(202);
        assert!(!is_gone(), "it is back");
    }
}
