//! Mastodon: 202 for what it will work on, a status with a meaning for the rest, and 401 with `{"error": ".."}` for
//! everything about a signature (plain text in old versions).
//!
//! | 401 that begins with | meaning |
//! |---|---|
//! | "Signed request date outside" | older than its five minutes and one hour (Mastodon also says it of dates in the future) |
//! | "Failed to fetch remote data", "Fetching attempt skipped" | the sender's key could not be fetched just now: Mastodon's own senders try a 401 again |
//! | anything else (not signed, no such key, verification failed) | refused for good |
//!
//! It answers before it works, so it has no answer that means "stored, but not processed", and none for a duplicate.

use super::{Reading, Refusal};

/// The status of everything about a signature.
const SIGNATURE: u16 = 401;

/// How its answer to an old signature begins.
const EXPIRED: &str = "Signed request date outside";

/// How its answers begin when the sender's key is out of reach.
const NO_KEY_NOW: [&str; 2] = ["Failed to fetch remote data", "Fetching attempt skipped"];

pub(super) fn read(status: u16, refusal: &Refusal) -> Reading {
    if status != SIGNATURE {
        return Reading::Rejected;
    }
    if refusal.error.starts_with(EXPIRED) {
        Reading::Expired
    } else if NO_KEY_NOW.iter().any(|text| refusal.error.starts_with(text)) {
        Reading::Retry("it can't fetch the sender's key")
    } else {
        Reading::Rejected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile;
    use fedstream_lane::Profile;

    fn of(status: u16, body: &str) -> Reading {
        profile::read(Profile::Mastodon, status, body.as_bytes())
    }

    #[test]
    fn an_old_signature_is_expired_in_json_or_as_text() {
        for body in [
            r#"{"error":"Signed request date outside acceptable time window"}"#,
            r#""Signed request date outside acceptable time window""#,
            "Signed request date outside acceptable time window\n",
        ] {
            assert_eq!(of(401, body), Reading::Expired, "{body}");
        }
    }

    #[test]
    fn a_key_that_is_out_of_reach_is_a_fault_of_the_moment() {
        for text in ["Failed to fetch remote data: timed out", "Fetching attempt skipped because of a failure"] {
            assert!(matches!(of(401, &format!(r#"{{"error":"{text}"}}"#)), Reading::Retry(_)), "{text}");
        }
    }

    #[test]
    fn other_signature_faults_and_statuses_are_rejections() {
        for text in [
            "Request not signed",
            "Verification failed for alice@a.example",
            "Public key not found for key https://a.example/?Signed request date outside",
            "",
        ] {
            assert_eq!(of(401, &format!(r#"{{"error":"{text}"}}"#)), Reading::Rejected, "{text}");
        }
        for status in [400, 403, 404, 410, 422] {
            let body = r#"{"error":"Signed request date outside acceptable time window"}"#;
            assert_eq!(of(status, body), Reading::Rejected, "{status}");
        }
    }
}
