//! The answer to a batch, line by line.
//!
//! ```text
//!   {"seq":12,"outcome":"delivered","status":200}
//!   {"seq":15,"outcome":"rejected","status":400,"body":"..."}
//!   {}                                              nothing new for a while, but alive
//!   {"end":"done"}                                  or retry, gap, overloaded, stale-epoch
//! ```
//!
//! Only a complete line (ending in LF) that parses and names the next expected sequence counts; without the closing
//! line the rest is a lost answer.

use std::collections::VecDeque;

use fedstream_lane::{Answer, Epoch, Final, Seq};
use serde::{Deserialize, Serialize};

/// Longest line that is read, bytes: an answer's body as it is sent, every byte of it escaped, and some.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Alive.
    Silence,
    /// An activity's final outcome.
    Outcome(Seq, Answer),
    /// The last line.
    End(Closing),
}

/// How a batch ended at the far side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Every activity has its outcome.
    Done,
    /// This activity got no final outcome, and nothing after it was begun.
    Retry {
        /// The activity.
        seq: Seq,
        /// Status of the instance; none where there was no answer.
        status: Option<u16>,
        /// What the instance asked for, seconds.
        retry_after_s: Option<u64>,
        /// Since the attempt before this one the instance is known to have answered others.
        alive: bool,
        /// The reason in words.
        cause: String,
    },
    /// An earlier batch did not come in time.
    Gap {
        /// The last sequence that had its outcome.
        last: Seq,
    },
    /// No room for the batch now.
    Overloaded {
        /// When to come back, seconds.
        retry_after_s: Option<u64>,
    },
    /// A later owner of the lane came while the batch was on its way.
    StaleEpoch {
        /// Its epoch.
        known: Epoch,
    },
}

/// An answer that breaks the format: the rest of it is lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A line that is none of the known ones.
    #[error("a line of the answer can't be read: {0}")]
    Malformed(String),
    /// A line longer than [`LINE_BYTES_MAX`].
    #[error("a line of the answer is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// Not the next expected sequence.
    #[error("the answer names sequence {found} where {expected} was expected")]
    Unexpected {
        /// In the line.
        found: Seq,
        /// By the batch; 0 when there was none left.
        expected: Seq,
    },
    /// Something follows the closing line.
    #[error("the answer goes on after its closing line")]
    AfterEnd,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<RawOutcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<RawEnd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    alive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawOutcome {
    Delivered,
    Duplicate,
    Rejected,
    Expired,
    Unprocessed,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawEnd {
    Done,
    Retry,
    Gap,
    Overloaded,
    StaleEpoch,
}

impl Line {
    /// The line with its LF.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let raw = match self.clone() {
            Self::Silence => Raw::default(),
            Self::Outcome(seq, answer) => {
                let outcome = match answer.outcome {
                    Final::Delivered => RawOutcome::Delivered,
                    Final::Duplicate => RawOutcome::Duplicate,
                    Final::Rejected => RawOutcome::Rejected,
                    Final::Expired => RawOutcome::Expired,
                    Final::Unprocessed => RawOutcome::Unprocessed,
                };
                let status = (answer.status != 0).then_some(answer.status);
                Raw {
                    seq: Some(seq.0),
                    outcome: Some(outcome),
                    status,
                    body: answer.body.map(String::from),
                    ..Raw::default()
                }
            }
            Self::End(closing) => raw_closing(closing),
        };
        // A struct of numbers and texts always serialises; an empty line would be read as a lost answer.
        let mut line = serde_json::to_vec(&raw).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// Reads a line without its LF.
    ///
    /// # Errors
    /// A line that is none of the known ones.
    pub fn parse(line: &[u8]) -> Result<Self, AnswerError> {
        let malformed = |why: &dyn std::fmt::Display| AnswerError::Malformed(why.to_string());
        let raw: Raw = serde_json::from_slice(line).map_err(|error| malformed(&error))?;
        match (raw.seq, raw.outcome, raw.end) {
            (None, None, None) => Ok(Self::Silence),
            (Some(seq), Some(outcome), None) => {
                let outcome = match outcome {
                    RawOutcome::Delivered => Final::Delivered,
                    RawOutcome::Duplicate => Final::Duplicate,
                    RawOutcome::Rejected => Final::Rejected,
                    RawOutcome::Expired => Final::Expired,
                    RawOutcome::Unprocessed => Final::Unprocessed,
                };
                Ok(Self::Outcome(
                    Seq(seq),
                    Answer { outcome, status: raw.status.unwrap_or(0), body: raw.body.map(Into::into) },
                ))
            }
            (_, None, Some(end)) => {
                parse_closing(end, raw).ok_or_else(|| malformed(&"a closing line lacks a field")).map(Self::End)
            }
            _ => Err(malformed(&"neither an outcome nor a closing line")),
        }
    }
}

