//! HTTP/1.1 by hand, both ends: just enough to put exact bytes on a wire and to see exact bytes coming off it.
//!
//! hyper would do more, but the services use it too: what it normalises on both sides no test would see. There is no
//! pipelining and no trailer field here.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::message::from_latin1;

/// More than the 64 kB of headers that a test sends.
const HEAD_BYTES_MAX: usize = 1 << 20;

/// A start line and the headers below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Request line or status line.
    pub start: String,
    /// Names and values as on the wire, white space around values aside.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    fn says(&self, name: &str, word: &str) -> bool {
        self.header(name).is_some_and(|value| value.to_ascii_lowercase().contains(word))
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its headers, in order.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
}

impl Response {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// `Retry-After` in seconds.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        self.header("retry-after")?.parse().ok()
    }

    /// The body as JSON; `Null` if it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Reads messages off one side of a connection.
pub struct Reader<R> {
    source: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// A reader that has read nothing yet.
    pub fn new(source: R) -> Self {
        Self { source, buffer: BytesMut::new() }
    }

    /// The next head, or `None` if the other side closed between two messages.
    ///
    /// # Errors
    /// What the connection says; `UnexpectedEof` in the middle of a head; `InvalidData` for what is no head.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(invalid("a head without an end"));
            }
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        };
        let head = self.buffer.split_to(end);
        self.buffer.advance(4);
        let text = from_latin1(&head);
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .map(|line| line.split_once(':').map(|(n, v)| (n.to_owned(), v.trim().to_owned())))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| invalid("a header line without a colon"))?;
        Ok(Some(Head { start, headers }))
    }

    /// The body of a request: nothing unless the head announces it.
    ///
    /// # Errors
    /// As [`Reader::head`].
    pub async fn request_body(&mut self, head: &Head) -> io::Result<Bytes> {
        if head.says("transfer-encoding", "chunked") {
            return self.chunked().await;
        }
        let length = length_of(head)?.unwrap_or(0);
        self.exactly(length).await
    }

    /// The body of an answer: without a length it goes on until the other side closes.
    ///
    /// # Errors
    /// As [`Reader::head`].
    pub async fn response_body(&mut self, head: &Head, status: u16) -> io::Result<Bytes> {
        if status < 200 || status == 204 || status == 304 {
            return Ok(Bytes::new());
        }
        if head.says("transfer-encoding", "chunked") {
            return self.chunked().await;
        }
        match length_of(head)? {
            Some(length) => self.exactly(length).await,
            None => {
                while self.source.read_buf(&mut self.buffer).await? > 0 {}
                Ok(self.buffer.split().freeze())
            }
        }
    }

    /// Resolves when the other side has closed (or sent something that nobody asked for).
    pub async fn closed(&mut self) {
        // An error is a close as well.
        let _closed = self.source.read_buf(&mut self.buffer).await;
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Bytes> {
        while self.buffer.len() < length {
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.split_to(length).freeze())
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line = from_latin1(&self.buffer.split_to(at));
                self.buffer.advance(2);
                return Ok(line);
            }
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn chunked(&mut self) -> io::Result<Bytes> {
        let mut body = BytesMut::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| invalid("a chunk without a size"))?;
            body.extend_from_slice(&self.exactly(size).await?);
            self.line().await?;
            if size == 0 {
                return Ok(body.freeze());
            }
        }
    }
}

/// The client's end of one kept connection.
pub struct Connection {
    reader: Reader<tokio::net::tcp::OwnedReadHalf>,
    writer: tokio::net::tcp::OwnedWriteHalf,
    reusable: bool,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// What connecting says.
    pub async fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: Reader::new(reader), writer, reusable: true })
    }

    /// Whether another request may follow on this connection.
    #[must_use]
    pub fn reusable(&self) -> bool {
        self.reusable
    }

    /// Writes these bytes and reads one final answer (1xx answers are passed over). A server may answer before it has
    /// read all, and close: so the answer is awaited while writing.
    ///
    /// # Errors
    /// `UnexpectedEof` when the connection ends without a whole answer, else what it says.
    pub async fn exchange(&mut self, bytes: &[u8]) -> io::Result<Response> {
        self.reusable = false;
        let Self { reader, writer, .. } = self;
        let mut written = false;
        let mut write = std::pin::pin!(async {
            writer.write_all(bytes).await?;
            writer.flush().await
        });
        let mut read = std::pin::pin!(read_response(reader));
        let (response, keep) = loop {
            tokio::select! {
                response = &mut read => break response?,
                // A failed write is no end: the answer may lie in the buffer already.
                _ = &mut write, if !written => written = true,
            }
        };
        self.reusable = keep && written;
        Ok(response)
    }
}

async fn read_response<R: AsyncRead + Unpin>(reader: &mut Reader<R>) -> io::Result<(Response, bool)> {
    loop {
        let head = reader.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status: u16 =
            head.start.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| invalid("no status line"))?;
        if status < 200 {
            continue;
        }
        let body = reader.response_body(&head, status).await?;
        let keep = head.start.starts_with("HTTP/1.1") && !head.says("connection", "close");
        return Ok((Response { status, headers: head.headers, body }, keep));
    }
}

/// One request on a connection of its own, byte for byte as given.
///
/// # Errors
/// As [`Connection::exchange`], and `TimedOut`.
pub async fn raw(to: SocketAddr, bytes: &[u8], within: Duration) -> io::Result<Response> {
    let exchange = async { Connection::open(to).await?.exchange(bytes).await };
    tokio::time::timeout(within, exchange).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// `GET` of a path, as probes do it.
///
/// # Errors
/// As [`raw`].
pub async fn get(to: SocketAddr, path: &str) -> io::Result<Response> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n\r\n");
    raw(to, request.as_bytes(), Duration::from_secs(5)).await
}

fn length_of(head: &Head) -> io::Result<Option<usize>> {
    head.header("content-length").map(|v| v.parse().map_err(|_| invalid("content-length is no number"))).transpose()
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_requests_of_one_connection_are_read_one_after_the_other() {
        let wire: &[u8] =
            b"POST /a/../inbox HTTP/1.1\r\nHoSt: x\r\nX:  a:b \r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n";
        let mut reader = Reader::new(wire);
        let head = reader.head().await.unwrap().unwrap();
        assert_eq!(head.start, "POST /a/../inbox HTTP/1.1");
        assert_eq!(head.headers[0].0, "HoSt");
        assert_eq!(head.headers[1].1, "a:b");
        assert_eq!(reader.request_body(&head).await.unwrap(), "abc");
        let head = reader.head().await.unwrap().unwrap();
        assert!(reader.request_body(&head).await.unwrap().is_empty());
        assert_eq!(reader.head().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_chunked_answer_after_a_100_is_read_whole() {
        let wire: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n";
        let (response, keep) = read_response(&mut Reader::new(wire)).await.unwrap();
        assert_eq!((response.status, &response.body[..], keep), (200, &b"abc"[..], true));
    }

    #[tokio::test]
    async fn half_an_answer_is_an_error() {
        let wire: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab";
        assert_eq!(read_response(&mut Reader::new(wire)).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
