//! Who sends a lane: one owner, by compare-and-set on the lane's entry in the bucket `fed_leases`.
//!
//! ```text
//!   begin ▶ session ── renewed, one write for all lanes of the process ──▶ .. ── ends, or is not renewed ▶ over
//!              ┊ a lane is ours while our session lives
//!           take ▶ Ours ── (bump) ── release ▶ (the next one takes it at once)
//!             └──▶ Held by another: come back later.   Its session is gone? Proven by a write, and the lane taken over
//! ```
//!
//! A lane's entry is written when it is taken, bumped and released, and stands for good meanwhile; what expires is the
//! session ([`session`]). So a thousand lanes cost as little as one, and the epoch is not lost with its owner.
//!
//! - **The epoch grows for ever**: max(the one before + 1, unix milliseconds, what the far side knows), kept in the entry
//!   of a released lane too. It is the fencing token: the far side refuses a lower one.
//! - **An owner stops before others may start.** [`Session::until`] counts from *before* the renewal was sent, on this
//!   machine's monotonic clock, and ends a fifth of the TTL early. The broker counts from when it stored it. Others begin
//!   only after a write that succeeds just where the session has expired ([`others`]), and that no renewal gets past.
//! - **A write whose ack was lost is recognised** by the session's nonce, and neither taken for another owner's nor done
//!   twice. An entry with our owner name and another nonce is another process', configured by mistake with the same name.
//! - **What a dead owner leaves is bounded**: its lanes are taken over, or cleared ([`Leases::clear`]) and then expire.
//!   So is what a living one does not know of: it is given back ([`Leases::give_up`]), or would stand as long as the process.
//! - An entry of an older version has no session: it expires by itself, and is waited for.
//!
//! It never deletes a lane's entry (the epoch in it would be lost) and never waits for a lane: it says who holds it. A bucket
//! that is deleted and made anew starts its revisions again; two owners are then possible for one TTL, and the far side's
//! epochs keep the lower one out.

mod entry;
mod holders;
mod lease;
mod others;
pub(crate) mod session;

use std::sync::Arc;
use std::time::Duration;

use fedstream_lane::Epoch;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use self::others::Others;
use self::session::Running;
use crate::bucket::{Bucket, Refused};
use crate::definitions::Definition;
use crate::{Broker, definitions, streams};

pub(crate) use entry::{Entry, next_epoch, now_text, unix_ms};
pub use holders::holders;
pub use lease::{Lease, Taken};
pub use session::Session;

/// Each lost race means that somebody else won one, so this many in a row is not contention.
const RACES_MAX: u32 = 64;

/// Our own write without an ack needs one round to be recognised; a replica that is behind may need another.
const REPAIRS_MAX: u32 = 3;

/// The part of the TTL that an owner leaves unused: the broker's clock may run faster than ours (a percent would be a
/// broken clock), and between the check of a lease and the last byte of a POST on the wire lie the scheduler and a
/// socket buffer. A fifth (3 of 15 s) is far more than either; and with renewals at a third and this as the time limit
/// of each, two of them may fail before the lease ends here.
const MARGIN_PART: u32 = 5;

/// Lanes that are being taken at once. After an outage all of them are, and their writes stand in the same queue of the
/// broker's as the renewal of the session: at the slowest disk (5 ms a synced write) so many are done in a tenth of its time limit.
const TAKEN_AT_ONCE: usize = 64;

/// Why a lease is not taken, confirmed or given back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket is missing, dangerous, or the broker does not answer.
    #[error(transparent)]
    Bucket(#[from] streams::Error),
    /// Entries in the bucket never expire: a dead owner would keep its lanes.
    #[error(
        "bucket {bucket} is unsafe: max_age is 0, must be the TTL of a lease (15 s): a dead owner would keep its lanes"
    )]
    NoTtl {
        /// The bucket's stream.
        bucket: String,
    },
    /// An entry that stands for good would be refused, or be gone after a restart of the broker.
    #[error(
        "bucket {bucket} is unsafe: subject_delete_marker_ttl is 0, must be above 0 (60 s): a lane's entry could be gone while its owner posts"
    )]
    NoMarkers {
        /// The bucket's stream.
        bucket: String,
    },
    /// The lane is not ours any more. Stop now.
    #[error("the lease of lane {lane} is lost: {}", lost_to(holder.as_deref()))]
    Lost {
        /// The lane's key.
        lane: String,
        /// Who holds it now; none where the session is over, or the entry vanished.
        holder: Option<String>,
    },
    /// Nothing is known. What holds, holds until its time; try again before.
    #[error("no answer about the lease of lane {lane}: {cause}")]
    Unavailable {
        /// The lane's key.
        lane: String,
        /// What went wrong.
        cause: String,
    },
    /// Others kept taking it first.
    #[error("no lease of lane {lane}: {RACES_MAX} others changed it at the same moment")]
    Contended {
        /// The lane's key.
        lane: String,
    },
}

