//! The way back: a copy is published at its lane's end, and deleted when that is acknowledged.
//!
//! ```text
//!   copy ▶ publish as <original id>.redrive.<parked sequence> ▶ ack: a message of ours ▶ delete the copy
//!                                                             ▶ anything else: the copy stays
//! ```
//!
//! The id makes a second try harmless: what the first one stored is a duplicate then, and is recognised by reading it
//! back. A duplicate that can't be read back (it was delivered and trimmed meanwhile, or is something else) proves
//! nothing: the copy stays, and the operator decides.
//!
//! **An outbound one has its whole time again.** Nothing of it is waived here: it carries the sequence of its copy, and by that
//! the worker counts from when it came back, not from when the application asked for it.

use std::time::Duration;

use fedstream_lane::{AnyLane, ParkReason, Seq};
use fedstream_wire::stored::header as stored;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{ParkedMessage, header};
use crate::{Broker, Created, Headers, Publisher, Refused, api, definitions, identity};

/// A healthy broker answers in milliseconds.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Stands between the original's id and the copy's sequence.
const INFIX: &str = ".redrive.";

/// Headers of the original that go along, as they were stored. The id and the deadline are decided here.
const ORIGINAL: [&str; 12] = [
    stored::VERSION,
    stored::ACTIVITY_ID,
    stored::ACTIVITY_TYPE,
    stored::RECEIVED_AT,
    stored::TARGET,
    stored::SCHEME,
    stored::HTTP,
    stored::INBOX,
    stored::ACTOR,
    stored::REQUESTED_AT,
    stored::TRACEPARENT,
    stored::TRACESTATE,
];

/// A copy that is back in its lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redriven {
    /// The lane.
    pub lane: AnyLane,
    /// Where it stands there.
    pub seq: Seq,
    /// It has no deadline any more: the one it had had passed.
    pub waived: bool,
}

/// Why a copy is where it was, or is not known not to be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No copy with that sequence (any more).
    #[error("there is no copy {seq} in FED_PARKED")]
    Missing {
        /// The sequence.
        seq: Seq,
    },
    /// Something is there that can't be published as it was stored.
    #[error("message {seq} of FED_PARKED is no copy that can be published again: {cause}")]
    Unreadable {
        /// The sequence.
        seq: Seq,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// The lane did not take it; the copy stays. (After a time-out it may be in the lane: trying again is harmless.)
    #[error("copy {seq} stays parked: {refused}")]
    Refused {
        /// The sequence.
        seq: Seq,
        /// The limit or state that refused it.
        refused: Refused,
    },
    /// The broker calls it a duplicate of a message that can't be read back; the copy stays.
    #[error(
        "copy {seq} stays parked: the broker says that it was published as sequence {stored} of the lane, where it is not \
         any more; if it was delivered the copy can be deleted by hand"
    )]
    Duplicate {
        /// The copy's sequence.
        seq: Seq,
        /// That of the message in the lane's stream.
        stored: Seq,
    },
    /// It is in the lane, and the copy is not known to be deleted: trying again does no harm for ten minutes.
    #[error("copy {seq} is back in its lane as sequence {stored}, but is not known to have left FED_PARKED: {cause}")]
    CopyKept {
        /// The copy's sequence.
        seq: Seq,
        /// That of the message in the lane's stream.
        stored: Seq,
        /// What went wrong.
        cause: String,
    },
    /// The broker does not answer; nothing was done.
    #[error("copy {seq} of FED_PARKED can't be read: {cause}")]
    Unavailable {
        /// The sequence.
        seq: Seq,
        /// What went wrong.
        cause: String,
    },
}

/// Publishes a copy again, at its lane's end, and deletes it.
///
/// # Errors
/// See [`Error`]; only [`Error::CopyKept`] means that it is in the lane.
pub async fn redrive(broker: &Broker, seq: Seq) -> Result<Redriven, Error> {
    let unavailable = |cause: String| Error::Unavailable { seq, cause };
    if !broker.connected() {
        return Err(unavailable("there is no connection to the broker".to_owned()));
    }
    let parked = &definitions::parked().name;
    // Which stream it was read from: sequences come again in one that is made anew, and another copy would be deleted.
    let info = api::stream_info(broker, parked).await.map_err(|error| unavailable(error.to_string()))?;
    let created = Created::new(info.info.created);
    let message = api::message(broker, parked, seq.0, None).await.map_err(|error| unavailable(error.to_string()))?;
    let message = message.ok_or(Error::Missing { seq })?;
    let unreadable = |cause| Error::Unreadable { seq, cause };
    let copy = ParkedMessage::read(message).ok_or_else(|| unreadable("its subject is no lane's"))?;
    if !copy.whole {
        return Err(unreadable("a header is no text"));
    }
    let lane = copy.parked.lane.clone();
    let id = id(&copy).ok_or_else(|| unreadable("it has no message id"))?;
    let waived = is_waived(&copy, OffsetDateTime::now_utc());
    let headers = headers(&copy, &id, waived);
    let queue = definitions::queue_of_kind(lane.kind());
    let stored = Publisher::new(broker).store_in(queue, lane.subject(), headers, copy.body, ACK_TIMEOUT).await;
    let stored = stored.map_err(|refused| Error::Refused { seq, refused })?;
    if stored.duplicate && !is_ours(broker, &lane, stored.sequence, &id).await {
        return Err(Error::Duplicate { seq, stored: stored.sequence });
    }
    delete(broker, created, seq).await.map_err(|cause| Error::CopyKept { seq, stored: stored.sequence, cause })?;
    Ok(Redriven { lane, seq: stored.sequence, waived })
}

