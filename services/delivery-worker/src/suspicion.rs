//! Is an activity at fault, or its remote? What is known of it here, so that a window that counts failures of one activity
//! (DESIGN section 8, `poison`) can be told that the remote answers others meanwhile.
//!
//! ```text
//!   head of lane 0   500 ───────────────────── 500
//!   lane 2            begun ── 2xx              of the same remote: it takes others
//!   GET                            200          before the second attempt: it is up, at least
//! ```
//!
//! Only 500 is held against an activity. 501 is a refusal at once; 502, 503 and 504 come from what stands before a remote, or
//! from one that is overloaded, and say nothing of the activity.
//!
//! The remotes are strangers, so the evidence is weighed otherwise than for an instance of one's own:
//! - Only a 2xx on another lane says that a remote takes activities. A refusal comes from whatever stands before it as well.
//! - A page that it serves says less: a Mastodon without its database still serves nodeinfo out of a cache, and fails on each
//!   activity. But where one local user alone has followers at a remote, there is no other lane, and its lane would stand for
//!   the whole horizon. So the page is asked for late, after `FED_POISON_PROBED_AFTER`: what an outage of hours costs a lane
//!   then is one activity for each such time, parked and told, and not one for each quarter of an hour.
//!
//! What had begun before the attempt before is no evidence: it was at the remote before it went away. Nor is what was not known
//! when an attempt began: the remote may have come back while that one was at it. Of remotes that fail on nothing nothing is
//! kept. Pure but for the lock: events are numbered, and time comes in as an argument.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fedstream_lane::{InstanceName, OutboxLane, Seq};
use tokio::time::Instant;

/// When the worker believes that an activity is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// So often it has to be answered 500.
    pub attempts: u32,
    /// And over so long, while the remote takes others.
    pub after: Duration,
    /// And over so long, where only the page speaks for the remote.
    pub probed_after: Duration,
    /// Path of that page; none: nothing but other deliveries is evidence.
    pub probe: Option<String>,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            attempts: 5,
            // A deployment on either side is over by then: a remote may fail because it can't fetch our actor.
            after: Duration::from_secs(15 * 60),
            probed_after: Duration::from_secs(6 * 60 * 60), // longer than most outages, a twelfth of the horizon
            probe: Some("/.well-known/nodeinfo".to_owned()), // every implementation has it
        }
    }
}

/// What the lanes of a process know together.
#[derive(Debug, Default)]
pub struct Evidence(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The number of the last event.
    now: u64,
    /// Remotes that failed on the head of a lane, for as long as it is that.
    watched: HashMap<InstanceName, Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    /// Such heads.
    heads: usize,
    /// When what was taken began, of the two lanes that had something taken last: without one's own, one is left.
    taken: [Option<(u16, u64)>; 2],
}

/// What one lane knows of its head.
#[derive(Debug)]
pub struct Suspicion {
    evidence: Arc<Evidence>,
    lane: OutboxLane,
    head: Mutex<Option<Head>>,
}

/// The delivery on which the remote failed last.
#[derive(Clone, Copy, Debug)]
struct Head {
    seq: Seq,
    faults: u32,
    failed_at: u64,
    since: Instant,
}

impl Suspicion {
    /// Of nothing yet.
    #[must_use]
    pub fn new(evidence: &Arc<Evidence>, lane: &OutboxLane) -> Self {
        Self { evidence: Arc::clone(evidence), lane: lane.clone(), head: Mutex::default() }
    }

    /// A delivery goes to the remote. The number is for [`Suspicion::settled`].
    #[must_use]
    pub fn begins(&self) -> u64 {
        self.evidence.lock().next()
    }

