//! Who sends a lane: one owner, by compare-and-set on the lane's entry in the bucket `fed_leases`.
//!
//! ```text
//!           take ▶ Ours ── renew at a third of the TTL ──▶ Ours ── release ▶ (the next one takes it at once)
//!             │      └─ not renewed: `until` passes here, then the entry expires there ▶ anybody may take it
//!             └──▶ Held by another: come back later
//! ```
//!
//! - **The epoch grows for ever**: max(the one before + 1, unix milliseconds, what the far side knows), kept in the entry
//!   of a released lane too. It is the fencing token: the far side refuses a lower one.
//! - **An owner stops before others may start.** [`Lease::until`] counts from *before* the request was sent, on this
//!   machine's monotonic clock, and ends a fifth of the TTL early ([`Lease`]). The broker counts from when it stored it.
//! - **A write whose ack was lost is recognised** by the process' nonce, and neither taken for another owner's nor done
//!   twice. An entry with our owner name and another nonce is another process', configured by mistake with the same name.
//!
//! It never deletes an entry (the epoch in it would be lost) and never waits for a lane: it says who holds it. A bucket
//! that is deleted and made anew starts its revisions again; two owners are then possible for one TTL, and the far side's
//! epochs keep the lower one out.

mod entry;
mod holders;

use std::sync::Arc;
use std::time::Duration;

use fedstream_lane::Epoch;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::bucket::{Bucket, Refused};
use crate::definitions::Definition;
use crate::{Broker, definitions, streams};

pub(crate) use entry::{Entry, next_epoch, now_text, unix_ms};
pub use holders::holders;

/// Each lost race means that somebody else won one, so this many in a row is not contention.
const RACES_MAX: u32 = 64;

/// Our own write without an ack needs one round to be recognised; a replica that is behind may need another.
const REPAIRS_MAX: u32 = 3;

/// The part of the TTL that an owner leaves unused: the broker's clock may run faster than ours (a percent would be a
/// broken clock), and between the check of a lease and the last byte of a POST on the wire lie the scheduler and a
/// socket buffer. A fifth (3 of 15 s) is far more than either; and with renewals at a third and this as the time limit
/// of each, two of them may fail before the lease ends here.
const MARGIN_PART: u32 = 5;

/// A lane is ours until [`Lease::until`], unless it is renewed.
#[derive(Debug)]
pub struct Lease {
    /// The lane's key.
    pub key: String,
    /// The fencing token of this ownership.
    pub epoch: Epoch,
    /// The entry's revision, as far as it is known here.
    pub revision: u64,
    /// When to have stopped: the moment before the request was sent, plus the TTL, minus a fifth of it.
    pub until: Instant,
    /// The highest epoch that may stand in the entry: that of a bump whose ack was lost is never written lower.
    reserved: Epoch,
    owner: String,
    taken_at: String,
}

impl Lease {
    /// Whether it is ours now. To be asked right before each POST and each purge.
    #[must_use]
    pub fn holds(&self) -> bool {
        Instant::now() < self.until
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

/// Why a lease is not taken, renewed or given back.
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
    /// The lane is not ours any more. Stop now.
    #[error("the lease of lane {lane} is lost: {}", lost_to(holder.as_deref()))]
    Lost {
        /// The lane's key.
        lane: String,
        /// Who holds it now; none where the entry expired or vanished.
        holder: Option<String>,
    },
    /// Nothing is known. A lease holds until its time; try again before.
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
            Self::NoTtl { .. } => 78,
            Self::Lost { .. } | Self::Unavailable { .. } | Self::Contended { .. } => 69,
        }
    }
}

fn lost_to(holder: Option<&str>) -> String {
    holder.map_or_else(|| "it expired or was deleted".to_owned(), |holder| format!("{holder} holds it"))
}

/// The leases of one process. Clones share its nonce.
#[derive(Clone)]
pub struct Leases {
    inner: Arc<Inner>,
}

