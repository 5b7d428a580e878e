//! The living senders, and which lane belongs to whom.
//!
//! ```text
//!   join ▶ member.<id>, renewed at a third of the TTL ─▶ [KV fed_leases] ─ followed ─▶ living, owner_of, held
//!   leave ▶ deleted: the others see it at once           (killed: they see it expire)
//! ```
//!
//! Members don't talk to each other: each reads the same list and shares the lanes by the same hash ([`rendezvous`]). The
//! list says who *should* have a lane; only a lease says who has it ([`crate::leases`]), so two members that see different
//! lists for a moment do no harm. A holder whose session is gone from the bucket is nobody here; the lease's own rules say
//! whether that is true. While the bucket can't be followed the answer is [`Living::Unknown`], never an old list: whoever has
//! a lane keeps it then, and nobody takes one.
//!
//! Members are of a kind, that of the lanes they carry: batch-senders share inbound lanes (`member.<id>`), delivery-workers
//! outbound ones (`member-outbox.<id>`), and neither sees the other.
//!
//! Two processes of one id would both think that they own its lanes. Their nonces tell: the second one does not start, and
//! where it could not see the first (a broker that was away), neither counts as a member until one of them is gone.

mod rendezvous;
mod roster;

use std::collections::BTreeSet;
use std::time::Duration;

use fedstream_lane::{Epoch, LaneName};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::roster::{ChangedLanes, Findings, MemberEntry, Roster, View};
use crate::bucket::{Bucket, Found, Refused};
use crate::definitions::Definition;
use crate::follow::{self, From, Plan};
use crate::leases::{Session, now_text};
use crate::{Broker, definitions, streams};

/// A key of the bucket is not long, and neither is a line of a log.
const ID_BYTES_MAX: usize = 64;

/// How long the first list may take; the follower's own limit and a retry.
const LIST_TIME_MAX: Duration = Duration::from_secs(10);

/// Leaving is polite, not necessary: the entry expires by itself.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(2);

/// Who lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Living {
    /// These, sorted. We may not be among them: an entry that could not be renewed has expired.
    Known(Vec<String>),
    /// It can't be told now; why. Whoever has lanes keeps them, and nobody takes one.
    Unknown(String),
}

/// Who holds a lane, as the bucket says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The owner's name.
    pub owner: String,
    /// Its epoch.
    pub epoch: Epoch,
    /// It gave the lane up: anybody may take it.
    pub released: bool,
}

/// Why a process is no member.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket is missing, dangerous, or the broker does not answer.
    #[error(transparent)]
    Bucket(#[from] streams::Error),
    /// An id that can't be part of a key.
    #[error(
        "FED_SENDER_ID: {id:?} must be 1 to {ID_BYTES_MAX} of the characters A-Z a-z 0-9 - _, for example sender-a"
    )]
    BadId {
        /// The id.
        id: String,
    },
    /// Entries in the bucket never expire.
    #[error(
        "bucket {bucket} is unsafe: max_age is 0, must be the TTL of a lease (15 s): a dead member would live for ever"
    )]
    NoTtl {
        /// The bucket's stream.
        bucket: String,
    },
    /// Another process lives under the same id.
    #[error("FED_SENDER_ID: another process runs under the id {id} since {since}: give each its own, or none")]
    Twin {
        /// The id.
        id: String,
        /// When the other one joined.
        since: String,
    },
    /// The broker does not answer.
    #[error("the broker does not let {id} join the others: {cause}")]
    Unavailable {
        /// The id.
        id: String,
        /// The library's words.
        cause: String,
    },
}

impl Error {
    /// The process exit code that says the same: 64 for a setting that can't be right, 69 where waiting may help, 78 where
    /// somebody has to act on the broker.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Bucket(error) => error.exit_code(),
            Self::BadId { .. } | Self::Twin { .. } => 64,
            Self::NoTtl { .. } => 78,
            Self::Unavailable { .. } => 69,
        }
    }
}

/// An id for a process that is given none.
#[must_use]
pub fn random_id() -> String {
    format!("{:08x}", fastrand::u32(..))
}

