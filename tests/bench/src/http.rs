//! HTTP/1.1 over blocking sockets, as little as two ends that know each other need: the generators must cost less than
//! what they measure.

use std::io::{self, Read};
use std::net::TcpStream;

/// A kept connection's incoming side.
pub struct Incoming {
    stream: TcpStream,
    buffer: Vec<u8>,
    read: usize,
}

/// One message: where its body starts in `bytes`.
pub struct Whole {
    /// Head and body.
    pub bytes: Vec<u8>,
    /// Length of the head, with its empty line.
    pub head: usize,
}

impl Incoming {
    /// Of this connection.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: vec![0; 64 * 1024], read: 0 }
    }

    /// The next message, or `None` if the other side closed between two.
    ///
    /// # Errors
    /// What the connection says; `UnexpectedEof` in the middle of a message.
    pub fn next(&mut self) -> io::Result<Option<Whole>> {
        loop {
            if let Some(head) = head_length(&self.buffer[..self.read]) {
                return self.body(head).map(Some);
            }
            if self.more()? == 0 {
                return if self.read == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    fn body(&mut self, head: usize) -> io::Result<Whole> {
        let length = field(&self.buffer[..head], b"content-length").and_then(number).unwrap_or(0);
        let whole = head + length;
        while self.read < whole {
            if self.more()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let bytes = self.buffer[..whole].to_vec();
        self.buffer.copy_within(whole..self.read, 0);
        self.read -= whole;
        Ok(Whole { bytes, head })
    }

    fn more(&mut self) -> io::Result<usize> {
        if self.read == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let got = self.stream.read(&mut self.buffer[self.read..])?;
        self.read += got;
        Ok(got)
    }
}

/// Status of an answer.
///
/// # Errors
/// What is no status line.
pub fn status(answer: &[u8]) -> io::Result<u16> {
    let digits = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no status"))
}

/// The value of a header, by its name in lower case.
#[must_use]
pub fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let value = line.get(name.len() + 1..)?;
        (line[name.len()] == b':' && line[..name.len()].eq_ignore_ascii_case(name)).then(|| value.trim_ascii())
    })
}

fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_whatever_its_case_and_never_inside_another() {
        let head = b"POST / HTTP/1.1\r\nx-content-length: 9\r\nContent-Length:  12\r\n\r\n";
        assert_eq!(field(head, b"content-length"), Some(&b"12"[..]));
        assert_eq!(field(head, b"host"), None);
    }

    #[test]
    fn a_status_is_read_and_rubbish_is_not() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(), 204);
        assert!(status(b"HTTP").is_err());
    }
}
