//! A v1 batch: a JSON array of activities.
//!
//! | field | |
//! |---|---|
//! | `time` | when the front door took it: ISO 8601 with microseconds and offset, `2024-06-30T21:47:56.123456+00:00` |
//! | `activity_id` | the activity's `id`; the answer repeats it |
//! | `host` | the request's Host |
//! | `path` | the request's path, without its query |
//! | `headers` | all of the request's headers, `[name, value]`, in the case received |
//! | `b64_body` | the body's bytes in standard base64 |
//!
//! Unknown fields are skipped. There is no scheme: it goes as `X-Forwarded-Proto`, where the sender's own is not there. And
//! the answer is asked for uncompressed: the receiver passes a body on only beside its Content-Length, which an answer that
//! is compressed under way does not have (Lemmy's are, since 0.18.1), and a refusal's body says what became of an activity.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::json::{self, At, Fields};
use super::{BATCH_OVERHEAD_BYTES, REQUEST_BYTES_MAX, Unfit, unfit};
use crate::from_micros;
use crate::v2::BatchItem;

/// Which encodings the answer to an activity may have.
const ACCEPT_ENCODING: &str = "accept-encoding";

/// One activity of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// When the front door took it.
    pub time: OffsetDateTime,
    /// The activity's `id`.
    pub activity_id: String,
    /// The request's Host.
    pub host: String,
    /// The request's path. One that came in a batch was decoded by whoever made it, see [`Item::target`].
    pub path: String,
    /// The request's headers, names in the case received; values as they were on the wire.
    pub headers: Vec<(String, Bytes)>,
    /// The request's body.
    pub body: Bytes,
}

/// A batch that was not understood. Nothing of it may be delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is no JSON array.
    #[error("the batch is no JSON array of activities: {0}")]
    NotAnArray(String),
    /// A field can't be read. Item 1 is the first activity; no field: the item itself.
    #[error("item {item}: {}{cause}", Named(field))]
    Field {
        /// Which item.
        item: usize,
        /// Which field.
        field: &'static str,
        /// What is wrong.
        cause: String,
    },
    /// More activities than the receiver takes.
    #[error("the batch has more activities than are taken, at most {most}")]
    TooMany {
        /// The limit.
        most: usize,
    },
}

/// A field in front of what is wrong with it.
struct Named<'a>(&'a str);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{} is missing or malformed: ", self.0) }
    }
}

impl Item {
    /// An activity as it goes to a v1 receiver; its body is shared, not copied.
    ///
    /// # Errors
    /// It can't go to one at all.
    pub fn carrying(item: &BatchItem) -> Result<Self, Unfit> {
        if let Some(unfit) = unfit::of(item) {
            return Err(unfit);
        }
        let header = |wanted: &str| item.http.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        let (_, host) = header("host").ok_or(Unfit::Host(0))?;
        let mut headers = item.http.clone();
        // As our own receiver adds them (RFC 9421 signatures cover the scheme): another one only passes them on.
        if header("x-forwarded-proto").is_none() {
            headers.push(("x-forwarded-proto".to_owned(), Bytes::copy_from_slice(item.scheme.as_bytes())));
        }
        if header("x-forwarded-host").is_none() {
            headers.push(("x-forwarded-host".to_owned(), host.clone()));
        }
        ask_for_a_plain_answer(&mut headers);
        let this = Self {
            time: from_micros(item.received_at_us).ok_or(Unfit::Time)?,
            activity_id: item.activity_id.clone(),
            host: String::from_utf8_lossy(host).into_owned(), // ASCII, as looked at before
            path: item.target.clone(),
            headers,
            body: item.body.clone(),
        };
        let found = this.encoded_bytes() + BATCH_OVERHEAD_BYTES;
        if found > REQUEST_BYTES_MAX {
            return Err(Unfit::TooLarge { found, most: REQUEST_BYTES_MAX });
        }
        Ok(this)
    }

