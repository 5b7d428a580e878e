//! The answer as it goes to the sender: a line an outcome, those of a busy lane a few together.
//!
//! ```text
//!   quiet for FED_ANSWER_LINGER ─▶ a line leaves at once
//!   a line left just now        ─▶ it waits for the rest of that time, and leaves with those that came meanwhile
//!   the last line               ─▶ leaves at once, with all that wait
//! ```
//!
//! A chunk of its own costs a write here, one in each proxy, and a reader that is woken at the other end: with an instance
//! that takes 5 ms that was a third of the processor time of both ends. What waits is an outcome that is known, so the
//! instance never stands still for it; if this process dies, it is what the next one is asked again.
//!
//! It never holds more than [`LINES_MAX`] lines or [`BYTES_MAX`] bytes back, and no line longer than the linger.

use std::future::Future;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fedstream_wire::v2::Line;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// A sender waits 30 s for a line; one that takes none for that long has given up without saying so.
const STALLED: Duration = Duration::from_secs(30);

/// More lines leave at once: as many as a quick instance answers while the sender's side takes one chunk.
const LINES_MAX: usize = 64;

/// So do more bytes: lines of refusals carry the instance's words.
const BYTES_MAX: usize = 16 * 1024;

/// Chunks that wait for the sender to take them; no further item is begun before one is taken.
const CHUNKS_WAITING_MAX: usize = 4;

/// The sender does not listen any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// The answer as it is written.
#[derive(Debug)]
pub struct Lines {
    chunks: mpsc::Sender<Bytes>,
    /// A sign of life after this long without a line.
    silence: Duration,
    /// Between two chunks.
    linger: Duration,
    /// When the last chunk left; none has yet where it is none.
    left: Option<Instant>,
    /// Since when nothing was heard of us.
    quiet_since: Instant,
    waiting: BytesMut,
    lines: usize,
}

impl Lines {
    /// An answer, and the chunks of it.
    #[must_use]
    pub fn new(silence: Duration, linger: Duration) -> (Self, mpsc::Receiver<Bytes>) {
        let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
        let (waiting, lines) = (BytesMut::new(), 0);
        (Self { chunks, silence, linger, left: None, quiet_since: Instant::now(), waiting, lines }, receiver)
    }

    /// Nobody would hear a line.
    #[must_use]
    pub fn has_gone(&self) -> bool {
        self.chunks.is_closed()
    }

    /// Says a line, now or with the next ones.
    ///
    /// # Errors
    /// The sender has gone, or takes nothing.
    pub async fn send(&mut self, line: Line) -> Result<(), Gone> {
        self.waiting.extend_from_slice(&line.encode());
        self.lines += 1;
        let is_full = self.lines >= LINES_MAX || self.waiting.len() >= BYTES_MAX;
        if is_full || !matches!(line, Line::Outcome(..)) || Instant::now() >= self.due() {
            return self.leave().await;
        }
        Ok(())
    }

    /// Waits for something for as long as the sender is there. Meanwhile lines leave when they are due, and a sign of life
    /// when there was none for long.
    ///
    /// # Errors
    /// The sender has gone, or takes nothing.
    pub async fn alive_while<T>(&mut self, something: impl Future<Output = T>) -> Result<T, Gone> {
        tokio::pin!(something);
        loop {
            let waits = !self.waiting.is_empty();
            let next = if waits { self.due() } else { self.quiet_since + self.silence };
            tokio::select! {
                biased;
                done = &mut something => return Ok(done),
                () = self.chunks.closed() => return Err(Gone),
                () = sleep_until(next) => if waits { self.leave().await? } else { self.send(Line::Silence).await? },
            }
        }
    }

    /// When what waits has to leave.
    fn due(&self) -> Instant {
        self.left.map_or(self.quiet_since, |left| left + self.linger)
    }

