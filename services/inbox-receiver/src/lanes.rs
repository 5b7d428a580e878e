//! Which lanes there may be: the configured destinations times the configured sources, with a bound where one of them is `*`.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use fedstream_lane::{InstanceName, Lane};

use crate::config::NamePattern;
use crate::refusal::Refusal;

/// The lanes that activities are taken for.
#[derive(Debug)]
pub struct Lanes {
    destinations: Names,
    sources: Names,
    /// Lanes that were stored into since start; kept only where `*` could make any number of them.
    made: Mutex<HashSet<Lane>>,
    limit: usize,
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

    /// May something be stored in this lane? With `*` it counts from now on.
    pub fn open(&self, lane: &Lane) -> Result<(), Refusal> {
        if self.configured().is_some() {
            return Ok(());
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !made.contains(lane) && made.len() >= self.limit {
            return Err(Refusal::TooManyLanes { limit: self.limit });
        }
        made.insert(lane.clone());
        Ok(())
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
}
