//! A process' session: one entry that says that it lives, for all the lanes that it holds.
//!
//! ```text
//!   begin ▶ session.<nonce> ── renewed at a third of the TTL ──▶ .. ── end ▶ deleted: its lanes are free at once
//!                └─ not renewed: `until` passes here, and it is over for good; then it expires there
//! ```
//!
//! - **A session is never begun again.** Once its `until` has passed here it is not renewed, though the broker would still
//!   take that; and it is over where a renewal is refused. Another process may have seen that it was gone, and be taking its
//!   lanes. Its own process begins another one, with another nonce.
//! - **Only its process writes it; others only delete it**, and only where it has expired already ([`super::others`]). So a
//!   renewal that is refused over a value is our own whose ack was lost, and one over a marker tells that it is over.
//! - **`until` counts from before the renewal was sent**, on this machine's monotonic clock, and ends a fifth of the TTL
//!   early. The broker counts from when it stored it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{MARGIN_PART, REPAIRS_MAX, now_text};
use crate::Created;
use crate::bucket::{Bucket, Refused};

/// How keys of sessions begin.
const PREFIX: &str = "session.";

/// Renewals in a TTL.
const RENEWALS: u32 = 3;

/// Tries in a TTL while the broker doesn't answer (each 500 ms of 15 s): several fit into the time that is left.
const TRIES: u32 = 30;

/// Why a session is over that nobody ended.
const NOT_RENEWED: &str = "it could not be renewed in time";

/// The key of the session with this nonce.
pub(crate) fn key(nonce: &str) -> String {
    format!("{PREFIX}{nonce}")
}

/// The nonce of the session with this key; none where it is another key.
pub(crate) fn nonce_of(key: &str) -> Option<&str> {
    key.strip_prefix(PREFIX)
}

/// The JSON of an entry, for people: that it stands is all that counts.
#[derive(Debug, Serialize, Deserialize)]
struct SessionEntry {
    /// Whose it is, in an operator's words (`FED_SENDER_ID`).
    owner: String,
    since: String,
}

/// What a lease sees of its session. Clones are of the same one.
#[derive(Clone, Debug)]
pub struct Session {
    nonce: Arc<str>,
    until: watch::Receiver<Instant>,
    over: watch::Receiver<Option<String>>,
}

impl Session {
    pub(crate) fn nonce(&self) -> &str {
        &self.nonce
    }

    /// When to have stopped, if it isn't renewed meanwhile: the moment before the last renewal was sent, plus the TTL, minus
    /// a fifth of it. It only grows, until the session is over: then it is past.
    #[must_use]
    pub fn until(&self) -> Instant {
        *self.until.borrow()
    }

    /// Whether it lives now, by our own clock.
    #[must_use]
    pub fn lives(&self) -> bool {
        Instant::now() < self.until()
    }

    /// Waits until somebody knows that it is over, and says why. That [`Session::until`] passes may be known later.
    pub async fn over(&self) -> String {
        match self.over.clone().wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => NOT_RENEWED.to_owned(), // nobody renews it any more
        }
    }
}

/// What a session's holders are told.
struct Tell {
    until: watch::Sender<Instant>,
    over: watch::Sender<Option<String>>,
}

impl Tell {
    /// Renewed; false where it was over when that became known. What has stopped by then does not begin again.
    fn renewed(&self, later: Instant) -> bool {
        let is_over = self.over.borrow().is_some();
        self.until.send_if_modified(|until| {
            let goes_on = !is_over && Instant::now() < *until;
            if goes_on {
                *until = later;
            }
            goes_on
        })
    }

    fn over(&self, why: &str) {
        self.until.send_modify(|until| *until = Instant::now().min(*until));
        self.over.send_if_modified(|over| {
            let first = over.is_none();
            over.get_or_insert_with(|| why.to_owned());
            first
        });
    }
}

/// Our own session, renewed until it ends. Dropped, it expires.
pub(crate) struct Running {
    pub session: Session,
    /// In which bucket: in one that was made anew it says nothing.
    pub created: Created,
    tell: Arc<Tell>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    /// Begins a session. One whose first write is not acked is none, and its nonce is not used again: the write may come
    /// through at any time.
    pub async fn begin(bucket: &Bucket, owner: &str, ttl: Duration) -> Result<Self, Refused> {
        let nonce = format!("{:016x}", fastrand::u64(..));
        let entry = SessionEntry { owner: owner.to_owned(), since: now_text() };
        let value: Bytes = serde_json::to_vec(&entry).unwrap_or_default().into(); // two strings always serialise
        let sent = Instant::now();
        let revision = bucket.put_if(&key(&nonce), value.clone(), 0, ttl / MARGIN_PART).await?;
        let (until, seen_until) = watch::channel(until(sent, ttl));
        let (over, seen_over) = watch::channel(None);
        let tell = Arc::new(Tell { until, over });
        let renewal =
            Renewal { bucket: bucket.clone(), key: key(&nonce), value, revision, ttl, tell: Arc::clone(&tell) };
        let (stop, stopped) = oneshot::channel();
        Ok(Self {
            session: Session { nonce: nonce.into(), until: seen_until, over: seen_over },
            created: bucket.created,
            tell,
            stop: Some(stop),
            task: tokio::spawn(renewal.run(stopped)),
        })
    }

