//! What the instance's answer means (DESIGN section 7): one table, and nothing else decides it.
//!
//! | outcome | statuses |
//! |---|---|
//! | delivered | 2xx |
//! | retry | 408, 429, 5xx, 3xx, 1xx; no answer at all (connect or read error, timeout) |
//! | refused: what the lane's [`profile`] reads in the body, else rejected | other 4xx, and what is no HTTP status |
//!
//! A redirect is a retry and never followed: the signature covers the target, and an operator has to see a wrong
//! override.

use std::time::{Duration, SystemTime};

use fedstream_lane::{Answer, Final, Profile};
use fedstream_wire::profile::{self, Reading};

/// How much of the instance's answer a refusal keeps, bytes: enough for a reason, small enough for a line.
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

    /// Status of the instance.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Final(answer) => Some(answer.status),
            Self::Retry { status, .. } => *status,
        }
    }

    /// Did the instance fail on this very activity? A gateway's 502, 503 and 504 are about the instance.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Retry { status: Some(500 | 501), .. })
    }

    /// One word for spans and logs: the outcome's, or `retry`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Final(answer) => answer.outcome.as_str(),
            Self::Retry { .. } => "retry",
        }
    }
}

/// What the head of an answer says, whatever becomes of its body: an instance that said 2xx has it, and one that said
/// 503 says when to come back. None for a refusal, whose body has to be read. `now` is for a Retry-After with a date.
#[must_use]
pub fn by_head(status: u16, retry_after: Option<&str>, now: SystemTime) -> Option<Verdict> {
    let cause = match status {
        200..300 => return Some(Verdict::Final(Answer { outcome: Final::Delivered, status, body: None })),
        408 | 429 | 500..600 => format!("the instance answered {status}"),
        300..400 => format!("the instance answered {status}; a redirect is not followed"),
        100..200 => format!("the instance answered {status}, which is no final answer"),
        _ => return None,
    };
    Some(retry(status, retry_after, now, cause))
}

/// What a refusal says: all that was read of its body counts, and its beginning is kept.
#[must_use]
pub fn by_body(profile: Profile, status: u16, retry_after: Option<&str>, body: &[u8], now: SystemTime) -> Verdict {
    let refused = |outcome| {
        let kept = &body[..body.len().min(BODY_KEPT_BYTES)];
        Verdict::Final(Answer { outcome, status, body: Some(String::from_utf8_lossy(kept).into()) })
    };
    match profile::read(profile, status, body) {
        Reading::Duplicate => Verdict::Final(Answer { outcome: Final::Duplicate, status, body: None }),
        Reading::Expired => refused(Final::Expired),
        Reading::Unprocessed => refused(Final::Unprocessed),
        Reading::Rejected => refused(Final::Rejected),
        Reading::Retry(why) => retry(status, retry_after, now, format!("the instance answered {status}: {why}")),
    }
}

fn retry(status: u16, retry_after: Option<&str>, now: SystemTime, cause: String) -> Verdict {
    let retry_after_s = retry_after.and_then(|text| retry_after_s(text, now));
    Verdict::Retry { status: Some(status), retry_after_s, cause }
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

    fn verdict(profile: Profile, status: u16, retry_after: Option<&str>, body: &[u8], now: SystemTime) -> Verdict {
        by_head(status, retry_after, now).unwrap_or_else(|| by_body(profile, status, retry_after, body, now))
    }

    fn of(status: u16, body: &[u8]) -> Verdict {
        verdict(Profile::Generic, status, None, body, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn every_status_has_the_outcome_of_the_table() {
        for status in 100..1000 {
            let expected = match status {
                200..=299 => "delivered",
                408 | 429 | 100..=199 | 300..=399 | 500..=599 => "retry",
                _ => "rejected",
            };
            for profile in Profile::ALL {
                let verdict = verdict(profile, status, None, b"because", SystemTime::UNIX_EPOCH);
                assert_eq!((verdict.name(), verdict.status()), (expected, Some(status)), "{profile}");
                assert_eq!(verdict.is_fault(), [500, 501].contains(&status));
            }
        }
    }

    #[test]
    fn a_profile_says_what_a_refusal_means_and_the_answer_is_kept_where_a_copy_is_parked() {
        let lemmy = |body: &str| verdict(Profile::Lemmy, 400, Some("7"), body.as_bytes(), SystemTime::UNIX_EPOCH);
        let kept = |outcome, body: &str| {
            Verdict::Final(Answer {
                outcome,
                status: 400,
                body: Some(body.into()).filter(|_| outcome != Final::Duplicate),
            })
        };
        for (outcome, body) in [
            (Final::Duplicate, r#"{"error":"unknown","message":""}"#),
            (Final::Unprocessed, r#"{"error":"inbox_timeout"}"#),
            (Final::Expired, r#"{"error":"unknown","message":"Http Signature is expired"}"#),
            (Final::Rejected, r#"{"error":"person_is_banned_from_site"}"#),
        ] {
            assert_eq!(lemmy(body), kept(outcome, body));
        }
        let away = lemmy(r#"{"error":"unknown","message":"Error occurred while creating a new object: refused"}"#);
        assert!(
            matches!(&away, Verdict::Retry { status: Some(400), retry_after_s: Some(7), cause } if cause.contains("database")),
            "{away:?}"
        );
    }

    #[test]
    fn a_profile_reads_more_than_is_kept() {
        let body = format!(r#"{{"cause":"{}","error":"inbox_timeout"}}"#, "x".repeat(10_000));
        let verdict = verdict(Profile::Lemmy, 400, None, body.as_bytes(), SystemTime::UNIX_EPOCH);
        let answer = verdict.answer().expect("final");
        assert_eq!(answer.outcome, Final::Unprocessed);
        assert_eq!(answer.body.as_deref().map(str::len), Some(BODY_KEPT_BYTES));
    }

    #[test]
    fn a_rejection_keeps_the_beginning_of_the_answer_whatever_its_bytes() {
        let body = |verdict: Verdict| verdict.answer().and_then(|answer| answer.body.clone());
        assert_eq!(body(of(400, &[b'x'; 10_000])).as_deref().map(str::len), Some(BODY_KEPT_BYTES));
        assert_eq!(body(of(404, b"\xff!")).as_deref(), Some("\u{fffd}!"));
        assert_eq!(body(of(200, b"ok")), None);
    }

    #[test]
    fn the_largest_kept_answer_fits_a_line() {
        use fedstream_lane::Seq;
        use fedstream_wire::v2::{Line, answer::LINE_BYTES_MAX};
        for byte in [0_u8, 0xff, b'"'] {
            let Verdict::Final(answer) = of(400, &[byte; 10_000]) else { panic!("final") };
            assert!(Line::Outcome(Seq(u64::MAX), answer).encode().len() <= LINE_BYTES_MAX);
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds_or_as_a_date_and_is_bounded() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("date");
        let read = |text: &str| match by_head(503, Some(text), now) {
            Some(Verdict::Retry { retry_after_s, .. }) => retry_after_s,
            _ => None,
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
