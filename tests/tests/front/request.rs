//! A request that the front door stores, until a test changes one thing about it; and what a refusal says.
//!
//! Unsigned: the front door takes the source from `actor` then. What must verify at the destination is made by the
//! harness's `Sender`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fedstream_tests::http1::{self, Response};
use fedstream_tests::message::Message;
use serde_json::{Value, json};

/// Longer than every timeout of the front door in these tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One request, changed by its methods.
#[derive(Clone)]
pub struct Request {
    message: Message,
    version: &'static str,
}

/// A Like, with an id that no other has.
pub fn activity(source: &str) -> Value {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    json!({
        "id": format!("https://{source}/activities/{number}"),
        "type": "Like",
        "actor": format!("https://{source}/u/bob"),
        "object": "https://home.test/post/1",
    })
}

impl Request {
    /// From `source` to `destination`'s `/inbox`.
    pub fn new(source: &str, destination: &str) -> Self {
        let headers = [("Host", destination), ("Content-Type", "application/activity+json")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let body = activity(source).to_string().into();
        let message = Message { method: "POST".into(), target: "/inbox".into(), headers, body };
        Self { message, version: "1.1" }
    }

    pub fn method(mut self, method: &str) -> Self {
        self.message.method = method.to_owned();
        self
    }

    pub fn target(mut self, target: &str) -> Self {
        self.message.target = target.to_owned();
        self
    }

    pub fn version(mut self, version: &'static str) -> Self {
        self.version = version;
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.message.body = body.into().into();
        self
    }

    /// Another header line.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.message.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.message.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    pub fn replace(self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    /// A signature that nobody verifies, by this key.
    pub fn key(self, key_id: &str) -> Self {
        self.with("Signature", &format!(r#"keyId="{key_id}",headers="host digest",signature="AAAA""#))
    }

    /// The body in chunks of this many bytes.
    pub fn chunked(mut self, bytes: usize) -> Self {
        let mut chunks = Vec::new();
        for chunk in self.message.body.chunks(bytes) {
            chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            chunks.extend_from_slice(chunk);
            chunks.extend_from_slice(b"\r\n");
        }
        chunks.extend_from_slice(b"0\r\n\r\n");
        self.message.body = chunks.into();
        self.with("Transfer-Encoding", "chunked")
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        as_version(&self.message.to_bytes(), self.version)
    }

    /// Sends it on a connection of its own.
    pub async fn send(&self, front: SocketAddr) -> Response {
        http1::raw(front, &self.to_bytes(), PATIENCE).await.expect("an answer")
    }
}

/// The same request under another HTTP/1 version.
pub fn as_version(request: &[u8], version: &str) -> Vec<u8> {
    let line = request.windows(2).position(|end| end == b"\r\n").expect("a request line");
    let start = std::str::from_utf8(&request[..line]).expect("an ASCII request line");
    let start = start.replace("HTTP/1.1", &format!("HTTP/{version}"));
    [start.as_bytes(), &request[line..]].concat()
}

/// The last part of a problem's type; empty for what is no problem.
pub fn kind(response: &Response) -> String {
    let json = response.json();
    let kind = json["type"].as_str().and_then(|kind| kind.strip_prefix("urn:fedstream:problem:"));
    kind.unwrap_or_default().to_owned()
}

/// The sentence about this request.
pub fn detail(response: &Response) -> String {
    response.json()["detail"].as_str().unwrap_or_default().to_owned()
}

/// A refusal that passes by itself: 503 of this kind, as problem+json, with Retry-After.
pub fn assert_come_back(response: &Response, expected: &str) {
    assert_eq!((response.status, kind(response)), (503, expected.to_owned()), "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/problem+json"), "{response:?}");
    assert!(response.retry_after().is_some_and(|seconds| seconds > 0), "{response:?}");
}
