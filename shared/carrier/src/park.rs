//! The copy of what leaves its lane undelivered, in FED_PARKED: the message as it was stored, and why it left.

use std::time::Duration;

use bytes::Bytes;
use fedstream_jetstream::parked::header;
use fedstream_jetstream::publish::MSG_ID;
use fedstream_jetstream::{Created, Publisher, Refused, Stored};
use fedstream_lane::{Answer, Epoch, LaneName, ParkReason, Seq};
use fedstream_service::{attributes, context};
use fedstream_wire::{rfc3339, stored};
use time::OffsetDateTime;
use tracing::Span;

use crate::held::Held;
use crate::{Direction, Item, Shared};

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

/// A copy on its way.
#[derive(Debug)]
pub struct Copy<L> {
    /// The lane that it leaves.
    pub lane: L,
    /// Its sequence there.
    pub seq: Seq,
    /// Why it leaves.
    pub reason: ParkReason,
    /// Those of the original, and those that say why it left ([`header`]).
    pub headers: Vec<(&'static str, String)>,
    /// The original's.
    pub body: Bytes,
    msg_id: String,
}

impl<L: LaneName> Copy<L> {
    /// The copy of this activity, with those headers of it that are `kept`.
    ///
    /// Its id is `<lane>.<stream created>.<sequence>.<reason>.<message id>`: the sequences of a stream that was made anew
    /// or restored come again, and their copies must not be taken for repeats of the earlier ones'.
    #[must_use]
    pub(crate) fn new<I: Item>(
        lane: &L,
        created: Created,
        held: &Held<I>,
        reason: ParkReason,
        kept: &[&'static str],
    ) -> Self {
        let mut headers: Vec<_> =
            kept.iter().filter_map(|name| Some((*name, held.message.headers.get(name)?.to_owned()))).collect();
        headers.push((header::REASON, reason.as_str().to_owned()));
        headers.push((header::AT, rfc3339(OffsetDateTime::now_utc())));
        headers.push((header::SEQUENCE, held.seq.to_string()));
        if let Some(msg_id) = held.message.headers.get(MSG_ID) {
            headers.push((header::MSG_ID, msg_id.to_owned()));
        }
        headers.extend(told(held));
        let original = held.message.headers.get(MSG_ID).unwrap_or_default();
        let original: String = original.chars().filter(char::is_ascii_alphanumeric).take(ID_CHARS).collect();
        let msg_id = format!("{}.{}.{}.{}.{original}", lane.key(), created.unix_micros(), held.seq, reason.as_str());
        Self { lane: lane.clone(), seq: held.seq, reason, msg_id, headers, body: held.message.payload.clone() }
    }

    /// Stores the copy, and does what is due then; returns when both is done. `trouble` hears of each try that failed.
    pub(crate) async fn store<D, F>(self, shared: &Shared<D>, trouble: impl Fn(String) -> F)
    where
        D: Direction<Lane = L>,
        F: Future<Output = ()>,
    {
        let mut pause = Pause(RETRY_MIN);
        while let Err(refused) = self.try_to_store(&shared.publisher).await {
            trouble(format!("the copy of sequence {} can't be parked: {refused}", self.seq)).await;
            pause.wait().await;
        }
        while let Err(cause) = D::parked(shared, &self).await {
            trouble(format!("sequence {} is parked: {cause}", self.seq)).await;
            pause.wait().await;
        }
    }

    async fn try_to_store(&self, publisher: &Publisher) -> Result<Stored, Refused> {
        publisher.park(&self.lane, &self.msg_id, self.headers.clone(), self.body.clone(), ACK_TIMEOUT).await
    }
}

/// Between two tries.
struct Pause(Duration);

impl Pause {
    async fn wait(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(RETRY_MAX);
    }
}

/// The span of a parking, in the activity's trace: exported whatever share of traces is.
pub(crate) fn span<L: LaneName, I: Item>(lane: &L, epoch: Epoch, held: &Held<I>, reason: ParkReason) -> Span {
    let header = |name| held.message.headers.get(name);
    // A publisher may leave the header out: it is for people.
    let activity_id = header(stored::header::ACTIVITY_ID).or_else(|| held.item.as_ref().ok().map(Item::activity_id));
    let status = held.refusal.as_ref().map(|answer| answer.status).or(held.attempts.status);
    let span = tracing::info_span!(
        parent: None,
        "park",
        otel.name = format!("publish {}", L::PARKED_TEMPLATE),
        otel.kind = "producer",
        otel.status_code = "ERROR",
        otel.status_description = reason.as_str(),
        { attributes::ALWAYS_SAMPLED } = true,
        { attributes::ERROR_TYPE } = reason.as_str(),
        { attributes::MESSAGING_SYSTEM } = attributes::NATS,
        { attributes::MESSAGING_OPERATION } = "publish",
        { attributes::MESSAGING_OPERATION_TYPE } = "send",
        { attributes::MESSAGING_DESTINATION } = lane.parked_subject(),
        { attributes::MESSAGING_TEMPLATE } = L::PARKED_TEMPLATE,
        { attributes::MESSAGE_BODY_SIZE } = attributes::number(held.message.payload.len()),
        { attributes::ACTIVITY_ID } = activity_id,
        { attributes::ACTIVITY_TYPE } = header(stored::header::ACTIVITY_TYPE),
        { attributes::REMOTE_HOST } = lane.remote().as_str(),
        { attributes::HTTP_STATUS } = status.map(i64::from),
        { attributes::LANE } = %lane,
        { attributes::SEQ } = attributes::number(held.seq.0),
        { attributes::EPOCH } = attributes::number(epoch.0),
        { attributes::PARK_REASON } = reason.as_str(),
        { attributes::ATTEMPTS } = i64::from(held.attempts.count),
    );
    let (traceparent, tracestate) = (header(stored::header::TRACEPARENT), header(stored::header::TRACESTATE));
    context::continue_from(&span, context::extract(traceparent, tracestate));
    span
}

/// What its attempts came to: number and times, the last status, and what the instance (or the link) said.
fn told<I>(held: &Held<I>) -> Vec<(&'static str, String)> {
    let attempts = &held.attempts;
    let refusal = held.refusal.as_ref();
    let asked = |answer: &Answer| (answer.status != 0).then_some(answer.status);
    let status = refusal.map_or(attempts.status, asked);
    let said = match (refusal, &held.item) {
        (Some(answer), _) => answer.body.as_deref().map(str::to_owned),
        (None, Err(why)) => Some(why.clone()),
        (None, Ok(_)) => attempts.cause.clone(),
    };
    let all = [
        (header::ATTEMPTS, Some(attempts.count.to_string())),
        (header::FIRST_ATTEMPT, attempts.first.map(rfc3339)),
        (header::LAST_ATTEMPT, attempts.last.map(rfc3339)),
        (header::STATUS, status.map(|status| status.to_string())),
        (header::ANSWER, said.as_deref().map(printable)),
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
