//! What a lane holds in memory: the activities that its window knows by sequence only.

use std::collections::VecDeque;

use bytes::Bytes;
use fedstream_jetstream::StoredMessage;
use fedstream_lane::{Answer, Lane, PostId, Seq};
use fedstream_service::context;
use fedstream_wire::micros;
use fedstream_wire::stored::StoredActivity;
use fedstream_wire::v2::BatchItem;
use time::OffsetDateTime;
use tracing::Span;

/// One activity between the stream and its final outcome.
#[derive(Debug)]
pub struct Held {
    /// Its sequence.
    pub seq: Seq,
    /// The message as it was stored: what a parked copy is made of.
    pub message: StoredMessage,
    /// What is posted, or why it can't be.
    pub item: Result<BatchItem, String>,
    /// When the front door took it.
    pub received_at: Option<OffsetDateTime>,
    /// Until when its signature is accepted; none where that does not matter (a re-drive).
    pub deadline: Option<OffsetDateTime>,
    /// What the instance said when it refused it.
    pub refusal: Option<Answer>,
    /// What became of it so far.
    pub attempts: Attempts,
    /// The attempt that is going on, as a span in the activity's own trace, and its POST.
    attempt: Option<(PostId, Span)>,
}

/// The attempts at one activity, for the copy that is parked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// How many reached the instance, or may have.
    pub count: u32,
    /// Status of the last one that had an answer.
    pub status: Option<u16>,
    /// Why the last one failed.
    pub cause: Option<String>,
    /// When the first one ended.
    pub first: Option<OffsetDateTime>,
    /// When the last one ended.
    pub last: Option<OffsetDateTime>,
}

impl Attempts {
    /// One more, that ended now.
    pub fn ended(&mut self, status: Option<u16>, cause: Option<String>) {
        let now = OffsetDateTime::now_utc();
        self.count = self.count.saturating_add(1);
        (self.status, self.cause) = (status.or(self.status), cause);
        self.first.get_or_insert(now);
        self.last = Some(now);
    }
}

impl Held {
    /// Reads a stored message; one that can't be read is held too, to be parked.
    #[must_use]
    pub fn new(message: StoredMessage) -> Self {
        let read = StoredActivity::from_headers(|name| message.headers.get(name), message.payload.clone());
        let (received_at, deadline) =
            read.as_ref().map_or((None, None), |stored| (Some(stored.received_at), stored.deadline));
        let item = read.map(|stored| item(message.seq, stored)).map_err(|error| error.to_string());
        let (refusal, attempts, attempt) = (None, Attempts::default(), None);
        Self { seq: message.seq, message, item, received_at, deadline, refusal, attempts, attempt }
    }

    /// Its size in a batch; none when it can't be posted.
    #[must_use]
    pub fn batch_bytes(&self) -> Option<usize> {
        self.item.as_ref().ok().map(BatchItem::size_hint)
    }

    /// What the message takes in memory.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        let headers: usize = self.message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        headers + self.message.payload.len()
    }

    /// Begins an attempt: a span that continues the activity's trace, and the item that carries the trace on.
    #[must_use]
    pub fn begin(&mut self, lane: &Lane, post: PostId) -> Option<(BatchItem, Span)> {
        let mut item = self.item.as_ref().ok()?.clone();
        let span = tracing::info_span!(
            "process",
            otel.name = "process fed.inbox.{destination}.{source}",
            otel.kind = "consumer",
            messaging.system = "nats",
            messaging.operation.name = "process",
            messaging.operation.r#type = "process",
            messaging.destination.name = lane.subject(),
            messaging.destination.template = "fed.inbox.{destination}.{source}",
            activitypub.activity.id = item.activity_id,
            activitypub.remote.host = lane.source.as_str(),
            fedstream.lane = %lane,
            fedstream.seq = self.seq.0,
            fedstream.outcome = tracing::field::Empty,
            http.response.status_code = tracing::field::Empty,
        );
        context::continue_from(&span, context::extract(item.traceparent.as_deref(), item.tracestate.as_deref()));
        if let Some(trace) = context::of(&span) {
            (item.traceparent, item.tracestate) = (Some(trace.traceparent), trace.tracestate);
        }
        self.attempt = Some((post, span.clone()));
        Some((item, span))
    }

    /// Ends the attempt, if one is going on.
    pub fn end(&mut self, outcome: &str, status: Option<u16>) {
        if let Some((_, span)) = self.attempt.take() {
            span.record("fedstream.outcome", outcome);
            if let Some(status) = status {
                span.record("http.response.status_code", status);
            }
        }
    }
}

fn item(seq: Seq, stored: StoredActivity) -> BatchItem {
    BatchItem {
        seq,
        msg_id: stored.msg_id,
        received_at_us: micros(stored.received_at),
        scheme: stored.scheme,
        target: stored.target,
        http: stored.http.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect(),
        body: stored.body,
        activity_id: stored.activity_id,
        traceparent: stored.traceparent,
        tracestate: stored.tracestate,
    }
}

/// The held activities of a lane, in its order.
#[derive(Debug, Default)]
pub struct HeldQueue {
    items: VecDeque<Held>,
}

impl HeldQueue {
    /// Adds what was read last.
    pub fn push(&mut self, held: Held) {
        self.items.push_back(held);
    }

    /// The activity of this sequence.
    pub fn get_mut(&mut self, seq: Seq) -> Option<&mut Held> {
        let at = self.items.binary_search_by_key(&seq, |held| held.seq).ok()?;
        self.items.get_mut(at)
    }

    /// Lets go of what is settled.
    pub fn release(&mut self, floor: Seq) {
        while self.items.front().is_some_and(|held| held.seq <= floor) {
            self.items.pop_front();
        }
    }

    /// Ends the attempts of one POST, or all that are going on.
    pub fn end_attempts(&mut self, post: Option<PostId>, outcome: &str) {
        for held in &mut self.items {
            if held.attempt.as_ref().is_some_and(|(of, _)| post.is_none_or(|post| post == *of)) {
                held.end(outcome, None);
            }
        }
    }

    /// The lane's head, as far as it is read.
    pub fn head(&self) -> Option<&Held> {
        self.items.front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_jetstream::Headers;

    fn unreadable(seq: u64) -> Held {
        Held::new(StoredMessage {
            seq: Seq(seq),
            headers: Headers::default(),
            payload: Bytes::from_static(b"x"),
            pending: 0,
        })
    }

    #[test]
    fn a_message_of_somebody_else_is_held_to_be_parked() {
        let held = unreadable(3);
        assert_eq!(held.batch_bytes(), None);
        assert_eq!(held.item.unwrap_err(), "the header Fed-Version is missing");
    }

    #[test]
    fn what_is_settled_is_released() {
        let mut queue = HeldQueue::default();
        for seq in [3, 7, 9] {
            queue.push(unreadable(seq));
        }
        queue.release(Seq(7));
        assert!(queue.get_mut(Seq(3)).is_none() && queue.get_mut(Seq(8)).is_none());
        assert!(queue.get_mut(Seq(9)).is_some());
    }
}
