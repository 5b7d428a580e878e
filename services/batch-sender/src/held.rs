//! What a lane holds in memory: the activities that its window knows by sequence only.

use std::collections::VecDeque;

use bytes::Bytes;
use fedstream_jetstream::StoredMessage;
use fedstream_lane::{Answer, Epoch, Lane, PostId, Seq};
use fedstream_service::context;
use fedstream_wire::micros;
use fedstream_wire::stored::StoredActivity;
use fedstream_wire::v2::BatchItem;
use time::OffsetDateTime;
use tracing::Span;

use crate::attempt::Attempt;
use crate::link::Ended;

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
    /// It had a final outcome.
    pub answered: bool,
    /// What became of it so far.
    pub attempts: Attempts,
    /// The attempt that is going on.
    attempt: Option<Attempt>,
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
        Self { seq: message.seq, message, item, received_at, deadline, refusal, answered: false, attempts, attempt }
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
    pub fn begin(&mut self, lane: &Lane, epoch: Epoch, post: PostId) -> Option<(BatchItem, Span)> {
        let mut item = self.item.as_ref().ok()?.clone();
        let attempt = Attempt::begin(lane, epoch, post, self, &item);
        let span = attempt.span().clone();
        if let Some(trace) = context::of(&span) {
            (item.traceparent, item.tracestate) = (Some(trace.traceparent), trace.tracestate);
        }
        self.attempt = Some(attempt);
        Some((item, span))
    }

    /// Ends the attempt, if one is going on, with the instance's word.
    pub fn end(&mut self, answer: &Answer) {
        if let Some(attempt) = self.attempt.take() {
            attempt.end(answer);
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
    /// The deadlines that are nearer than any of a later activity, in lane order: the first is the nearest of all.
    deadlines: VecDeque<(Seq, OffsetDateTime)>,
}

impl HeldQueue {
    /// Adds what was read last.
    pub fn push(&mut self, held: Held) {
        if let Some(deadline) = held.deadline {
            while self.deadlines.back().is_some_and(|(_, before)| *before >= deadline) {
                self.deadlines.pop_back();
            }
            self.deadlines.push_back((held.seq, deadline));
        }
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
        while self.deadlines.front().is_some_and(|(seq, _)| *seq <= floor) {
            self.deadlines.pop_front();
        }
    }

    /// Ends the attempts of a POST that had no outcome; of these at most `tried` was at the instance.
    pub fn end_attempts(&mut self, post: PostId, ended: &Ended, tried: Option<Seq>) {
        for held in &mut self.items {
            if let Some(attempt) = held.attempt.take_if(|attempt| attempt.post() == post) {
                attempt.again(ended, tried);
            }
        }
    }

    /// Ends all attempts: their owner lets go of the lane.
    pub fn let_go(&mut self, event: &'static str, why: &str) {
        for attempt in self.items.iter_mut().filter_map(|held| held.attempt.take()) {
            attempt.let_go(event, why);
        }
    }

    /// The nearest deadline of all that is held.
    pub fn nearest_deadline(&self) -> Option<OffsetDateTime> {
        self.deadlines.front().map(|(_, deadline)| *deadline)
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
    fn the_nearest_deadline_is_known_whatever_the_order() {
        let mut queue = HeldQueue::default();
        let at = |minutes| OffsetDateTime::UNIX_EPOCH + time::Duration::minutes(minutes);
        for (seq, deadline) in [(1, Some(5)), (2, Some(9)), (3, None), (4, Some(7)), (5, Some(8))] {
            queue.push(Held { deadline: deadline.map(at), ..unreadable(seq) });
        }
        let mut nearest = Vec::new();
        for floor in 0..=5 {
            queue.release(Seq(floor));
            nearest.push(queue.nearest_deadline());
        }
        assert_eq!(nearest, [Some(at(5)), Some(at(7)), Some(at(7)), Some(at(7)), Some(at(8)), None]);
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
