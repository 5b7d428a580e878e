//! Reading one lane: a reader that is opened again whenever it ends, in a task of its own.
//!
//! Progress is the purge, so a new reader starts with what the lane holds, and what was already handed on is dropped:
//! known by sequence and message id, for a broker that was restored hands out the same sequences for other activities.
//! A reader ends by itself on a reconnect, when it went silent, and when its stream was made anew
//! (`fedstream_jetstream::reader`).

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use fedstream_jetstream::publish::MSG_ID;
use fedstream_jetstream::reader::{Error, LaneReader, StoredMessage};
use fedstream_jetstream::{Broker, Created};
use fedstream_lane::Seq;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::plan::ReadPlan;

/// Between two tries to open a reader that could not be opened, or broke.
const REOPEN_AFTER: Duration = Duration::from_millis(500);

/// Between two tries of a reader that is cut off each time before it brings anything, at most. A message that the client
/// library can't parse costs the whole process its connection: the other lanes move between these tries.
const CUT_OFF_PAUSE_MAX: Duration = Duration::from_secs(60);

/// So often in a row, and it is neither a broker that restarts nor the trouble of another lane (whose tries soon lie
/// further apart than [`CUT_OFF_WITHIN`]).
const CUT_OFF_TOLD: u32 = 5;

/// A reader that lived longer was not cut off by what it read.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(2);

/// What the reader brings.
#[derive(Debug)]
pub enum Reading {
    /// The lane's next message, above all before it.
    Message(StoredMessage),
    /// The lane can't be read now; tried again.
    Trouble(String),
    /// Sequences mean something else now: the lane starts again, under a new epoch.
    Anew(String),
}

/// A lane being read by a task of its own.
#[derive(Debug)]
pub struct LaneReading {
    messages: mpsc::Receiver<Reading>,
    task: JoinHandle<()>,
}

impl LaneReading {
    /// Starts to read `subject` of the stream that was created at `created`.
    #[must_use]
    pub fn start(
        broker: Broker,
        stream: &'static str,
        subject: String,
        created: Created,
        plan: watch::Receiver<ReadPlan>,
    ) -> Self {
        // One message ahead: what bounds the lane's memory is the window, and the consumer's own prefetch.
        let (sender, messages) = mpsc::channel(1);
        let handed_on = HandedOn::default();
        let pump = Pump { broker, stream, subject, created, plan, sender, handed_on, cut_off: 0 };
        Self { messages, task: tokio::spawn(pump.run()) }
    }

    /// What comes next; none when the task is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Reading> {
        self.messages.recv().await
    }

    /// Deletes the consumer, and waits for it.
    pub async fn close(mut self) {
        self.messages.close();
        while self.messages.recv().await.is_some() {} // what was read ahead is still in the stream
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a lane's reader ended badly");
        }
    }
}

struct Pump {
    broker: Broker,
    stream: &'static str,
    subject: String,
    created: Created,
    plan: watch::Receiver<ReadPlan>,
    sender: mpsc::Sender<Reading>,
    handed_on: HandedOn,
    /// Readers in a row that a lost connection ended before they brought anything.
    cut_off: u32,
}

/// Why a pump ends.
enum Done {
    /// The lane is to be read in another way from now on.
    Changed,
    /// Nobody listens any more.
    Closed,
    /// Sequences mean something else now.
    Anew(String),
}

impl Pump {
    async fn run(mut self) {
        loop {
            let opened = Instant::now();
            let error = match self.read().await {
                Ok(Done::Closed) => return,
                Ok(Done::Changed) => continue,
                Ok(Done::Anew(why)) => return self.tell(Reading::Anew(why)).await,
                Err(error) if error.is_made_anew() => return self.tell(Reading::Anew(error.to_string())).await,
                Err(error) => error,
            };
            tracing::debug!(subject = self.subject, %error, "the lane's reader is opened again");
            if opened.elapsed() > CUT_OFF_WITHIN {
                self.cut_off = 0;
            }
            let pause = match &error {
                Error::Reconnected => self.cut_off_pause(),
                Error::Silent { .. } => Duration::ZERO,
                _ => REOPEN_AFTER,
            };
            if !matches!(error, Error::Reconnected | Error::Silent { .. }) {
                self.tell(Reading::Trouble(format!("the lane can't be read: {error}"))).await;
            } else if self.cut_off >= CUT_OFF_TOLD {
                let why = "the connection is lost each time the lane is read: a message with a malformed header?";
                self.tell(Reading::Trouble(why.to_owned())).await;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.sender.closed() => return,
            }
        }
    }

