//! How many bytes of bodies the front door holds at this moment, being read or being stored (`FED_INFLIGHT_BYTES`).
//!
//! Counted as they come, not as they are announced: a client that announces a megabyte and sends nothing takes no room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes in flight and their limit; clones are the same.
#[derive(Debug, Clone)]
pub struct InFlight {
    bytes: Arc<AtomicUsize>,
    limit: usize,
}

impl InFlight {
    /// At most `limit` bytes at once.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Arc::default(), limit }
    }

    /// The bytes that are here now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Room for one request's body; none is taken yet.
    pub fn hold(&self) -> Held {
        Held { of: self.clone(), bytes: 0 }
    }
}

/// What one request holds; given back when dropped.
#[derive(Debug)]
pub struct Held {
    of: InFlight,
    bytes: usize,
}

impl Held {
    /// Takes room for more bytes, if there is any.
    pub fn grow(&mut self, more: usize) -> bool {
        let taken = self.of.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(more).filter(|total| *total <= self.of.limit)
        });
        if taken.is_ok() {
            self.bytes += more;
        }
        taken.is_ok()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_exact_and_what_is_dropped_is_free_again() {
        let inflight = InFlight::new(10);
        let mut first = inflight.hold();
        assert!(first.grow(6));
        let mut second = inflight.hold();
        assert!(second.grow(4));
        assert!(!second.grow(1));
        drop(first);
        assert!(second.grow(6));
        assert!(!inflight.hold().grow(usize::MAX));
        drop(second);
        assert!(inflight.hold().grow(10));
    }
}
