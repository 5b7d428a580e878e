//! Who feeds each lane: batches of v2, or of v1.
//!
//! A lane has one order, and two feeders have none in common. Two of v2 are told apart by site and epoch; a v1 batch
//! says nothing of itself, so a lane that one format feeds is closed to the other until it has been quiet for a while,
//! and the page shows who was refused. Two v1 batches of a lane take turns: one is over before the other begins.
//!
//! One feeder may change its format at once: a batch-sender of ours, which names itself in both ([`Owner`]), under a higher
//! epoch, once nothing of what came before is here. Its lane had one owner all along, who sends nothing more of the old
//! format; what of that is late finds the lane fed by the other one, as anybody's would. A late v1 batch of an owner that
//! another one has followed in v1 is refused too, for v1 has no gate that would know what it repeats.
//!
//! Only lanes that were fed a short while ago are remembered. What is being delivered feeds its lane, whatever became
//! of the connection that brought it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fedstream_lane::{Epoch, Lane, Origin};
use fedstream_wire::protocol::Protocol;
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

/// How long a lane stays its feeder's after the last batch. The longest backoff of a batch-sender by default: one that
/// has work waiting does not lose its lane to another.
pub const QUIET: Duration = Duration::from_secs(60);

/// The lanes that are fed.
#[derive(Debug)]
pub struct Feeders {
    lanes_max: usize,
    quiet: Duration,
    lanes: Mutex<HashMap<Lane, Feeder>>,
}

/// Who sends a batch, where it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Site and stream.
    pub origin: Origin,
    /// Which owner in turn.
    pub epoch: Epoch,
}

#[derive(Debug)]
struct Feeder {
    protocol: Protocol,
    /// Who sent all of its batches, with the highest epoch of them; none where one said nothing, or another name.
    owner: Option<Owner>,
    /// Batches that are here, or of which a delivery is.
    batches: usize,
    /// When the last of them that may have been at the instance had gone.
    left: Instant,
    /// Was there such a one? Without, the lane was nobody's.
    fed: bool,
    /// Batches of the other format that were refused meanwhile.
    refused: u64,
    /// For v1: whose batch it is.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Why a batch may not feed a lane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The other format does.
    #[error(
        "the lane {lane} is fed by {by} batches; two feeders have no common order, so one of them has to be stopped"
    )]
    TwoFeeders {
        /// The lane.
        lane: Lane,
        /// The format that feeds it.
        by: Protocol,
    },
    /// Its sender has had the lane, and another owner feeds it since: what it repeats would come behind later activities.
    #[error("the lane {lane} is fed by a later owner, of epoch {by}", by = .by.0)]
    Replaced {
        /// The lane.
        lane: Lane,
        /// The epoch of the one that feeds it.
        by: Epoch,
    },
    /// A lane too many.
    #[error("{0} lanes are fed, and FED_LANES_MAX allows no more")]
    TooManyLanes(usize),
}

/// A batch of a lane, for as long as anything of it is here.
#[derive(Debug)]
pub struct Feeding {
    of: Option<(Arc<Feeders>, Lane)>,
    /// It may be at the instance: a v1 batch that is refused before its turn has fed nothing.
    began: bool,
}

/// A v1 batch's turn at its lane.
#[derive(Debug)]
pub struct Turn {
    // In this order: the turn is over before the lane may go quiet.
    _turn: OwnedMutexGuard<()>,
    _feeding: Feeding,
}

impl Feeders {
    /// None yet. A lane that was `quiet` for this long is nobody's.
    #[must_use]
    pub fn new(lanes_max: usize, quiet: Duration) -> Self {
        Self { lanes_max, quiet, lanes: Mutex::default() }
    }

