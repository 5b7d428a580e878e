//! What left its lane undelivered: is there a copy of it, whole, with what the instance said, and for a reason?
//!
//! There are two reasons here. `rejected`: the instance refused it for good. `poison`: it is the one activity that the
//! instance failed on, while it was well. An instance that fails on all of them, or is away, parks none.

use std::collections::{HashMap, HashSet};

use super::{Evidence, Verdict};
use crate::chaos::fault::{Fault, REFUSAL};
use crate::chaos::parked::Parked;
use crate::instance::Seen;
use crate::ledger::Submission;

impl Verdict {
    /// A copy is of something that was sent, with its bytes; and it was not parked for nothing.
    pub(super) fn copies(&mut self, evidence: &Evidence<'_>) {
        let sent: HashMap<&str, &Submission> = evidence.submissions.iter().map(|s| (s.id.as_str(), s)).collect();
        let poison = chosen(evidence, |fault| matches!(fault, Fault::Poison(_)));
        let refused = chosen(evidence, |fault| matches!(fault, Fault::Reject(_)));
        for copy in evidence.parked {
            match sent.get(copy.id.as_str()) {
                None => self.break_one("never sent", format!("a copy of {:?}", copy.id)),
                Some(submission) if submission.body_sha256 != copy.body_sha256 => {
                    self.break_one("altered bytes", format!("the copy of {}", copy.id));
                }
                Some(_) => {}
            }
            let id = copy.id.as_str();
            let why_not = match copy.reason.as_str() {
                "rejected" if !refused.contains(id) => Some("the instance did not refuse it"),
                "rejected" if (copy.status, copy.answer.as_str()) != (400, REFUSAL) => {
                    Some("the copy does not tell what the instance said")
                }
                "poison" if !poison.contains(id) => Some("the instance was at fault, not the activity"),
                "poison" if copy.status != 500 || copy.attempts < evidence.poison_attempts => {
                    Some("the copy tells of too few failures")
                }
                "rejected" | "poison" => None,
                _ => Some("nothing of this kind was done to it"),
            };
            if let Some(why_not) = why_not {
                let Parked { reason, status, answer, attempts, .. } = copy;
                let told = format!("{id}: {reason}, {attempts} attempts, {status} {answer:?}: {why_not}");
                self.break_one("parked for nothing", told);
            }
        }
        let parked: HashSet<&str> =
            evidence.parked.iter().filter(|copy| copy.reason == "poison").map(|copy| copy.id.as_str()).collect();
        let stuck = poison.into_iter().filter(|id| !parked.contains(id));
        self.break_all("poison, and not parked", stuck.map(str::to_owned).collect());
    }

    /// Parked-stays-out: what was parked is not at the instance again after a later one had its outcome, unless it was
    /// stored twice.
    pub(super) fn parked_and_back(&mut self, evidence: &Evidence<'_>) {
        let place: HashMap<(&str, &str), usize> =
            evidence.submissions.iter().enumerate().map(|(n, s)| ((s.lane.as_str(), s.id.as_str()), n)).collect();
        for copy in evidence.parked {
            let requests: Vec<&Seen> = evidence.seen.iter().filter(|seen| seen.id == copy.id).collect();
            let (Some(first), Some(last)) = (requests.first(), requests.iter().map(|seen| seen.arrived).max()) else {
                continue;
            };
            let Some(own) = place.get(&(first.lane.as_str(), copy.id.as_str())) else { continue };
            let later_had_its_outcome = evidence.seen.iter().any(|seen| {
                seen.lane == first.lane
                    && seen.is_final()
                    && seen.ended.is_some_and(|ended| ended < last)
                    && place.get(&(seen.lane.as_str(), seen.id.as_str())).is_some_and(|other| other > own)
            });
            if later_had_its_outcome && evidence.submissions[*own].tries() < 2 {
                self.break_one("parked, and posted again after a later one", copy.id.clone());
            }
        }
    }
}

/// The activities that faults of a kind were about.
fn chosen<'a>(evidence: &Evidence<'a>, is: fn(&Fault) -> bool) -> HashSet<&'a str> {
    evidence.faults.iter().filter(|happened| is(&happened.fault)).filter_map(|h| h.about.as_deref()).collect()
}
