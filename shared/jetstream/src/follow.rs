//! A bucket, followed for as long as the service runs: every entry at once, then every change.
//!
//! ```text
//!   open bucket ▶ begin ▶ entry, entry, .. ▶ current ▶ entry, .. ┐
//!        ▲                                                       │ a reconnect, an error, a silent watch,
//!        └───────────────── unknown ◀────────────────────────────┘ another bucket in its place
//! ```
//!
//! Underneath is the library's watch, which heals itself as its other consumers do: slowly after a broker restart, onto a
//! bucket that was made anew without a word, once not at all (BROKER.md). So each new connection begins a new round, and
//! every few seconds the broker is asked what the watch should have brought: its last sequence, which bucket it is, and
//! which keys there are (an entry that expired without a marker is noticed by that alone). An error, or no connection, is
//! told to the follower, which then knows that it does not know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::jetstream::kv::{Operation, Watch};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bucket::{Bucket, bucket_name};
use crate::definitions::Definition;
use crate::{Broker, api, lanes};

/// More live keys than any installation has lanes; beyond it something else fills the bucket, and the view is not known.
const KEYS_MAX: usize = 50_000;

/// The whole list comes within this; 50,000 entries take half a second.
const LIST_TIME_MAX: Duration = Duration::from_secs(5);

/// Between two rounds after an error.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// How often the connection is looked at, at least.
const TICK_MAX: Duration = Duration::from_millis(500);

/// Who hears of it. Between [`Follower::begin`] and [`Follower::current`] the list is not complete.
pub(crate) trait Follower: Send + 'static {
    /// A new list begins; how long entries stand in this bucket.
    fn begin(&mut self, ttl: Duration);
    /// An entry, or (without a value) that it is gone.
    fn entry(&mut self, key: &str, revision: u64, value: Option<Bytes>);
    /// The list is complete; what comes now are changes.
    fn current(&mut self);
    /// The bucket can't be followed now.
    fn unknown(&mut self, cause: &str);
}

/// Where a list begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// With the last entry of each key.
    Last,
    /// With the oldest entry that is kept of each key.
    Oldest,
}

/// What to follow, and how.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub definition: &'static Definition,
    pub from: From,
    /// How often to ask whether the watch misses something; a third of the bucket's TTL where it has one.
    pub look_every: Duration,
}

/// Why a round ended.
enum End {
    /// The connection is closed for good.
    Closed,
    /// The connection was made again.
    Reconnected,
    /// Anything else, in words.
    Broken(String),
}

/// Follows until the connection is closed for good.
pub(crate) async fn follow(broker: Broker, plan: Plan, mut follower: impl Follower) {
    let mut generation = broker.generation();
    loop {
        let end = match Round::open(&broker, plan).await {
            Ok(mut round) => round.run(&mut follower, &mut generation).await,
            Err(cause) => End::Broken(cause),
        };
        match end {
            End::Closed => return,
            End::Reconnected => {} // what was known stands until the new list is complete, or fails
            End::Broken(cause) => {
                follower.unknown(&cause);
                tokio::select! {
                    changed = generation.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(RETRY_AFTER) => {}
                }
            }
        }
    }
}

/// One watch, from its list to its end.
struct Round {
    broker: Broker,
    plan: Plan,
    bucket: Bucket,
    watch: Watch,
    /// The bucket's last sequence before the watch began: the list is complete there, at the latest.
    list_to: u64,
    /// Live keys, and the revision that was seen of each.
    keys: BTreeMap<String, u64>,
    /// The highest revision that came.
    seen: u64,
    /// The bucket's last sequence at the last look.
    looked: u64,
}

impl Round {
    async fn open(broker: &Broker, plan: Plan) -> Result<Self, String> {
        if !broker.connected() {
            return Err("there is no connection to the broker".to_owned());
        }
        let bucket = Bucket::open(broker, plan.definition).await.map_err(|error| error.to_string())?;
        let list_to = last_sequence(broker, plan.definition, &bucket).await?;
        let watch = match plan.from {
            From::Last => Box::pin(bucket.store().watch_with_history(">")).await,
            From::Oldest => Box::pin(bucket.store().watch_all_from_revision(1)).await,
        };
        let watch = watch.map_err(|error| error.to_string())?;
        Ok(Self { broker: broker.clone(), plan, bucket, watch, list_to, keys: BTreeMap::new(), seen: 0, looked: 0 })
    }