    /// The page to ask for before this attempt, where it would be enough.
    #[must_use]
    pub fn page_to_ask<'r>(&self, now: Instant, seq: Seq, rule: &'r Rule) -> Option<&'r str> {
        let is_due = |head: &Head| {
            let lasted = now.saturating_duration_since(head.since) >= rule.probed_after;
            head.seq == seq && lasted && head.faults.saturating_add(1) >= rule.attempts
        };
        (*self.head()).filter(is_due).and(rule.probe.as_deref())
    }

    /// To be asked as an attempt begins, and no later: since the one before failed, has the remote taken what is another lane's?
    #[must_use]
    pub fn others_are_taken(&self, seq: Seq) -> bool {
        let head = self.head().filter(|head| head.seq == seq);
        head.is_some_and(|head| self.evidence.lock().took_another_since(&self.lane, head.failed_at))
    }

    /// The head had its outcome. `taken`: a 2xx.
    pub fn settled(&self, began: u64, taken: bool) {
        if taken {
            self.evidence.lock().taken(&self.lane, began);
        }
        self.forget();
    }

    /// An attempt at the head failed; `fault` says that the remote answered 500, `alive` that it took others or served its page,
    /// as was known when the attempt began. Does that speak against this delivery?
    pub fn failed(&self, now: Instant, seq: Seq, fault: bool, alive: bool) -> bool {
        let mut head = self.head();
        let known = head.filter(|head| head.seq == seq);
        if known.is_none() {
            drop(head);
            self.forget();
            if !fault {
                return false; // nothing speaks against it yet
            }
            head = self.head();
            self.evidence.lock().watch(&self.lane.remote);
        }
        let (faults, since) = known.map_or((0, now), |head| (head.faults, head.since));
        let faults = faults.saturating_add(u32::from(fault));
        *head = Some(Head { seq, faults, failed_at: self.evidence.lock().next(), since });
        known.is_some() && fault && alive
    }

    fn forget(&self) {
        if self.head().take().is_some() {
            self.evidence.lock().leave(&self.lane.remote);
        }
    }

    fn head(&self) -> MutexGuard<'_, Option<Head>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Suspicion {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Evidence {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn next(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn watch(&mut self, remote: &InstanceName) {
        self.watched.entry(remote.clone()).or_default().heads += 1;
    }

    fn leave(&mut self, remote: &InstanceName) {
        let Some(watched) = self.watched.get_mut(remote) else { return };
        watched.heads = watched.heads.saturating_sub(1);
        if watched.heads == 0 {
            self.watched.remove(remote);
        }
    }

    fn taken(&mut self, lane: &OutboxLane, began: u64) {
        let Some(watched) = self.watched.get_mut(&lane.remote) else { return };
        let other = watched.taken.iter().flatten().find(|(partition, _)| *partition != lane.partition).copied();
        watched.taken = [Some((lane.partition, began)), other];
    }

    fn took_another_since(&self, lane: &OutboxLane, since: u64) -> bool {
        let watched = self.watched.get(&lane.remote);
        let mut taken = watched.into_iter().flat_map(|watched| watched.taken.iter().flatten());
        taken.any(|(partition, began)| *partition != lane.partition && *began > since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn lanes<const N: usize>(evidence: &Arc<Evidence>, remote: &str) -> [Suspicion; N] {
        let lane = |partition| OutboxLane { remote: remote.parse().expect("a name"), partition };
        std::array::from_fn(|partition| Suspicion::new(evidence, &lane(partition as u16)))
    }

    /// The remote answers 500 to this delivery.
    fn fault(lane: &Suspicion, seq: u64) -> bool {
        let alive = lane.others_are_taken(Seq(seq));
        lane.failed(Instant::now(), Seq(seq), true, alive)
    }

    /// It takes one of this lane.
    fn take(lane: &Suspicion) {
        lane.settled(lane.begins(), true);
    }

    #[test]
    fn a_remote_that_takes_nothing_is_never_known_to_answer() {
        let evidence = Arc::default();
        let [a, b] = lanes(&evidence, "a.example");
        for _ in 0..10 {
            assert!(!fault(&a, 7) && !fault(&b, 3));
            b.settled(b.begins(), false); // a refusal, by whatever stands before it
        }
    }

    #[test]
    fn what_another_lane_brought_over_between_two_attempts_is_evidence_once() {
        let evidence = Arc::default();
        let [a, b, c] = lanes(&evidence, "a.example");
        take(&b);
        assert!(!fault(&a, 7), "before the first attempt says nothing");
        take(&b);
        take(&c);
        take(&c);
        assert!(fault(&a, 7));
        assert!(!fault(&a, 7), "since this attempt nothing was heard");
        let [elsewhere] = lanes(&evidence, "b.example");
        take(&elsewhere);
        assert!(!fault(&a, 7), "another remote");
    }

    #[test]
    fn what_was_at_the_remote_before_it_went_away_is_no_evidence() {
        let evidence = Arc::default();
        let [a, b] = lanes(&evidence, "a.example");
        let began = b.begins();
        assert!(!fault(&a, 7));
        b.settled(began, true);
        assert!(!fault(&a, 7));
    }

    #[test]
    fn a_remote_that_comes_back_while_an_attempt_is_under_way_is_no_evidence_before_the_next() {
        let evidence = Arc::default();
        let [a, b] = lanes(&evidence, "a.example");
        assert!(!fault(&a, 7));
        let alive = a.others_are_taken(Seq(7));
        take(&b);
        assert!(!a.failed(Instant::now(), Seq(7), true, alive), "it was answered by the remote that was still ill");
        assert!(!fault(&a, 7), "what was taken before that failure");
        take(&b);
        assert!(fault(&a, 7));
    }

    #[test]
    fn a_failure_that_is_no_fault_moves_the_moment_and_counts_against_nobody() {
        let evidence = Arc::default();
        let [a, b] = lanes(&evidence, "a.example");
        let failure = |seq| a.failed(Instant::now(), Seq(seq), false, true);
        assert!(!failure(7));
        assert!(evidence.lock().watched.is_empty());
        fault(&a, 7);
        take(&b);
        assert!(!failure(7), "said of faults only");
        assert!(!fault(&a, 7), "the remote went away after what the other lane brought over");
        assert!(!fault(&a, 8), "another delivery begins anew");
    }

    #[test]
    fn the_page_is_asked_for_late_and_only_where_it_would_be_enough() {
        let evidence = Arc::default();
        let [a] = lanes(&evidence, "a.example");
        let rule = Rule { attempts: 3, probed_after: HOUR, ..Rule::default() };
        let (began, late) = (Instant::now(), Instant::now() + 2 * HOUR);
        a.failed(began, Seq(7), true, false);
        assert_eq!(a.page_to_ask(late, Seq(7), &rule), None, "the next one is the second");
        a.failed(began, Seq(7), true, false);
        assert_eq!(a.page_to_ask(began, Seq(7), &rule), None, "too early");
        assert_eq!(a.page_to_ask(late, Seq(8), &rule), None, "another delivery");
        assert_eq!(a.page_to_ask(late, Seq(7), &rule), Some("/.well-known/nodeinfo"));
        assert_eq!(a.page_to_ask(late, Seq(7), &Rule { probe: None, ..rule }), None);
        assert!(a.failed(late, Seq(7), true, true));
        assert!(!a.failed(late, Seq(7), true, false));
    }

    #[test]
    fn nothing_is_kept_of_remotes_that_fail_on_nothing() {
        let evidence: Arc<Evidence> = Arc::default();
        let [a, b] = lanes(&evidence, "a.example");
        take(&a);
        fault(&a, 7);
        fault(&a, 8);
        fault(&b, 3);
        assert_eq!(evidence.lock().watched.len(), 1);
        a.settled(a.begins(), false);
        drop(b);
        assert!(evidence.lock().watched.is_empty());
    }
}