    /// It counts no more: its leases are lost at once, and its entry expires.
    pub fn abandon(self, why: &str) {
        self.tell.over(why);
    }

    /// Ends it, and deletes its entry: what lanes it still has are free at once.
    pub async fn end(mut self) {
        self.tell.over("this process gave it up");
        if let Some(stop) = self.stop.take()
            && stop.send(()).is_ok()
        {
            (&mut self.task).await.ok(); // nobody aborts it while we have it
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What renews a session.
struct Renewal {
    bucket: Bucket,
    key: String,
    value: Bytes,
    revision: u64,
    ttl: Duration,
    tell: Arc<Tell>,
}

/// Why a renewal did not succeed.
enum Failed {
    /// It never will.
    Over(&'static str),
    /// Nothing is known.
    Unknown(String),
}

impl Renewal {
    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut renew_at = Instant::now() + self.ttl / RENEWALS;
        loop {
            let due = async {
                tokio::time::sleep_until(renew_at.min(self.until())).await;
                self.renew().await
            };
            let result = tokio::select! {
                stopped = &mut stop => {
                    if stopped.is_ok() {
                        self.delete().await;
                    }
                    return;
                }
                result = due => result,
            };
            renew_at = Instant::now()
                + match result {
                    Ok(()) => self.ttl / RENEWALS,
                    Err(Failed::Over(why)) => return self.tell.over(why),
                    Err(Failed::Unknown(cause)) => {
                        tracing::debug!(key = self.key, cause, "the session is not renewed");
                        self.ttl / TRIES
                    }
                };
        }
    }

    async fn renew(&mut self) -> Result<(), Failed> {
        for _ in 0..REPAIRS_MAX {
            let sent = Instant::now(); // before: the broker counts from when it stores it, which is later
            if sent >= self.until() {
                return Err(Failed::Over(NOT_RENEWED));
            }
            match self.bucket.put_if(&self.key, self.value.clone(), self.revision, self.time_limit()).await {
                Ok(revision) => {
                    self.revision = revision;
                    let goes_on = self.tell.renewed(until(sent, self.ttl));
                    return if goes_on { Ok(()) } else { Err(Failed::Over(NOT_RENEWED)) };
                }
                Err(Refused::Raced) => self.find_own().await?,
                Err(Refused::Unavailable(cause)) => return Err(Failed::Unknown(cause)),
            }
        }
        Err(Failed::Unknown("its revision can't be told".to_owned()))
    }

    /// Another revision than expected: our own write whose ack was lost, or it is over.
    async fn find_own(&mut self) -> Result<(), Failed> {
        let found = self.bucket.get(&self.key, self.time_limit()).await.map_err(Failed::Unknown)?;
        if found.revision <= self.revision {
            // Or nothing at all, and no marker: then its time passes soon.
            return Err(Failed::Unknown("a replica that is behind answered".to_owned()));
        }
        if found.value.is_none() {
            return Err(Failed::Over("it had expired, or was ended by another"));
        }
        self.revision = found.revision;
        Ok(())
    }

    /// Leaves nothing behind, where the broker is there.
    async fn delete(mut self) {
        for _ in 0..REPAIRS_MAX {
            match self.bucket.delete_if(&self.key, self.revision, self.time_limit()).await {
                Err(Refused::Raced) => {} // a renewal that was called off, and came through
                Ok(()) => return,
                Err(error) => return tracing::debug!(key = self.key, %error, "the session is left to expire"),
            }
            if self.find_own().await.is_err() {
                return;
            }
        }
    }

    fn until(&self) -> Instant {
        *self.tell.until.borrow()
    }

    /// Of one request: two of them may fail before it is over.
    fn time_limit(&self) -> Duration {
        self.ttl / MARGIN_PART
    }
}

fn until(sent: Instant, ttl: Duration) -> Instant {
    sent + ttl - ttl / MARGIN_PART
}