    async fn run(&mut self, follower: &mut impl Follower, generation: &mut watch::Receiver<u64>) -> End {
        follower.begin(self.bucket.ttl());
        match self.list(follower, generation).await {
            Ok(()) => follower.current(),
            Err(end) => return end,
        }
        let mut look_at = Instant::now() + self.look_every();
        let mut tick = tokio::time::interval(self.look_every().min(TICK_MAX));
        loop {
            tokio::select! {
                biased;
                changed = generation.changed() => return reconnected(changed.is_ok()),
                _ = tick.tick() => {
                    if !self.broker.connected() {
                        return End::Broken("there is no connection to the broker".to_owned());
                    }
                    if Instant::now() >= look_at {
                        if let Err(cause) = self.look(follower).await {
                            return End::Broken(cause);
                        }
                        look_at = Instant::now() + self.look_every();
                    }
                }
                entry = self.watch.next() => if let Err(cause) = self.take(entry, follower) {
                    return End::Broken(cause);
                },
            }
        }
    }

    /// Takes what the bucket held when the watch began.
    async fn list(&mut self, follower: &mut impl Follower, generation: &mut watch::Receiver<u64>) -> Result<(), End> {
        let deadline = Instant::now() + LIST_TIME_MAX;
        while self.seen < self.list_to {
            tokio::select! {
                changed = generation.changed() => return Err(reconnected(changed.is_ok())),
                () = tokio::time::sleep_until(deadline) => {
                    return Err(End::Broken("the bucket's entries did not come in time".to_owned()));
                }
                entry = self.watch.next() => {
                    let behind = self.take(entry, follower).map_err(End::Broken)?;
                    if behind == 0 {
                        break; // the last of them, though the bucket's last sequence may be gone already
                    }
                }
            }
        }
        // What had the last sequence may be gone, and never comes.
        (self.seen, self.looked) = (self.seen.max(self.list_to), self.list_to);
        Ok(())
    }

    /// Hands an entry on; answers how many are still behind it.
    fn take(
        &mut self,
        entry: Option<Result<async_nats::jetstream::kv::Entry, async_nats::jetstream::kv::WatcherError>>,
        follower: &mut impl Follower,
    ) -> Result<u64, String> {
        let entry = entry.ok_or("the watch ended")?.map_err(|error| error.to_string())?;
        self.seen = self.seen.max(entry.revision);
        if entry.operation == Operation::Put {
            self.keys.insert(entry.key.clone(), entry.revision);
            if self.keys.len() > KEYS_MAX {
                return Err(format!("{} has more than {KEYS_MAX} keys", self.plan.definition.name));
            }
            follower.entry(&entry.key, entry.revision, Some(entry.value));
        } else if self.keys.remove(&entry.key).is_some() {
            follower.entry(&entry.key, entry.revision, None);
        }
        Ok(entry.delta)
    }

    /// Asks the broker what the watch should have brought.
    async fn look(&mut self, follower: &mut impl Follower) -> Result<(), String> {
        let last = last_sequence(&self.broker, self.plan.definition, &self.bucket).await?;
        if self.seen < self.looked {
            return Err("the watch brings nothing, and the bucket has changed".to_owned());
        }
        self.looked = last;
        let prefix = format!("$KV.{}.", bucket_name(self.plan.definition));
        let subjects = lanes::subjects(&self.broker, &self.plan.definition.name, &format!("{prefix}>")).await;
        let subjects = subjects.map_err(|error| error.to_string())?;
        let there: BTreeSet<&str> = subjects.iter().filter_map(|(subject, _)| subject.strip_prefix(&prefix)).collect();
        // Only what was stored before the first question: a later one may be missing in the answer to the second.
        let gone: Vec<_> = self.keys.iter().filter(|(key, at)| **at <= last && !there.contains(key.as_str())).collect();
        let gone: Vec<_> = gone.into_iter().map(|(key, at)| (key.clone(), *at)).collect();
        for (key, revision) in gone {
            self.keys.remove(&key);
            follower.entry(&key, revision, None);
        }
        Ok(())
    }

    fn look_every(&self) -> Duration {
        let ttl = self.bucket.ttl();
        if ttl.is_zero() { self.plan.look_every } else { self.plan.look_every.min(ttl / 3) }
    }
}

fn reconnected(open: bool) -> End {
    if open { End::Reconnected } else { End::Closed }
}

/// The bucket's last sequence, from the bucket that was opened and from no other; 0 while it holds nothing.
async fn last_sequence(broker: &Broker, definition: &Definition, bucket: &Bucket) -> Result<u64, String> {
    let info = api::stream_info(broker, &definition.name).await.map_err(|error| error.to_string())?.info;
    if crate::Created::new(info.created) != bucket.created {
        return Err(format!("{} was made anew", definition.name));
    }
    Ok(if info.state.messages == 0 { 0 } else { info.state.last_sequence })
}
