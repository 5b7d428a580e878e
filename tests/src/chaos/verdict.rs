//! The judge of a run with faults: what senders were told, what the instance saw, what was parked, and what the
//! batch-receiver says it did. It shares no code with the lane machine, and believes nobody alone.
//!
//! [`Report`] compares the two ends: bytes, signatures, order, what is missing. This adds what needs the other
//! witnesses: whether an item of a replaced owner was begun, or two of a lane at once; in [`copies`] whether what is
//! missing was parked, and for a reason; in [`repeats`] for every repeat why it was allowed. A repeat without an
//! explanation counts as a broken promise.

mod copies;
mod repeats;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::{Instant, SystemTime};

use super::deliveries::Attempt;
use super::fault::Happened;
use super::owners::Ownership;
use super::parked::Parked;
use crate::check::Report;
use crate::instance::Seen;
use crate::ledger::Submission;

/// How many of each a display shows.
const SHOWN: usize = 8;

// The four that a display shows when they were kept, too.
const LOST: &str = "accepted, and neither delivered nor parked";
const OUT_OF_ORDER: &str = "out of order";
const TWO_EPOCHS: &str = "delivered by two epochs at once";
const UNEXPLAINED: &str = "repeated without an explanation";

/// Of one epoch.
const TWO_AT_ONCE: &str = "two of a lane at once";

/// What is looked at.
pub struct Evidence<'a> {
    /// What the senders were told.
    pub submissions: &'a [Submission],
    /// What the instance saw.
    pub seen: &'a [Seen],
    /// What is in FED_PARKED.
    pub parked: &'a [Parked],
    /// What the batch-receiver says that it did, in its order.
    pub attempts: &'a [Attempt],
    /// What was done to them all.
    pub faults: &'a [Happened],
    /// Which batch-senders say that an epoch of a lane was theirs.
    pub owners: &'a HashMap<Ownership, Vec<usize>>,
    /// As often the instance has to fail on what is parked as poison.
    pub poison_attempts: u32,
    /// When the batch-receiver was started again because it had ended of itself.
    pub receiver_ended: bool,
}

/// The verdict.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Answered 2xx at the front.
    pub accepted: usize,
    /// Of those, taken by the instance.
    pub delivered: usize,
    /// Copies by reason.
    pub parked: BTreeMap<String, usize>,
    /// How many deliveries were begun, over all lives of the batch-receiver.
    pub attempts: usize,
    /// Epochs that had an item begun, over all lanes.
    pub epochs: usize,
    /// How often the next item of a lane came from another batch-sender than the one before it.
    pub changes_of_owner: usize,
    /// Repeats that are explained, by why.
    pub repeats: BTreeMap<&'static str, usize>,
    /// At the instance beside another of its lane, because that one had been given up.
    pub beside_given_up: usize,
    /// What must not be: by the name of the promise, what broke it.
    pub broken: BTreeMap<&'static str, Vec<String>>,
}

impl Verdict {
    /// Looks at everything. Call it when nothing is on its way any more.
    #[must_use]
    pub fn of(evidence: &Evidence<'_>) -> Self {
        let report = Report::of(evidence.submissions, evidence.seen);
        let mut verdict = Self {
            accepted: report.accepted,
            delivered: report.delivered,
            attempts: evidence.attempts.len(),
            ..Self::default()
        };
        for copy in evidence.parked {
            *verdict.parked.entry(copy.reason.clone()).or_default() += 1;
        }
        verdict.missing(&report, evidence);
        verdict.break_all("altered bytes", report.altered);
        verdict.break_all("bad signatures", report.signature_failures);
        verdict.break_all(OUT_OF_ORDER, report.out_of_order);
        verdict.break_all("never sent", report.unknown);
        verdict.copies(evidence);
        verdict.parked_and_back(evidence);
        verdict.owners(evidence);
        let by_id = by_id(evidence.attempts);
        verdict.look_at_repeats(evidence, &by_id);
        verdict.side_by_side(evidence, &by_id);
        verdict
    }