    async fn tell(&self, reading: Reading) {
        drop(self.sender.send(reading).await); // refused only where nobody listens any more
    }

    /// None for the first: a broker that restarted is read again at once.
    fn cut_off_pause(&mut self) -> Duration {
        self.cut_off += 1;
        match self.cut_off {
            1 => Duration::ZERO,
            more => (REOPEN_AFTER * 2_u32.saturating_pow(more.min(16) - 2)).min(CUT_OFF_PAUSE_MAX),
        }
    }

    /// Reads until nobody listens, or until the reader ends with an error.
    async fn read(&mut self) -> Result<Done, Error> {
        let ReadPlan { options, remember } = *self.plan.borrow_and_update();
        self.handed_on.most = remember;
        let mut reader = LaneReader::open(&self.broker, self.stream, &self.subject, self.created, options).await?;
        let ended = self.hand_on(&mut reader).await;
        reader.close().await;
        ended
    }

    async fn hand_on(&mut self, reader: &mut LaneReader) -> Result<Done, Error> {
        loop {
            let message = tokio::select! {
                message = reader.next() => message?,
                Ok(()) = self.plan.changed() => return Ok(Done::Changed),
                () = self.sender.closed() => return Ok(Done::Closed),
            };
            self.cut_off = 0;
            match self.handed_on.enter(&message) {
                Entry::New => {}
                Entry::Again => continue,
                Entry::Other => {
                    return Ok(Done::Anew(format!("sequence {} came back as another activity", message.seq)));
                }
            }
            if self.sender.send(Reading::Message(message)).await.is_err() {
                return Ok(Done::Closed);
            }
        }
    }
}

/// What was handed on last and may come again, by sequence and a hash of the message id: more than a window and what
/// waits to be trimmed. One that was forgotten counts as unknown, and the lane starts again under a new epoch: always
/// safe, for the far side remembers.
#[derive(Debug, Default)]
struct HandedOn {
    most: usize,
    last: Seq,
    known: VecDeque<(Seq, u64)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    /// Above all before it.
    New,
    /// Handed on before.
    Again,
    /// At or below what was handed on, and not known.
    Other,
}

impl HandedOn {
    fn enter(&mut self, message: &StoredMessage) -> Entry {
        let mut hasher = DefaultHasher::new();
        message.headers.get(MSG_ID).hash(&mut hasher);
        let entry = (message.seq, hasher.finish());
        if message.seq <= self.last {
            return if self.known.contains(&entry) { Entry::Again } else { Entry::Other };
        }
        self.last = message.seq;
        self.known.push_back(entry);
        while self.known.len() > self.most {
            self.known.pop_front();
        }
        Entry::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use fedstream_jetstream::{Headers, headers};

    fn message(seq: u64, msg_id: &str) -> StoredMessage {
        let map = headers::to_map([(MSG_ID, msg_id)]).unwrap();
        StoredMessage {
            seq: Seq(seq),
            headers: Headers::from(&map),
            payload: Bytes::new(),
            stored_at: time::OffsetDateTime::UNIX_EPOCH,
            pending: 0,
        }
    }

    #[test]
    fn a_sequence_that_comes_back_as_another_activity_is_not_dropped() {
        let mut handed_on = HandedOn { most: 10, ..HandedOn::default() };
        assert_eq!(handed_on.enter(&message(3, "a")), Entry::New);
        assert_eq!(handed_on.enter(&message(7, "b")), Entry::New);
        assert_eq!(handed_on.enter(&message(3, "a")), Entry::Again, "a reader that was opened again");
        assert_eq!(handed_on.enter(&message(3, "c")), Entry::Other, "a broker that was restored");
        assert_eq!(handed_on.enter(&message(5, "d")), Entry::Other);
    }

    #[test]
    fn what_is_known_is_bounded_and_what_was_forgotten_is_unknown() {
        let mut handed_on = HandedOn { most: 10, ..HandedOn::default() };
        for seq in 1..=11 {
            assert_eq!(handed_on.enter(&message(seq, "a")), Entry::New);
        }
        assert_eq!(handed_on.known.len(), 10);
        assert_eq!(handed_on.enter(&message(1, "a")), Entry::Other);
    }
}
