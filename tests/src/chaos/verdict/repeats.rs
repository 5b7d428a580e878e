//! What came to the instance again, and why it was allowed to (DESIGN section 13):
//!
//! - **the batch-receiver was restarted** between the two: its memory went with it, and a kill is in the list of faults;
//! - **the answer was not got**: the batch-receiver says that the attempt before had no final outcome, and a fault that
//!   can lose answers touches it;
//! - **stored twice**: the two have different sequences, and the sender had sent it more than once, because it was not
//!   told what became of the first. The broker's memory of ids ends with a restart, for what was purged (BROKER.md).
//!
//! A change of owner is no excuse: a batch-receiver that lives answers what the new owner repeats from its memory.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::{Evidence, Verdict};
use crate::chaos::deliveries::Attempt;
use crate::chaos::fault::Fault;
use crate::chaos::part::Part;

/// A fault excuses only an attempt that was under way while it went on; this is for two clocks and the reaction to it.
const SLACK: Duration = Duration::from_millis(500);

/// Why there may have been another attempt after one.
enum Why {
    Explained(&'static str),
    /// The instance answered, and the answer was a retryable one: no final outcome, so no repeat.
    Retry,
    Unexplained(String),
}

impl Verdict {
    pub(super) fn look_at_repeats(&mut self, evidence: &Evidence<'_>, by_id: &HashMap<&str, Vec<&Attempt>>) {
        let mut finals: HashMap<&str, usize> = HashMap::new();
        for seen in evidence.seen.iter().filter(|seen| seen.is_final()) {
            *finals.entry(seen.id.as_str()).or_default() += 1;
        }
        let tries: HashMap<&str, usize> = evidence.submissions.iter().map(|s| (s.id.as_str(), s.tries())).collect();
        let nothing = Vec::new();
        for (id, count) in finals {
            let attempts = by_id.get(id).unwrap_or(&nothing);
            let pairs = attempts.windows(2);
            let whys = pairs.map(|pair| why(pair[0], pair[1], tries.get(id).copied().unwrap_or(0), evidence));
            let (mut explained, mut faults) = (Vec::new(), Vec::new());
            for why in whys {
                match why {
                    Why::Explained(reason) => explained.push(reason),
                    Why::Retry => {}
                    Why::Unexplained(fault) => faults.push(fault),
                }
            }
            let repeats = count - 1;
            for reason in explained.iter().take(repeats) {
                *self.repeats.entry(reason).or_default() += 1;
            }
            if repeats > explained.len() {
                let more = repeats - explained.len();
                self.break_one(super::UNEXPLAINED, format!("{id}: {more} more, {faults:?}"));
            }
        }
    }
}

/// Why there was a next attempt of an activity.
fn why(one: &Attempt, next: &Attempt, tries: usize, evidence: &Evidence<'_>) -> Why {
    let touched = |is: fn(Fault) -> bool, from: SystemTime, to: SystemTime| {
        evidence.faults.iter().any(|happened| is(happened.fault) && happened.touches(from, to, SLACK))
    };
    if one.seq != next.seq {
        return if tries > 1 {
            Why::Explained("stored twice: its sender had no answer and sent it again")
        } else {
            Why::Unexplained(format!("sequences {} and {}, and it was sent once", one.seq, next.seq))
        };
    }
    if one.gate != next.gate {
        let restarted = |fault| matches!(fault, Fault::Kill(Part::Receiver));
        return if evidence.receiver_ended || touched(restarted, one.begun, next.begun) {
            Why::Explained("the batch-receiver was restarted")
        } else {
            Why::Unexplained("another life of the batch-receiver, and nobody killed it".to_owned())
        };
    }
    match &one.ended {
        Some((ended, outcome)) if outcome == "retry" => {
            if touched(Fault::loses_answers, one.begun, *ended) {
                Why::Explained("the instance's answer was lost or late")
            } else {
                Why::Retry
            }
        }
        Some((_, outcome)) => Why::Unexplained(format!("begun again after {outcome}, by the same gate")),
        None => Why::Unexplained("begun again before its end, by the same gate".to_owned()),
    }
}
