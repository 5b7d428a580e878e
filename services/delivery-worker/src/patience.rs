//! How long an obstacle is tried against that only people take away, while others of the lane wait behind it.
//!
//! | obstacle | whose it is | who can take it away |
//! |---|---|---|
//! | no key | the actor's | whoever mounts the keys |
//! | 401 to every form of signature | the actor's, at this remote | its application, where its key can't be fetched; the remote |
//! | a redirect that a POST does not follow | the inbox's | the remote |
//!
//! Each may pass (Mastodon answers 401 when it can't reach the actor's server for a moment, and tries its own deliveries again
//! after one), so none is final at once; and each may stay for ever, so none is tried to the horizon where it is one actor's or one
//! inbox's alone. A delivery is given up where all of this holds:
//!
//! | condition | why |
//! |---|---|
//! | it met the obstacle at three attempts of its own | what passes in a moment costs nothing, whoever met it before |
//! | `FED_KEY_WAIT` is over since the obstacle was first met, or since this delivery began to wait in its lane | the same time is not waited for twice: neither by what the same actor has behind it, nor by the next such actor |
//! | since it was first met others pass: another actor had a key, or the remote took (2xx) what is not this actor's or inbox's | else it is not this one's: the mount is gone, the remote takes nobody's signature, it shows everybody a page about maintenance |
//!
//! Where nobody else passes at a remote, its deliveries are tried to the horizon, as in any outage. Keys are ours, and with few actors
//! there may be nobody else: then each delivery has the whole wait for itself, from its first attempt on. So an hour's mistake
//! with a mount costs a lane one delivery, and not all it has.
//!
//! Others pass where that began after the obstacle was met, and was known before the attempt that decides began: a remote that goes
//! away or comes back in between says nothing (as in [`crate::suspicion`]).
//!
//! An obstacle is over with the first 2xx in spite of it (of a key: the first request), and when it was not met for a day. A failure
//! (5xx, no answer) says nothing of it, until the breaker opens: a remote that was away may not reach us yet when it is back, so all
//! obstacles there are new then. What a lane waits while its remote is not asked is no time that anybody had patience for.
//!
//! Known to this process only, and lost with it: then there is more patience, never less. Pure but for the lock: time comes in as
//! an argument.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use federation::{Attempted, Delivery, Verdict};
use fedstream_lane::{InstanceName, Seq};
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

/// Nothing is given up before so many attempts of its own: by default over six seconds, and a lane with a thousand deliveries of
/// such an actor is through with them in two hours.
const ATTEMPTS_MIN: u32 = 3;

/// An obstacle that was not met for so long is a new one when it is.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// Obstacles that are known at a time: some 200 bytes each.
const KNOWN_MAX: usize = 10_000;

/// What is in the way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Obstacle {
    /// This actor has no key here.
    NoKey(Uuid),
    /// The remote does not take this actor's signature.
    NotVerified(Uuid),
    /// The remote wants the activity elsewhere than at this inbox, in a way that is not followed.
    Redirected(Url),
}

impl Obstacle {
    fn of(attempted: &Attempted, delivery: &Delivery) -> Option<Self> {
        match attempted.verdict {
            Verdict::Retry { .. } if attempted.requests.is_empty() => Some(Self::NoKey(delivery.signing_actor_id)),
            Verdict::Retry { status: Some(401), .. } => Some(Self::NotVerified(delivery.signing_actor_id)),
            Verdict::Retry { status: Some(100..=199 | 300..=399), .. } => {
                Some(Self::Redirected(delivery.inbox.clone()))
            }
            _ => None,
        }
    }

    fn is_ours(&self) -> bool {
        matches!(self, Self::NoKey(_))
    }
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// Where the keys are.
    Here,
    /// At a remote.
    At(InstanceName),
}

/// What is known of a place, for as long as an obstacle is known there.
#[derive(Debug, Default)]
struct Known {
    met: HashMap<Obstacle, Met>,
    /// When the attempt began that passed there last.
    passed: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Met {
    first: Instant,
    last: Instant,
}

/// What the lanes of a process know together.
#[derive(Debug)]
pub struct Patience {
    wait: Duration,
    known_max: usize,
    known: Mutex<HashMap<Place, Known>>,
}

impl Patience {
    /// So much of it.
    #[must_use]
    pub fn new(wait: Duration) -> Self {
        Self { wait, known_max: KNOWN_MAX, known: Mutex::default() }
    }

    /// Somebody met it. Answers since when it is met.
    fn met(&self, now: Instant, place: Place, obstacle: Obstacle) -> Instant {
        let mut all = self.known();
        let is_known = all.get(&place).is_some_and(|known| known.met.contains_key(&obstacle));
        if !is_known && all.values().map(|known| known.met.len()).sum::<usize>() >= self.known_max {
            all.clear(); // they are waited for once more
        }
        let met = all.entry(place).or_default().met.entry(obstacle).or_insert(Met { first: now, last: now });
        if now.saturating_duration_since(met.last) >= FORGOTTEN {
            met.first = now;
        }
        met.last = now;
        met.first
    }