struct Inner {
    broker: Broker,
    definition: &'static Definition,
    nonce: String,
    ttl: Duration,
    /// None after trouble: it is opened again, and made again where that is ours to do.
    bucket: Mutex<Option<Bucket>>,
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
        let bucket = Bucket::open(broker, definition).await?;
        let ttl = bucket.ttl();
        if ttl.is_zero() {
            return Err(Error::NoTtl { bucket: definition.name.clone() });
        }
        let nonce = format!("{:016x}", fastrand::u64(..));
        let bucket = Mutex::new(Some(bucket));
        Ok(Self { inner: Arc::new(Inner { broker: broker.clone(), definition, nonce, ttl, bucket }) })
    }

    /// How long an entry stands without a renewal (the bucket's `max_age`).
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.inner.ttl
    }

    /// How often to renew: a third of the TTL.
    #[must_use]
    pub fn renew_every(&self) -> Duration {
        self.inner.ttl / 3
    }

    /// Takes a lane that nobody holds: no entry, an expired or released one, or one of this very process (a write of
    /// ours whose ack was lost: so a process must run one owner a lane).
    ///
    /// # Errors
    /// See [`Error`]; never [`Error::Lost`].
    pub async fn take(&self, lane_key: &str, owner: &str, at_least: Epoch) -> Result<Taken, Error> {
        let bucket = self.bucket().await?;
        let result = self.take_in(&bucket, lane_key, owner, at_least).await;
        if matches!(result, Err(Error::Unavailable { .. })) {
            *self.inner.bucket.lock().await = None; // perhaps it is gone: the next one looks, and makes it again
        }
        result
    }

    async fn take_in(&self, bucket: &Bucket, lane_key: &str, owner: &str, at_least: Epoch) -> Result<Taken, Error> {
        let unavailable = |cause: String| Error::Unavailable { lane: lane_key.to_owned(), cause };
        for race in 0..RACES_MAX {
            let found = bucket.get(lane_key, self.time_limit()).await.map_err(unavailable)?;
            let previous = found.value.as_deref().map(Entry::read).transpose().map_err(unavailable)?;
            if let Some(entry) = previous.as_ref().filter(|entry| !entry.released && entry.nonce != self.inner.nonce) {
                return Ok(Taken::Held { owner: entry.owner.clone(), epoch: Epoch(entry.epoch) });
            }
            let epoch = next_epoch(previous.map(|entry| Epoch(entry.epoch)), unix_ms(), at_least);
            let mut lease = Lease {
                key: lane_key.to_owned(),
                epoch,
                revision: found.revision,
                until: Instant::now(),
                reserved: epoch,
                owner: owner.to_owned(),
                taken_at: now_text(),
            };
            match self.write_once(bucket, &mut lease, false).await {
                Ok(()) => return Ok(Taken::Ours(lease)),
                Err(Refused::Raced) => pause(race).await,
                Err(Refused::Unavailable(cause)) => return Err(unavailable(cause)),
            }
        }
        Err(Error::Contended { lane: lane_key.to_owned() })
    }

    /// Renews a lease: moves [`Lease::until`].
    ///
    /// # Errors
    /// [`Error::Lost`]: stop now. Anything else: try again until [`Lease::until`].
    pub async fn renew(&self, lease: &mut Lease) -> Result<(), Error> {
        self.write(lease, false).await
    }

    /// A new epoch for the same owner, at least `at_least`: the lane's stream was made anew, or its batches go elsewhere
    /// from now on. Renews the lease too.
    ///
    /// # Errors
    /// As [`Leases::renew`]. The epoch stays as it was, and no later one will be the one that was tried.
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
    /// The broker does not answer; the entry then expires by itself.
    pub async fn release(&self, mut lease: Lease) -> Result<(), Error> {
        match self.write(&mut lease, true).await {
            Err(Error::Lost { .. }) => Ok(()),
            other => other,
        }
    }

    /// Writes the entry over our own, whose revision may be further than we know.
    async fn write(&self, lease: &mut Lease, released: bool) -> Result<(), Error> {
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
        let entry = Entry {
            epoch: lease.reserved.0,
            owner: lease.owner.clone(),
            nonce: self.inner.nonce.clone(),
            taken_at: lease.taken_at.clone(),
            released,
        };
        let sent = Instant::now(); // before: the broker counts from when it stores it, which is later
        lease.revision = bucket.put_if(&lease.key, entry.write(), lease.revision, self.time_limit()).await?;
        let ttl = bucket.ttl().min(self.inner.ttl); // a bucket that was made anew may have a shorter one
        lease.until = sent + ttl - ttl / MARGIN_PART;
        Ok(())
    }

    /// Another revision than expected: our own write whose ack was lost, or another owner.
    async fn find_own(&self, bucket: &Bucket, lease: &mut Lease) -> Result<(), Error> {
        let unavailable = |cause: String| Error::Unavailable { lane: lease.key.clone(), cause };
        let lost = |holder| Error::Lost { lane: lease.key.clone(), holder };
        let found = bucket.get(&lease.key, self.time_limit()).await.map_err(unavailable)?;
        let Some(value) = found.value else {
            return Err(lost(None));
        };
        if found.revision < lease.revision {
            return Err(unavailable("a replica that is behind answered".to_owned()));
        }
        let entry = Entry::read(&value).map_err(unavailable)?;
        // A higher epoch of our own nonce: another task of this process took the lane. One owner a lane.
        if entry.nonce != self.inner.nonce || entry.released || entry.epoch > lease.reserved.0 {
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
        let open = Bucket::open(&self.inner.broker, self.inner.definition).await?;
        *bucket = Some(open.clone());
        Ok(open)
    }

    /// Of one request.
    fn time_limit(&self) -> Duration {
        self.inner.ttl / MARGIN_PART
    }
}

/// Spread, so that many takers of one lane don't meet again at once.
pub(crate) async fn pause(race: u32) {
    let pause_ms = fastrand::u64(0..=u64::from(race.min(10)));
    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
}
