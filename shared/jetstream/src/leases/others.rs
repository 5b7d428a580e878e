//! Whether another process' session is over.
//!
//! What a read says is not enough: a replica that is behind may not have a session that lives. So where a read finds none,
//! the key is deleted by compare-and-set on what was read: **only a write that succeeds proves it**, and from then on no
//! renewal can (its revision is another one). A session is never begun again, so what was proven once stays true.
//!
//! It is asked for each lane of a process that died, a thousand times in a row: who asks, asks one at a time, and the answer
//! is kept, what is over among the last few, and what lives for a moment.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::session;
use crate::bucket::{Bucket, Refused};

/// Processes die one at a time; one that is forgotten is only asked again.
const KEPT_MAX: usize = 64;

/// So long what lives is not asked again: a thirtieth of the TTL, as often as a lane that waits asks.
const ALIVE_PART: u32 = 30;

/// What is known of other sessions.
#[derive(Debug, Default)]
pub(crate) struct Others(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    over: VecDeque<String>,
    alive: VecDeque<(String, Instant)>,
}

impl Others {
    /// One of our own: we know by ourselves that it is over, and all its leases stopped with it.
    pub async fn add_over(&self, nonce: &str) {
        self.0.lock().await.add_over(nonce);
    }

    /// Whether a session is over for good. Where it is not, or that can't be proven now: false.
    pub async fn is_over(&self, bucket: &Bucket, nonce: &str, within: Duration) -> Result<bool, String> {
        // Behind others whom the broker does not answer it would wait for a multiple of that.
        let known = timeout(within, self.0.lock()).await;
        let mut known = known.map_err(|_| "the broker is slow to tell who lives".to_owned())?;
        if known.over.iter().any(|over| over == nonce) {
            return Ok(true);
        }
        if known.alive.iter().any(|(alive, until)| alive == nonce && Instant::now() < *until) {
            return Ok(false);
        }
        let key = session::key(nonce);
        let found = bucket.get(&key, within).await?;
        let over = found.value.is_none()
            && match bucket.delete_if(&key, found.revision, within).await {
                Ok(()) => true,
                Err(Refused::Raced) => false, // it lives after all, or another proves it at this moment
                Err(Refused::Unavailable(cause)) => return Err(cause),
            };
        if over {
            known.add_over(nonce);
        } else {
            known.alive.retain(|(alive, _)| alive != nonce);
            known.alive.push_back((nonce.to_owned(), Instant::now() + bucket.ttl() / ALIVE_PART));
            keep_few(&mut known.alive);
        }
        Ok(over)
    }
}

impl Known {
    fn add_over(&mut self, nonce: &str) {
        self.over.push_back(nonce.to_owned());
        keep_few(&mut self.over);
    }
}

fn keep_few<T>(kept: &mut VecDeque<T>) {
    while kept.len() > KEPT_MAX {
        kept.pop_front();
    }
}
