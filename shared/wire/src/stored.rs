//! The stored message: one activity in JetStream.
//!
//! The payload is the request body, byte for byte. What else is needed to replay the request stands in NATS headers of
//! our own; the HTTP headers are one JSON array inside one of them. They never become NATS headers themselves:
//! `Nats-Rollup` or `Nats-Msg-Id` from outside would be commands to the broker.

use bytes::Bytes;
use fedstream_lane::{Lane, MsgId};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::timestamp::{parse_rfc3339, rfc3339};

/// `Fed-Version` of what this crate writes, and the only one it reads.
pub const VERSION: &str = "1";

/// Names of the NATS headers of a stored message.
pub mod header {
    /// Deduplication id, see [`super::message_id`].
    pub const MSG_ID: &str = "Nats-Msg-Id";
    /// Format version.
    pub const VERSION: &str = "Fed-Version";
    /// The activity's `id`, cut and with control characters escaped: for people and logs.
    pub const ACTIVITY_ID: &str = "Fed-Activity-Id";
    /// The activity's `type`.
    pub const ACTIVITY_TYPE: &str = "Fed-Activity-Type";
    /// When the front door took it.
    pub const RECEIVED_AT: &str = "Fed-Received-At";
    /// Path and query exactly as received.
    pub const TARGET: &str = "Fed-Target";
    /// The scheme that the sender used.
    pub const SCHEME: &str = "Fed-Scheme";
    /// The HTTP headers.
    pub const HTTP: &str = "Fed-Http";
    /// Until when the destination will accept the signature.
    pub const DEADLINE: &str = "Fed-Deadline";
    /// W3C trace context of the activity's creation.
    pub const TRACEPARENT: &str = "traceparent";
    /// W3C trace state.
    pub const TRACESTATE: &str = "tracestate";
    /// Of one that was parked and published again: its sequence in FED_PARKED, see [`super::redrive`].
    pub const REDRIVE: &str = "Fed-Redrive";
    /// Of an outbound message: where it goes.
    pub const INBOX: &str = "Fed-Inbox";
    /// Of an outbound message: whose key signs it; of a backfill job, whose history it is.
    pub const ACTOR: &str = "Fed-Signing-Actor";
    /// Of an outbound message: when the application asked for it, RFC 3339.
    pub const REQUESTED_AT: &str = "Fed-Requested-At";
}

/// Longest text kept of an id or a type, bytes: they come from the body and must not fill the header block.
const LABEL_BYTES_MAX: usize = 1024;

/// An HTTP header: name in lower case, value as its bytes.
pub type HttpHeader = (String, Vec<u8>);

/// One activity as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredActivity {
    /// See [`message_id`].
    pub msg_id: MsgId,
    /// The activity's `id`, for people and logs.
    pub activity_id: String,
    /// The activity's `type`, where it has one.
    pub activity_type: Option<String>,
    /// When the front door took it.
    pub received_at: OffsetDateTime,
    /// Path and query exactly as received: the signature covers it.
    pub target: String,
    /// `http` or `https`, as the sender used it.
    pub scheme: String,
    /// The HTTP headers to replay, in order, `host` included.
    pub http: Vec<HttpHeader>,
    /// Until when the destination will accept the signature.
    pub deadline: Option<OffsetDateTime>,
    /// W3C trace context of the activity's creation.
    pub traceparent: Option<String>,
    /// W3C trace state.
    pub tracestate: Option<String>,
    /// The request body.
    pub body: Bytes,
}

/// A stored message that this version can't read. It is parked, never dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Written by another version.
    #[error("Fed-Version is {0:?}, this program reads {VERSION:?}")]
    Version(String),
    /// A header that must be there is not.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// A header that can't be read.
    #[error("the header {0} is malformed")]
    Malformed(&'static str),
}

/// Hex SHA-256 over lane, method, target and body: the same submission from the same source twice is one message.
/// The signature is left out, for senders sign each retry anew.
#[must_use]
pub fn message_id(lane: &Lane, method: &str, target: &str, body: &[u8]) -> MsgId {
    let mut hash = Sha256::new();
    for part in [lane.subject().as_bytes(), method.as_bytes(), target.as_bytes(), body] {
        hash.update((part.len() as u64).to_be_bytes()); // lengths keep ("ab", "c") and ("a", "bc") apart
        hash.update(part);
    }
    let mut hex = String::with_capacity(64);
    for byte in hash.finalize() {
        hex.push_str(&format!("{byte:02x}"));
    }
    MsgId::new(hex)
}