    /// An attempt that began then passed in spite of these.
    fn passed(&self, began: Instant, place: &Place, obstacles: &[Obstacle]) {
        let mut all = self.known();
        let Some(known) = all.get_mut(place) else { return };
        for obstacle in obstacles {
            known.met.remove(obstacle);
        }
        known.passed = known.passed.max(Some(began));
        if known.met.is_empty() {
            all.remove(place);
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Place, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one lane waits for.
#[derive(Debug)]
pub struct Waiting {
    patience: Arc<Patience>,
    remote: Place,
    lane: Mutex<Lane>,
}

#[derive(Debug)]
struct Lane {
    /// What is in it waits for what is before it since then, and not for the remote.
    since: Instant,
    /// What its head met last.
    head: Option<Head>,
}

#[derive(Clone, Debug)]
struct Head {
    seq: Seq,
    obstacle: Obstacle,
    since: Instant,
    attempts: u32,
}

/// An attempt that begins, and what was known then.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    at: Instant,
    seq: Seq,
    /// How long this delivery has waited in its lane.
    waited: Duration,
    /// When somebody last began who had a key.
    passed_here: Option<Instant>,
    /// When what the remote took last began.
    passed_there: Option<Instant>,
}

impl Waiting {
    /// For nothing yet.
    #[must_use]
    pub fn new(patience: &Arc<Patience>, remote: &InstanceName, now: Instant) -> Self {
        let lane = Mutex::new(Lane { since: now, head: None });
        Self { patience: Arc::clone(patience), remote: Place::At(remote.clone()), lane }
    }

    /// The remote is not asked now, for whatever reason.
    pub fn stands(&self, now: Instant) {
        self.lane().since = now;
    }

    /// An attempt begins, at what is tried for so long. It is for [`Waiting::heard`].
    #[must_use]
    pub fn begins(&self, now: Instant, seq: Seq, age: Duration) -> Begun {
        let waited = now.saturating_duration_since(self.lane().since).min(age);
        let all = self.patience.known();
        let passed = |place| all.get(place).and_then(|known: &Known| known.passed);
        Begun { at: now, seq, waited, passed_here: passed(&Place::Here), passed_there: passed(&self.remote) }
    }

    /// What an attempt at the head came to, and whether the remote is closed to all after it. Answers whether it is to be the last,
    /// for want of patience.
    #[must_use]
    pub fn heard(
        &self,
        now: Instant,
        begun: &Begun,
        delivery: &Delivery,
        attempted: &Attempted,
        is_closed: bool,
    ) -> bool {
        self.overcome(begun, delivery, attempted);
        let Some(obstacle) = Obstacle::of(attempted, delivery) else {
            // One that only asks to be left alone was not away.
            if is_closed && matches!(attempted.verdict, Verdict::Retry { after: None, .. }) {
                self.forget(now);
            }
            return false;
        };
        let head = self.at_head(now, begun.seq, &obstacle);
        let is_ours = obstacle.is_ours();
        let (place, passed) =
            if is_ours { (Place::Here, begun.passed_here) } else { (self.remote.clone(), begun.passed_there) };
        let first = self.patience.met(now, place, obstacle);
        let waited = match passed.is_some_and(|began| began > first) {
            true => now.saturating_duration_since(first).max(begun.waited),
            false if is_ours => now.saturating_duration_since(head.since),
            false => return false,
        };
        head.attempts >= ATTEMPTS_MIN && waited >= self.patience.wait
    }

    /// Counts the attempts at the head that met this. A failure in between does not begin them anew.
    fn at_head(&self, now: Instant, seq: Seq, obstacle: &Obstacle) -> Head {
        let mut lane = self.lane();
        let known = lane.head.take().filter(|head| head.seq == seq && head.obstacle == *obstacle);
        let mut head = known.unwrap_or_else(|| Head { seq, obstacle: obstacle.clone(), since: now, attempts: 0 });
        head.attempts = head.attempts.saturating_add(1);
        lane.head = Some(head.clone());
        head
    }

    /// What is out of the way: with a request the want of a key, with a 2xx all of it.
    fn overcome(&self, begun: &Begun, delivery: &Delivery, attempted: &Attempted) {
        let actor = delivery.signing_actor_id;
        if !attempted.requests.is_empty() {
            self.patience.passed(begun.at, &Place::Here, &[Obstacle::NoKey(actor)]);
        }
        if matches!(attempted.verdict, Verdict::Delivered { .. }) {
            let obstacles = [Obstacle::NotVerified(actor), Obstacle::Redirected(delivery.inbox.clone())];
            self.patience.passed(begun.at, &self.remote, &obstacles);
        }
    }

    /// The remote went away.
    fn forget(&self, now: Instant) {
        *self.lane() = Lane { since: now, head: None };
        self.patience.known().remove(&self.remote);
    }

    fn lane(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
