//! A lane that is ours, and what an attempt to take one brings.

use fedstream_lane::Epoch;
use tokio::time::Instant;

use super::{Entry, Session, now_text};

/// A lane is ours for as long as its session lives, unless somebody else's entry stands in its place.
#[derive(Debug)]
pub struct Lease {
    /// The lane's key.
    pub key: String,
    /// The fencing token of this ownership.
    pub epoch: Epoch,
    /// The entry's revision, as far as it is known here.
    pub revision: u64,
    /// The highest epoch that may stand in the entry: that of a bump whose ack was lost is never written lower.
    pub(super) reserved: Epoch,
    pub(super) session: Session,
    pub(super) owner: String,
    pub(super) taken_at: String,
}

impl Lease {
    /// One that is not written yet, over what stands there.
    pub(super) fn new(key: &str, owner: &str, epoch: Epoch, revision: u64, session: &Session) -> Self {
        Self {
            key: key.to_owned(),
            epoch,
            revision,
            reserved: epoch,
            session: session.clone(),
            owner: owner.to_owned(),
            taken_at: now_text(),
        }
    }

    /// When to have stopped, if the session isn't renewed meanwhile ([`Session::until`]).
    #[must_use]
    pub fn until(&self) -> Instant {
        self.session.until()
    }

    /// Whether it is ours now. To be asked right before each POST and each purge.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.session.lives()
    }

    /// What it lives and dies with.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn entry(&self, released: bool) -> Entry {
        Entry {
            epoch: self.reserved.0,
            owner: self.owner.clone(),
            nonce: self.session.nonce().to_owned(),
            session: true,
            taken_at: self.taken_at.clone(),
            released,
        }
    }
}

/// What an attempt to take a lane brought.
#[derive(Debug)]
pub enum Taken {
    /// The lane is ours.
    Ours(Lease),
    /// Somebody else's, alive or not yet expired.
    Held {
        /// The owner's name.
        owner: String,
        /// Its epoch.
        epoch: Epoch,
    },
}
