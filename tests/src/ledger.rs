//! What was handed in at the front: the checker's one end. The senders write it, nobody else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::message::{Message, sha256_hex};

/// One activity that a sender tried to hand in.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The activity's id.
    pub id: String,
    /// `<destination>/<source>`.
    pub lane: String,
    /// Hex sha256 of the body.
    pub body_sha256: String,
    /// [`Message::fingerprint`] of each try: which of them is stored can't be known from outside.
    pub fingerprints: Vec<String>,
    /// When the first try began.
    pub first_sent: Instant,
    /// When the 2xx came, if it did.
    pub accepted: Option<Instant>,
    /// The last answer's status; 0 for none.
    pub last_status: u16,
}

impl Submission {
    /// How often it was sent.
    #[must_use]
    pub fn tries(&self) -> usize {
        self.fingerprints.len()
    }
}

/// Number of a submission in its ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(usize);

/// Shared by all senders of a test.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<Submission>>>);

impl Ledger {
    /// Enters an activity that is about to be sent for the first time.
    #[must_use]
    pub fn begin(&self, lane: &str, id: &str, body: &[u8]) -> Entry {
        self.begin_at(Instant::now(), lane, id, body)
    }

    /// Enters an activity whose first try went out at `first_sent`.
    #[must_use]
    pub fn begin_at(&self, first_sent: Instant, lane: &str, id: &str, body: &[u8]) -> Entry {
        let mut entries = self.entries();
        entries.push(Submission {
            id: id.to_owned(),
            lane: lane.to_owned(),
            body_sha256: sha256_hex(body),
            fingerprints: Vec::new(),
            first_sent,
            accepted: None,
            last_status: 0,
        });
        Entry(entries.len() - 1)
    }

    /// A try goes out.
    pub fn sending(&self, entry: Entry, message: &Message) {
        self.entries()[entry.0].fingerprints.push(message.fingerprint());
    }

    /// A try was answered.
    pub fn answered(&self, entry: Entry, status: u16) {
        let submission = &mut self.entries()[entry.0];
        submission.last_status = status;
        if (200..300).contains(&status) {
            submission.accepted.get_or_insert_with(Instant::now);
        }
    }

    /// How many were accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.entries().iter().filter(|submission| submission.accepted.is_some()).count()
    }

    /// How many tries there were, over all activities.
    #[must_use]
    pub fn tries(&self) -> usize {
        self.entries().iter().map(Submission::tries).sum()
    }

    /// Lane and id of what was first sent at this moment or later.
    #[must_use]
    pub fn sent_since(&self, moment: Instant) -> Vec<(String, String)> {
        // Entries are in the order of their first tries.
        let entries = self.entries();
        let later = entries.iter().rev().take_while(|submission| submission.first_sent >= moment);
        later.map(|submission| (submission.lane.clone(), submission.id.clone())).collect()
    }

    /// When the first try of this activity began.
    #[must_use]
    pub fn first_sent(&self, id: &str) -> Option<Instant> {
        // It is one of the last.
        self.entries().iter().rev().find(|submission| submission.id == id).map(|submission| submission.first_sent)
    }

    /// All entries, in the order in which they were begun.
    #[must_use]
    pub fn submissions(&self) -> Vec<Submission> {
        self.entries().clone()
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Submission>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
