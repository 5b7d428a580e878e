//! What a lane holds in memory: the activities that its window knows by sequence only.

use std::collections::VecDeque;

use fedstream_jetstream::StoredMessage;
use fedstream_lane::{Answer, Epoch, LaneName, PostId, Seq};
use fedstream_wire::stored::header;
use time::OffsetDateTime;

use crate::attempt::Ongoing;
use crate::{Attempt, Ended, Item, Loaded};

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
    /// It had a final outcome.
    pub answered: bool,
    /// What became of it so far.
    pub attempts: Attempts,
    /// The attempt that is going on.
    attempt: Option<Ongoing>,
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
        Self {
            seq: message.seq,
            message,
            item,
            bytes,
            received_at,
            deadline,
            refusal,
            answered: false,
            attempts,
            attempt,
        }
    }

    /// When it was taken, for how long it took until it is settled; none for one that is re-driven: it left its lane in
    /// between, for as long as an operator took.
    #[must_use]
    pub fn taken_at(&self) -> Option<OffsetDateTime> {
        self.received_at.filter(|_| !self.is_redriven())
    }

    /// Since when it waits in its lane: as the front door tells of a lane's age. A message that no front door wrote has only
    /// the broker's time, and one that is re-driven waits since it came back.
    #[must_use]
    pub fn waits_since(&self) -> OffsetDateTime {
        self.taken_at().unwrap_or(self.message.stored_at)
    }

    fn is_redriven(&self) -> bool {
        self.message.headers.get(header::REDRIVE).is_some()
    }

    /// Begins an attempt: a span that continues the activity's trace, and the item that carries the trace on.
    #[must_use]
    pub fn begin<L: LaneName>(&mut self, lane: &L, epoch: Epoch, post: PostId) -> Option<Attempt<I>> {
        let mut item = self.item.as_ref().ok()?.clone();
        let ongoing = Ongoing::begin(lane, epoch, post, self, &mut item);
        let span = ongoing.span().clone();
        self.attempt = Some(ongoing);
        Some(Attempt { seq: self.seq, before: self.attempts.count, item, span })
    }

    /// Ends the attempt, if one is going on, with the instance's word.
    pub fn end(&mut self, answer: &Answer) {
        if let Some(attempt) = self.attempt.take() {
            attempt.end(answer);
        }
    }
}

/// What a message takes in memory.
fn bytes_of(message: &StoredMessage) -> usize {
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    headers + message.payload.len()
}

/// Until when an activity's signature is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// Until then.
    pub at: OffsetDateTime,
    /// When the front door took the same activity.
    pub received_at: Option<OffsetDateTime>,
}

impl Deadline {
    /// How long the signature was good for when it was received.
    #[must_use]
    pub fn lifetime(&self) -> Option<time::Duration> {
        Some(self.at - self.received_at?)
    }
}

/// The held activities of a lane, in its order.
#[derive(Debug)]
pub struct HeldQueue<I> {
    items: VecDeque<Held<I>>,
    /// The deadlines that are nearer than any of a later activity, in lane order: the first is the nearest of all.
    deadlines: VecDeque<(Seq, Deadline)>,
}

impl<I> Default for HeldQueue<I> {
    fn default() -> Self {
        Self { items: VecDeque::new(), deadlines: VecDeque::new() }
    }
}

impl<I: Item> HeldQueue<I> {
    /// Adds what was read last.
    pub fn push(&mut self, held: Held<I>) {
        if let Some(at) = held.deadline {
            while self.deadlines.back().is_some_and(|(_, before)| before.at >= at) {
                self.deadlines.pop_back();
            }
            self.deadlines.push_back((held.seq, Deadline { at, received_at: held.received_at }));
        }
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
    pub fn nearest_deadline(&self) -> Option<Deadline> {
        self.deadlines.front().map(|(_, deadline)| *deadline)
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

    const STORED_AT: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn unreadable(seq: u64) -> Held<Nothing> {
        with(seq, "Name")
    }

    fn with(seq: u64, header: &'static str) -> Held<Nothing> {
        let headers = Headers::from(&headers::to_map([(header, "value")]).expect("fine headers"));
        let payload = Bytes::from_static(b"x");
        let message = StoredMessage { seq: Seq(seq), headers, payload, stored_at: STORED_AT, pending: 0 };
        Held::new(message, Err("nobody's".to_owned()))
    }

    #[test]
    fn what_cannot_be_read_is_held_to_be_parked_and_takes_memory() {
        let held = unreadable(3);
        assert_eq!((held.bytes, held.received_at), ("Name".len() + "value".len() + 1, None));
        assert_eq!(held.item.expect_err("unreadable"), "nobody's");
    }

    #[test]
    fn what_is_redriven_waits_since_it_came_back_and_has_no_latency() {
        let received = STORED_AT - time::Duration::days(3);
        let of = |header| {
            let held = Held { received_at: Some(received), ..with(1, header) };
            (held.waits_since(), held.taken_at())
        };
        assert_eq!(of("Name"), (received, Some(received)));
        assert_eq!(of(header::REDRIVE), (STORED_AT, None));
        let foreign = unreadable(1);
        assert_eq!((foreign.waits_since(), foreign.taken_at()), (STORED_AT, None), "no front door wrote it");
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
            nearest.push(queue.nearest_deadline().map(|deadline| deadline.at));
        }
        assert_eq!(nearest, [Some(at(5)), Some(at(7)), Some(at(7)), Some(at(7)), Some(at(8)), None]);
    }

    #[test]
    fn the_nearest_deadline_comes_with_the_lifetime_of_its_own_activity() {
        let mut queue = HeldQueue::default();
        let at = |minutes| Some(OffsetDateTime::UNIX_EPOCH + time::Duration::minutes(minutes));
        // Days old, and re-driven without a deadline.
        queue.push(Held { received_at: at(0), ..unreadable(1) });
        queue.push(Held { received_at: at(5000), deadline: at(5055), ..unreadable(2) });
        let nearest = queue.nearest_deadline().expect("the second one's");
        assert_eq!(nearest.lifetime(), Some(time::Duration::minutes(55)));
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