/// `<original id>.redrive.<parked sequence>`. One that is parked and re-driven again keeps the id it first had: ids don't
/// grow.
fn id(copy: &ParkedMessage) -> Option<String> {
    let headers = &copy.parked.headers;
    let id = headers.get(header::MSG_ID).or_else(|| headers.get(stored::MSG_ID))?;
    let original = id.split_once(INFIX).map_or(id, |(original, _)| original);
    Some(format!("{original}{INFIX}{}", copy.parked.seq))
}

/// Whether its deadline does not count any more: it left for that, or has passed meanwhile. It would be parked again at
/// once.
fn is_waived(copy: &ParkedMessage, now: OffsetDateTime) -> bool {
    let deadline = copy.parked.headers.get(stored::DEADLINE);
    let passed = deadline.is_some_and(|text| OffsetDateTime::parse(text, &Rfc3339).is_ok_and(|at| at <= now));
    passed || (deadline.is_some() && copy.parked.reason == Some(ParkReason::Expired))
}

fn headers(copy: &ParkedMessage, id: &str, waived: bool) -> Vec<(&'static str, String)> {
    let original = |name: &'static str| Some((name, copy.parked.headers.get(name)?.to_owned()));
    let mut headers: Vec<_> = ORIGINAL.into_iter().filter_map(original).collect();
    headers.extend(original(stored::DEADLINE).filter(|_| !waived));
    headers.push((stored::MSG_ID, id.to_owned()));
    headers.push((stored::REDRIVE, copy.parked.seq.to_string()));
    headers
}

/// Whether the message that the broker named is the one that was published under this id.
async fn is_ours(broker: &Broker, lane: &AnyLane, sequence: Seq, id: &str) -> bool {
    let queue = definitions::queue_of_kind(lane.kind());
    let found = api::message(broker, &queue.name, sequence.0, None).await;
    let is_it = |message: api::RawMessage| {
        message.subject == lane.subject() && Headers::from_block(&message.headers).get(stored::MSG_ID) == Some(id)
    };
    found.ok().flatten().is_some_and(is_it)
}

async fn delete(broker: &Broker, created: Created, seq: Seq) -> Result<(), String> {
    let parked = &definitions::parked().name;
    identity::confirm(broker, parked, created).await.map_err(|error| error.to_string())?;
    let stream = broker.context().get_stream_no_info(parked).await.map_err(|error| error.to_string())?;
    if let Err(error) = stream.delete_message(seq.0).await {
        // Somebody else's re-drive of the same copy was quicker: then it is gone.
        match api::message(broker, parked, seq.0, None).await {
            Ok(None) => {}
            _ => return Err(error.to_string()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(reason: &str, deadline: &str, id: &str) -> ParkedMessage {
        let block = format!(
            "NATS/1.0\r\nFed-Parked-Reason: {reason}\r\nFed-Deadline: {deadline}\r\nFed-Parked-Msg-Id: {id}\r\n\
             Fed-Target: /inbox\r\nNats-Msg-Id: the-copys\r\n\r\n"
        );
        let subject = "fed.parked.inbox.a_example.b_example".to_owned();
        ParkedMessage::read(api::RawMessage { subject, sequence: 9, headers: block.into_bytes(), payload: vec![] })
            .expect("a copy")
    }

    #[test]
    fn a_deadline_is_waived_where_it_was_the_reason_or_has_passed_and_kept_otherwise() {
        let now = OffsetDateTime::now_utc();
        let (past, ahead) = ("2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z");
        for (reason, deadline, waived) in
            [("expired", past, true), ("expired", ahead, true), ("poison", past, true), ("poison", ahead, false)]
        {
            let copy = copy(reason, deadline, "x");
            assert_eq!(is_waived(&copy, now), waived, "{reason} {deadline}");
            let kept = headers(&copy, "x", waived).iter().any(|(name, _)| *name == stored::DEADLINE);
            assert_eq!(kept, !waived, "{reason} {deadline}");
        }
    }

    #[test]
    fn an_id_does_not_grow_from_one_redrive_to_the_next() {
        assert_eq!(id(&copy("poison", "", "abc")).as_deref(), Some("abc.redrive.9"));
        assert_eq!(id(&copy("poison", "", "abc.redrive.3")).as_deref(), Some("abc.redrive.9"));
    }

    #[test]
    fn nothing_of_the_copys_own_goes_along() {
        let headers = headers(&copy("poison", "2999-01-01T00:00:00Z", "abc"), "abc.redrive.9", false);
        let names: Vec<_> = headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, [stored::TARGET, stored::DEADLINE, stored::MSG_ID, stored::REDRIVE]);
    }
}
