//! Is an activity at fault, or its instance? Pure: what is known of one instance, so that `alive` can be told to a
//! sender that counts failures of one activity (DESIGN section 8).
//!
//! ```text
//!   head of lane A   500 ─────────────────── 500          alive, if in between
//!   lane B            begun ──── delivered                 another lane had a final outcome,
//!   probe             begun ──────── 200                   or a probe 200: begun after the first, ended before the second
//! ```
//!
//! What had begun before the first is no evidence: it was at the instance when that went away, and came through.
//!
//! The lane's own outcomes are no evidence: nothing of it goes on before the head does. An instance that is away gives
//! none either, so that an outage never parks.
//!
//! Events are numbered, since two of them may fall into one millisecond. Each lane has one entry, its last faulty head,
//! and the lanes are bounded by the gates.

use std::collections::HashMap;

use fedstream_lane::{InstanceName, MsgId, Seq};

/// What is known of one instance. A lane is named by its source: the destination is this instance.
#[derive(Debug, Default)]
pub struct Evidence {
    /// The number of the last event.
    now: u64,
    /// When what had its final outcome began, of the two lanes that had one last: without one's own, one is left.
    finals: [Option<(InstanceName, u64)>; 2],
    /// When the last probe that was answered began.
    answered: u64,
    heads: HashMap<InstanceName, Head>,
    probing: Probing,
}

/// The activity on which the instance failed last, in one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultyHead {
    /// Its sequence.
    pub seq: Seq,
    /// How often the instance failed on it, as far as it was seen here.
    pub attempts: u32,
    /// Since the last attempt, is the instance known to have answered others?
    pub alive: bool,
}

#[derive(Debug)]
struct Head {
    seq: Seq,
    msg_id: MsgId,
    attempts: u32,
    failed_at: u64,
}

/// Whether a probe is under way, and whether another one is wanted after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Probing {
    #[default]
    Idle,
    Under {
        wanted_again: bool,
    },
}

impl Evidence {
    /// An item goes to the instance. The number is for [`Evidence::settled`].
    pub fn begins(&mut self) -> u64 {
        self.next()
    }

    /// An item of the lane that began then had its final outcome from the instance: the lane's head is another one now.
    pub fn settled(&mut self, source: &InstanceName, began: u64) {
        self.heads.remove(source);
        let other = self.finals.iter().flatten().find(|(lane, _)| lane != source).cloned();
        self.finals = [Some((source.clone(), began)), other];
    }

    /// An attempt at the lane's head failed; `fault` says that the instance answered 500 or 501. For a fault: since the
    /// attempt before, is the instance known to have answered others?
    pub fn failed(&mut self, source: &InstanceName, seq: Seq, msg_id: &MsgId, fault: bool) -> bool {
        let (alive, attempts) = match self.heads.get(source).filter(|head| head.seq == seq && head.msg_id == *msg_id) {
            Some(head) => (self.answered_since(source, head.failed_at), head.attempts),
            // The first failure that is no fault leaves the lane without an entry: there is nothing to be alive for.
            None if !fault => {
                self.heads.remove(source);
                return false;
            }
            None => (false, 0),
        };
        let head = Head {
            seq,
            msg_id: msg_id.clone(),
            attempts: attempts.saturating_add(u32::from(fault)),
            failed_at: self.next(),
        };
        self.heads.insert(source.clone(), head);
        fault && alive
    }

    /// A probe is wanted. Must the caller begin one? Not while one is under way: it will go on with another.
    pub fn want_probe(&mut self) -> bool {
        let idle = self.probing == Probing::Idle;
        self.probing = Probing::Under { wanted_again: !idle };
        idle
    }

    /// A probe begins: it serves whatever failed until now. The number is for [`Evidence::probed`].
    pub fn probe_begins(&mut self) -> u64 {
        self.probing = Probing::Under { wanted_again: false };
        self.next()
    }

    /// The probe that began then was answered 200, or not.
    pub fn probed(&mut self, began: u64, answered: bool) {
        if answered {
            self.answered = began;
        }
    }

    /// The probe and the pause after it are over. Must the caller begin another one?
    pub fn probe_ends(&mut self) -> bool {
        let again = self.probing == Probing::Under { wanted_again: true };
        if !again {
            self.probing = Probing::Idle;
        }
        again
    }

    /// The lane's faulty head, if it has one.
    #[must_use]
    pub fn faulty_head(&self, source: &InstanceName) -> Option<FaultyHead> {
        let head = self.heads.get(source)?;
        let alive = self.answered_since(source, head.failed_at);
        Some(FaultyHead { seq: head.seq, attempts: head.attempts, alive })
    }

    fn answered_since(&self, source: &InstanceName, since: u64) -> bool {
        let others = self.finals.iter().flatten().filter(|(lane, _)| lane != source);
        self.answered > since || others.map(|(_, began)| *began).any(|began| began > since)
    }