    /// What it takes of a batch, bytes, the comma behind it included: the batch has these, and
    /// [`BATCH_OVERHEAD_BYTES`].
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        const COMMA: usize = 1;
        let mut head = Counted(0);
        // A count takes all that it is given, and texts always serialise.
        let counted = serde_json::to_writer(&mut head, &self.written(String::new())).is_ok();
        debug_assert!(counted, "texts serialise");
        let body = self.body.len().div_ceil(3).saturating_mul(4);
        head.0.saturating_add(body).saturating_add(COMMA)
    }

    /// The request's target, as near as it can be told. A front door of the existing batcher writes its path decoded:
    /// what no target can have (a space, a query's `?`) was an escape once, and becomes one again.
    #[must_use]
    pub fn target(&self) -> String {
        let mut target = String::with_capacity(self.path.len());
        for byte in self.path.bytes() {
            match byte {
                b'!'..=b'~' if !matches!(byte, b'?' | b'#') => target.push(char::from(byte)),
                _ => target.push_str(&format!("%{byte:02X}")),
            }
        }
        target
    }

    fn written(&self, b64_body: String) -> Written<'_> {
        Written {
            time: json::time_text(self.time),
            activity_id: &self.activity_id,
            host: &self.host,
            path: &self.path,
            headers: self.headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value))).collect(),
            b64_body,
        }
    }
}

/// A batch of these activities. A header's value that is no text is written as nearly as possible; what comes from
/// [`Item::carrying`] is.
#[must_use]
pub fn encode(items: &[Item]) -> Vec<u8> {
    let bytes: usize = items.iter().map(Item::encoded_bytes).sum();
    let mut out = Vec::with_capacity(bytes + BATCH_OVERHEAD_BYTES);
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        // A Vec takes all that it is given, and texts always serialise.
        let written = serde_json::to_writer(&mut out, &item.written(STANDARD.encode(&item.body))).is_ok();
        debug_assert!(written, "texts serialise");
    }
    out.push(b']');
    out
}

/// Reads a batch of at most `most` activities. How large it may be is for whoever inflates it.
///
/// # Errors
/// Names the item and the field that keep it from being read.
pub fn decode(json: &[u8], most: usize) -> Result<Vec<Item>, Error> {
    json::read_array(json, most).map_err(|fault| match fault {
        json::Fault { too_many: true, .. } => Error::TooMany { most },
        json::Fault { item: 0, cause, .. } => Error::NotAnArray(cause),
        json::Fault { item, field, cause, .. } => Error::Field { item, field, cause },
    })
}

/// Of the answer only the receiver sees anything, so whose encodings it may have is the receiver's business, unless the
/// sender has signed it: a signature that names the header anywhere leaves it alone.
fn ask_for_a_plain_answer(headers: &mut Vec<(String, Bytes)>) {
    let names_it = |value: &[u8]| {
        value.windows(ACCEPT_ENCODING.len()).any(|part| part.eq_ignore_ascii_case(ACCEPT_ENCODING.as_bytes()))
    };
    let signature = |name: &str| ["signature", "signature-input", "authorization"].contains(&name);
    if headers.iter().any(|(name, value)| signature(&name.to_ascii_lowercase()) && names_it(value)) {
        return;
    }
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case(ACCEPT_ENCODING));
    headers.push((ACCEPT_ENCODING.to_owned(), Bytes::from_static(b"identity")));
}

#[derive(Serialize)]
struct Written<'a> {
    time: String,
    activity_id: &'a str,
    host: &'a str,
    path: &'a str,
    headers: Vec<(&'a str, std::borrow::Cow<'a, str>)>,
    b64_body: String,
}

/// Counts what is written.
struct Counted(usize);

impl std::io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
pub(super) struct Partial {
    time: Option<String>,
    activity_id: Option<String>,
    host: Option<String>,
    path: Option<String>,
    headers: Option<Vec<(String, HeaderBytes)>>,
    b64_body: Option<String>,
}

impl Fields for Item {
    type Partial = Partial;

