//! The copy of what leaves its lane undelivered, in FED_PARKED: the message as it was stored, and why it left.

use std::time::Duration;

use bytes::Bytes;
use fedstream_jetstream::{Created, Publisher};
use fedstream_lane::{Epoch, Lane, ParkReason, Seq};
use fedstream_service::{attributes, context};
use fedstream_wire::rfc3339;
use fedstream_wire::stored::header;
use time::OffsetDateTime;
use tracing::Span;

use crate::held::Held;

/// How long the broker may take to ack a copy.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two tries, the first and the longest. The lane stands meanwhile: no floor passes an activity whose copy is
/// not acked.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Longest text of an instance's answer that is kept, bytes: it stands in a header beside the original ones.
const ANSWER_BYTES_MAX: usize = 4 * 1024;

/// So much of the original's message id is enough to tell two apart: 16 hex digits of a hash.
const ID_CHARS: usize = 16;

/// Headers of the original that go along, in the order in which they are written.
const ORIGINAL: [&str; 11] = [
    header::MSG_ID,
    header::VERSION,
    header::ACTIVITY_ID,
    header::ACTIVITY_TYPE,
    header::RECEIVED_AT,
    header::TARGET,
    header::SCHEME,
    header::HTTP,
    header::DEADLINE,
    header::TRACEPARENT,
    header::TRACESTATE,
];

/// A copy on its way.
#[derive(Debug)]
pub struct Copy {
    lane: Lane,
    seq: Seq,
    msg_id: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Copy {
    /// The copy of this activity.
    ///
    /// Its id is `<lane>.<stream created>.<sequence>.<reason>.<message id>`: the sequences of a stream that was made anew
    /// or restored come again, and their copies must not be taken for repeats of the earlier ones'.
    #[must_use]
    pub fn new(lane: &Lane, created: Created, held: &Held, reason: ParkReason) -> Self {
        let mut headers: Vec<_> =
            ORIGINAL.into_iter().filter_map(|name| Some((name, held.message.headers.get(name)?.to_owned()))).collect();
        headers.push(("Fed-Parked-Reason", reason.as_str().to_owned()));
        headers.push(("Fed-Parked-At", rfc3339(OffsetDateTime::now_utc())));
        headers.push(("Fed-Parked-Sequence", held.seq.to_string()));
        if let Some(msg_id) = held.message.headers.get(header::MSG_ID) {
            headers.push(("Fed-Parked-Msg-Id", msg_id.to_owned()));
        }
        headers.extend(told(held));
        let original = held.message.headers.get(header::MSG_ID).unwrap_or_default();
        let original: String = original.chars().filter(char::is_ascii_alphanumeric).take(ID_CHARS).collect();
        let msg_id = format!("{}.{}.{}.{}.{original}", lane.key(), created.unix_micros(), held.seq, reason.as_str());
        Self { lane: lane.clone(), seq: held.seq, msg_id, headers, body: held.message.payload.clone() }
    }

    /// Stores the copy; returns when it is acked. `trouble` hears of each try that failed.
    pub async fn store<F: Future<Output = ()>>(self, publisher: Publisher, trouble: impl Fn(String) -> F) {
        let mut pause = RETRY_MIN;
        loop {
            let result =
                publisher.park(&self.lane, &self.msg_id, self.headers.clone(), self.body.clone(), ACK_TIMEOUT).await;
            match result {
                Ok(_) => return,
                Err(refused) => {
                    trouble(format!("the copy of sequence {} can't be parked: {refused}", self.seq)).await;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }
}

/// The span of a parking, in the activity's trace: exported whatever share of traces is.
pub fn span(lane: &Lane, epoch: Epoch, held: &Held, reason: ParkReason) -> Span {
    let header = |name| held.message.headers.get(name);
    let status = held.refusal.as_ref().map(|answer| answer.status).or(held.attempts.status);
    let span = tracing::info_span!(
        parent: None,
        "park",
        otel.name = "publish fed.parked.inbox.{destination}.{source}",
        otel.kind = "producer",
        otel.status_code = "ERROR",
        otel.status_description = reason.as_str(),
        { attributes::ALWAYS_SAMPLED } = true,
        { attributes::ERROR_TYPE } = reason.as_str(),
        { attributes::MESSAGING_SYSTEM } = attributes::NATS,
        { attributes::MESSAGING_OPERATION } = "publish",
        { attributes::MESSAGING_OPERATION_TYPE } = "send",
        { attributes::MESSAGING_DESTINATION } = lane.parked_subject(),
        { attributes::MESSAGING_TEMPLATE } = attributes::PARKED_TEMPLATE,
        { attributes::MESSAGE_BODY_SIZE } = attributes::number(held.message.payload.len()),
        { attributes::ACTIVITY_ID } = header(header::ACTIVITY_ID),
        { attributes::ACTIVITY_TYPE } = header(header::ACTIVITY_TYPE),
        { attributes::REMOTE_HOST } = lane.source.as_str(),
        { attributes::HTTP_STATUS } = status.map(i64::from),
        { attributes::LANE } = %lane,
        { attributes::SEQ } = attributes::number(held.seq.0),
        { attributes::EPOCH } = attributes::number(epoch.0),
        { attributes::PARK_REASON } = reason.as_str(),
        { attributes::ATTEMPTS } = i64::from(held.attempts.count),
    );
    context::continue_from(&span, context::extract(header(header::TRACEPARENT), header(header::TRACESTATE)));
    span
}

/// What its attempts came to: number and times, the last status, and what the instance (or the link) said.
fn told(held: &Held) -> Vec<(&'static str, String)> {
    let attempts = &held.attempts;
    let refusal = held.refusal.as_ref();
    let status = refusal.map(|answer| answer.status).or(attempts.status);
    let said = match (refusal, &held.item) {
        (Some(answer), _) => answer.body.as_deref().map(str::to_owned),
        (None, Err(why)) => Some(why.clone()),
        (None, Ok(_)) => attempts.cause.clone(),
    };
    let all = [
        ("Fed-Parked-Attempts", Some(attempts.count.to_string())),
        ("Fed-Parked-First-Attempt", attempts.first.map(rfc3339)),
        ("Fed-Parked-Last-Attempt", attempts.last.map(rfc3339)),
        ("Fed-Parked-Status", status.map(|status| status.to_string())),
        ("Fed-Parked-Answer", said.as_deref().map(printable)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// A text as a header value: cut, control characters as spaces.
fn printable(text: &str) -> String {
    let mut end = text.len().min(ANSWER_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_one_line_of_bounded_length() {
        assert_eq!(printable("a\r\nNats-Rollup: all\0"), "a  Nats-Rollup: all ");
        assert_eq!(printable(&"é".repeat(4000)).len(), ANSWER_BYTES_MAX);
    }
}
