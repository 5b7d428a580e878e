//! A source that sends as Lemmy does: one kept connection, one activity at a time, retried until it is answered finally.
//!
//! A thread with a blocking socket, and requests that are signed already; only a retry is signed anew, as Lemmy does.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use fedstream_tests::ledger::Submission;
use fedstream_tests::message::sha256_hex;

use crate::http::{self, Incoming};
use crate::nap::{self, nap};
use crate::request::{self, Load, Request};

/// Lemmy 0.19.6 and later.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(125);

/// What Lemmy takes as final besides 2xx: the activity leaves its queue.
const FINAL: [u16; 6] = [400, 401, 403, 404, 410, 413];

/// How fast.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// The next one as soon as the last one is answered.
    Full,
    /// One each `every`, the first after `first`; late ones at once.
    Every {
        /// Between two.
        every: Duration,
        /// Before the first.
        first: Duration,
    },
}

/// One activity, as the sender saw it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// For the checker.
    pub submission: Submission,
    /// When it should have left: the start of its end-to-end time.
    pub due: Instant,
    /// Until its final answer.
    pub answered_after: Duration,
}

/// Sends `requests` of a load, until `deadline` if there is one. Blocks.
#[must_use]
pub fn send(load: &Load, to: SocketAddr, pace: Pace, deadline: Option<Instant>) -> Vec<Sent> {
    let lane = load.lane();
    let (begin, mut line, mut failures) = (Instant::now(), Line { to, open: None }, 0);
    let mut all = Vec::with_capacity(load.requests.len());
    for (number, request) in load.requests.iter().enumerate() {
        let due = match pace {
            Pace::Full => Instant::now(),
            Pace::Every { every, first } => begin + first + every.mul_f64(number as f64),
        };
        if deadline.is_some_and(|deadline| due >= deadline) {
            break;
        }
        nap::until(due);
        all.push(deliver(load, &lane, request, due, &mut line, &mut failures));
    }
    all
}

/// One activity, as often as it takes.
fn deliver(load: &Load, lane: &str, request: &Request, due: Instant, line: &mut Line, failures: &mut i32) -> Sent {
    let first_sent = Instant::now();
    let mut fingerprints = vec![request.fingerprint.clone()];
    let mut answer = line.exchange(&request.wire);
    let status = loop {
        match answer {
            Ok(status) if status < 300 || FINAL.contains(&status) => break status,
            _ => {}
        }
        *failures += 1;
        nap(pause(*failures));
        let message = request::signed(&load.identity, &request.body);
        fingerprints.push(message.fingerprint());
        answer = line.exchange(&message.to_bytes());
    };
    // A success takes back one failure only (upstream/lemmy.md).
    *failures = (*failures - 1).max(0);
    let answered = Instant::now();
    let submission = Submission {
        id: request.id.clone(),
        lane: lane.to_owned(),
        body_sha256: sha256_hex(&request.body),
        fingerprints,
        first_sent,
        accepted: (status < 300).then_some(answered),
        last_status: status,
    };
    Sent { submission, due, answered_after: answered - first_sent }
}

/// Lemmy's: at once, at once, then 1.25^(n-1) seconds.
fn pause(failures: i32) -> Duration {
    if failures < 2 { Duration::ZERO } else { Duration::from_secs_f64(1.25_f64.powi((failures - 1).min(30))) }
}

struct Line {
    to: SocketAddr,
    open: Option<(TcpStream, Incoming)>,
}

impl Line {
    fn exchange(&mut self, wire: &[u8]) -> io::Result<u16> {
        let (mut stream, mut incoming) = match self.open.take() {
            Some(open) => open,
            None => {
                let stream = TcpStream::connect(self.to)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
                (stream.try_clone()?, Incoming::new(stream))
            }
        };
        stream.write_all(wire)?;
        let answer = incoming.next()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let head = &answer.bytes[..answer.head];
        let closes = http::field(head, b"connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
        if !closes {
            self.open = Some((stream, incoming));
        }
        http::status(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_as_lemmys_do() {
        assert_eq!(pause(1), Duration::ZERO);
        assert_eq!(pause(2), Duration::from_millis(1_250));
        assert!(pause(6) > Duration::from_secs(3));
    }
}
