//! What an instance says as long as a fault goes on: shared by the fault, which ends it, and the instance, which asks
//! for each request whether it is meant.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::behaviour::Behaviour;
use crate::instance::{Instance, Seen};
use crate::ledger::Ledger;

/// Clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Rule {
    over: Arc<AtomicBool>,
    /// The activity it is about, for one that is about one.
    chosen: Arc<Mutex<Option<String>>>,
    /// A later activity of the lane has come after it.
    passed: Arc<AtomicBool>,
}

impl Rule {
    /// All activities get this, or as many.
    pub(super) fn for_all(instance: &Instance, count: Option<usize>, behaviour: Behaviour) -> Self {
        let rule = Self::default();
        let its = rule.clone();
        instance.behave_where(count, behaviour, move |_| !its.is_over());
        rule
    }

    /// The next activity of a lane gets this as long as the fault goes on, or for good.
    pub(super) fn for_one(
        instance: &Instance,
        ledger: &Ledger,
        lane: String,
        behaviour: Behaviour,
        for_good: bool,
    ) -> Self {
        let rule = Self::default();
        let (its, ledger) = (rule.clone(), ledger.clone());
        let matches = move |seen: &Seen| seen.lane == lane && its.is_about(seen, for_good, &ledger);
        instance.behave_where(None, behaviour, matches);
        rule
    }

    /// Ends it. Answers which activity it was about.
    pub(super) fn end(&self) -> Option<String> {
        self.over.store(true, Ordering::SeqCst);
        self.chosen().clone()
    }

    /// Whether the lane has gone on after the one activity.
    pub(super) fn is_passed(&self) -> bool {
        self.passed.load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn is_about(&self, seen: &Seen, for_good: bool, ledger: &Ledger) -> bool {
        let over = self.is_over();
        let mut chosen = self.chosen();
        if chosen.is_none() && !over {
            *chosen = Some(seen.id.clone());
        }
        let Some(chosen) = chosen.as_deref() else { return false };
        let it_is = chosen == seen.id;
        // Not by a repeat of an earlier one.
        if !it_is && ledger.first_sent(chosen) < ledger.first_sent(&seen.id) {
            self.passed.store(true, Ordering::SeqCst);
        }
        it_is && (for_good || !over)
    }

    fn chosen(&self) -> MutexGuard<'_, Option<String>> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
