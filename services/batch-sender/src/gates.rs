//! The lives of the batch-receivers, as lanes learnt them: one lane's asking is enough for all.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fedstream_lane::GateId;

/// The gate id that a lane begins with, by batch URL. A wrong one costs a round trip, as an unknown one does.
#[derive(Debug, Default)]
pub struct KnownGates(Mutex<HashMap<String, GateId>>);

/// Receivers that are remembered: each is an URL that an operator wrote into a lane's settings.
const GATES_MAX: usize = 1024;

impl KnownGates {
    /// The life of the receiver at this URL, as far as it is known.
    #[must_use]
    pub fn known(&self, url: &str) -> Option<GateId> {
        self.lock().get(url).copied()
    }

    /// It is in this life.
    pub fn learn(&self, url: &str, gate: GateId) {
        let mut gates = self.lock();
        if gates.len() < GATES_MAX || gates.contains_key(url) {
            gates.insert(url.to_owned(), gate);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, GateId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
