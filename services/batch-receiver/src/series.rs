//! What this service counts in metrics, and the words for it.

use std::time::Duration;

use fedstream_lane::Lane;
use fedstream_service::attributes::{ERROR_TYPE, HTTP_METHOD, HTTP_STATUS};
use fedstream_service::metrics::KeyValue;
use fedstream_service::metrics::lanes::NAMES;
use fedstream_service::metrics::table::{CLIENT_DURATION, REPLAY_ACTIVE, REPLAY_BATCHES, REPLAY_HELD, REPLAY_OUTCOMES};

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

/// Shows how much is here from now on.
pub fn observe(room: &Room) {
    let active = room.clone();
    REPLAY_ACTIVE.observe(move |batches| batches.is(active.batches() as f64, &[]));
    let held = room.clone();
    REPLAY_HELD.observe(move |bytes| bytes.is(held.bytes() as f64, &[]));
}

/// A batch was let in, or refused with a problem of this kind.
pub fn decided(taken: Result<Taken, &str>) {
    let word = match taken {
        Ok(Taken::Accepted) => "accepted",
        Ok(Taken::Empty) => "empty",
        Ok(Taken::V1) => "v1",
        Err(kind) => refusal(kind),
    };
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

/// The lane's label.
#[must_use]
pub fn of_lane(lane: &Lane) -> KeyValue {
    NAMES.name(&lane.to_string())
}

/// What the instance's answer to an activity of this lane means.
pub fn delivered(lane: &KeyValue, verdict: &Verdict) {
    REPLAY_OUTCOMES.add(1, &[lane.clone(), KeyValue::new("outcome", verdict.name())]);
}

/// A request to the instance ended.
pub fn requested(exchanged: &Exchanged, took: Duration) {
    let method = KeyValue::new(HTTP_METHOD, "POST");
    let status = |status| KeyValue::new(HTTP_STATUS, i64::from(status));
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
    use fedstream_lane::{Answer, Final};
    use fedstream_service::metrics::table::ADMISSIONS;

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
        let words: Vec<_> = ["accepted", "empty", "v1"].into_iter().chain(kinds.map(refusal)).collect();
        assert_eq!(words, ADMISSIONS);
        let finals = [Final::Delivered, Final::Duplicate, Final::Rejected, Final::Expired, Final::Unprocessed];
        let named = finals.map(|outcome| Verdict::Final(Answer { outcome, status: 200, body: None }).name());
        let outcomes = REPLAY_OUTCOMES.definition().words("outcome").expect("words");
        assert_eq!([&named[..], &[Verdict::unanswered("").name()]].concat(), outcomes);
    }
}
