//! What this service counts in metrics, and the words for it.

use std::time::Duration;

use fedstream_lane::{Answer, Final, Lane};
use fedstream_service::attributes::{ERROR_TYPE, HTTP_METHOD};
use fedstream_service::metrics::KeyValue;
use fedstream_service::metrics::http::status;
use fedstream_service::metrics::lanes::NAMES;
use fedstream_service::metrics::table::{
    ADMISSIONS, CLIENT_DURATION, REPLAY_ACTIVE, REPLAY_BATCHES, REPLAY_HELD, REPLAY_OUTCOMES,
};

use crate::replay::Exchanged;
use crate::room::Room;
use crate::verdict::Verdict;

/// What was decided of a batch before its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is under way.
    Accepted,
    /// It has no activity: it asks for the gate, or closes it.
    Empty,
    /// One of the existing batcher's format.
    V1,
}

impl Taken {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Empty => "empty",
            Self::V1 => "v1",
        }
    }
}

/// Shows how much is here from now on, and what is decided from the first one.
pub fn observe(room: &Room) {
    for word in ADMISSIONS {
        REPLAY_BATCHES.add(0, &[KeyValue::new("result", *word)]);
    }
    let active = room.clone();
    REPLAY_ACTIVE.observe(move |batches| batches.is(active.batches() as f64, &[]));
    let held = room.clone();
    REPLAY_HELD.observe(move |bytes| bytes.is(held.bytes() as f64, &[]));
}

/// A batch was let in.
pub fn taken(taken: Taken) {
    count(taken.as_str());
}

/// A batch was refused with a problem of this kind.
pub fn refused(kind: &str) {
    count(refusal(kind));
}

fn count(word: &'static str) {
    REPLAY_BATCHES.add(1, &[KeyValue::new("result", word)]);
}

/// The problem types in few words: what an operator would do about it is the same within each.
fn refusal(kind: &str) -> &'static str {
    match kind {
        "new-gate" => "new_gate",
        "stale-epoch" => "stale_epoch",
        "other-origin" => "other_origin",
        "unauthorized" | "client-not-allowed" => "unauthorized",
        "overloaded" | "lane-busy" | "too-many-lanes" => "busy",
        "destination-not-allowed" | "path-not-allowed" => "refused",
        "method-not-allowed" => "asked", // a GET asks which formats are taken
        // malformed-batch, malformed-body, too-large, body-incomplete, body-timeout, unsupported-media-type
        _ => "malformed",
    }
}

/// The label of a lane that a batch-sender of ours named: its front door has let it in.
#[must_use]
pub fn of_lane(lane: &Lane) -> KeyValue {
    NAMES.name(&lane.to_string())
}

/// What the instance's answer to an activity of this lane means.
pub fn delivered(lane: &KeyValue, verdict: &Verdict) {
    REPLAY_OUTCOMES.add(1, &[lane.clone(), KeyValue::new("outcome", verdict.name())]);
}

/// The label of a v1 activity's lane. The sender names none, so it is read from the activity, which anybody may have written:
/// it has a name once the instance has taken something of it.
#[must_use]
pub fn of_v1(lane: &Lane, verdict: &Verdict) -> KeyValue {
    let is_taken = |answer: &Answer| matches!(answer.outcome, Final::Delivered | Final::Duplicate);
    let lane = lane.to_string();
    if verdict.answer().is_some_and(is_taken) { NAMES.name(&lane) } else { NAMES.as_known(&lane) }
}

/// A request to the instance ended.
pub fn requested(exchanged: &Exchanged, took: Duration) {
    let method = KeyValue::new(HTTP_METHOD, "POST");
    let error = |why| KeyValue::new(ERROR_TYPE, why);
    let took = took.as_secs_f64();
    match (exchanged.verdict.status(), exchanged.failed) {
        (Some(code), None) => CLIENT_DURATION.record(took, &[method, status(code)]),
        (Some(code), Some(why)) => CLIENT_DURATION.record(took, &[method, status(code), error(why)]),
        (None, why) => CLIENT_DURATION.record(took, &[method, error(why.unwrap_or("no_request"))]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_one_of_the_definitions() {
        let kinds = [
            "new-gate",
            "stale-epoch",
            "other-origin",
            "unauthorized",
            "malformed-batch",
            "destination-not-allowed",
            "overloaded",
            "method-not-allowed",
        ];
        let taken = [Taken::Accepted, Taken::Empty, Taken::V1].map(Taken::as_str);
        let words: Vec<_> = taken.into_iter().chain(kinds.map(refusal)).collect();
        assert_eq!(words, ADMISSIONS);
        let finals = [Final::Delivered, Final::Duplicate, Final::Rejected, Final::Expired, Final::Unprocessed];
        let named = finals.map(|outcome| Verdict::Final(Answer { outcome, status: 200, body: None }).name());
        let outcomes = REPLAY_OUTCOMES.definition().words("outcome").expect("words");
        assert_eq!([&named[..], &[Verdict::unanswered("").name()]].concat(), outcomes);
    }

    #[test]
    fn a_lane_that_anybody_may_have_made_up_has_no_name_before_something_of_it_is_taken() {
        let lane =
            Lane { destination: "b.example".parse().expect("name"), source: "stranger.example".parse().expect("name") };
        let verdict = |outcome| Verdict::Final(Answer { outcome, status: 400, body: None });
        let label = |verdict: &Verdict| of_v1(&lane, verdict).value.to_string();
        for untaken in
            [verdict(Final::Rejected), verdict(Final::Expired), verdict(Final::Unprocessed), Verdict::unanswered("")]
        {
            assert_eq!(label(&untaken), "other", "{untaken:?}");
        }
        for verdict in [verdict(Final::Duplicate), verdict(Final::Rejected)] {
            assert_eq!(label(&verdict), "b.example/stranger.example", "from then on");
        }
    }
}
