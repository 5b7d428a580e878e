//! Which lanes there may be: the configured destinations times the configured sources, with a bound where one of them is `*`.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fedstream_lane::{InstanceName, Lane};

use crate::config::NamePattern;
use crate::refusal::Refusal;

/// The lanes that activities are taken for.
#[derive(Debug)]
pub struct Lanes {
    destinations: Names,
    sources: Names,
    /// Lanes that hold something, did since start, or are about to; only where `*` could make any number of them.
    made: Mutex<HashMap<Lane, Place>>,
    limit: usize,
}

/// What a lane's place among the allowed ones rests on.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Nothing yet but so many requests being stored. One whose end nobody saw (the sender hung up, the broker did not
    /// answer) never leaves the count: it may have been stored.
    Opening(usize),
    /// Something was stored.
    Kept,
}

#[derive(Debug)]
enum Names {
    Any,
    Some(HashSet<InstanceName>),
}

impl Names {
    fn new(patterns: &[NamePattern]) -> Self {
        let one = |pattern: &NamePattern| match pattern {
            NamePattern::Any => None,
            NamePattern::One(name) => Some(name.clone()),
        };
        patterns.iter().map(one).collect::<Option<_>>().map_or(Self::Any, Self::Some)
    }

    fn contain(&self, name: &InstanceName) -> bool {
        match self {
            Self::Any => true,
            Self::Some(names) => names.contains(name),
        }
    }

    fn len(&self) -> Option<usize> {
        match self {
            Self::Any => None,
            Self::Some(names) => Some(names.len()),
        }
    }
}

impl Lanes {
    /// At most `limit` lanes where one of the lists has a `*`.
    pub fn new(destinations: &[NamePattern], sources: &[NamePattern], limit: usize) -> Self {
        let (destinations, sources) = (Names::new(destinations), Names::new(sources));
        Self { destinations, sources, made: Mutex::default(), limit }
    }

    /// Is it one of the configured destinations?
    pub fn destination(&self, name: InstanceName) -> Result<InstanceName, Refusal> {
        if self.destinations.contain(&name) { Ok(name) } else { Err(Refusal::UnknownDestination(name)) }
    }

    /// Is it one of the configured sources?
    pub fn source(&self, name: InstanceName) -> Result<InstanceName, Refusal> {
        if self.sources.contain(&name) { Ok(name) } else { Err(Refusal::UnknownSource(name)) }
    }

    /// May something be stored in this lane? With `*` it counts from now on, until [`Lanes::give_back`].
    pub fn open(&self, lane: &Lane) -> Result<(), Refusal> {
        if !self.bounded() {
            return Ok(());
        }
        let mut made = self.made();
        let others = made.len();
        match made.get_mut(lane) {
            Some(Place::Opening(requests)) => *requests += 1,
            Some(Place::Kept) => {}
            None if others >= self.limit => return Err(Refusal::TooManyLanes { limit: self.limit }),
            None => drop(made.insert(lane.clone(), Place::Opening(1))),
        }
        Ok(())
    }

    /// Something is stored in this lane: it counts for good.
    pub fn keep(&self, lane: &Lane) {
        if self.bounded() {
            self.made().insert(lane.clone(), Place::Kept);
        }
    }

    /// What the lane was opened for is not stored, and will not be. The last of its requests to say so frees its place.
    pub fn give_back(&self, lane: &Lane) {
        if !self.bounded() {
            return;
        }
        let mut made = self.made();
        match made.get_mut(lane) {
            Some(Place::Opening(1)) => drop(made.remove(lane)),
            Some(Place::Opening(requests)) => *requests -= 1,
            Some(Place::Kept) | None => {}
        }
    }

    /// Is there a `*`, and so a bound?
    pub fn bounded(&self) -> bool {
        self.configured().is_none()
    }

    fn made(&self) -> MutexGuard<'_, HashMap<Lane, Place>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many lanes there may be in all, and whether that is what the lists say or what bounds a `*`.
    pub fn most(&self) -> usize {
        self.configured().unwrap_or(self.limit)
    }

    fn configured(&self) -> Option<usize> {
        Some(self.destinations.len()?.saturating_mul(self.sources.len()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(destinations: &[&str], sources: &[&str], limit: usize) -> Lanes {
        let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<NamePattern>>();
        Lanes::new(&patterns(destinations), &patterns(sources), limit)
    }

    fn lane(source: &str) -> Lane {
        Lane { destination: "aussie.zone".parse().unwrap(), source: source.parse().unwrap() }
    }

    #[test]
    fn only_configured_names_pass() {
        let lanes = lanes(&["aussie.zone"], &["Lemmy.World", "a.example"], 1);
        assert!(lanes.destination("AUSSIE.zone".parse().unwrap()).is_ok());
        assert!(lanes.source("lemmy.world".parse().unwrap()).is_ok());
        let other: InstanceName = "lemmy.ml".parse().unwrap();
        assert_eq!(lanes.source(other.clone()), Err(Refusal::UnknownSource(other)));
        assert_eq!(lanes.most(), 2);
        assert!(
            lanes.open(&lane("lemmy.world")).is_ok() && lanes.open(&lane("a.example")).is_ok(),
            "named lanes need no bound"
        );
    }

    #[test]
    fn a_star_makes_no_more_lanes_than_allowed_and_keeps_those_it_made() {
        let lanes = lanes(&["aussie.zone"], &["*"], 2);
        assert!(lanes.open(&lane("a.example")).is_ok());
        assert!(lanes.open(&lane("b.example")).is_ok());
        assert_eq!(lanes.open(&lane("c.example")), Err(Refusal::TooManyLanes { limit: 2 }));
        assert!(lanes.open(&lane("a.example")).is_ok());
        assert_eq!(lanes.most(), 2);
    }

    #[test]
    fn a_lane_into_which_nothing_was_stored_gives_its_place_back() {
        let lanes = lanes(&["aussie.zone"], &["*"], 1);
        lanes.open(&lane("a.example")).unwrap();
        lanes.open(&lane("a.example")).unwrap();
        lanes.give_back(&lane("a.example"));
        assert!(lanes.open(&lane("b.example")).is_err(), "the other request may still be stored");
        lanes.give_back(&lane("a.example"));
        lanes.open(&lane("b.example")).unwrap();
    }

    #[test]
    fn a_lane_into_which_something_was_stored_keeps_its_place_whoever_is_refused_later() {
        let lanes = lanes(&["aussie.zone"], &["*"], 1);
        lanes.open(&lane("a.example")).unwrap();
        lanes.open(&lane("a.example")).unwrap();
        lanes.keep(&lane("a.example"));
        lanes.give_back(&lane("a.example"));
        lanes.open(&lane("a.example")).unwrap();
        lanes.give_back(&lane("a.example"));
        assert_eq!(lanes.open(&lane("b.example")), Err(Refusal::TooManyLanes { limit: 1 }));
    }

    #[test]
    fn lanes_from_before_the_start_count_even_above_the_limit() {
        let lanes = lanes(&["aussie.zone"], &["*"], 1);
        lanes.keep(&lane("a.example"));
        lanes.keep(&lane("b.example"));
        assert!(lanes.open(&lane("a.example")).is_ok() && lanes.open(&lane("b.example")).is_ok());
        assert!(lanes.open(&lane("c.example")).is_err());
    }
}