/// One process' membership, and its view of the others. Dropped, its entry expires; see [`Members::leave`].
pub struct Members {
    id: String,
    view: watch::Receiver<View>,
    living: watch::Receiver<Living>,
    changes: watch::Receiver<u64>,
    changed: ChangedLanes,
    follower: JoinHandle<()>,
    renewal: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

impl Members {
    /// Becomes a member of those who carry lanes of this kind, and returns once the others are known.
    ///
    /// An entry of this id that another process left behind (killed, and started again) is waited for to expire, at most
    /// a TTL; one that is renewed meanwhile is another living process: refused.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn join<L: LaneName>(broker: &Broker, id: &str) -> Result<Self, Error> {
        Self::join_in::<L>(broker, id, definitions::leases()).await
    }

    /// As [`Members::join`], in a bucket with another TTL ([`Definition::with_ttl`]).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn join_in<L: LaneName>(
        broker: &Broker,
        id: &str,
        definition: &'static Definition,
    ) -> Result<Self, Error> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(valid) {
            return Err(Error::BadId { id: id.chars().take(ID_BYTES_MAX).collect() });
        }
        let bucket = Bucket::open(broker, definition).await?;
        if bucket.ttl().is_zero() {
            return Err(Error::NoTtl { bucket: definition.name.clone() });
        }
        let nonce = format!("{:016x}", fastrand::u64(..));
        let entry = MemberEntry { nonce: nonce.clone(), joined_at: now_text() };
        let key = format!("{}{id}", roster::prefix(L::KIND));
        let mut seat = Seat { id: id.to_owned(), key, entry, bucket, revision: 0, lost: false };
        seat.claim().await?;

        let (stop, stopped) = oneshot::channel();
        let renewal = tokio::spawn(seat.keep(stopped));
        let (roster, Findings { view, living, changes, changed, ready }) = Roster::new(L::KIND, id, &nonce);
        let plan = Plan { definition, from: From::Last, look_every: LIST_TIME_MAX };
        let follower = tokio::spawn(follow::follow(broker.clone(), plan, roster));
        let members = Self { id: id.to_owned(), view, living, changes, changed, follower, renewal, stop: Some(stop) };
        if !matches!(tokio::time::timeout(LIST_TIME_MAX, ready).await, Ok(Ok(()))) {
            let cause = match &*members.living.borrow() {
                Living::Unknown(cause) => cause.clone(),
                Living::Known(_) => "the others did not become known in time".to_owned(),
            };
            return Err(Error::Unavailable { id: id.to_owned(), cause });
        }
        Ok(members)
    }

    /// Our own id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who lives now, and from now on.
    #[must_use]
    pub fn living(&self) -> watch::Receiver<Living> {
        self.living.clone()
    }

    /// A count that grows when a lane gets another holder or is released, or a session ends: the moment to look whether one
    /// is to be had. Renewals don't count.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// The living member that a lane belongs to; none while that is not known, or nobody lives.
    #[must_use]
    pub fn owner_of(&self, lane_key: &str) -> Option<String> {
        match &*self.living.borrow() {
            Living::Known(ids) => rendezvous::owner(lane_key, ids.iter().map(String::as_str)).map(str::to_owned),
            Living::Unknown(_) => None,
        }
    }

    /// The lanes whose entries changed since this was asked last: whoever holds one may look whether it is still his.
    #[must_use]
    pub fn changed_lanes(&self) -> BTreeSet<String> {
        self.changed.take()
    }

    /// The lanes that a dead owner left behind, that belong to this member and that `is_wanted` picks: at most so many. None
    /// while that is not known.
    #[must_use]
    pub fn left_to_us(&self, most: usize, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let Living::Known(ids) = &*self.living.borrow() else { return Vec::new() };
        let owner = |lane: &str| rendezvous::owner(lane, ids.iter().map(String::as_str));
        let view = self.view.borrow();
        let ours = view.left().filter(|lane| is_wanted(lane) && owner(lane) == Some(&self.id));
        ours.take(most).map(str::to_owned).collect()
    }

    /// The lanes that carry this session, each with its epoch. None while that is not known.
    #[must_use]
    pub fn held_in(&self, session: &Session) -> Vec<(String, Epoch)> {
        if matches!(&*self.living.borrow(), Living::Unknown(_)) {
            return Vec::new();
        }
        self.view.borrow().held_in(session.nonce()).map(|(lane, epoch)| (lane.to_owned(), epoch)).collect()
    }

    /// Who holds a lane, or did until it was released; none where nobody does, or while that is not known.
    #[must_use]
    pub fn held(&self, lane_key: &str) -> Option<Holder> {
        if matches!(&*self.living.borrow(), Living::Unknown(_)) {
            return None;
        }
        self.view.borrow().holder(lane_key).cloned()
    }

    /// Stops being a member: the others see it at once.
    pub async fn leave(mut self) {
        self.follower.abort();
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok(); // the task ends only with the connection, or here
        }
        if tokio::time::timeout(LEAVE_TIME_MAX, &mut self.renewal).await.is_err() {
            tracing::debug!(id = self.id, "the member's entry is left to expire");
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.follower.abort();
        self.renewal.abort();
    }
}

