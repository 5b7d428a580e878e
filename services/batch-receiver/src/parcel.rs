//! One activity as the request that goes to the instance, made before anything of its batch is begun: what can't be
//! replayed byte for byte is refused with its whole batch, not found out halfway.
//!
//! Verbatim are the target and every stored header, repeated ones and bytes above 0x7F included. Header names are in
//! lower case as stored, and the values of a repeated one stand together, in their order: both mean the same to every
//! reader of HTTP, and signatures are made over exactly that form (RFC 9421, section 2.1). Added are Content-Length,
//! and, where the sender's own are not stored, X-Forwarded-Proto and X-Forwarded-Host: a signature may cover the
//! scheme, and the instance can't see it on its own side. X-Forwarded-For is not: nobody here knows the address.

use bytes::Bytes;
use fedstream_lane::{MsgId, Seq};
use fedstream_wire::v2::BatchItem;
use http::header::{CONTENT_LENGTH, HOST, HeaderName};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue};

/// Of the connection, not of the activity: the front door doesn't store them, and replayed they would say something
/// wrong about where this request ends.
pub const NEVER_REPLAYED: [&str; 8] =
    ["connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// What is kept of an activity's id, bytes: the inbox-receiver stores no more either.
const ACTIVITY_ID_BYTES_MAX: usize = 1024;

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// An activity that is ready to go.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Its stream sequence.
    pub seq: Seq,
    /// The id under which it was stored.
    pub msg_id: MsgId,
    /// Its own id, for people; the beginning of a very long one.
    pub activity_id: String,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
    /// The rest of its trace context.
    pub tracestate: Option<String>,
    /// Path and query, verbatim.
    pub target: PathAndQuery,
    /// Everything that goes out as a header.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What can't be replayed as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No HTTP request can have this target.
    #[error("the target {0:?} can't be sent as it is")]
    Target(String),
    /// No HTTP request can have this header.
    #[error("the header {0:?} can't be sent as it is")]
    Header(String),
    /// The header belongs to a connection.
    #[error("the header {0:?} belongs to a connection and is never replayed")]
    OfConnection(String),
}

impl Parcel {
    /// The request behind an item.
    ///
    /// # Errors
    /// Names what can't be sent verbatim.
    pub fn of(mut item: BatchItem) -> Result<Self, Error> {
        // http cuts a fragment off without a word, hence the comparison.
        let target = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(item.target.as_bytes()))
            .ok()
            .filter(|target| target.as_str() == item.target)
            .ok_or_else(|| Error::Target(shown(&item.target)))?;
        let mut headers = HeaderMap::with_capacity(item.http.len() + 3);
        for (name, value) in item.http {
            let fault = || Error::Header(shown(&name));
            let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| fault())?;
            if NEVER_REPLAYED.contains(&header.as_str()) {
                return Err(Error::OfConnection(name));
            }
            let value = HeaderValue::from_maybe_shared(value).map_err(|_| fault())?;
            headers.try_append(header, value).map_err(|_| fault())?;
        }
        if !headers.contains_key(FORWARDED_PROTO) {
            let scheme = HeaderValue::from_str(&item.scheme).map_err(|_| Error::Header(FORWARDED_PROTO.to_string()))?;
            headers.insert(FORWARDED_PROTO, scheme);
        }
        if !headers.contains_key(FORWARDED_HOST)
            && let Some(host) = headers.get(HOST).cloned()
        {
            headers.insert(FORWARDED_HOST, host);
        }
        // Always said, also for an empty body, where hyper would say nothing.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(item.body.len()));
        item.activity_id.truncate(item.activity_id.floor_char_boundary(ACTIVITY_ID_BYTES_MAX));
        item.activity_id.shrink_to_fit();
        Ok(Self {
            seq: item.seq,
            msg_id: item.msg_id,
            activity_id: item.activity_id,
            traceparent: item.traceparent,
            tracestate: item.tracestate,
            target,
            headers,
            body: item.body,
        })
    }
}

/// A text from a batch as it may stand in an error: a reason is a line, whatever it is about.
pub fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    text.chars().take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(target: &str, http: &[(&str, &'static [u8])]) -> BatchItem {
        BatchItem {
            seq: Seq(1),
            msg_id: MsgId::new("m1"),
            received_at_us: 0,
            scheme: "https".into(),
            target: target.into(),
            http: http.iter().map(|(name, value)| ((*name).to_owned(), Bytes::from_static(value))).collect(),
            body: Bytes::from_static(b"{}"),
            activity_id: "https://a.example/1".into(),
            traceparent: None,
            tracestate: None,
        }
    }

    #[test]
    fn a_target_goes_out_verbatim_or_not_at_all() {
        for target in [
            "/inbox",
            "/inbox?shared=1",
            "/users/%40bob/inbox",
            "/a/../inbox",
            "/u/o'b/inbox?x='&y={}",
            "/u/\u{fc}/inbox",
            "//inbox",
        ] {
            assert_eq!(Parcel::of(item(target, &[])).expect(target).target.as_str(), target);
        }
        for target in ["/inbox#x", "/in box", "/in\r\nbox", "/inbox\u{0}"] {
            assert_eq!(Parcel::of(item(target, &[])).err(), Some(Error::Target(target.into())), "{target:?}");
        }
    }

    #[test]
    fn headers_keep_their_order_and_their_bytes() {
        let parcel =
            Parcel::of(item("/inbox", &[("host", b"b.example"), ("x", b"1"), ("date", b"\xe9 "), ("x", b"2")]))
                .expect("fit");
        let pairs: Vec<_> = parcel.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let expected: [(&str, &[u8]); 7] = [
            ("host", b"b.example"),
            ("x", b"1"),
            ("x", b"2"),
            ("date", b"\xe9 "),
            ("x-forwarded-proto", b"https"),
            ("x-forwarded-host", b"b.example"),
            ("content-length", b"2"),
        ];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn what_the_sender_forwarded_and_signed_is_not_written_over() {
        let stored: [(&str, &[u8]); 3] =
            [("host", b"b.example"), ("x-forwarded-proto", b"http"), ("x-forwarded-host", b"x.example")];
        let parcel = Parcel::of(item("/inbox", &stored)).expect("fit");
        assert_eq!(parcel.headers.get_all("x-forwarded-proto").iter().collect::<Vec<_>>(), ["http"]);
        assert_eq!(parcel.headers.get_all("x-forwarded-host").iter().collect::<Vec<_>>(), ["x.example"]);
    }

    #[test]
    fn a_very_long_activity_id_is_cut_at_a_character() {
        let id =
            |text: String| Parcel::of(BatchItem { activity_id: text, ..item("/inbox", &[]) }).expect("fit").activity_id;
        assert_eq!(id("x".repeat(1024)), "x".repeat(1024));
        assert_eq!(id("x".repeat(1025)), "x".repeat(1024));
        assert_eq!(id("\u{20ac}".repeat(1000)), "\u{20ac}".repeat(341), "three bytes each");
    }

    #[test]
    fn what_http_cannot_say_is_refused() {
        let header = |name: &str, value: &'static [u8]| Parcel::of(item("/inbox", &[(name, value)])).err();
        assert_eq!(header("x", b"a\r\nb: c"), Some(Error::Header("x".into())));
        assert_eq!(header("x y", b""), Some(Error::Header("x y".into())));
        for name in NEVER_REPLAYED {
            assert_eq!(header(name, b"1"), Some(Error::OfConnection(name.into())));
        }
    }
}
