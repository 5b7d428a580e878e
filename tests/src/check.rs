//! The independent judge: what the ledger says was accepted, against what the instances saw.
//!
//! It knows nothing of lanes' sequences, epochs or batches. Order: if a sender had its answer for one activity before it
//! sent the next, then the first final outcomes at the instance come in that order (DESIGN section 13). That also holds
//! for senders side by side, where only what didn't overlap has an order.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::instance::Seen;
use crate::ledger::Submission;

/// How many ids of each fault a report shows.
const SHOWN: usize = 5;

/// The verdict. Ids are in the order of the faults.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Activities that were answered 2xx at the front.
    pub accepted: usize,
    /// Of those, how many the instance took.
    pub delivered: usize,
    /// Of those, how many the instance refused for good and never took.
    pub rejected: usize,
    /// Accepted at the front, without a final outcome at the instance.
    pub lost: Vec<String>,
    /// Taken by the instance more than once: one entry for each time too many.
    pub repeated: Vec<String>,
    /// Seen otherwise than sent: body, target or a header.
    pub altered: Vec<String>,
    /// Had its first final outcome before that of an activity that was accepted before it was sent.
    pub out_of_order: Vec<String>,
    /// At the instance, and never sent.
    pub unknown: Vec<String>,
    /// Requests whose digest or signature did not verify, with the reason.
    pub signature_failures: Vec<String>,
    /// Arrived while another of its lane was in progress.
    pub overlapping: Vec<String>,
    /// From the first try at the front to the end at the instance, sorted.
    pub latencies: Vec<Duration>,
}

impl Report {
    /// Compares the two ends. Call it when all is delivered: what is still on its way counts as lost.
    #[must_use]
    pub fn of(submissions: &[Submission], seen: &[Seen]) -> Self {
        let mut report =
            Self { accepted: submissions.iter().filter(|s| s.accepted.is_some()).count(), ..Self::default() };
        let sent: HashMap<(&str, &str), &Submission> =
            submissions.iter().map(|s| ((s.lane.as_str(), s.id.as_str()), s)).collect();
        let mut finals: Vec<&Seen> = seen.iter().filter(|seen| seen.is_final()).collect();
        finals.sort_by_key(|seen| seen.ended);

        let mut settled: HashSet<(&str, &str)> = HashSet::new();
        let mut taken: HashSet<(&str, &str)> = HashSet::new();
        let mut firsts: HashMap<&str, Vec<&Submission>> = HashMap::new();
        for seen in &finals {
            let key = (seen.lane.as_str(), seen.id.as_str());
            let Some(submission) = sent.get(&key) else {
                report.unknown.push(format!("{} on {}", seen.id, seen.lane));
                continue;
            };
            if settled.insert(key) {
                firsts.entry(key.0).or_default().push(submission);
            }
            if seen.accepted() && !taken.insert(key) {
                report.repeated.push(seen.id.clone());
            } else if seen.accepted() {
                report.latencies.extend(seen.ended.map(|ended| ended.duration_since(submission.first_sent)));
            }
        }
        for seen in seen {
            report.look_at(seen, sent.get(&(seen.lane.as_str(), seen.id.as_str())).copied());
        }
        for submission in submissions.iter().filter(|s| s.accepted.is_some()) {
            let key = (submission.lane.as_str(), submission.id.as_str());
            match (taken.contains(&key), settled.contains(&key)) {
                (true, _) => report.delivered += 1,
                (false, true) => report.rejected += 1,
                (false, false) => report.lost.push(submission.id.clone()),
            }
        }
        for order in firsts.values() {
            report.out_of_order.extend(overtakers(order));
        }
        report.latencies.sort();
        report
    }

    /// Whether nothing was lost, repeated, altered, reordered or made up, and all verified.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.repeated.is_empty() && self.is_clean_but_repeated() && self.overlapping.is_empty()
    }

    /// The same where the promise allows repeats: a batch-receiver restart, or an answer that was not got in time. The
    /// instance may still work on a request that was given up, so an overlap is allowed with it.
    #[must_use]
    pub fn is_clean_but_repeated(&self) -> bool {
        [&self.lost, &self.altered, &self.out_of_order, &self.unknown, &self.signature_failures]
            .iter()
            .all(|faults| faults.is_empty())
    }

    /// # Panics
    /// With the report, unless [`Report::is_clean`] and `count` were accepted and delivered.
    pub fn assert_clean(&self, count: usize) {
        assert!(self.is_clean() && self.accepted == count && self.delivered == count, "{count} expected\n{self}");
    }

    /// # Panics
    /// With the report, unless [`Report::is_clean_but_repeated`].
    pub fn assert_clean_but_repeated(&self) {
        assert!(self.is_clean_but_repeated(), "{self}");
    }

    /// The latency that this share of the activities did not exceed; zero if there are none.
    #[must_use]
    pub fn latency(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(last * percent / 100).copied().unwrap_or_default()
    }

    fn look_at(&mut self, seen: &Seen, submission: Option<&Submission>) {
        if let Err(error) = &seen.signature {
            self.signature_failures.push(format!("{}: {error}", seen.id));
        }
        if seen.overlaps {
            self.overlapping.push(seen.id.clone());
        }
        // Also those that were not answered: what arrives is as it was sent, or is an alteration.
        if submission.is_some_and(|submission| !submission.fingerprints.contains(&seen.message.fingerprint())) {
            self.altered.push(seen.id.clone());
        }
    }
}