impl Error {
    /// The process exit code that says the same: 69 where waiting may help, 78 where somebody has to act on the broker.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Bucket(error) => error.exit_code(),
            Self::NoTtl { .. } | Self::NoMarkers { .. } => 78,
            Self::Lost { .. } | Self::Unavailable { .. } | Self::Contended { .. } => 69,
        }
    }
}

fn lost_to(holder: Option<&str>) -> String {
    holder.map_or_else(|| "it expired or was deleted".to_owned(), |holder| format!("{holder} holds it"))
}

/// The leases of one process. Clones share its session.
#[derive(Clone)]
pub struct Leases {
    inner: Arc<Inner>,
}

struct Inner {
    broker: Broker,
    definition: &'static Definition,
    ttl: Duration,
    /// None after trouble: it is opened again, and made again where that is ours to do.
    bucket: Mutex<Option<Bucket>>,
    /// None before the first lane.
    session: Mutex<Option<Running>>,
    others: Others,
    takes: Semaphore,
}

impl Leases {
    /// Opens the bucket, and makes it where that is ours to do.
    ///
    /// # Errors
    /// It is missing or dangerous, it has no TTL, or the broker does not answer.
    pub async fn open(broker: &Broker) -> Result<Self, Error> {
        Self::open_in(broker, definitions::leases()).await
    }