    fn read<'de, A: MapAccess<'de>>(item: &mut Partial, key: &str, map: &mut A, at: &At) -> Result<bool, A::Error> {
        match key {
            "time" => item.time = Some(at.value("time", map)?),
            "activity_id" => item.activity_id = Some(at.value("activity_id", map)?),
            "host" => item.host = Some(at.value("host", map)?),
            "path" => item.path = Some(at.value("path", map)?),
            "headers" => item.headers = Some(at.value("headers", map)?),
            "b64_body" => item.b64_body = Some(at.value("b64_body", map)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn whole(item: Partial) -> Result<Self, (&'static str, String)> {
        fn need<T>(field: &'static str, value: Option<T>) -> Result<T, (&'static str, String)> {
            value.ok_or_else(|| (field, "it is not there".to_owned()))
        }
        let time = need("time", item.time)?;
        let path = need("path", item.path)?;
        if !path.starts_with('/') {
            return Err(("path", "it begins with no slash".to_owned()));
        }
        let body =
            STANDARD.decode(need("b64_body", item.b64_body)?).map_err(|error| ("b64_body", error.to_string()))?;
        Ok(Self {
            time: json::time(&time).ok_or_else(|| ("time", "it is no time with an offset".to_owned()))?,
            activity_id: need("activity_id", item.activity_id)?,
            host: need("host", item.host)?,
            path,
            headers: need("headers", item.headers)?.into_iter().map(|(name, value)| (name, value.0)).collect(),
            body: body.into(),
        })
    }
}

/// A header's value. Python reads a byte that is no text as half of a surrogate pair (U+DC80 to U+DCFF, PEP 383) and
/// writes it so; here it is that byte again.
struct HeaderBytes(Bytes);

impl<'de> Deserialize<'de> for HeaderBytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As bytes, for halves of a pair are no text.
        deserializer.deserialize_bytes(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl Visitor<'_> for HeaderVisitor {
    type Value = HeaderBytes;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E: serde::de::Error>(self, text: &[u8]) -> Result<HeaderBytes, E> {
        let bytes = without_escapes(text).ok_or_else(|| E::custom("a string has half of a surrogate pair"))?;
        Ok(HeaderBytes(bytes.into()))
    }
}

/// Text, whose halves of surrogate pairs stand for bytes; none where one stands for nothing.
fn without_escapes(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = match rest {
            // U+DC80 to U+DCFF, as UTF-8 would have them: no text has halves, so nothing else looks like this.
            [0xed, second @ 0xb2..=0xb3, third, after @ ..] => {
                bytes.push((second & 0x03) << 6 | (third & 0x3f));
                after
            }
            [0xed, 0xa0..=0xbf, ..] => return None,
            _ => {
                bytes.push(first);
                after
            }
        };
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_lane::{MsgId, Seq};

    /// Made by the existing batcher's rules: odd case, repeated headers, a body that is no UTF-8, an unknown field.
    const GOLDEN: &str = include_str!("../../tests/golden/batch-v1.json");
    /// What we write.
    const GOLDEN_OURS: &str = include_str!("../../tests/golden/batch-v1-ours.json");

    fn read(json: &str) -> Result<Vec<Item>, Error> {
        decode(json.as_bytes(), 100)
    }

    fn item() -> BatchItem {
        BatchItem {
            seq: Seq(12),
            msg_id: MsgId::new("m12"),
            received_at_us: 1_719_784_076_123_456,
            scheme: "https".into(),
            target: "/u/bob/inbox".into(),
            http: vec![
                ("host".into(), Bytes::from_static(b"aussie.zone")),
                ("x-twice".into(), Bytes::from_static(b"1")),
                ("signature".into(), Bytes::from_static(b"keyId=\"https://lemmy.world/u/a#main-key\"")),
                ("x-twice".into(), Bytes::from_static(b"2")),
            ],
            body: Bytes::from_static(b"{\"id\":\"\xc3\"}"),
            activity_id: "https://lemmy.world/activities/\u{fc}\"1".into(),
            traceparent: None,
            tracestate: None,
        }
    }

    #[test]
    fn a_documented_batch_is_read() {
        let items = read(GOLDEN).expect("reads");
        let [first, second, third] = &items[..] else { panic!("three: {items:?}") };
        assert_eq!(crate::rfc3339(first.time), "2024-06-30T21:47:56.123456Z");
        assert_eq!(crate::rfc3339(second.time), "2024-06-30T21:47:57.000000Z", "no fraction, and another offset");
        assert_eq!(crate::rfc3339(third.time), "2024-06-30T21:47:58.500000Z", "with a space");
        assert_eq!(first.activity_id, "https://lemmy.world/activities/announce/like/1");
        assert_eq!((first.host.as_str(), first.path.as_str()), ("aussie.zone", "/inbox"));
        let headers: Vec<_> = first.headers.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
        let expected: [(&str, &[u8]); 6] = [
            ("Host", b"aussie.zone"),
            ("cOnTeNt-TyPe", b"application/activity+json"),
            ("X-Repeated", b"1"),
            ("x-repeated", b"2"),
            ("X-Empty", b""),
            ("Content-Length", b"12"),
        ];
        assert_eq!(headers, expected);
        assert_eq!(&first.body[..], b"{\"id\":\"\xc3\x28\"}");
        assert_eq!(second.headers[1].1, "caf\u{e9}".as_bytes(), "text is UTF-8");
        assert_eq!(second.headers[2].1, &b"caf\xe9 \xff\x80"[..], "bytes that are no text are those bytes");
        assert!(second.body.is_empty() && third.headers.is_empty());
    }

    #[test]
    fn what_we_write_is_the_golden_batch_and_reads_back() {
        let items = [Item::carrying(&item()).expect("fit"), Item::carrying(&item()).expect("fit")];
        let json = encode(&items);
        assert_eq!(String::from_utf8(json.clone()).expect("text"), GOLDEN_OURS.trim_end());
        assert_eq!(decode(&json, 2).expect("reads"), items);
    }

    #[test]
    fn the_size_of_a_batch_is_known_before_it_is_made() {
        for body in [0, 1, 2, 3, 1000, 1001] {
            let mut large = item();
            large.body = vec![0xff; body].into();
            let items = [Item::carrying(&item()).expect("fit"), Item::carrying(&large).expect("fit")];
            for items in [&items[..0], &items[..1], &items] {
                let said = items.iter().map(Item::encoded_bytes).sum::<usize>() + BATCH_OVERHEAD_BYTES;
                let last_comma = usize::from(!items.is_empty());
                assert_eq!(encode(items).len(), said - last_comma, "{body}");
            }
        }
    }

    #[test]
    fn the_answer_is_asked_for_uncompressed_unless_the_sender_signed_what_it_takes() {
        let encodings = |headers: &[(&str, &'static str)]| -> Vec<_> {
            let mut item = item();
            item.http.retain(|(name, _)| name != "signature");
            let headers =
                headers.iter().map(|(name, value)| ((*name).to_owned(), Bytes::from_static(value.as_bytes())));
            item.http.extend(headers);
            let carried = Item::carrying(&item).expect("fit").headers.into_iter();
            carried.filter(|(name, _)| name.eq_ignore_ascii_case(ACCEPT_ENCODING)).map(|(_, value)| value).collect()
        };
        assert_eq!(encodings(&[]), ["identity"], "a client may add its own where there is none");
        let unsigned = [("Signature", "keyId=\"x\",headers=\"(request-target) host\""), ("accept-encoding", "gzip")];
        assert_eq!(encodings(&unsigned), ["identity"]);
        assert_eq!(encodings(&[("Accept-Encoding", "gzip"), ("accept-encoding", "br")]), ["identity"]);
        for signature in [
            ("Signature", "keyId=\"x\",headers=\"host Accept-Encoding\""),
            ("signature-input", "sig1=(\"accept-encoding\")"),
            ("Authorization", "Signature headers=\"accept-encoding\""),
        ] {
            assert_eq!(encodings(&[signature, ("accept-encoding", "gzip")]), ["gzip"], "{signature:?}");
        }
    }

    #[test]
    fn what_v1_cannot_carry_never_goes() {
        let unfit = |change: &dyn Fn(&mut BatchItem)| {
            let mut item = item();
            change(&mut item);
            Item::carrying(&item).expect_err("unfit")
        };
        assert_eq!(unfit(&|item| item.target = "/inbox?shared=1".into()), Unfit::Query);
        assert_eq!(unfit(&|item| item.target = "/inbox?".into()), Unfit::Query, "an empty one would be lost too");
        for path in ["/users/%40bob/inbox", "/a/../inbox", "/o'b/inbox"] {
            assert_eq!(unfit(&|item| item.target = path.into()), Unfit::Path(path.into()));
        }
        let header = |value: &'static [u8]| unfit(&|item| item.http.push(("x-odd".into(), Bytes::from_static(value))));
        for value in [&b"caf\xe9"[..], b"caf\xc3\xa9", b"\x7f"] {
            assert_eq!(header(value), Unfit::Header("x-odd".into()));
        }
        assert_eq!(unfit(&|item| item.http.retain(|(name, _)| name != "host")), Unfit::Host(0));
        assert_eq!(unfit(&|item| item.http.push(("Host".into(), Bytes::new()))), Unfit::Host(2));
        assert_eq!(unfit(&|item| item.received_at_us = i64::MAX), Unfit::Time);
        let too_large = unfit(&|item| item.body = vec![0; 15_000_000].into());
        assert!(matches!(too_large, Unfit::TooLarge { found: 20_000_001.., most: REQUEST_BYTES_MAX }), "{too_large}");
    }

    #[test]
    fn the_senders_own_word_about_its_scheme_stays() {
        let mut item = item();
        item.http.push(("X-Forwarded-Proto".into(), Bytes::from_static(b"http")));
        let carried = Item::carrying(&item).expect("fit");
        let found = |name: &str| carried.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count();
        assert_eq!((found("x-forwarded-proto"), found("x-forwarded-host")), (1, 1));
    }

    #[test]
    fn an_error_names_item_and_field() {
        let whole = r#"{"time":"2024-06-30T21:47:56.123456+00:00","activity_id":"a","host":"b.example","path":"/inbox","headers":[],"b64_body":""}"#;
        assert!(read(&format!("[{whole}]")).is_ok());
        for (from, to, field) in [
            (r#""time":"2024-06-30T21:47:56.123456+00:00","#, "", "time"),
            ("2024-06-30T21:47:56.123456+00:00", "yesterday", "time"),
            ("2024-06-30T21:47:56.123456+00:00", "2024-06-30T21:47:56.123456", "time"),
            ("2024-06-30T21:47:56.123456+00:00", "2024-06-31T21:47:56.123456+00:00", "time"),
            (r#""activity_id":"a""#, r#""activity_id":null"#, "activity_id"),
            (r#""host":"b.example""#, r#""host":7"#, "host"),
            ("/inbox", "inbox", "path"),
            (r#""headers":[]"#, r#""headers":null"#, "headers"),
            (r#""headers":[]"#, r#""headers":[["a"]]"#, "headers"),
            (r#""headers":[]"#, r#""headers":[["a","b","c"]]"#, "headers"),
            (r#""headers":[]"#, r#""headers":[["a",1]]"#, "headers"),
            (r#""headers":[]"#, r#""headers":[["a","\ud800"]]"#, "headers"),
            (r#""headers":[]"#, r#""headers":{"a":"b"}"#, "headers"),
            (r#""b64_body":"""#, r#""b64_body":"e30""#, "b64_body"),
            (r#""b64_body":"""#, r#""b64_body":"_-_-""#, "b64_body"),
            (r#""b64_body":"""#, r#""b64_body":null"#, "b64_body"),
        ] {
            let broken = whole.replace(from, to);
            assert_ne!(broken, whole, "{from}");
            let error = read(&format!("[{whole},{broken}]")).expect_err(to);
            assert!(matches!(&error, Error::Field { item: 2, field: named, .. } if *named == field), "{to}: {error}");
            assert!(error.to_string().starts_with(&format!("item 2: {field} is missing or malformed: ")), "{error}");
        }
        for text in ["", "{}", "null", "7", "[", &format!("[{whole}"), &format!("[{whole}] x")] {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(matches!(read("{}"), Err(Error::NotAnArray(_))));
        assert!(matches!(read(&format!("[{whole}] []")), Err(Error::NotAnArray(_))), "two are none");
        assert!(matches!(read(&format!("[{whole},[]]")), Err(Error::Field { item: 2, field: "", .. })));
    }

    #[test]
    fn an_unknown_field_is_skipped_and_an_empty_batch_is_one() {
        let json = r#"[{"x":{"time":[null,1e9]},"time":"2024-06-30T21:47:56Z","activity_id":"","host":"","path":"/","headers":[],"b64_body":""}]"#;
        assert!(read(json).is_ok());
        assert_eq!(read(" [ ] "), Ok(vec![]));
    }

    #[test]
    fn more_than_the_limit_is_refused_before_it_is_read() {
        let items = vec![Item::carrying(&item()).expect("fit"); 3];
        assert!(decode(&encode(&items), 3).is_ok());
        assert_eq!(decode(&encode(&items), 2), Err(Error::TooMany { most: 2 }));
        assert_eq!(decode(b"[]", 0), Ok(vec![]));
    }

    #[test]
    fn no_byte_string_makes_it_panic() {
        let whole = GOLDEN.as_bytes();
        for at in 0..whole.len() {
            drop(decode(&whole[..at], 100));
            for byte in [b'"', b'[', b'{', b'\\', b'9', 0x00, 0xed, 0xff] {
                let mut altered = whole.to_vec();
                altered[at] = byte;
                drop(decode(&altered, 100));
            }
        }
        assert!(decode("[".repeat(100_000).as_bytes(), 100).is_err());
    }

    #[test]
    fn a_path_that_was_decoded_becomes_a_target_again() {
        let target = |path: &str| {
            let mut item = Item::carrying(&item()).expect("fit");
            item.path = path.into();
            item.target()
        };
        for plain in ["/inbox", "/users/@bob/inbox", "/a/../inbox", "/u/%40bob/inbox", "/o'b{|}/inbox"] {
            assert_eq!(target(plain), plain);
        }
        assert_eq!(target("/in box"), "/in%20box");
        assert_eq!(target("/inbox?x#y"), "/inbox%3Fx%23y");
        assert_eq!(target("/u/\u{fc}\r\n/inbox"), "/u/%C3%BC%0D%0A/inbox");
    }
}
