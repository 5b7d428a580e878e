//! Which lanes are told apart in metrics: a bounded number of them, by name. All others are `other`, together.
//!
//! First come, first named, for the life of the process: a name that went from one lane to another would make two curves
//! out of one. Sums over all lanes are right whatever has a name.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use opentelemetry::{KeyValue, StringValue};

use super::Label;
use crate::config::NotA;

/// The name of all lanes that have none of their own.
pub const OTHER: &str = "other";

/// The largest FED_METRIC_LANES: some half a million series in a batch-sender. Beyond that neither a Prometheus nor this
/// process, which has room for each, would be well.
const MOST_MAX: usize = 10_000;

/// FED_METRIC_LANES, where nobody has said otherwise.
const MOST_DEFAULT: usize = 200;

static MOST: AtomicUsize = AtomicUsize::new(MOST_DEFAULT);

/// The lanes of this process.
pub static NAMES: LazyLock<LaneNames> = LazyLock::new(|| LaneNames::new(MOST.load(Ordering::Relaxed)));

/// FED_METRIC_LANES, before the first lane is named.
pub(super) fn set_most(most: usize) {
    MOST.store(most, Ordering::Relaxed);
}

/// How many lanes may have a name of their own, as somebody configures it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricLanes(usize);

impl MetricLanes {
    /// The number.
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

impl FromStr for MetricLanes {
    type Err = NotA;

    fn from_str(text: &str) -> Result<Self, NotA> {
        let number = text.trim().parse().ok().filter(|number| (1..=MOST_MAX).contains(number));
        number.map(Self).ok_or(NotA("a whole number from 1 to 10000"))
    }
}

/// Lanes that have a name of their own.
#[derive(Debug)]
pub struct LaneNames {
    most: usize,
    named: RwLock<HashMap<String, StringValue>>,
    other: StringValue,
}

impl LaneNames {
    /// Names at most so many lanes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, named: RwLock::default(), other: StringValue::from(OTHER) }
    }

    /// Have so many lanes names of their own, if they come first?
    #[must_use]
    pub fn are_enough_for(&self, lanes: usize) -> bool {
        lanes <= self.most
    }

    /// The label of this lane, `<destination>/<source>`; it has a name from now on, if there is one left.
    #[must_use]
    pub fn name(&self, lane: &str) -> KeyValue {
        self.known(lane).unwrap_or_else(|| label(self.give(lane)))
    }

    /// The label of this lane as it is now: it gets no name by this. For a lane that anybody may have made up.
    #[must_use]
    pub fn as_known(&self, lane: &str) -> KeyValue {
        self.known(lane).unwrap_or_else(|| self.other())
    }

    /// The label of all lanes that have no name.
    #[must_use]
    pub fn other(&self) -> KeyValue {
        label(self.other.clone())
    }

    fn known(&self, lane: &str) -> Option<KeyValue> {
        self.named.read().unwrap_or_else(PoisonError::into_inner).get(lane).cloned().map(label)
    }

    fn give(&self, lane: &str) -> StringValue {
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        if named.len() >= self.most && !named.contains_key(lane) {
            return self.other.clone();
        }
        // Counted references: a label is cloned for each measurement.
        named.entry(lane.to_owned()).or_insert_with(|| StringValue::from(Arc::<str>::from(lane))).clone()
    }
}

fn label(name: StringValue) -> KeyValue {
    KeyValue::new(Label::LANE.key, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_beyond_the_bound_are_one() {
        let names = LaneNames::new(2);
        for lane in ["a/x", "a/y", "a/z", "a/x", "a/z"] {
            let expected = if lane == "a/z" { OTHER } else { lane };
            assert_eq!(names.name(lane).value.as_str(), expected);
        }
        assert_eq!(names.as_known("a/x").value.as_str(), "a/x");
        assert!(names.are_enough_for(2) && !names.are_enough_for(3));
        assert_eq!(names.other().value.as_str(), OTHER);
    }

    #[test]
    fn there_are_names_for_ten_thousand_lanes_at_most() {
        assert_eq!("10000".parse(), Ok(MetricLanes(10_000)));
        for wrong in ["0", "10001", "4294967295", "99999999999999999999", "many"] {
            let error = wrong.parse::<MetricLanes>().expect_err(wrong);
            assert_eq!(error.to_string(), "is not a whole number from 1 to 10000");
        }
    }

    #[test]
    fn a_look_gives_no_name_away() {
        let names = LaneNames::new(1);
        assert_eq!(names.as_known("a/stranger").value.as_str(), OTHER);
        assert_eq!(names.name("a/x").value.as_str(), "a/x");
    }
}