fn raw_closing(closing: Closing) -> Raw {
    let end = |end| Raw { end: Some(end), ..Raw::default() };
    match closing {
        Closing::Done => end(RawEnd::Done),
        Closing::Retry { seq, status, retry_after_s, alive, cause } => {
            Raw { seq: Some(seq.0), status, retry_after_s, alive, cause: Some(cause), ..end(RawEnd::Retry) }
        }
        Closing::Gap { last } => Raw { last: Some(last.0), ..end(RawEnd::Gap) },
        Closing::Overloaded { retry_after_s } => Raw { retry_after_s, ..end(RawEnd::Overloaded) },
        Closing::StaleEpoch { known } => Raw { epoch: Some(known.0), ..end(RawEnd::StaleEpoch) },
    }
}

fn parse_closing(end: RawEnd, raw: Raw) -> Option<Closing> {
    Some(match end {
        RawEnd::Done => Closing::Done,
        RawEnd::Retry => Closing::Retry {
            seq: Seq(raw.seq?),
            status: raw.status,
            retry_after_s: raw.retry_after_s,
            alive: raw.alive,
            cause: raw.cause.unwrap_or_default(),
        },
        RawEnd::Gap => Closing::Gap { last: Seq(raw.last?) },
        RawEnd::Overloaded => Closing::Overloaded { retry_after_s: raw.retry_after_s },
        RawEnd::StaleEpoch => Closing::StaleEpoch { known: Epoch(raw.epoch?) },
    })
}

/// Reads an answer as it arrives, and lets through only what counts.
#[derive(Debug)]
pub struct AnswerReader {
    expected: VecDeque<Seq>,
    partial: Vec<u8>,
    ended: bool,
}

impl AnswerReader {
    /// Expects one outcome for each of these, in this order.
    #[must_use]
    pub fn new(expected: impl IntoIterator<Item = Seq>) -> Self {
        Self { expected: expected.into_iter().collect(), partial: Vec::new(), ended: false }
    }

