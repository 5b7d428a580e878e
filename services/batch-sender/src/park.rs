//! The copy of what leaves its lane undelivered, in FED_PARKED: the message as it was stored, and why it left.

use std::time::Duration;

use bytes::Bytes;
use fedstream_jetstream::{Created, Publisher};
use fedstream_lane::{Answer, Lane, ParkReason, Seq};
use fedstream_wire::rfc3339;
use fedstream_wire::stored::header;
use time::OffsetDateTime;

use crate::held::Held;

/// How long the broker may take to ack a copy.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two tries. The lane stands meanwhile: no floor passes an activity whose copy is not acked.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Longest text of an instance's answer that is kept, bytes: it stands in a header beside the original ones.
const ANSWER_BYTES_MAX: usize = 4 * 1024;

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
    /// Its id is `<lane>.<stream created>.<sequence>.<reason>`: a stream made anew starts its sequences again, and
    /// must not have its copies taken for repeats of the old one's.
    #[must_use]
    pub fn new(lane: &Lane, created: Created, held: &Held, reason: ParkReason, attempts: u32) -> Self {
        let mut headers: Vec<_> =
            ORIGINAL.into_iter().filter_map(|name| Some((name, held.message.headers.get(name)?.to_owned()))).collect();
        headers.push(("Fed-Parked-Reason", reason.as_str().to_owned()));
        headers.push(("Fed-Parked-At", rfc3339(OffsetDateTime::now_utc())));
        headers.push(("Fed-Parked-Attempts", attempts.to_string()));
        headers.push(("Fed-Parked-Sequence", held.seq.to_string()));
        if let Some(msg_id) = held.message.headers.get(header::MSG_ID) {
            headers.push(("Fed-Parked-Msg-Id", msg_id.to_owned()));
        }
        if let Some(Answer { status, body, .. }) = &held.rejection {
            headers.push(("Fed-Parked-Status", status.to_string()));
            headers.push(("Fed-Parked-Answer", printable(body.as_deref().unwrap_or_default())));
        }
        if let Err(why) = &held.item {
            headers.push(("Fed-Parked-Answer", printable(why)));
        }
        let msg_id = format!("{}.{}.{}.{}", lane.key(), created.unix_micros(), held.seq, reason.as_str());
        Self { lane: lane.clone(), seq: held.seq, msg_id, headers, body: held.message.payload.clone() }
    }

    /// Stores the copy; returns when it is acked.
    pub async fn store(self, publisher: Publisher) {
        loop {
            let result =
                publisher.park(&self.lane, &self.msg_id, self.headers.clone(), self.body.clone(), ACK_TIMEOUT).await;
            match result {
                Ok(_) => return,
                Err(refused) => {
                    tracing::error!(lane = %self.lane, seq = self.seq.0, %refused, "a copy can't be parked: the lane stands until it is");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }
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
