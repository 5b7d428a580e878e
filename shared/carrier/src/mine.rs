//! Which lanes this process had last, so that a quiet lane, which is given back and taken again with each activity, makes no
//! news each time. It decides nothing but how loud a line is: the broker's entry of a lane is gone soon after it was given back.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Beyond this many all are forgotten, and tell of themselves once more: ten times the lanes that a front door takes by default.
const MOST: usize = 10_000;

/// The lanes that nobody else is known to have had since.
#[derive(Debug, Default)]
pub struct Mine(Mutex<HashSet<String>>);

impl Mine {
    /// The lane is taken; answers whether it was this process' before.
    pub fn taken(&self, lane: String) -> bool {
        let mut lanes = self.lock();
        if lanes.len() >= MOST {
            lanes.clear();
        }
        !lanes.insert(lane)
    }

    /// Somebody else has it.
    pub fn is_anothers(&self, lane: &str) {
        self.lock().remove(lane);
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_news_the_first_time_and_after_another_had_it() {
        let mine = Mine::default();
        assert!(!mine.taken("b/a".to_owned()), "the first time");
        assert!(mine.taken("b/a".to_owned()));
        mine.is_anothers("b/a");
        assert!(!mine.taken("b/a".to_owned()));
    }

    #[test]
    fn it_remembers_a_bounded_number() {
        let mine = Mine::default();
        for number in 0..=MOST {
            mine.taken(number.to_string());
        }
        assert!(mine.lock().len() <= MOST);
    }
}
