//! How an instance's refusal is read: some software says by the body, not by the status, what became of an activity.
//!
//! Asked for a refusal only (a 4xx that is neither 408 nor 429), with as much of the body as was read: by the far side,
//! and by a batch-sender whose receiver only passes on what the instance said ([`crate::v1`]).
//! Error names are compared whole, sentences by how they begin: a refusal may quote what a stranger wrote, and a match
//! in the middle of it would let the stranger choose the outcome. What a profile does not know is a rejection, so that
//! a copy with the answer is parked: nothing is dropped for a text that nobody has seen before.

mod lemmy;
mod mastodon;

use fedstream_lane::Profile;
use serde_json::Value;

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The instance has the activity already.
    Duplicate,
    /// It no longer takes the signature.
    Expired,
    /// It knows the activity's id, and gave up in the middle of the work.
    Unprocessed,
    /// A fault of the moment, that has nothing to do with the activity; in words.
    Retry(&'static str),
    /// For good.
    Rejected,
}

/// Reads a refusal as software of this kind means it.
#[must_use]
pub fn read(profile: Profile, status: u16, body: &[u8]) -> Reading {
    match profile {
        Profile::Generic => Reading::Rejected,
        Profile::Lemmy => lemmy::read(status, &Refusal::of(body)),
        Profile::Mastodon => mastodon::read(status, &Refusal::of(body)),
    }
}

/// A refusal's body, as both write it: `{"error": .., "message": ..}`, or a bare text.
#[derive(Debug)]
struct Refusal {
    /// `error` where it is a text; the whole body where that is no JSON object.
    error: String,
    /// `message`, if there is one.
    message: Option<Value>,
}

impl Refusal {
    fn of(body: &[u8]) -> Self {
        match serde_json::from_slice(body) {
            Ok(Value::Object(mut fields)) => {
                let error = fields.get("error").and_then(Value::as_str).unwrap_or_default().to_owned();
                Self { error, message: fields.remove("message") }
            }
            Ok(Value::String(text)) => Self { error: text, message: None },
            // A body that was cut off at the limit ends up here too.
            _ => Self { error: String::from_utf8_lossy(body).trim().to_owned(), message: None },
        }
    }

    /// The message, where it is a text.
    fn message(&self) -> Option<&str> {
        self.message.as_ref().and_then(Value::as_str)
    }

    /// The sentence in it, wherever this version of the software puts it.
    fn sentence(&self) -> &str {
        self.message().unwrap_or(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generic_instance_says_everything_by_its_status() {
        for body in [r#"{"error":"unknown","message":""}"#, r#"{"error":"inbox_timeout"}"#, ""] {
            assert_eq!(read(Profile::Generic, 400, body.as_bytes()), Reading::Rejected, "{body}");
        }
    }

    #[test]
    fn whatever_the_body_is_it_is_read_without_a_fault() {
        let deep = "[".repeat(60_000);
        let cut = format!(r#"{{"error":"unknown","message":"{}"#, "x".repeat(64 * 1024));
        for body in [&b""[..], b"\xff\xfe", b"null", b"[1]", b"{\"error\":7}", deep.as_bytes(), cut.as_bytes()] {
            for profile in Profile::ALL {
                for status in [400, 401, 404, 413, 999] {
                    assert_eq!(read(profile, status, body), Reading::Rejected);
                }
            }
        }
    }
}
