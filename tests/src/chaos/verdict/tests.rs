use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::chaos::fault::{Fault, REFUSAL};
use crate::chaos::part::Part;
use crate::message::Message;
use crate::sign::Kind;

const LANE: &str = "b.test/a.test";

/// A run that is seen by all four.
struct Run {
    start: (Instant, SystemTime),
    submissions: Vec<Submission>,
    seen: Vec<Seen>,
    parked: Vec<Parked>,
    attempts: Vec<Attempt>,
    faults: Vec<Happened>,
}

fn message(id: &str) -> Message {
    let body = Bytes::from(format!("{{\"id\":\"{id}\"}}"));
    Message { method: "POST".into(), target: "/inbox".into(), headers: vec![], body }
}

impl Run {
    /// Accepted in this order, each before the next was sent.
    fn of(ids: &[&str]) -> Self {
        let start = (Instant::now() - Duration::from_secs(1000), SystemTime::now() - Duration::from_secs(1000));
        let mut run =
            Self { start, submissions: vec![], seen: vec![], parked: vec![], attempts: vec![], faults: vec![] };
        for (n, id) in ids.iter().enumerate() {
            run.submissions.push(Submission {
                id: (*id).to_owned(),
                lane: LANE.to_owned(),
                body_sha256: crate::message::sha256_hex(&message(id).body),
                fingerprints: vec![message(id).fingerprint()],
                first_sent: start.0 + Duration::from_millis(2 * n as u64),
                accepted: Some(start.0 + Duration::from_millis(2 * n as u64 + 1)),
                last_status: 204,
            });
        }
        run
    }

    /// At second `at`: a request of the instance's, and what the batch-receiver says of it.
    fn delivery(&mut self, at: u64, id: &str, status: Option<u16>, gate: &str, epoch: u64, heard: Option<&str>) {
        let seq = self.submissions.iter().position(|s| s.id == id).map_or(0, |place| place as u64 + 1);
        let (from, to) = (Duration::from_secs(at), Duration::from_millis(at * 1000 + 500));
        self.seen.push(Seen {
            message: message(id),
            id: id.to_owned(),
            lane: LANE.to_owned(),
            arrived: self.start.0 + from,
            ended: Some(self.start.0 + to),
            status,
            answered: true,
            signature: Ok(Kind::Cavage),
            overlaps: false,
        });
        self.attempts.push(Attempt {
            lane: LANE.to_owned(),
            seq,
            epoch,
            gate: gate.to_owned(),
            id: id.to_owned(),
            begun: self.start.1 + from - Duration::from_millis(1),
            ended: heard.map(|outcome| (self.start.1 + to, outcome.to_owned())),
            beside: None,
        });
    }

    fn fault(&mut self, at: u64, fault: Fault) {
        let began = self.start.1 + Duration::from_secs(at);
        self.faults.push(Happened { fault, about: None, began, ended: began + Duration::from_secs(1) });
    }

    fn fault_about(&mut self, id: &str, fault: Fault) {
        self.fault(0, fault);
        self.faults.last_mut().unwrap().about = Some(id.to_owned());
    }

    /// As the services park what [`Run::fault_about`] was about.
    fn parked(&mut self, id: &str, reason: &str) {
        let (status, answer) = if reason == "rejected" { (400, REFUSAL) } else { (500, "") };
        self.parked.push(Parked {
            id: id.to_owned(),
            reason: reason.to_owned(),
            body_sha256: crate::message::sha256_hex(&message(id).body),
            status,
            answer: answer.to_owned(),
            attempts: 3,
        });
    }

    fn verdict(&self) -> Verdict {
        // Each epoch of another one than the epoch before.
        let owners =
            self.attempts.iter().map(|a| ((a.lane.clone(), a.epoch), vec![usize::from(a.epoch % 2 == 0)])).collect();
        Verdict::of(&Evidence {
            owners: &owners,
            poison_attempts: 3,
            submissions: &self.submissions,
            seen: &self.seen,
            parked: &self.parked,
            attempts: &self.attempts,
            faults: &self.faults,
            receiver_ended: false,
        })
    }

    fn broken(&self) -> Vec<&'static str> {
        self.verdict().broken.into_keys().collect()
    }
}

#[test]
fn once_each_and_in_order_breaks_nothing() {
    let mut run = Run::of(&["1", "2"]);
    run.delivery(1, "1", Some(503), "g", 1, Some("retry"));
    run.delivery(2, "1", Some(200), "g", 1, Some("delivered"));
    run.delivery(3, "2", Some(200), "g", 2, Some("delivered"));
    let verdict = run.verdict();
    assert!(verdict.holds(), "{verdict}");
    assert_eq!((verdict.accepted, verdict.delivered, verdict.attempts), (2, 2, 3));
    assert_eq!((verdict.epochs, verdict.changes_of_owner), (2, 1));
}

#[test]
fn a_lost_one_and_an_overtaker_are_told_and_a_parked_one_is_neither() {
    let mut run = Run::of(&["1", "2", "3"]);
    run.delivery(1, "3", Some(200), "g", 1, Some("delivered"));
    run.delivery(2, "2", Some(200), "g", 1, Some("delivered"));
    assert_eq!(run.broken(), ["accepted, and neither delivered nor parked", "out of order"]);
    let mut run = Run::of(&["1", "2"]);
    run.delivery(1, "1", Some(500), "g", 1, Some("retry"));
    run.delivery(2, "2", Some(200), "g", 1, Some("delivered"));
    run.parked("1", "poison");
    run.fault_about("1", Fault::Poison(0));
    assert_eq!(run.broken(), Vec::<&str>::new());
    run.delivery(3, "1", Some(500), "g", 1, Some("retry"));
    assert_eq!(run.broken(), ["parked, and posted again after a later one"]);
}