    /// A batch of this format, and of this owner if it names one, feeds the lane from now on.
    ///
    /// # Errors
    /// It may not.
    pub fn enter(self: &Arc<Self>, lane: &Lane, protocol: Protocol, owner: Option<Owner>) -> Result<Feeding, Error> {
        let now = Instant::now();
        let mut lanes = self.lanes();
        if !lanes.contains_key(lane) && lanes.len() >= self.lanes_max {
            lanes.retain(|_, feeder| !feeder.is_quiet(now, self.quiet));
            // The gates bound the lanes of v2.
            if lanes.len() >= self.lanes_max && protocol == Protocol::V1 {
                return Err(Error::TooManyLanes(lanes.len()));
            }
        }
        let feeder = lanes.entry(lane.clone()).or_insert_with(|| Feeder::new(protocol, owner.clone(), now));
        let quiet = feeder.is_quiet(now, self.quiet);
        if feeder.protocol != protocol {
            if !quiet && !feeder.is_followed_by(owner.as_ref()) {
                feeder.refused += 1;
                return Err(Error::TwoFeeders { lane: lane.clone(), by: feeder.protocol });
            }
            let (left, fed) = (feeder.left, !quiet);
            *feeder = Feeder { left, fed, ..Feeder::new(protocol, owner, now) };
        } else if quiet {
            feeder.owner = owner;
        } else {
            if let (Protocol::V1, Some(by)) = (protocol, feeder.has_replaced(owner.as_ref())) {
                return Err(Error::Replaced { lane: lane.clone(), by }); // in v2 the gate sees to it
            }
            feeder.is_fed_by(owner);
        }
        feeder.batches += 1;
        Ok(Feeding { of: Some((self.clone(), lane.clone())), began: protocol == Protocol::V2 })
    }

