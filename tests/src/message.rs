//! An HTTP request as it is on the wire: names, values and target exactly as sent.
//!
//! No URL library and no header map comes near it: they fold case, merge, reorder and normalise, and whether the
//! services do that is what is tested. A value's bytes above 0x7F are held as U+0080..U+00FF.

use std::fmt::Write;

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Fields that a hop may add, drop or rewrite (RFC 9110, section 7.6.1), and what fedstream adds on replay
/// (DESIGN section 6). The rest must arrive as it was sent. Accept-Encoding is about the answer, which its sender never
/// sees: over v1 it becomes another one. That v2 leaves it alone has a test of its own (`tests/v1/refusals.rs`).
const OF_THE_HOP: [&str; 11] = [
    "connection",
    "keep-alive",
    "content-length",
    "transfer-encoding",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-for",
    "traceparent",
    "tracestate",
    "te",
    "accept-encoding",
];

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `POST`.
    pub method: String,
    /// Path and query, not decoded, not normalised.
    pub target: String,
    /// Name and value in the order of the wire.
    pub headers: Vec<(String, String)>,
    /// The body's bytes.
    pub body: Bytes,
}

impl Message {
    /// The values of a header, in order, joined as RFC 9421 section 2.1 joins them; `None` if it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self.values(name).collect();
        if values.is_empty() { None } else { Some(values.join(", ")) }
    }

    /// The values of a header one by one.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
    }

    /// The request's bytes, with a `content-length` if the headers have none.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        let framed =
            |name: &str| name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding");
        if !self.headers.iter().any(|(name, _)| framed(name)) {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = to_latin1(&head);
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The same for two requests that an instance can't tell apart: method, target, body, and each header that is not
    /// of the hop, names in lower case, the values of one name in their order.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut kept: Vec<(String, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
            .filter(|(name, _)| !OF_THE_HOP.contains(&name.as_str()))
            .collect();
        kept.sort_by(|a, b| a.0.cmp(&b.0));
        let mut hash = Sha256::new();
        hash.update(format!("{} {}\n", self.method, self.target));
        for (name, value) in kept {
            hash.update(format!("{name}: {value}\n"));
        }
        hash.update(b"\n");
        hash.update(&self.body);
        hex(&hash.finalize())
    }

    /// The activity's `id`, if the body is JSON and has one.
    #[must_use]
    pub fn activity_id(&self) -> Option<String> {
        let json: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        Some(json.get("id")?.as_str()?.to_owned())
    }
}

/// Hex sha256.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Each byte as the character of its number.
#[must_use]
pub fn from_latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// The bytes behind [`from_latin1`]; a character above U+00FF goes out as its UTF-8.
#[must_use]
pub fn to_latin1(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match u8::try_from(u32::from(character)) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String can't fail.
        write!(text, "{byte:02x}").expect("a String takes all");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(headers: &[(&str, &str)]) -> Message {
        Message {
            method: "POST".into(),
            target: "/a/../inbox?x=%40".into(),
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            body: Bytes::from_static(b"{\"id\":\"i\"}"),
        }
    }

    #[test]
    fn the_target_and_the_header_bytes_go_out_verbatim() {
        let bytes = message(&[("Host", "b"), ("X", "\u{e9}")]).to_bytes();
        assert_eq!(
            bytes,
            b"POST /a/../inbox?x=%40 HTTP/1.1\r\nHost: b\r\nX: \xe9\r\ncontent-length: 10\r\n\r\n{\"id\":\"i\"}"
        );
    }

    #[test]
    fn a_fingerprint_overlooks_case_order_across_names_and_the_hop() {
        let sent = message(&[("Host", "b"), ("A", "1"), ("a", "2"), ("Connection", "close")]);
        let same = message(&[("x-forwarded-proto", "http"), ("a", "1"), ("a", "2"), ("host", "b")]);
        let swapped = message(&[("a", "2"), ("a", "1"), ("host", "b")]);
        assert_eq!(sent.fingerprint(), same.fingerprint());
        assert_ne!(sent.fingerprint(), swapped.fingerprint());
    }
}