#[test]
fn a_rejected_one_needs_a_copy_with_its_bytes() {
    let mut run = Run::of(&["1"]);
    run.delivery(1, "1", Some(400), "g", 1, Some("rejected"));
    assert_eq!(run.broken(), ["rejected, and no copy is kept"]);
    run.parked("1", "rejected");
    assert_eq!(run.broken(), ["parked for nothing"]);
    run.fault_about("1", Fault::Reject(0));
    assert_eq!(run.broken(), Vec::<&str>::new());
    run.parked[0].answer.clear();
    assert_eq!(run.broken(), ["parked for nothing"], "what the instance said is missing");
    run.parked[0].body_sha256.clear();
    assert_eq!(run.broken(), ["altered bytes", "parked for nothing"]);
}

#[test]
fn an_instance_that_fails_on_all_parks_none_and_poison_is_parked() {
    let mut run = Run::of(&["1"]);
    run.delivery(1, "1", Some(500), "g", 1, Some("retry"));
    run.fault(1, Fault::Broken500);
    run.parked("1", "poison");
    assert_eq!(run.broken(), ["parked for nothing"]);
    run.fault_about("1", Fault::Poison(0));
    assert_eq!(run.broken(), Vec::<&str>::new());
    run.parked.clear();
    assert_eq!(run.broken(), ["accepted, and neither delivered nor parked", "poison, and not parked"]);
}

#[test]
fn a_repeat_needs_a_restart_that_was_made() {
    let mut run = Run::of(&["1"]);
    run.delivery(1, "1", Some(200), "g", 1, None);
    run.delivery(9, "1", Some(200), "h", 1, Some("delivered"));
    assert_eq!(run.broken(), ["repeated without an explanation"]);
    run.fault(1, Fault::Kill(Part::Receiver));
    let verdict = run.verdict();
    assert!(verdict.holds(), "{verdict}");
    assert_eq!(verdict.repeats.into_values().sum::<usize>(), 1);
}

#[test]
fn a_repeat_after_an_answer_that_was_not_heard_needs_a_fault_that_loses_answers() {
    let mut run = Run::of(&["1"]);
    run.delivery(9, "1", Some(200), "g", 1, Some("retry"));
    run.delivery(10, "1", Some(200), "g", 1, Some("delivered"));
    run.fault(9, Fault::Kill(Part::Node(0)));
    run.fault(7, Fault::LoseAnswers);
    run.fault(10, Fault::LoseAnswers);
    assert_eq!(run.broken(), ["repeated without an explanation"]);
    run.fault(9, Fault::Cut(Part::Receiver, Part::Instance));
    assert_eq!(run.broken(), Vec::<&str>::new());
}

#[test]
fn a_repeat_of_what_the_gate_knows_is_never_excused() {
    let mut run = Run::of(&["1"]);
    run.fault(1, Fault::LoseAnswers);
    run.fault(1, Fault::Kill(Part::Receiver));
    run.delivery(1, "1", Some(200), "g", 1, Some("delivered"));
    run.delivery(2, "1", Some(200), "g", 2, Some("delivered"));
    assert_eq!(run.broken(), ["repeated without an explanation"]);
}

#[test]
fn stored_twice_needs_a_sender_that_sent_twice() {
    let mut run = Run::of(&["1"]);
    run.delivery(1, "1", Some(200), "g", 1, Some("delivered"));
    run.delivery(2, "1", Some(200), "g", 1, Some("delivered"));
    run.attempts[1].seq = 9;
    assert_eq!(run.broken(), ["repeated without an explanation"]);
    let again = run.submissions[0].fingerprints[0].clone();
    run.submissions[0].fingerprints.push(again);
    assert_eq!(run.broken(), Vec::<&str>::new());
}

#[test]
fn an_item_of_an_owner_that_was_replaced_is_told() {
    let mut run = Run::of(&["1", "2"]);
    run.delivery(1, "1", Some(200), "g", 5, Some("delivered"));
    run.delivery(2, "2", Some(200), "h", 4, Some("delivered"));
    assert_eq!(run.broken(), ["begun for an owner that was replaced"]);
}

#[test]
fn two_epochs_at_once_have_a_name_of_their_own() {
    let mut run = Run::of(&["1", "2"]);
    run.delivery(1, "1", Some(200), "g", 1, Some("delivered"));
    run.delivery(3, "2", Some(200), "g", 2, Some("delivered"));
    run.attempts[1].beside = Some((1, 1));
    assert_eq!(run.broken(), ["delivered by two epochs at once"]);
    run.attempts[1].beside = None;
    run.seen[0].ended = Some(run.start.0 + Duration::from_millis(3200));
    run.seen[1].overlaps = true;
    assert_eq!(run.broken(), ["delivered by two epochs at once"]);
}

#[test]
fn two_at_the_instance_need_the_first_to_be_given_up() {
    let mut run = Run::of(&["1", "2"]);
    run.delivery(1, "1", Some(200), "g", 1, Some("delivered"));
    run.delivery(3, "2", Some(200), "g", 1, Some("delivered"));
    run.seen[0].ended = Some(run.start.0 + Duration::from_millis(3200));
    run.seen[1].overlaps = true;
    assert_eq!(run.broken(), ["two of a lane at once"]);
    run.attempts[0].ended = Some((run.start.1 + Duration::from_secs(2), "retry".into()));
    assert_eq!(run.verdict().beside_given_up, 1);
    assert_eq!(run.broken(), Vec::<&str>::new());
}

#[test]
fn a_silent_batch_receiver_is_no_witness() {
    let mut run = Run::of(&["1"]);
    run.delivery(1, "1", Some(200), "g", 1, Some("delivered"));
    run.attempts.clear();
    assert_eq!(run.broken(), ["a witness is silent"]);
}