    /// The lanes that are fed, for `/lanes`.
    #[must_use]
    pub fn page(&self) -> Value {
        let now = Instant::now();
        let lanes = self.lanes();
        let mut fed: Vec<_> = lanes.iter().filter(|(_, feeder)| !feeder.is_quiet(now, self.quiet)).collect();
        fed.sort_by(|a, b| a.0.cmp(b.0));
        let fed = fed.into_iter().map(|(lane, feeder)| {
            json!({
                "lane": lane.to_string(),
                "fed_by": feeder.protocol.to_string(),
                "batches": feeder.batches,
                "refused_of_another_feeder": feeder.refused,
            })
        });
        fed.collect()
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Lane, Feeder>> {
        // Nothing in there is left half done by a panic.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feeder {
    fn new(protocol: Protocol, owner: Option<Owner>, now: Instant) -> Self {
        Self { protocol, owner, batches: 0, left: now, fed: false, refused: 0, turn: Arc::default() }
    }

    /// Does the same sender go on, and is nothing of what it sent before here any more?
    fn is_followed_by(&self, owner: Option<&Owner>) -> bool {
        let follows = |(before, after): (&Owner, &Owner)| before.origin == after.origin && before.epoch < after.epoch;
        self.batches == 0 && self.owner.as_ref().zip(owner).is_some_and(follows)
    }

    /// The epoch of the lane's owner, where this is one that it has replaced.
    fn has_replaced(&self, owner: Option<&Owner>) -> Option<Epoch> {
        let (known, late) = self.owner.as_ref().zip(owner)?;
        (known.origin == late.origin && known.epoch > late.epoch).then_some(known.epoch)
    }

    /// One more batch of its format.
    fn is_fed_by(&mut self, owner: Option<Owner>) {
        let both = self.owner.take().zip(owner).filter(|(before, after)| before.origin == after.origin);
        self.owner = both.map(|(before, after)| if before.epoch > after.epoch { before } else { after });
    }

    fn is_quiet(&self, now: Instant, quiet: Duration) -> bool {
        self.batches == 0 && now.saturating_duration_since(self.left) >= quiet
    }
}

impl Feeding {
    /// For tests that have no lane.
    #[cfg(test)]
    pub fn of_no_lane() -> Self {
        Self { of: None, began: false }
    }

    /// Waits until every earlier v1 batch of the lane is over. Those who wait are served in their order.
    pub async fn turn(mut self) -> Turn {
        let lock =
            self.of.as_ref().and_then(|(feeders, lane)| feeders.lanes().get(lane).map(|feeder| feeder.turn.clone()));
        // A lane that is fed is known, so the lock is always the lane's own.
        let turn = lock.unwrap_or_default().lock_owned().await;
        self.began = true;
        Turn { _turn: turn, _feeding: self }
    }
}

impl Drop for Feeding {
    fn drop(&mut self) {
        let Some((feeders, lane)) = self.of.take() else { return };
        let mut lanes = feeders.lanes();
        let Some(feeder) = lanes.get_mut(&lane) else { return };
        feeder.batches -= 1;
        if self.began {
            (feeder.left, feeder.fed) = (Instant::now(), true);
        } else if feeder.batches == 0 && !feeder.fed {
            lanes.remove(&lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn lane(source: &str) -> Lane {
        Lane { destination: "b.example".parse().expect("name"), source: source.parse().expect("name") }
    }

    #[tokio::test]
    async fn a_lane_is_its_feeders_until_it_has_been_quiet() {
        for (ours, other) in [(Protocol::V1, Protocol::V2), (Protocol::V2, Protocol::V1)] {
            let feeders = Arc::new(Feeders::new(10, QUIET));
            drop(feeders.enter(&lane("a.example"), ours, None).expect("nobody feeds it").turn().await);
            drop(feeders.enter(&lane("a.example"), ours, None).expect("its own").turn().await);
            let refused = Err(Error::TwoFeeders { lane: lane("a.example"), by: ours });
            for _ in 0..2 {
                assert_eq!(feeders.enter(&lane("a.example"), other, None).map(drop), refused, "it was fed just now");
            }
            let page = json!([{"lane": "b.example/a.example", "fed_by": ours.to_string(), "batches": 0, "refused_of_another_feeder": 2}]);
            assert_eq!(feeders.page(), page);
            assert!(feeders.enter(&lane("c.example"), other, None).is_ok(), "another lane");

            let feeders = Arc::new(Feeders::new(10, Duration::ZERO));
            let (first, second) =
                (feeders.enter(&lane("a.example"), ours, None), feeders.enter(&lane("a.example"), ours, None));
            drop(first);
            assert_eq!(feeders.enter(&lane("a.example"), other, None).map(drop), refused, "one is still here");
            drop(second);
            assert!(feeders.enter(&lane("a.example"), other, None).is_ok(), "it has been quiet for long enough");
            assert_eq!(feeders.page(), json!([]));
        }
    }

    fn owner(site: &str, epoch: u64) -> Option<Owner> {
        Some(Owner { origin: Origin { site: site.into(), created_us: 1 }, epoch: Epoch(epoch) })
    }

    #[tokio::test]
    async fn a_sender_that_names_itself_goes_on_in_the_other_format_once_nothing_of_it_is_here() {
        let lane = lane("a.example");
        for (before, after) in [(Protocol::V1, Protocol::V2), (Protocol::V2, Protocol::V1)] {
            let feeders = Arc::new(Feeders::new(10, QUIET));
            let refused = Err(Error::TwoFeeders { lane: lane.clone(), by: before });
            let of = |protocol, owner| feeders.enter(&lane, protocol, owner).map(drop);
            let here = feeders.enter(&lane, before, owner("near", 4)).expect("nobody feeds it").turn().await;
            assert_eq!(of(after, owner("near", 5)), refused, "its batch may be at the instance");
            drop(here);
            assert_eq!(of(after, owner("near", 4)), refused, "the same owner changes nothing under way");
            assert_eq!(of(after, owner("far", 5)), refused, "another site");
            assert_eq!(of(after, None), refused, "somebody");
            drop(feeders.enter(&lane, after, owner("near", 5)).expect("it goes on").turn().await);
            let refused = Err(Error::TwoFeeders { lane: lane.clone(), by: after });
            assert_eq!(of(before, owner("near", 4)), refused, "a late one of what was before");
            assert_eq!(of(before, None), refused);
        }
    }

    #[tokio::test]
    async fn a_lane_that_somebody_else_fed_too_waits_until_it_is_quiet() {
        let lane = lane("a.example");
        for other in [None, owner("far", 1)] {
            let feeders = Arc::new(Feeders::new(10, QUIET));
            for owner in [owner("near", 4), other, owner("near", 4)] {
                drop(feeders.enter(&lane, Protocol::V1, owner).expect("its own").turn().await);
            }
            assert!(feeders.enter(&lane, Protocol::V2, owner("near", 5)).is_err());
        }
    }

    #[tokio::test]
    async fn a_v1_batch_of_an_owner_that_was_replaced_is_refused_until_the_lane_is_quiet() {
        let lane = lane("a.example");
        let feeders = Arc::new(Feeders::new(10, QUIET));
        let of = |owner| feeders.enter(&lane, Protocol::V1, owner);
        drop(of(owner("near", 5)).expect("nobody feeds it").turn().await);
        let late = of(owner("near", 4)).map(drop);
        assert_eq!(late, Err(Error::Replaced { lane: lane.clone(), by: Epoch(5) }));
        drop(of(owner("near", 5)).expect("the owner itself").turn().await);
        drop(of(owner("near", 6)).expect("the next one").turn().await);
        assert!(of(owner("far", 1)).is_ok(), "of another site nothing is known");

        let feeders = Arc::new(Feeders::new(10, Duration::ZERO));
        let of = |owner| feeders.enter(&lane, Protocol::V1, owner);
        drop(of(owner("near", 5)).expect("nobody feeds it").turn().await);
        assert!(of(owner("near", 4)).is_ok(), "epochs that began anew are not shut out for ever");
    }

    #[tokio::test]
    async fn one_that_follows_and_is_refused_before_its_turn_leaves_the_lane_as_lately_fed() {
        let (lane, feeders) = (lane("a.example"), Arc::new(Feeders::new(10, QUIET)));
        drop(feeders.enter(&lane, Protocol::V2, owner("near", 4)));
        drop(feeders.enter(&lane, Protocol::V1, owner("near", 5)).expect("it follows"));
        assert!(feeders.enter(&lane, Protocol::V2, None).is_err(), "it was fed just now");
    }

    #[tokio::test]
    async fn a_v1_batch_that_is_refused_before_its_turn_has_fed_nothing() {
        let feeders = Arc::new(Feeders::new(10, QUIET));
        drop(feeders.enter(&lane("a.example"), Protocol::V1, None).expect("nobody feeds it"));
        assert!(
            feeders.enter(&lane("a.example"), Protocol::V2, None).is_ok(),
            "another lane of that batch was not to be had"
        );
        let feeders = Arc::new(Feeders::new(10, QUIET));
        drop(feeders.enter(&lane("a.example"), Protocol::V1, None).expect("nobody feeds it").turn().await);
        assert!(feeders.enter(&lane("a.example"), Protocol::V2, None).is_err(), "this one had its turn");
    }

    #[tokio::test]
    async fn one_that_is_refused_before_its_turn_forgets_nothing_that_was_fed_meanwhile() {
        let (lane, feeders) = (lane("a.example"), Arc::new(Feeders::new(10, QUIET)));
        let of = |protocol| feeders.enter(&lane, protocol, None);
        for case in ["the lane was nobody's", "it was fed before"] {
            let waits = of(Protocol::V1).expect("nobody feeds it");
            drop(of(Protocol::V1).expect("its own").turn().await);
            let left = feeders.lanes()[&lane].left;
            drop(waits);
            assert_eq!(feeders.lanes().get(&lane).map(|feeder| feeder.left), Some(left), "{case}");
            assert!(of(Protocol::V2).is_err(), "{case}");
        }
    }

    #[tokio::test]
    async fn two_v1_batches_of_a_lane_take_turns_in_their_order() {
        let feeders = Arc::new(Feeders::new(10, QUIET));
        let enter = |source| feeders.enter(&lane(source), Protocol::V1, None).expect("its own").turn();
        let first = enter("a.example").await;
        let mut second = Box::pin(enter("a.example"));
        let mut third = Box::pin(enter("a.example"));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        assert!(enter("c.example").now_or_never().is_some(), "lanes don't wait for each other");
        drop(first);
        assert!((&mut third).now_or_never().is_none());
        drop(second.await);
        drop(third.await);
        assert_eq!(feeders.page()[0]["batches"], 0);
    }

    #[tokio::test]
    async fn only_lanes_that_were_fed_lately_are_remembered() {
        let feeders = Arc::new(Feeders::new(1, QUIET));
        drop(feeders.enter(&lane("a.example"), Protocol::V1, None).expect("nobody feeds it").turn().await);
        let one_more = feeders.enter(&lane("c.example"), Protocol::V1, None).map(drop);
        assert_eq!(one_more, Err(Error::TooManyLanes(1)));
        assert!(feeders.enter(&lane("d.example"), Protocol::V2, None).is_ok(), "the gates bound those");

        let feeders = Arc::new(Feeders::new(1, Duration::ZERO));
        drop(feeders.enter(&lane("a.example"), Protocol::V1, None));
        let fed = feeders.enter(&lane("c.example"), Protocol::V1, None);
        assert!(fed.is_ok());
        assert_eq!(feeders.lanes().len(), 1);
    }
}