/// Our entry in the bucket.
struct Seat {
    id: String,
    key: String,
    entry: MemberEntry,
    bucket: Bucket,
    revision: u64,
    /// Another process has it: said once.
    lost: bool,
}

impl Seat {
    /// Writes the entry for the first time.
    async fn claim(&mut self) -> Result<(), Error> {
        let ttl = self.bucket.ttl();
        let give_up = Instant::now() + ttl + ttl / 3; // an entry of a process that is gone has expired by then
        let mut seen = None;
        loop {
            let found = self.find().await.map_err(|cause| self.unavailable(cause))?;
            match &found.value {
                Some(value) if !self.is_ours(value) => {
                    if Instant::now() >= give_up || seen.is_some_and(|revision| revision != found.revision) {
                        let other: Option<MemberEntry> = serde_json::from_slice(value).ok();
                        let since = other.map_or_else(|| "some time".to_owned(), |other| other.joined_at);
                        return Err(Error::Twin { id: self.id.clone(), since });
                    }
                    if seen.is_none() {
                        tracing::info!(id = self.id, "an entry of this id is there: waiting for it to expire");
                    }
                    seen = Some(found.revision);
                    tokio::time::sleep(ttl / 10).await;
                }
                _ => {
                    self.revision = found.revision;
                    match self.write().await {
                        Ok(()) => return Ok(()),
                        Err(Refused::Raced) => {} // a twin that starts at the same moment: the next look finds it
                        Err(Refused::Unavailable(cause)) => return Err(self.unavailable(cause)),
                    }
                }
            }
        }
    }

    /// Renews the entry until told to leave, and deletes it then.
    async fn keep(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut renew = tokio::time::interval(self.bucket.ttl() / 3);
        renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                _ = renew.tick() => self.renew().await,
            }
        }
        if let Err(error) = self.bucket.delete_if(&self.key, self.revision, self.time_limit()).await {
            tracing::debug!(id = self.id, %error, "the member's entry is left to expire");
        }
    }

    /// One renewal. What fails is tried again at the next tick; the view shows when it took too long.
    async fn renew(&mut self) {
        let result = match self.write().await {
            Err(Refused::Raced) => self.find_own().await,
            other => other.map_err(|error| error.to_string()),
        };
        if let Err(cause) = result {
            tracing::warn!(id = self.id, cause, "this sender's membership is not renewed");
        }
    }

    /// Another revision than expected: our own write whose ack was lost, an entry that expired, or a twin.
    async fn find_own(&mut self) -> Result<(), String> {
        let found = self.find().await?;
        if found.value.as_deref().is_some_and(|value| !self.is_ours(value)) {
            if !std::mem::replace(&mut self.lost, true) {
                let id = &self.id;
                tracing::error!(id, "another process runs under this FED_SENDER_ID: neither counts as a member");
            }
            return Err("another process has it".to_owned());
        }
        self.lost = false;
        self.revision = found.revision;
        self.write().await.map_err(|error| error.to_string())
    }

    async fn find(&self) -> Result<Found, String> {
        self.bucket.get(&self.key, self.time_limit()).await
    }

    async fn write(&mut self) -> Result<(), Refused> {
        let json = serde_json::to_vec(&self.entry).unwrap_or_default(); // two strings always serialise
        self.revision = self.bucket.put_if(&self.key, json.into(), self.revision, self.time_limit()).await?;
        Ok(())
    }

    fn is_ours(&self, value: &[u8]) -> bool {
        serde_json::from_slice::<MemberEntry>(value).is_ok_and(|entry| entry.nonce == self.entry.nonce)
    }

    /// Of one request: two of them fit between a renewal and the end of the TTL.
    fn time_limit(&self) -> Duration {
        self.bucket.ttl() / 5
    }

    fn unavailable(&self, cause: String) -> Error {
        Error::Unavailable { id: self.id.clone(), cause }
    }
}
