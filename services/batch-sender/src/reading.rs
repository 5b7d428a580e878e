//! Reading one lane: a reader that is opened again whenever it ends, in a task of its own.
//!
//! Progress is the purge, so a new reader starts with what the lane holds, and what was already handed on is dropped.
//! A reader ends by itself on a reconnect, when it went silent, and when its stream was made anew
//! (`fedstream_jetstream::reader`).

use std::time::Duration;

use fedstream_jetstream::reader::{Error, LaneReader, ReaderOptions, StoredMessage};
use fedstream_jetstream::{Broker, Created};
use fedstream_lane::Seq;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Between two tries to open a reader that could not be opened, or broke.
const REOPEN_AFTER: Duration = Duration::from_millis(500);

/// What the reader brings.
#[derive(Debug)]
pub enum Reading {
    /// The lane's next message, above all before it.
    Message(StoredMessage),
    /// The stream is another one now: the lane starts again, under a new epoch.
    MadeAnew,
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
    pub fn start(broker: Broker, stream: &'static str, subject: String, created: Created) -> Self {
        // One message ahead: what bounds the lane's memory is the window, and the consumer's own prefetch.
        let (sender, messages) = mpsc::channel(1);
        let pump = Pump { broker, stream, subject, created, sender, last: Seq(0) };
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
    sender: mpsc::Sender<Reading>,
    last: Seq,
}

impl Pump {
    async fn run(mut self) {
        loop {
            match self.read().await {
                Ok(()) => return,
                Err(error) if error.is_made_anew() => {
                    drop(self.sender.send(Reading::MadeAnew).await); // refused only where nobody listens any more
                    return;
                }
                Err(error) => {
                    tracing::debug!(subject = self.subject, %error, "the lane's reader is opened again");
                    let pause = match error {
                        Error::Reconnected | Error::Silent { .. } => Duration::ZERO,
                        _ => REOPEN_AFTER,
                    };
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.sender.closed() => return,
                    }
                }
            }
        }
    }

    /// Reads until nobody listens, or until the reader ends with an error.
    async fn read(&mut self) -> Result<(), Error> {
        let options = ReaderOptions::default();
        let mut reader = LaneReader::open(&self.broker, self.stream, &self.subject, self.created, options).await?;
        let ended = self.hand_on(&mut reader).await;
        reader.close().await;
        ended
    }

    async fn hand_on(&mut self, reader: &mut LaneReader) -> Result<(), Error> {
        loop {
            let message = tokio::select! {
                message = reader.next() => message?,
                () = self.sender.closed() => return Ok(()),
            };
            if message.seq <= self.last {
                continue; // handed on before the reader was opened again
            }
            self.last = message.seq;
            if self.sender.send(Reading::Message(message)).await.is_err() {
                return Ok(());
            }
        }
    }
}