/// The sequence in FED_PARKED of a message that was parked and published again; `get` looks a NATS header up.
///
/// Such a message stands at the lane's end under `<original id>.redrive.<parked sequence>`, and has waited longer than any
/// limit on waiting would allow. Where its deadline had passed it carries none: somebody wants it tried all the same.
pub fn redrive<'h>(get: impl Fn(&'static str) -> Option<&'h str>) -> Option<u64> {
    get(header::REDRIVE)?.parse().ok().filter(|sequence| *sequence > 0)
}

impl StoredActivity {
    /// The NATS headers, in a fixed order. No value has a line break or another control character.
    #[must_use]
    pub fn to_headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            (header::MSG_ID, self.msg_id.as_str().to_owned()),
            (header::VERSION, VERSION.to_owned()),
            (header::ACTIVITY_ID, label(&self.activity_id)),
            (header::RECEIVED_AT, rfc3339(self.received_at)),
            (header::TARGET, self.target.clone()),
            (header::SCHEME, self.scheme.clone()),
            (header::HTTP, http_to_json(&self.http)),
        ];
        let optional = [
            (header::ACTIVITY_TYPE, self.activity_type.as_deref().map(label)),
            (header::DEADLINE, self.deadline.map(rfc3339)),
            (header::TRACEPARENT, self.traceparent.clone()),
            (header::TRACESTATE, self.tracestate.clone()),
        ];
        headers.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        headers
    }

    /// Reads a stored message. `get` looks a NATS header up.
    ///
    /// # Errors
    /// Names the header that keeps it from being read.
    pub fn from_headers<'h>(get: impl Fn(&'static str) -> Option<&'h str>, body: Bytes) -> Result<Self, Error> {
        let need = |name| get(name).ok_or(Error::Missing(name));
        let version = need(header::VERSION)?;
        if version != VERSION {
            return Err(Error::Version(version.chars().take(40).collect()));
        }
        let time = |name, text: &str| parse_rfc3339(text).ok_or(Error::Malformed(name));
        let target = need(header::TARGET)?;
        if !target.starts_with('/') {
            return Err(Error::Malformed(header::TARGET));
        }
        let scheme = need(header::SCHEME)?;
        if !matches!(scheme, "http" | "https") {
            return Err(Error::Malformed(header::SCHEME));
        }
        Ok(Self {
            msg_id: MsgId::new(need(header::MSG_ID)?),
            activity_id: need(header::ACTIVITY_ID)?.to_owned(),
            activity_type: get(header::ACTIVITY_TYPE).map(str::to_owned),
            received_at: time(header::RECEIVED_AT, need(header::RECEIVED_AT)?)?,
            target: target.to_owned(),
            scheme: scheme.to_owned(),
            http: http_from_json(need(header::HTTP)?).ok_or(Error::Malformed(header::HTTP))?,
            deadline: get(header::DEADLINE).map(|text| time(header::DEADLINE, text)).transpose()?,
            traceparent: get(header::TRACEPARENT).map(str::to_owned),
            tracestate: get(header::TRACESTATE).map(str::to_owned),
            body,
        })
    }
}

/// `[["host","a.example"],..]`; bytes above 0x7F become U+0080..U+00FF, so that any bytes fit into a text.
fn http_to_json(http: &[HttpHeader]) -> String {
    let pairs: Vec<(&str, String)> =
        http.iter().map(|(name, value)| (name.as_str(), value.iter().copied().map(char::from).collect())).collect();
    // Strings and tuples always serialise; the fallback would be read as malformed and parked.
    serde_json::to_string(&pairs).unwrap_or_default()
}

fn http_from_json(json: &str) -> Option<Vec<HttpHeader>> {
    let pairs: Vec<(String, String)> = serde_json::from_str(json).ok()?;
    let bytes = |value: String| value.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect::<Option<Vec<u8>>>();
    pairs.into_iter().map(|(name, value)| Some((name, bytes(value)?))).collect()
}