    /// Whether every promise held.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.broken.is_empty()
    }

    fn break_one(&mut self, promise: &'static str, what: String) {
        self.broken.entry(promise).or_default().push(what);
    }

    fn break_all(&mut self, promise: &'static str, what: Vec<String>) {
        if !what.is_empty() {
            self.broken.entry(promise).or_default().extend(what);
        }
    }

    /// No-loss: a final outcome at the instance or a copy; and a rejected one has both.
    fn missing(&mut self, report: &Report, evidence: &Evidence<'_>) {
        let parked: HashSet<&str> = evidence.parked.iter().map(|copy| copy.id.as_str()).collect();
        let lost = report.lost.iter().filter(|id| !parked.contains(id.as_str()));
        self.break_all(LOST, lost.cloned().collect());
        let taken: HashSet<&str> = evidence.seen.iter().filter(|s| s.accepted()).map(|s| s.id.as_str()).collect();
        let rejected: HashSet<&str> =
            evidence.seen.iter().filter(|s| s.is_final() && !s.accepted()).map(|s| s.id.as_str()).collect();
        let dropped = rejected.into_iter().filter(|id| !taken.contains(id) && !parked.contains(id));
        self.break_all("rejected, and no copy is kept", dropped.map(str::to_owned).collect());
    }

    /// Fenced, over all lives of the batch-receiver, and single, by its own word.
    fn owners(&mut self, evidence: &Evidence<'_>) {
        if evidence.attempts.is_empty() && !evidence.seen.is_empty() {
            self.break_one("a witness is silent", "the batch-receiver's log has no line \"delivery begun\"".to_owned());
        }
        for ((lane, epoch), owners) in evidence.owners.iter().filter(|(_, owners)| owners.len() > 1) {
            self.break_one("an epoch of two owners", format!("{lane} epoch {epoch}: batch-senders {owners:?}"));
        }
        let mut newest: HashMap<&str, (u64, Option<usize>)> = HashMap::new();
        for attempt in evidence.attempts {
            let (epoch, owner) = newest.entry(attempt.lane.as_str()).or_default();
            let what = || format!("{} sequence {} of epoch {}", attempt.lane, attempt.seq, attempt.epoch);
            if attempt.epoch < *epoch {
                self.break_one("begun for an owner that was replaced", format!("{} after epoch {epoch}", what()));
            }
            if let Some((other, of)) = attempt.beside {
                let promise = if of == attempt.epoch { TWO_AT_ONCE } else { TWO_EPOCHS };
                self.break_one(promise, format!("{} beside sequence {other} of epoch {of}", what()));
            }
            if attempt.epoch <= *epoch {
                continue;
            }
            let now = evidence.owners.get(&(attempt.lane.clone(), attempt.epoch)).and_then(|owners| owners.first());
            match now {
                None => self.break_one("an epoch of nobody", what()),
                Some(now) => self.changes_of_owner += usize::from(owner.is_some_and(|before| before != *now)),
            }
            self.epochs += 1;
            (*epoch, *owner) = (attempt.epoch, now.copied());
        }
    }

    /// Single by the instance's word: two of a lane at once only where the batch-receiver had given up the first.
    fn side_by_side(&mut self, evidence: &Evidence<'_>, by_id: &HashMap<&str, Vec<&Attempt>>) {
        let (now, today) = (Instant::now(), SystemTime::now());
        let on_the_clock = |moment: Instant| today - now.saturating_duration_since(moment);
        let mut lanes: HashMap<&str, Vec<&Seen>> = HashMap::new();
        for seen in evidence.seen {
            lanes.entry(seen.lane.as_str()).or_default().push(seen);
        }
        for second in evidence.seen.iter().filter(|seen| seen.overlaps) {
            let before = lanes[second.lane.as_str()].iter().take_while(|seen| !std::ptr::eq(**seen, second));
            let still = before.filter(|seen| seen.ended.is_none_or(|ended| ended > second.arrived));
            // Begun before it arrived; without a final outcome by the time that the second came.
            let given_up = |first: &&&Seen| {
                let attempts = by_id.get(first.id.as_str()).map(Vec::as_slice).unwrap_or_default();
                attempts.iter().any(|attempt| {
                    let given_up = attempt.ended.as_ref().is_none_or(|(at, _)| *at <= on_the_clock(second.arrived));
                    attempt.begun <= on_the_clock(first.arrived) && !attempt.is_final() && given_up
                })
            };
            let epochs = |seen: &Seen| -> Vec<u64> {
                let attempts = by_id.get(seen.id.as_str()).map(Vec::as_slice).unwrap_or_default();
                attempts.iter().map(|attempt| attempt.epoch).collect()
            };
            let unexplained: Vec<&&Seen> = still.filter(|first| !given_up(first)).collect();
            if unexplained.is_empty() {
                self.beside_given_up += 1;
            }
            for first in unexplained {
                let (one, two) = (epochs(first), epochs(second));
                let promise = if one.iter().any(|epoch| two.contains(epoch)) { TWO_AT_ONCE } else { TWO_EPOCHS };
                let told = format!("{} of epochs {two:?} beside {} of epochs {one:?}", second.id, first.id);
                self.break_one(promise, told);
            }
        }
    }
}

fn by_id(attempts: &[Attempt]) -> HashMap<&str, Vec<&Attempt>> {
    let mut by_id: HashMap<&str, Vec<&Attempt>> = HashMap::new();
    for attempt in attempts {
        by_id.entry(attempt.id.as_str()).or_default().push(attempt);
    }
    by_id
}

/// Whether everything that was accepted has left its lane, by what the instance and FED_PARKED say.
#[must_use]
pub fn all_settled(submissions: &[Submission], seen: &[Seen], parked: &[Parked]) -> bool {
    let settled: HashSet<&str> = seen.iter().filter(|seen| seen.is_final()).map(|seen| seen.id.as_str()).collect();
    let parked: HashSet<&str> = parked.iter().map(|copy| copy.id.as_str()).collect();
    let accepted = submissions.iter().filter(|submission| submission.accepted.is_some());
    accepted.map(|submission| submission.id.as_str()).all(|id| settled.contains(id) || parked.contains(id))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "accepted {}, delivered {}, parked {:?}, deliveries begun {}",
            self.accepted, self.delivered, self.parked, self.attempts
        )?;
        for (why, count) in &self.repeats {
            writeln!(f, "repeats: {count:>4}  {why}")?;
        }
        writeln!(f, "at the instance beside one that was given up: {}", self.beside_given_up)?;
        writeln!(f, "epochs: {}, changes from one batch-sender to the other: {}", self.epochs, self.changes_of_owner)?;
        for promise in [LOST, OUT_OF_ORDER, TWO_EPOCHS, UNEXPLAINED] {
            writeln!(f, "{promise}: {}", self.broken.get(promise).map_or(0, Vec::len))?;
        }
        if self.broken.is_empty() {
            return writeln!(f, "no promise was broken");
        }
        for (promise, what) in &self.broken {
            writeln!(f, "BROKEN: {promise}: {}", what.len())?;
            for one in what.iter().take(SHOWN) {
                writeln!(f, "    {one}")?;
            }
        }
        Ok(())
    }
}
