//! How many bytes all lanes of this process hold together.
//!
//! A lane whose far side is away fills its window and stands; a thousand of them would fill the memory. Beyond the
//! budget a lane reads only when it holds nothing: so each moves on, and what is held stays below the budget and one
//! message a lane.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The budget of a process. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Budget {
    held: Arc<AtomicUsize>,
    limit: usize,
}

/// What one lane holds of it; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// Nothing is held yet.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { held: Arc::default(), limit }
    }

    /// A lane's share, empty.
    #[must_use]
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }
}

impl Share {
    /// May this lane read another message?
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.bytes == 0 || self.budget.held.load(Ordering::Relaxed) < self.budget.limit
    }

    /// This lane holds so many bytes now.
    pub fn set(&mut self, bytes: usize) {
        let held = &self.budget.held;
        if bytes >= self.bytes {
            held.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            held.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_budget_only_a_lane_that_holds_nothing_reads() {
        let budget = Budget::new(100);
        let (mut first, mut second, third) = (budget.share(), budget.share(), budget.share());
        first.set(80);
        assert!(first.has_room());
        second.set(30);
        assert!(!first.has_room() && !second.has_room() && third.has_room());
        first.set(10);
        assert!(second.has_room());
        drop(second);
        assert_eq!(budget.held.load(Ordering::Relaxed), 10);
    }
}