/// A stranger's text as it may stand in headers, logs and spans: at most 1024 bytes, control characters as `%XX`, no
/// space around it. A label's label is itself.
#[must_use]
pub fn label(text: &str) -> String {
    let mut label = String::with_capacity(text.len().min(LABEL_BYTES_MAX));
    for c in text.trim().chars() {
        let whole = label.len();
        if c.is_control() {
            label.push_str(&format!("%{:02X}", u32::from(c)))
        } else {
            label.push(c)
        }
        if label.len() > LABEL_BYTES_MAX {
            label.truncate(whole);
            break;
        }
    }
    label.truncate(label.trim_end().len()); // the cut may have been behind a space
    label
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::from_micros;

    fn lane() -> Lane {
        Lane { destination: "aussie.zone".parse().expect("name"), source: "lemmy.world".parse().expect("name") }
    }

    fn stored() -> StoredActivity {
        let body = Bytes::from_static(b"{\"id\":\"x\"}");
        StoredActivity {
            msg_id: message_id(&lane(), "POST", "/inbox", &body),
            activity_id: "https://lemmy.world/activities/1\r\nNats-Rollup: all".into(),
            activity_type: Some("Like".into()),
            received_at: from_micros(1_795_319_944_000_110).expect("time"),
            target: "/a/../inbox?shared=1'%40".into(),
            scheme: "https".into(),
            http: vec![
                ("host".into(), b"aussie.zone".to_vec()),
                ("x-odd".into(), (0x20..=0xff).collect()),
                ("x-odd".into(), vec![]),
            ],
            deadline: from_micros(1_795_323_244_000_000),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
            tracestate: None,
            body,
        }
    }

    fn read(headers: &[(&'static str, String)], body: Bytes) -> Result<StoredActivity, Error> {
        StoredActivity::from_headers(|name| headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str()), body)
    }

    #[test]
    fn a_stored_activity_reads_back_byte_for_byte() {
        let stored = stored();
        let headers = stored.to_headers();
        assert!(headers.iter().all(|(_, value)| !value.contains(['\r', '\n', '\0'])), "{headers:?}");
        let mut expected = stored.clone();
        expected.activity_id = "https://lemmy.world/activities/1%0D%0ANats-Rollup: all".into();
        assert_eq!(read(&headers, stored.body.clone()), Ok(expected));
    }

    #[test]
    fn a_message_of_another_version_is_an_error_and_so_is_each_missing_header() {
        let stored = stored();
        let mut headers = stored.to_headers();
        headers[1].1 = "2".into();
        assert_eq!(read(&headers, Bytes::new()), Err(Error::Version("2".into())));
        for missing in [
            header::MSG_ID,
            header::VERSION,
            header::ACTIVITY_ID,
            header::RECEIVED_AT,
            header::TARGET,
            header::SCHEME,
            header::HTTP,
        ] {
            let headers: Vec<_> = stored.to_headers().into_iter().filter(|(name, _)| *name != missing).collect();
            assert_eq!(read(&headers, Bytes::new()), Err(Error::Missing(missing)));
        }
        for (name, value) in [
            (header::HTTP, "[[\"a\"]]"),
            (header::HTTP, "[[\"a\",\"\u{100}\"]]"),
            (header::TARGET, "inbox"),
            (header::RECEIVED_AT, "now"),
            (header::SCHEME, "ftp"),
        ] {
            let headers: Vec<_> = stored
                .to_headers()
                .into_iter()
                .map(|(n, v)| if n == name { (n, value.to_owned()) } else { (n, v) })
                .collect();
            assert_eq!(read(&headers, Bytes::new()), Err(Error::Malformed(name)), "{value}");
        }
    }

    #[test]
    fn the_message_id_tells_submissions_apart_and_knows_a_repeat() {
        let id = |target: &str, body: &[u8]| message_id(&lane(), "POST", target, body);
        assert_eq!(id("/inbox", b"a"), id("/inbox", b"a"));
        assert_ne!(id("/inbox", b"a"), id("/inbox", b"b"));
        assert_ne!(id("/inbox", b"a"), id("/inboxa", b""));
        let other = Lane { source: "other.example".parse().expect("name"), ..lane() };
        assert_ne!(message_id(&other, "POST", "/inbox", b"a"), id("/inbox", b"a"));
        assert_eq!(id("/inbox", b"a").as_str().len(), 64);
    }

    #[test]
    fn a_redriven_message_without_a_deadline_is_read_like_any_other() {
        let stored = StoredActivity { deadline: None, ..stored() };
        let mut headers = stored.to_headers();
        headers.push((header::REDRIVE, "17".into()));
        assert_eq!(read(&headers, stored.body.clone()).map(|read| read.deadline), Ok(None));
        for (text, sequence) in [(Some("17"), Some(17)), (Some("0"), None), (Some("-1"), None), (None, None)] {
            assert_eq!(redrive(|name| text.filter(|_| name == header::REDRIVE)), sequence);
        }
    }

    #[test]
    fn a_long_id_is_cut_at_a_character() {
        let cut = label(&"é".repeat(5000));
        assert!(cut.len() <= LABEL_BYTES_MAX && cut.chars().all(|c| c == 'é'));
    }

    #[test]
    fn a_label_of_a_label_is_the_same_wherever_it_was_cut() {
        for odd in ["\0", "\u{85}", " ", "é", "%"] {
            for before in 1015..1030 {
                let once = label(&format!(" {}{odd}{}", "x".repeat(before), odd.repeat(20)));
                assert!(once.len() <= LABEL_BYTES_MAX && !once.contains(char::is_control), "{before} {odd:?}");
                assert_eq!(label(&once), once, "{before} {odd:?}");
            }
        }
    }
}
