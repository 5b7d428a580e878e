//! What the instance's answer means (DESIGN section 7): one table, and nothing else decides it.
//!
//! | outcome | statuses |
//! |---|---|
//! | delivered | 2xx |
//! | retry | 408, 429, 5xx, 3xx, 1xx; no answer at all (connect or read error, timeout) |
//! | rejected | other 4xx, and what is no HTTP status |
//!
//! A redirect is a retry and never followed: the signature covers the target, and an operator has to see a wrong
//! override. Profiles that read the body of a 4xx are a later step.

use std::time::{Duration, SystemTime};

use fedstream_lane::{Answer, Final};

/// How much of the instance's answer a rejection keeps, bytes: enough for a reason, small enough for a line.
const BODY_KEPT_BYTES: usize = 4096;

/// A longer Retry-After counts as a day; the sender has a bound of its own, well below.
const RETRY_AFTER_MAX_S: u64 = 24 * 60 * 60;

/// What became of an activity at the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It will not be posted again.
    Final(Answer),
    /// It will be tried again, and nothing after it may go before.
    Retry {
        /// Status of the instance; none where there was no answer.
        status: Option<u16>,
        /// What the instance asked for, seconds.
        retry_after_s: Option<u64>,
        /// The reason in words.
        cause: String,
    },
}

impl Verdict {
    /// No answer: it may or may not have arrived.
    #[must_use]
    pub fn unanswered(cause: impl Into<String>) -> Self {
        Self::Retry { status: None, retry_after_s: None, cause: cause.into() }
    }

    /// The final outcome, if it is one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Final(answer) => Some(answer),
            Self::Retry { .. } => None,
        }
    }

    /// Is it refused for good? Only then does the answer's body matter: it says why.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        self.answer().is_some_and(|answer| answer.outcome.park_reason().is_some())
    }

    /// Status of the instance.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Final(answer) => Some(answer.status),
            Self::Retry { status, .. } => *status,
        }
    }

    /// One word for spans: `delivered`, `rejected` or `retry`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Final(answer) => answer.outcome.as_str(),
            Self::Retry { .. } => "retry",
        }
    }
}

/// The table. The head alone decides, whatever becomes of the body: an instance that said 2xx has it, and one that said
/// 503 says when to come back. `body` is as much of the answer as was read; `now` is for a Retry-After with a date.
#[must_use]
pub fn verdict(status: u16, retry_after: Option<&str>, body: &[u8], now: SystemTime) -> Verdict {
    let retry = |cause: String| Verdict::Retry {
        status: Some(status),
        retry_after_s: retry_after.and_then(|text| retry_after_s(text, now)),
        cause,
    };
    match status {
        200..300 => Verdict::Final(Answer { outcome: Final::Delivered, status, body: None }),
        408 | 429 | 500..600 => retry(format!("the instance answered {status}")),
        300..400 => retry(format!("the instance answered {status}; a redirect is not followed")),
        100..200 => retry(format!("the instance answered {status}, which is no final answer")),
        _ => {
            let kept = &body[..body.len().min(BODY_KEPT_BYTES)];
            let body = String::from_utf8_lossy(kept).into_owned();
            Verdict::Final(Answer { outcome: Final::Rejected, status, body: Some(body.into()) })
        }
    }
}

/// `Retry-After` in seconds, from either of its forms (RFC 9110, section 10.2.3). A date that has passed is 0.
fn retry_after_s(text: &str, now: SystemTime) -> Option<u64> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long time too.
        return Some(text.parse().unwrap_or(RETRY_AFTER_MAX_S).min(RETRY_AFTER_MAX_S));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let after = date.duration_since(now).unwrap_or(Duration::ZERO);
    Some((after.as_secs() + u64::from(after.subsec_nanos() > 0)).min(RETRY_AFTER_MAX_S))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16) -> Verdict {
        verdict(status, None, b"because", SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn every_status_has_the_outcome_of_the_table() {
        for status in 100..1000 {
            let expected = match status {
                200..=299 => "delivered",
                408 | 429 | 100..=199 | 300..=399 | 500..=599 => "retry",
                _ => "rejected",
            };
            assert_eq!(of(status).name(), expected, "{status}");
            assert_eq!(of(status).status(), Some(status));
            assert_eq!(of(status).is_rejection(), expected == "rejected");
        }
    }

    #[test]
    fn a_rejection_keeps_the_beginning_of_the_answer_whatever_its_bytes() {
        let Verdict::Final(answer) = verdict(400, None, &[b'x'; 10_000], SystemTime::UNIX_EPOCH) else {
            panic!("final")
        };
        assert_eq!(answer.body.as_deref().map(str::len), Some(BODY_KEPT_BYTES));
        let Verdict::Final(answer) = verdict(404, None, b"\xff!", SystemTime::UNIX_EPOCH) else { panic!("final") };
        assert_eq!(answer.body.as_deref(), Some("\u{fffd}!"));
        assert_eq!(of(200).answer().and_then(|answer| answer.body.clone()), None);
    }

    #[test]
    fn the_largest_kept_answer_fits_a_line() {
        use fedstream_lane::Seq;
        use fedstream_wire::v2::{Line, answer::LINE_BYTES_MAX};
        for byte in [0_u8, 0xff, b'"'] {
            let Verdict::Final(answer) = verdict(400, None, &[byte; 10_000], SystemTime::UNIX_EPOCH) else {
                panic!("final")
            };
            assert!(Line::Outcome(Seq(u64::MAX), answer).encode().len() <= LINE_BYTES_MAX);
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds_or_as_a_date_and_is_bounded() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("date");
        let read = |text: &str| match verdict(503, Some(text), b"", now) {
            Verdict::Retry { retry_after_s, .. } => retry_after_s,
            Verdict::Final(_) => None,
        };
        assert_eq!(read("120"), Some(120));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(read("99999999999999999999999"), Some(RETRY_AFTER_MAX_S));
        let far_off = httpdate::fmt_http_date(now + Duration::from_secs(RETRY_AFTER_MAX_S + 60));
        assert_eq!(read(&far_off), Some(RETRY_AFTER_MAX_S));
        for nonsense in ["", "soon", "-1", "1.5"] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
    }
}