    /// Takes bytes in, and calls `line` for each complete line that counts.
    ///
    /// # Errors
    /// The first line that breaks the format; lines before it were let through and count.
    pub fn push(&mut self, mut bytes: &[u8], mut line: impl FnMut(Line)) -> Result<(), AnswerError> {
        while let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = (&bytes[..at], &bytes[at + 1..]);
            self.hold(head)?;
            let complete = std::mem::take(&mut self.partial);
            line(self.check(Line::parse(&complete)?)?);
            bytes = rest;
        }
        self.hold(bytes)
    }

    /// Was the closing line read?
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), AnswerError> {
        if self.partial.len() + bytes.len() > LINE_BYTES_MAX {
            return Err(AnswerError::TooLong);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn check(&mut self, line: Line) -> Result<Line, AnswerError> {
        if self.ended {
            return Err(AnswerError::AfterEnd);
        }
        match &line {
            Line::Silence => {}
            Line::Outcome(seq, _) => {
                let expected = self.expected.front().copied();
                if expected != Some(*seq) {
                    return Err(AnswerError::Unexpected { found: *seq, expected: expected.unwrap_or_default() });
                }
                self.expected.pop_front();
            }
            Line::End(_) => self.ended = true,
        }
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<Line> {
        let rejected =
            Answer { outcome: Final::Rejected, status: 400, body: Some("a \"quoted\"\nline \u{2028}".into()) };
        vec![
            Line::Outcome(Seq(12), Answer { outcome: Final::Delivered, status: 202, body: None }),
            Line::Silence,
            Line::Outcome(Seq(15), rejected),
            Line::Outcome(Seq(17), Answer::vouched()),
            Line::End(Closing::Retry {
                seq: Seq(18),
                status: Some(503),
                retry_after_s: Some(7),
                alive: true,
                cause: "the instance answered 503".into(),
            }),
        ]
    }

    fn read(reader: &mut AnswerReader, bytes: &[u8]) -> (Vec<Line>, Result<(), AnswerError>) {
        let mut out = vec![];
        let result = reader.push(bytes, |line| out.push(line));
        (out, result)
    }

    #[test]
    fn the_lines_are_the_golden_ones_and_read_back() {
        let closings = [
            Closing::Done,
            Closing::Gap { last: Seq(9) },
            Closing::Overloaded { retry_after_s: Some(2) },
            Closing::StaleEpoch { known: Epoch(5) },
        ];
        let all: Vec<Line> = lines().into_iter().chain(closings.map(Line::End)).collect();
        let text: Vec<u8> = all.iter().flat_map(Line::encode).collect();
        assert_eq!(String::from_utf8_lossy(&text), include_str!("../../tests/golden/answer-v2.ndjson"));
        for line in all {
            let encoded = line.encode();
            assert_eq!(Line::parse(&encoded[..encoded.len() - 1]), Ok(line));
        }
    }

    #[test]
    fn an_answer_counts_however_it_is_cut_into_pieces() {
        let text: Vec<u8> = lines().iter().flat_map(Line::encode).collect();
        for size in 1..text.len() {
            let mut reader = AnswerReader::new([12, 15, 17, 18].map(Seq));
            let mut out = vec![];
            for piece in text.chunks(size) {
                reader.push(piece, |line| out.push(line)).expect("well formed");
            }
            assert_eq!(out, lines());
            assert!(reader.has_ended());
        }
    }

    #[test]
    fn an_incomplete_line_does_not_count() {
        let mut reader = AnswerReader::new([Seq(12)]);
        let text = lines()[0].encode();
        assert_eq!(read(&mut reader, &text[..text.len() - 1]), (vec![], Ok(())));
        assert!(!reader.has_ended());
    }

    #[test]
    fn only_the_next_expected_sequence_counts() {
        let mut reader = AnswerReader::new([12, 15].map(Seq));
        let text: Vec<u8> = [&lines()[0], &lines()[3]].into_iter().flat_map(Line::encode).collect();
        let (out, result) = read(&mut reader, &text);
        assert_eq!(out.len(), 1);
        assert_eq!(result, Err(AnswerError::Unexpected { found: Seq(17), expected: Seq(15) }));
    }

    #[test]
    fn nonsense_is_an_error_and_a_line_is_bounded() {
        for text in
            ["\n", "[]\n", "{\"seq\":1}\n", "{\"end\":\"gap\"}\n", "{\"end\":\"what\"}\n", "{\"x\":1}\n", "<html>\n"]
        {
            let (out, result) = read(&mut AnswerReader::new([Seq(1)]), text.as_bytes());
            assert!(out.is_empty() && matches!(result, Err(AnswerError::Malformed(_))), "{text:?} {result:?}");
        }
        let mut reader = AnswerReader::new([Seq(1)]);
        assert_eq!(read(&mut reader, &vec![b' '; LINE_BYTES_MAX + 1]).1, Err(AnswerError::TooLong));
        let mut reader = AnswerReader::new([]);
        assert_eq!(read(&mut reader, b"{\"end\":\"done\"}\n{}\n").1, Err(AnswerError::AfterEnd));
    }
}
