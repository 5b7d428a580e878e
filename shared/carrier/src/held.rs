//! What a lane holds in memory: the activities that its window knows by sequence only.

use std::collections::VecDeque;

use fedstream_jetstream::StoredMessage;
use fedstream_lane::{Answer, LaneName, PostId, Seq};
use fedstream_service::context;
use time::OffsetDateTime;
use tracing::Span;

use crate::{Attempt, Item, Loaded};

/// One activity between the stream and its final outcome.
#[derive(Debug)]
pub struct Held<I> {
    /// Its sequence.
    pub seq: Seq,
    /// The message as it was stored: what a parked copy is made of.
    pub message: StoredMessage,
    /// What is posted, or why it can't be.
    pub item: Result<I, String>,
    /// Its size in a batch; what it takes in memory, where it can't be posted.
    pub bytes: usize,
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

impl<I: Item> Held<I> {
    /// A message as it was read; one that can't be read is held too, to be parked.
    #[must_use]
    pub fn new(message: StoredMessage, read: Result<Loaded<I>, String>) -> Self {
        let (received_at, deadline) =
            read.as_ref().map_or((None, None), |loaded| (Some(loaded.received_at), loaded.deadline));
        let bytes = read.as_ref().map_or_else(|_| bytes_of(&message), |loaded| loaded.bytes);
        let item = read.map(|loaded| loaded.item);
        let (refusal, attempts, attempt) = (None, Attempts::default(), None);
        Self { seq: message.seq, message, item, bytes, received_at, deadline, refusal, attempts, attempt }
    }

    /// Begins an attempt: a span that continues the activity's trace, and the item that carries the trace on.
    #[must_use]
    pub fn begin<L: LaneName>(&mut self, lane: &L, post: PostId) -> Option<Attempt<I>> {
        let mut item = self.item.as_ref().ok()?.clone();
        let span = tracing::info_span!(
            "process",
            otel.name = format!("process {}", L::TEMPLATE),
            otel.kind = "consumer",
            messaging.system = "nats",
            messaging.operation.name = "process",
            messaging.operation.r#type = "process",
            messaging.destination.name = lane.subject(),
            messaging.destination.template = L::TEMPLATE,
            activitypub.activity.id = item.activity_id(),
            activitypub.remote.host = lane.remote().as_str(),
            fedstream.lane = %lane,
            fedstream.seq = self.seq.0,
            fedstream.outcome = tracing::field::Empty,
            http.response.status_code = tracing::field::Empty,
        );
        let (traceparent, tracestate) = item.trace();
        context::continue_from(&span, context::extract(traceparent.as_deref(), tracestate.as_deref()));
        if let Some(trace) = context::of(&span) {
            (*traceparent, *tracestate) = (Some(trace.traceparent), trace.tracestate);
        }
        self.attempt = Some((post, span.clone()));
        Some(Attempt { seq: self.seq, before: self.attempts.count, item, span })
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

/// What a message takes in memory.
fn bytes_of(message: &StoredMessage) -> usize {
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    headers + message.payload.len()
}

/// The held activities of a lane, in its order.
#[derive(Debug)]
pub struct HeldQueue<I> {
    items: VecDeque<Held<I>>,
}

impl<I> Default for HeldQueue<I> {
    fn default() -> Self {
        Self { items: VecDeque::new() }
    }
}

impl<I: Item> HeldQueue<I> {
    /// Adds what was read last.
    pub fn push(&mut self, held: Held<I>) {
        self.items.push_back(held);
    }

    /// The activity of this sequence.
    pub fn get_mut(&mut self, seq: Seq) -> Option<&mut Held<I>> {
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
    pub fn head(&self) -> Option<&Held<I>> {
        self.items.front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use fedstream_jetstream::{Headers, headers};

    /// Of a message that is never read.
    #[derive(Clone, Debug)]
    enum Nothing {}

    impl Item for Nothing {
        fn activity_id(&self) -> &str {
            match *self {}
        }

        fn trace(&mut self) -> (&mut Option<String>, &mut Option<String>) {
            match *self {}
        }
    }

    fn unreadable(seq: u64) -> Held<Nothing> {
        let headers = Headers::from(&headers::to_map([("Name", "value")]).expect("fine headers"));
        let message = StoredMessage { seq: Seq(seq), headers, payload: Bytes::from_static(b"x"), pending: 0 };
        Held::new(message, Err("nobody's".to_owned()))
    }

    #[test]
    fn what_cannot_be_read_is_held_to_be_parked_and_takes_memory() {
        let held = unreadable(3);
        assert_eq!((held.bytes, held.received_at), ("Name".len() + "value".len() + 1, None));
        assert_eq!(held.item.expect_err("unreadable"), "nobody's");
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