    fn next(&mut self) -> u64 {
        self.now += 1;
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(letter: &str) -> InstanceName {
        format!("{letter}.example").parse().expect("name")
    }

    /// The instance takes an activity of this lane.
    fn settle(evidence: &mut Evidence, letter: &str) {
        let began = evidence.begins();
        evidence.settled(&lane(letter), began);
    }

    /// The instance answers 500 to this activity of lane a.
    fn fault(evidence: &mut Evidence, seq: u64) -> bool {
        evidence.failed(&lane("a"), Seq(seq), &MsgId::new(format!("m{seq}")), true)
    }

    /// The instance answers it 503, or not at all.
    fn failure(evidence: &mut Evidence, seq: u64) -> bool {
        evidence.failed(&lane("a"), Seq(seq), &MsgId::new(format!("m{seq}")), false)
    }

    fn probe(evidence: &mut Evidence, answered: bool) {
        let began = evidence.probe_begins();
        evidence.probed(began, answered);
    }

    #[test]
    fn an_instance_that_is_away_is_never_alive() {
        let mut evidence = Evidence::default();
        for _ in 0..10 {
            assert!(!fault(&mut evidence, 7));
            probe(&mut evidence, false);
        }
        assert_eq!(evidence.faulty_head(&lane("a")), Some(FaultyHead { seq: Seq(7), attempts: 10, alive: false }));
    }

    #[test]
    fn another_lanes_outcome_between_two_attempts_is_evidence_once() {
        let mut evidence = Evidence::default();
        settle(&mut evidence, "b");
        assert!(!fault(&mut evidence, 7), "before the first attempt says nothing");
        assert!(!fault(&mut evidence, 7), "nor on the second one");
        settle(&mut evidence, "b");
        assert!(evidence.faulty_head(&lane("a")).expect("a head").alive);
        assert!(fault(&mut evidence, 7));
        assert!(!fault(&mut evidence, 7), "since this attempt nothing was heard");
    }

    #[test]
    fn what_was_at_the_instance_before_it_went_away_is_no_evidence() {
        let mut evidence = Evidence::default();
        let began = evidence.begins();
        assert!(!fault(&mut evidence, 7));
        evidence.settled(&lane("b"), began);
        assert!(!fault(&mut evidence, 7), "it was let in before the first fault");
    }

    #[test]
    fn the_other_lane_counts_however_busy_the_own_one_was() {
        let mut evidence = Evidence::default();
        fault(&mut evidence, 7);
        settle(&mut evidence, "b");
        settle(&mut evidence, "c");
        settle(&mut evidence, "c");
        assert!(fault(&mut evidence, 7));
    }

    #[test]
    fn the_lanes_own_outcome_is_no_evidence_and_ends_the_head() {
        let mut evidence = Evidence::default();
        fault(&mut evidence, 7);
        settle(&mut evidence, "a");
        assert_eq!(evidence.faulty_head(&lane("a")), None);
        assert!(!fault(&mut evidence, 9));
        settle(&mut evidence, "a");
        assert!(!fault(&mut evidence, 9), "its own lane's outcome again");
    }

    #[test]
    fn a_probe_counts_for_the_attempts_that_it_began_after() {
        let mut evidence = Evidence::default();
        fault(&mut evidence, 7);
        probe(&mut evidence, true);
        assert!(fault(&mut evidence, 7));
        let began = evidence.probe_begins();
        assert!(!fault(&mut evidence, 7));
        evidence.probed(began, true);
        assert!(!fault(&mut evidence, 7), "it began before the attempt, and says nothing of what came after");
    }

    #[test]
    fn another_activity_begins_anew_even_under_a_known_sequence() {
        let mut evidence = Evidence::default();
        fault(&mut evidence, 7);
        settle(&mut evidence, "b");
        assert!(!evidence.failed(&lane("a"), Seq(7), &MsgId::new("another"), true));
        assert_eq!(evidence.faulty_head(&lane("a")).map(|head| head.attempts), Some(1));
        settle(&mut evidence, "b");
        assert!(!fault(&mut evidence, 8));
        assert_eq!(evidence.heads.len(), 1, "one entry a lane");
    }

    #[test]
    fn a_failure_that_is_no_fault_moves_the_moment_and_is_not_counted() {
        let mut evidence = Evidence::default();
        assert!(!failure(&mut evidence, 7));
        assert_eq!(evidence.faulty_head(&lane("a")), None);
        fault(&mut evidence, 7);
        settle(&mut evidence, "b");
        assert!(!failure(&mut evidence, 7), "alive is said of faults only");
        assert!(!fault(&mut evidence, 7), "the instance went away after the other lane's outcome");
        assert_eq!(evidence.faulty_head(&lane("a")).map(|head| head.attempts), Some(2));
        failure(&mut evidence, 8);
        assert_eq!(evidence.faulty_head(&lane("a")), None, "7 is not the head any more");
    }

    #[test]
    fn one_probe_is_under_way_and_one_more_follows_for_all_who_came_meanwhile() {
        let mut evidence = Evidence::default();
        assert!(evidence.want_probe());
        assert!(!evidence.want_probe(), "it has not begun yet, and will serve both");
        evidence.probe_begins();
        assert!(!evidence.probe_ends(), "nobody came meanwhile");
        assert!(evidence.want_probe());
        evidence.probe_begins();
        assert!(!evidence.want_probe() && !evidence.want_probe());
        assert!(evidence.probe_ends());
        evidence.probe_begins();
        assert!(!evidence.probe_ends());
        assert_eq!(evidence.probing, Probing::Idle);
    }
}
