//! An activity ready to be sent: its bytes, and their digest, made once for however many inboxes it goes to.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Largest activity, bytes. Lemmy takes 256 kB, Mastodon 1 MiB: what is larger is refused by everybody, for good.
pub const ACTIVITY_BYTES_MAX: usize = 1024 * 1024;

/// What can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a JSON object.
    #[error("the activity is not a JSON object")]
    NoObject,
    /// Not JSON at all.
    #[error("the activity is not JSON: {0}")]
    NoJson(#[from] serde_json::Error),
    /// Above [`ACTIVITY_BYTES_MAX`].
    #[error("the activity has {0} bytes, at most {ACTIVITY_BYTES_MAX} are sent")]
    TooLarge(usize),
}

/// The bytes of an activity, and what is said of it in logs. Cheap to share in an `Arc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    body: Bytes,
    digest: [u8; 32],
    id: String,
    kind: Option<String>,
}

impl Activity {
    /// An activity as an application holds it.
    ///
    /// # Errors
    /// It is no object, or too large.
    pub fn from_value(value: &Value) -> Result<Self, Error> {
        if !value.is_object() {
            return Err(Error::NoObject);
        }
        Self::from_json(Bytes::from(serde_json::to_vec(value)?))
    }

    /// An activity's bytes, which will be sent as they are.
    ///
    /// # Errors
    /// They are no JSON object, or too many.
    pub fn from_json(body: Bytes) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Named {
            #[serde(default)]
            id: Value,
            #[serde(default, rename = "type")]
            kind: Value,
        }
        if body.len() > ACTIVITY_BYTES_MAX {
            return Err(Error::TooLarge(body.len()));
        }
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(Error::NoObject);
        }
        let named: Named = serde_json::from_slice(&body)?;
        let text = |value: Value| value.as_str().map(str::to_owned);
        let digest = Sha256::digest(&body).into();
        Ok(Self { body, digest, id: text(named.id).unwrap_or_default(), kind: text(named.kind) })
    }

    /// The bytes.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Their SHA-256.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Its `id`; empty where it has none.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its `type`, where that is one word.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }

    /// The JSON again, for an event about it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default() // it was read before, see `from_json`
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_as_they_are_and_are_named() {
        let body = Bytes::from_static(b" {\"type\" : \"Like\", \"id\":\"https://a.example/1\",\"a\":1.0}");
        let activity = Activity::from_json(body.clone()).expect("an activity");
        assert_eq!((activity.body(), activity.id(), activity.kind()), (&body, "https://a.example/1", Some("Like")));
        let odd = Activity::from_json(Bytes::from_static(b"{\"type\":[\"Like\"],\"id\":7}")).expect("an activity");
        assert_eq!((odd.id(), odd.kind()), ("", None));
    }

    #[test]
    fn what_is_no_object_or_too_large_is_refused() {
        for text in ["[]", "\"x\"", "", "{", "{\"a\":1} x", "{\"id\":\"a\",\"id\":\"b\""] {
            assert!(Activity::from_json(Bytes::from_static(text.as_bytes())).is_err(), "{text}");
        }
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(ACTIVITY_BYTES_MAX));
        assert!(matches!(Activity::from_json(large.into()), Err(Error::TooLarge(_))));
        assert!(Activity::from_value(&Value::Null).is_err());
    }
}