    async fn leave(&mut self) -> Result<(), Gone> {
        self.lines = 0;
        let chunk = self.waiting.split().freeze();
        match timeout(STALLED, self.chunks.send(chunk)).await {
            Ok(Ok(())) => {
                let now = Instant::now();
                (self.left, self.quiet_since) = (Some(now), now);
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_lane::{Answer, Final, Seq};
    use fedstream_wire::v2::Closing;

    const LINGER: Duration = Duration::from_millis(25);
    const SILENCE: Duration = Duration::from_secs(10);

    fn outcome(seq: u64) -> Line {
        Line::Outcome(Seq(seq), Answer { outcome: Final::Delivered, status: 200, body: None })
    }

    /// The lines of a chunk that has left.
    fn left(chunks: &mut mpsc::Receiver<Bytes>) -> Vec<Line> {
        let chunk = chunks.try_recv().unwrap_or_default();
        let lines = chunk.split_inclusive(|byte| *byte == b'\n');
        lines.map(|line| Line::parse(line.strip_suffix(b"\n").expect("a whole line")).expect("a line")).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_line_leaves_at_once_and_those_right_after_it_together() {
        let (mut lines, mut chunks) = Lines::new(SILENCE, LINGER);
        lines.send(outcome(1)).await.expect("taken");
        assert_eq!(left(&mut chunks), [outcome(1)]);
        for seq in [2, 3] {
            lines.send(outcome(seq)).await.expect("taken");
        }
        assert_eq!(left(&mut chunks), []);
        let before = Instant::now();
        let chunk = lines.alive_while(chunks.recv()).await.expect("the sender is there").expect("a chunk");
        assert!(before.elapsed() >= LINGER && before.elapsed() < LINGER * 2, "{:?}", before.elapsed());
        assert_eq!(chunk.len(), outcome(2).encode().len() + outcome(3).encode().len());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_line_takes_all_along() {
        let (mut lines, mut chunks) = Lines::new(SILENCE, LINGER);
        let end = Line::End(Closing::Done);
        for line in [outcome(1), outcome(2), outcome(3), end.clone()] {
            lines.send(line).await.expect("taken");
        }
        assert_eq!(left(&mut chunks), [outcome(1)]);
        assert_eq!(left(&mut chunks), [outcome(2), outcome(3), end]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_slower_than_the_linger_has_each_line_at_once() {
        let (mut lines, mut chunks) = Lines::new(SILENCE, LINGER);
        for seq in 1..4 {
            lines.send(outcome(seq)).await.expect("taken");
            assert_eq!(left(&mut chunks), [outcome(seq)]);
            tokio::time::advance(LINGER).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_in_lines_and_in_bytes() {
        let (mut lines, mut chunks) = Lines::new(SILENCE, LINGER);
        lines.send(outcome(0)).await.expect("taken");
        left(&mut chunks);
        for seq in 1..=LINES_MAX as u64 {
            lines.send(outcome(seq)).await.expect("taken");
        }
        assert_eq!(left(&mut chunks).len(), LINES_MAX);
        let words = "x".repeat(BYTES_MAX / 2);
        let refused = |seq| Answer { outcome: Final::Rejected, status: 400, body: Some(words.clone().into()) }.at(seq);
        for seq in [100, 101] {
            lines.send(refused(seq)).await.expect("taken");
        }
        assert_eq!(left(&mut chunks).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_takes_nothing_and_one_that_left_are_gone() {
        let (mut lines, chunks) = Lines::new(SILENCE, Duration::ZERO);
        for seq in 0..CHUNKS_WAITING_MAX as u64 {
            lines.send(outcome(seq)).await.expect("room");
        }
        assert_eq!(lines.send(outcome(9)).await, Err(Gone), "nobody takes them");
        drop(chunks);
        assert!(lines.has_gone());
        assert_eq!(lines.alive_while(std::future::pending::<()>()).await, Err(Gone));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_gives_signs_of_life() {
        let (mut lines, mut chunks) = Lines::new(SILENCE, LINGER);
        let long = tokio::time::sleep(SILENCE * 2 + LINGER);
        lines.alive_while(long).await.expect("the sender is there");
        assert_eq!(
            [left(&mut chunks), left(&mut chunks), left(&mut chunks)],
            [vec![Line::Silence], vec![Line::Silence], vec![]]
        );
    }

    trait At {
        fn at(self, seq: u64) -> Line;
    }

    impl At for Answer {
        fn at(self, seq: u64) -> Line {
            Line::Outcome(Seq(seq), self)
        }
    }
}