/// Those that come before one that had been accepted when they were first sent.
fn overtakers(order: &[&Submission]) -> Vec<String> {
    let mut found = Vec::new();
    let mut accepted_later: Option<Instant> = None;
    for submission in order.iter().rev() {
        if accepted_later.is_some_and(|accepted| accepted <= submission.first_sent) {
            found.push(submission.id.clone());
        }
        accepted_later = match (accepted_later, submission.accepted) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    found.reverse();
    found
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "accepted {}, delivered {}, rejected {}", self.accepted, self.delivered, self.rejected)?;
        let faults = [
            ("lost", &self.lost),
            ("repeated", &self.repeated),
            ("altered", &self.altered),
            ("out of order", &self.out_of_order),
            ("never sent", &self.unknown),
            ("signature failures", &self.signature_failures),
            ("overlapping", &self.overlapping),
        ];
        for (name, ids) in faults {
            writeln!(f, "{name}: {} {:?}", ids.len(), &ids[..ids.len().min(SHOWN)])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::sign::Kind;

    const LANE: &str = "b/a";

    fn message(id: &str) -> Message {
        Message {
            method: "POST".into(),
            target: "/inbox".into(),
            headers: vec![],
            body: format!("{{\"id\":\"{id}\"}}").into(),
        }
    }

    /// One source, one after the other: accepted 1 ms after it was sent.
    fn sent(ids: &[&str]) -> (Instant, Vec<Submission>) {
        let start = Instant::now();
        let at = |ms: usize| start + Duration::from_millis(ms as u64);
        let submission = |(n, id): (usize, &&str)| Submission {
            id: (*id).to_owned(),
            lane: LANE.into(),
            body_sha256: String::new(),
            fingerprints: vec![message(id).fingerprint()],
            first_sent: at(2 * n),
            accepted: Some(at(2 * n + 1)),
            last_status: 204,
        };
        (start, ids.iter().enumerate().map(submission).collect())
    }

    fn seen(start: Instant, outcomes: &[(&str, u16)]) -> Vec<Seen> {
        let one = |(n, (id, status)): (usize, &(&str, u16))| Seen {
            message: message(id),
            id: (*id).to_owned(),
            lane: LANE.into(),
            arrived: start,
            ended: Some(start + Duration::from_millis(100 + n as u64)),
            status: Some(*status),
            answered: true,
            signature: Ok(Kind::Cavage),
            overlaps: false,
        };
        outcomes.iter().enumerate().map(one).collect()
    }

    #[test]
    fn all_in_order_is_clean() {
        let (start, sent) = sent(&["1", "2", "3"]);
        let report = Report::of(&sent, &seen(start, &[("1", 200), ("2", 503), ("2", 200), ("3", 204)]));
        report.assert_clean(3);
    }

    #[test]
    fn a_missing_a_repeated_and_an_invented_one_are_told() {
        let (start, sent) = sent(&["1", "2", "3"]);
        let report = Report::of(&sent, &seen(start, &[("1", 200), ("1", 200), ("3", 200), ("9", 200)]));
        assert_eq!(report.lost, ["2"]);
        assert_eq!(report.repeated, ["1"]);
        assert_eq!(report.unknown, ["9 on b/a"]);
        assert!(!report.is_clean());
    }

    #[test]
    fn an_overtaker_is_told_and_a_late_repeat_is_none() {
        let (start, sent) = sent(&["1", "2", "3"]);
        let report = Report::of(&sent, &seen(start, &[("1", 200), ("3", 200), ("2", 200)]));
        assert_eq!(report.out_of_order, ["3"]);
        let report = Report::of(&sent, &seen(start, &[("1", 200), ("2", 200), ("3", 200), ("1", 200)]));
        assert!(report.out_of_order.is_empty());
        assert!(report.is_clean_but_repeated());
    }

    #[test]
    fn a_rejected_one_is_settled_and_takes_its_place_in_the_order() {
        let (start, sent) = sent(&["1", "2"]);
        let report = Report::of(&sent, &seen(start, &[("1", 400), ("2", 200)]));
        assert_eq!((report.rejected, report.delivered), (1, 1));
        assert!(report.is_clean());
    }

    #[test]
    fn senders_side_by_side_have_no_order_among_each_other() {
        let (start, mut sent) = sent(&["1", "2"]);
        sent[1].first_sent = sent[0].first_sent;
        let report = Report::of(&sent, &seen(start, &[("2", 200), ("1", 200)]));
        assert!(report.is_clean());
    }

    #[test]
    fn another_byte_is_an_alteration() {
        let (start, sent) = sent(&["1"]);
        let mut seen = seen(start, &[("1", 200)]);
        seen[0].message.target = "/inbox?".into();
        assert_eq!(Report::of(&sent, &seen).altered, ["1"]);
    }
}