    /// As [`Leases::open`], in a bucket with another TTL ([`Definition::with_ttl`]).
    ///
    /// # Errors
    /// As [`Leases::open`].
    pub async fn open_in(broker: &Broker, definition: &'static Definition) -> Result<Self, Error> {
        let bucket = open_checked(broker, definition).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                broker: broker.clone(),
                definition,
                ttl: bucket.ttl(),
                bucket: Mutex::new(Some(bucket)),
                session: Mutex::new(None),
                others: Others::default(),
                takes: Semaphore::new(TAKEN_AT_ONCE),
            }),
        })
    }

    /// How long a session stands without a renewal (the bucket's `max_age`).
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.inner.ttl
    }

    /// Takes a lane that nobody holds: no entry, a released one, one of a session that is over, or one of this very session
    /// (a write of ours whose ack was lost: so a process must run one owner a lane).
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::Lost`].
    pub async fn take(&self, lane_key: &str, owner: &str, at_least: Epoch) -> Result<Taken, Error> {
        let _turn = self.inner.takes.acquire().await; // never closed
        let bucket = self.bucket().await?;
        let result = self.take_in(&bucket, lane_key, owner, at_least).await;
        if matches!(result, Err(Error::Unavailable { .. })) {
            *self.inner.bucket.lock().await = None; // perhaps it is gone: the next one looks, and makes it again
        }
        result
    }

    async fn take_in(&self, bucket: &Bucket, lane_key: &str, owner: &str, at_least: Epoch) -> Result<Taken, Error> {
        let unavailable = |cause: String| Error::Unavailable { lane: lane_key.to_owned(), cause };
        let session = self.session(bucket, owner).await.map_err(unavailable)?;
        for race in 0..RACES_MAX {
            let found = bucket.get(lane_key, self.time_limit()).await.map_err(unavailable)?;
            let previous = found.value.as_deref().map(Entry::read).transpose().map_err(unavailable)?;
            if let Some(entry) = &previous
                && entry.nonce != session.nonce()
                && !self.is_free(bucket, entry).await.map_err(unavailable)?
            {
                return Ok(Taken::Held { owner: entry.owner.clone(), epoch: Epoch(entry.epoch) });
            }
            let epoch = next_epoch(previous.map(|entry| Epoch(entry.epoch)), unix_ms(), at_least);
            let mut lease = Lease::new(lane_key, owner, epoch, found.revision, &session);
            match self.write_once(bucket, &mut lease, false).await {
                Ok(()) => return Ok(Taken::Ours(lease)),
                Err(Refused::Raced) => pause(race).await,
                Err(Refused::Unavailable(cause)) => return Err(unavailable(cause)),
            }
        }
        Err(Error::Contended { lane: lane_key.to_owned() })
    }

    /// Makes sure that a lease is still ours, by writing it again: for whoever has a reason to doubt it.
    ///
    /// # Errors
    /// [`Error::Lost`]: stop now. Anything else: nothing is known, and it holds until [`Lease::until`].
    pub async fn confirm(&self, lease: &mut Lease) -> Result<(), Error> {
        self.write(lease, false).await
    }

    /// A new epoch for the same owner, at least `at_least`: the lane's stream was made anew, or its batches go elsewhere
    /// from now on.
    ///
    /// # Errors
    /// As [`Leases::confirm`]. The epoch stays as it was, and no later one will be the one that was tried.
    pub async fn bump(&self, lease: &mut Lease, at_least: Epoch) -> Result<(), Error> {
        lease.reserved = next_epoch(Some(lease.reserved), unix_ms(), at_least);
        lease.taken_at = now_text();
        self.write(lease, false).await?;
        lease.epoch = lease.reserved;
        Ok(())
    }

    /// Gives a lane back: the next owner takes it at once, with a higher epoch. One that is not ours any more is
    /// nothing to give back.
    ///
    /// # Errors
    /// The broker does not answer: it may be given back or not, and is free at the latest when the session ends.
    pub async fn release(&self, lease: &mut Lease) -> Result<(), Error> {
        // Where the session is over and nobody took the lane yet, its entry is still what we wrote.
        match self.write(lease, true).await {
            Err(Error::Lost { .. }) => Ok(()),
            other => other,
        }
    }

    /// Has what a dead owner left of a lane expire, with its epoch, where nobody is going to take that lane.
    ///
    /// # Errors
    /// Nothing is known, or somebody else changed it: then there is nothing to do, or another time.
    pub async fn clear(&self, lane_key: &str) -> Result<(), Error> {
        let unavailable = |cause: String| Error::Unavailable { lane: lane_key.to_owned(), cause };
        let bucket = self.bucket().await?;
        let found = bucket.get(lane_key, self.time_limit()).await.map_err(unavailable)?;
        let Some(mut entry) = found.value.as_deref().map(Entry::read).transpose().map_err(unavailable)? else {
            return Ok(());
        };
        if entry.released || !self.is_free(&bucket, &entry).await.map_err(unavailable)? {
            return Ok(());
        }
        entry.released = true;
        let written = bucket.put_if(lane_key, entry.write(), found.revision, self.time_limit()).await;
        written.map(drop).map_err(|error| unavailable(error.to_string()))
    }

    /// The session that lives now; none before the first lane, and while one is begun.
    #[must_use]
    pub fn living_session(&self) -> Option<Session> {
        let session = self.inner.session.try_lock().ok()?;
        session.as_ref().map(|running| running.session.clone()).filter(Session::lives)
    }

    /// Gives back a lane that our living session holds in this epoch though no task of this process has it: a write whose ack
    /// was lost. Who is sure of that *before* the call may be late: a task that takes the lane meanwhile has a higher epoch, and
    /// keeps it. Answers whether there was something to give back.
    ///
    /// # Errors
    /// As [`Leases::clear`].
    pub async fn give_up(&self, lane_key: &str, epoch: Epoch) -> Result<bool, Error> {
        let unavailable = |cause: String| Error::Unavailable { lane: lane_key.to_owned(), cause };
        let Some(session) = self.living_session() else { return Ok(false) };
        let bucket = self.bucket().await?;
        let found = bucket.get(lane_key, self.time_limit()).await.map_err(unavailable)?;
        let Some(mut entry) = found.value.as_deref().map(Entry::read).transpose().map_err(unavailable)? else {
            return Ok(false);
        };
        if entry.released || entry.nonce != session.nonce() || entry.epoch != epoch.0 {
            return Ok(false);
        }
        entry.released = true;
        let written = bucket.put_if(lane_key, entry.write(), found.revision, self.time_limit()).await;
        written.map(|_| true).map_err(|error| unavailable(error.to_string()))
    }

    /// Ends the session, when every lane is given back: what could not be is free at once. A lane that is taken afterwards
    /// begins another one.
    pub async fn close(&self) {
        let session = self.inner.session.lock().await.take();
        if let Some(session) = session {
            session.end().await;
        }
    }

    /// Whether an entry of another session may be written over.
    async fn is_free(&self, bucket: &Bucket, entry: &Entry) -> Result<bool, String> {
        Ok(entry.released
            || entry.session && self.inner.others.is_over(bucket, &entry.nonce, self.time_limit()).await?)
    }

    /// The session that lives, or a new one.
    async fn session(&self, bucket: &Bucket, owner: &str) -> Result<Session, String> {
        // Behind others whom the broker does not answer it would wait for a multiple of that.
        let session = timeout(self.time_limit(), self.inner.session.lock()).await;
        let mut session = session.map_err(|_| "the broker is slow to begin a session".to_owned())?;
        if let Some(running) = &*session
            && running.session.lives()
            && running.created == bucket.created
        {
            return Ok(running.session.clone());
        }
        if let Some(former) = session.take() {
            self.inner.others.add_over(former.session.nonce()).await;
            former.abandon("it is over, or its bucket was made anew");
        }
        let ttl = bucket.ttl().min(self.inner.ttl); // a bucket that was made anew may have a shorter one
        let begun = Running::begin(bucket, owner, ttl).await.map_err(|error| error.to_string())?;
        Ok(session.insert(begun).session.clone())
    }

    /// Writes the entry over our own, whose revision may be further than we know.
    async fn write(&self, lease: &mut Lease, released: bool) -> Result<(), Error> {
        if !released && !lease.holds() {
            return Err(Error::Lost { lane: lease.key.clone(), holder: None });
        }
        let bucket = self.bucket().await?;
        for _ in 0..REPAIRS_MAX {
            match self.write_once(&bucket, lease, released).await {
                Ok(()) => return Ok(()),
                Err(Refused::Raced) => self.find_own(&bucket, lease).await?,
                Err(Refused::Unavailable(cause)) => return Err(Error::Unavailable { lane: lease.key.clone(), cause }),
            }
        }
        Err(Error::Unavailable { lane: lease.key.clone(), cause: "its revision can't be told".to_owned() })
    }

    async fn write_once(&self, bucket: &Bucket, lease: &mut Lease, released: bool) -> Result<(), Refused> {
        let value = lease.entry(released).write();
        let (key, within) = (lease.key.as_str(), self.time_limit());
        lease.revision = if released {
            bucket.put_if(key, value, lease.revision, within).await? // of no use to anybody after the TTL
        } else {
            bucket.put_for_good_if(key, value, lease.revision, within).await?
        };
        Ok(())
    }

    /// Another revision than expected: our own write whose ack was lost, or another owner.
    async fn find_own(&self, bucket: &Bucket, lease: &mut Lease) -> Result<(), Error> {
        let unavailable = |cause: String| Error::Unavailable { lane: lease.key.clone(), cause };
        let lost = |holder| Error::Lost { lane: lease.key.clone(), holder };
        let found = bucket.get(&lease.key, self.time_limit()).await.map_err(unavailable)?;
        if found.revision < lease.revision {
            return Err(unavailable("a replica that is behind answered".to_owned())); // or one that has nothing yet
        }
        let Some(value) = found.value else {
            return Err(lost(None));
        };
        let entry = Entry::read(&value).map_err(unavailable)?;
        // A higher epoch of our own nonce: another task of this process took the lane. One owner a lane.
        if entry.nonce != lease.session.nonce() || entry.released || entry.epoch > lease.reserved.0 {
            return Err(lost(Some(entry.owner)));
        }
        lease.revision = found.revision;
        Ok(())
    }

    async fn bucket(&self) -> Result<Bucket, Error> {
        let mut bucket = self.inner.bucket.lock().await;
        if let Some(open) = &*bucket {
            return Ok(open.clone());
        }
        let open = open_checked(&self.inner.broker, self.inner.definition).await?;
        *bucket = Some(open.clone());
        Ok(open)
    }

    /// Of one request.
    fn time_limit(&self) -> Duration {
        self.inner.ttl / MARGIN_PART
    }
}

/// The bucket, where sessions expire in it and lanes' entries do not. It may have been made anew since the last time.
async fn open_checked(broker: &Broker, definition: &'static Definition) -> Result<Bucket, Error> {
    let bucket = Bucket::open(broker, definition).await?;
    if bucket.ttl().is_zero() {
        return Err(Error::NoTtl { bucket: definition.name.clone() });
    }
    if !bucket.keeps_for_good() {
        return Err(Error::NoMarkers { bucket: definition.name.clone() });
    }
    Ok(bucket)
}

/// Spread, so that many takers of one lane don't meet again at once.
pub(crate) async fn pause(race: u32) {
    let pause_ms = fastrand::u64(0..=u64::from(race.min(10)));
    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
}
