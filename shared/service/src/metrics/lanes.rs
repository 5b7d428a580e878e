//! Which lanes are told apart in metrics: a bounded number of them, by name. All others are `other`, together.
//!
//! First come, first named, for the life of the process: a name that went from one lane to another would make two curves
//! out of one. Sums over all lanes are right whatever has a name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use opentelemetry::{KeyValue, StringValue};

use super::Label;

/// The name of all lanes that have none of their own.
pub const OTHER: &str = "other";

/// FED_METRIC_LANES, where nobody has said otherwise.
const MOST_DEFAULT: usize = 200;

static MOST: AtomicUsize = AtomicUsize::new(MOST_DEFAULT);

/// The lanes of this process.
pub static NAMES: LazyLock<LaneNames> = LazyLock::new(|| LaneNames::new(MOST.load(Ordering::Relaxed)));

/// FED_METRIC_LANES, before the first lane is named.
pub(super) fn set_most(most: usize) {
    MOST.store(most, Ordering::Relaxed);
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
        assert!(names.are_enough_for(2) && !names.are_enough_for(3));
        assert_eq!(names.other().value.as_str(), OTHER);
    }
}
