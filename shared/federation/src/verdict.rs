//! What a remote's answer means: one table, and nothing else decides it.
//!
//! | status | meaning | why |
//! |---|---|---|
//! | 2xx | delivered | |
//! | 307, 308 | asked at the new place, signed anew, at most a few times | the two that keep a POST a POST |
//! | 301, 302, 303, other 3xx, 1xx | retry, for as long as somebody has patience | a client would turn them into a GET; a wrong proxy is put right some day |
//! | 401 | the other form of signature; retry when none is left, for as long as somebody has patience | who can't read a form says so like this, and so does who can't fetch our key for a moment (Mastodon's own delivery tries a 401 again, Lemmy's takes it for a refusal) |
//! | 403 | the other form of signature; refused when none is left | some say so like this; else it is the remote's will |
//! | 408, 425, 429 | retry, not before Retry-After | |
//! | 404, 410, every other 4xx | refused, for good | the inbox is gone, or it doesn't want this activity |
//! | 501 | refused, for good | it can't do this at all, and says so; Mastodon's own delivery gives up as well |
//! | every other 5xx, no answer | retry | |
//!
//! A refusal is final and told (`DeliveryFailed`): nothing counts as delivered that was not.
//!
//! A 401 that never passes would hold up whoever is behind it in a lane, and so would a redirect. One answer does not tell:
//! the delivery-worker remembers since when they come (`patience`), in process the number of attempts ends them.

use std::time::{Duration, SystemTime};

/// A longer Retry-After counts as a day: a remote that asks for a year has made a mistake.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What a status means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The remote has it.
    Delivered,
    /// It is to be posted to another place.
    Moved,
    /// The signature was not taken. When no form is left, 401 is tried again and 403 is final.
    Unsigned,
    /// For good.
    Refused,
    /// Later, and not before this time has passed.
    Retry {
        /// What the remote asked for.
        after: Option<Duration>,
    },
}

/// What this status and this Retry-After mean.
#[must_use]
pub fn of(status: u16, retry_after: Option<&str>, now: SystemTime) -> Meaning {
    match status {
        200..=299 => Meaning::Delivered,
        307 | 308 => Meaning::Moved,
        401 | 403 => Meaning::Unsigned,
        408 | 425 | 429 | 500 | 502..=599 | 100..=199 | 300..=399 => {
            Meaning::Retry { after: retry_after.and_then(|text| read_retry_after(text, now)) }
        }
        _ => Meaning::Refused,
    }
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn read_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let asked = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(asked.min(RETRY_AFTER_MAX))
}

/// What became of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The remote has it.
    Delivered {
        /// Its 2xx.
        status: u16,
    },
    /// It will not be tried again.
    Refused {
        /// The remote's last status; none where no remote was asked.
        status: Option<u16>,
        /// The reason in words.
        cause: String,
    },
    /// It will be tried again.
    Retry {
        /// The remote's status; none where there was no answer.
        status: Option<u16>,
        /// What the remote asked for.
        after: Option<Duration>,
        /// The reason in words.
        cause: String,
    },
}

impl Verdict {
    /// The remote's status.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Delivered { status } => Some(*status),
            Self::Refused { status, .. } | Self::Retry { status, .. } => *status,
        }
    }

    /// Whether the remote is there: it answered, and not to say that it is ill.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match self {
            Self::Delivered { .. } => true,
            Self::Refused { status, .. } => status.is_some(),
            Self::Retry { status, .. } => status.is_some_and(|status| status < 500 && status != 429),
        }
    }

    /// Whether it may be what was sent that the remote fails on, and not the remote that is ill. 501 is a refusal, and 502 to
    /// 504 are what stands before the remote: it did not see the activity, or had no time for it.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Retry { status: Some(500), .. })
    }

    /// The word in logs and spans.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Delivered { .. } => "delivered",
            Self::Refused { .. } => "refused",
            Self::Retry { .. } => "retry",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date")
    }

    #[test]
    fn every_status_has_one_meaning() {
        use Meaning::{Delivered, Moved, Refused, Unsigned};
        let retry = Meaning::Retry { after: None };
        for (statuses, meaning) in [
            (&[200, 201, 202, 204, 299][..], Delivered),
            (&[307, 308], Moved),
            (&[401, 403], Unsigned),
            (&[100, 199, 300, 301, 302, 303, 304, 399, 408, 425, 429, 500, 502, 503, 504, 530, 599], retry),
            (&[400, 402, 404, 405, 406, 409, 410, 411, 413, 415, 418, 421, 422, 451, 499, 501], Refused),
            (&[0, 99, 600, 999], Refused),
        ] {
            for status in statuses {
                assert_eq!(of(*status, None, now()), meaning, "{status}");
            }
        }
    }

    #[test]
    fn retry_after_is_read_in_seconds_or_as_a_date_and_is_bounded() {
        let read = |text: &str| match of(429, Some(text), now()) {
            Meaning::Retry { after } => after.map(|after| after.as_secs()),
            _ => panic!("a retry"),
        };
        assert_eq!(read("120"), Some(120));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(read("99999999999999999999999"), Some(RETRY_AFTER_MAX.as_secs()));
        for nonsense in ["", "soon", "-1", "1.5"] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn a_remote_that_refuses_is_alive_and_one_that_fails_is_not() {
        let retry = |status| Verdict::Retry { status, after: None, cause: String::new() };
        let alive = [(Some(301), true), (Some(408), true), (Some(429), false), (Some(503), false), (None, false)];
        for (status, expected) in alive {
            assert_eq!(retry(status).is_alive(), expected, "{status:?}");
        }
        for (status, expected) in [(Some(500), true), (Some(502), false), (Some(503), false), (None, false)] {
            assert_eq!(retry(status).is_fault(), expected, "{status:?}");
        }
        assert!(!Verdict::Refused { status: Some(501), cause: String::new() }.is_fault());
        assert!(Verdict::Refused { status: Some(410), cause: String::new() }.is_alive());
    }
}
