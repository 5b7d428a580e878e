//! An instance's answer as it reads. Requests go out with their sender's Accept-Encoding, and Lemmy, which says only in the
//! body what became of an activity, compresses all that may be (since 0.18.1), by its own preference.
//!
//! So every coding is read that such a sender may name (RFC 9110, section 8.4.1, and zstd). What can't be read is no reason
//! either: in its place stands a line that names the coding, for whoever looks at the log or at the parked copy.
//!
//! Other than a batch's ([`fedstream_wire::encoding`]), only the beginning of an answer counts, so nothing is too large, and
//! nothing inflates too much.

use std::io::{self, Read};

use brotli_decompressor::Decompressor;
use bytes::Bytes;
use fedstream_wire::encoding::Encoding;
use flate2::read::{DeflateDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// What the brotli decoder reads at once: most answers are smaller.
const BUFFER_BYTES: usize = 4096;

/// Of a coding's name, characters: it comes from outside, and stands in a line.
const NAME_CHARS_MAX: usize = 40;

/// An answer that can't be read; its text stands in the body's place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody here knows this coding.
    #[error("(the answer is compressed as {0:?}, which is not read here)")]
    Unknown(String),
    /// It is not what its Content-Encoding says.
    #[error("(the answer is not valid {coding}: {cause})")]
    Corrupt {
        /// The coding.
        coding: &'static str,
        /// Where it ended.
        #[source]
        cause: io::Error,
    },
}

/// At most `most` bytes of the body, as they were before they were compressed.
///
/// # Errors
/// It can't be read.
pub fn read(headers: &HeaderMap, body: Bytes, most: usize) -> Result<Bytes, Error> {
    let codings: Vec<_> = headers.get_all(CONTENT_ENCODING).iter().map(|value| value.as_bytes()).collect();
    let name = String::from_utf8_lossy(&codings.join(&b", "[..])).trim().to_ascii_lowercase();
    if body.is_empty() {
        return Ok(body); // nothing is nothing in any coding
    }
    match name.as_str() {
        "br" => brotli(&body, most).map_err(|cause| Error::Corrupt { coding: "br", cause }),
        "deflate" => deflate(&body, most).map_err(|cause| Error::Corrupt { coding: "deflate", cause }),
        _ => match name.parse() {
            Ok(Encoding::Identity) => return Ok(body),
            Ok(encoding) => {
                let coding = encoding.name().unwrap_or_default();
                let cause = |cause| Error::Corrupt { coding, cause };
                encoding.reader(&body).and_then(|reader| beginning(reader, most)).map_err(cause)
            }
            Err(_) => Err(Error::Unknown(name.chars().take(NAME_CHARS_MAX).collect())),
        },
    }
    .map(Bytes::from)
}

fn beginning(reader: impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(most as u64).read_to_end(&mut out)?;
    Ok(out)
}

fn brotli(body: &[u8], most: usize) -> io::Result<Vec<u8>> {
    // RFC 7932, section 9.1, has no such window. The decoder knows it as one of up to 1 GiB, and would make room for that.
    if body.first().is_some_and(|first| first & 0x7f == 0x11) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a window that is too large"));
    }
    beginning(Decompressor::new(body, BUFFER_BYTES), most)
}

/// With zlib's frame, as the RFC says, or without, as some have always understood it.
fn deflate(body: &[u8], most: usize) -> io::Result<Vec<u8>> {
    beginning(ZlibDecoder::new(body), most)
        .or_else(|cause| beginning(DeflateDecoder::new(body), most).map_err(|_| cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, prelude::BASE64_STANDARD};

    const MOST: usize = 64 * 1024;

    /// What node's zlib makes of [`text`].
    const BR: &str = "G0sBAJwJdizCAhMMFb9Qi6DN7W23t7o+xaJTIGOwAQfMgT4nOAHd1kCNe04xAdgXrV2oX4sB";
    const ZLIB: &str = "eJyrVkotKsovUrJSKs3Lzssvz1PSUcpNLS5OTE9VslLKy1coLk3OUMhPykpNLlEY5eLhKtUCABeTdtQ=";
    const RAW: &str = "q1ZKLSrKL1KyUirNy87LL89T0lHKTS0uTkxPVbJSystXKC5NzlDIT8pKTS5RGOXi4SrVAgA=";

    fn text() -> String {
        format!(r#"{{"error":"unknown","message":"{}"}}"#, "no such object ".repeat(20))
    }

    fn of(coding: &str, body: &[u8]) -> Result<Bytes, String> {
        let headers = HeaderMap::from_iter([(CONTENT_ENCODING, coding.parse().expect("a value"))]);
        read(&headers, Bytes::copy_from_slice(body), MOST).map_err(|error| error.to_string())
    }

    #[test]
    fn a_refusal_is_read_as_it_was_before_it_was_compressed() {
        let decoded = |text| BASE64_STANDARD.decode(text).expect("base64");
        let ours = |encoding: Encoding| encoding.compress(text().into_bytes()).1;
        for (coding, small) in [
            ("br", decoded(BR)),
            ("deflate", decoded(ZLIB)),
            ("deflate", decoded(RAW)),
            ("gzip", ours(Encoding::Gzip)),
            ("x-gzip", ours(Encoding::Gzip)),
            ("zstd", ours(Encoding::Zstd)),
        ] {
            assert!(small.len() < text().len() / 2);
            assert_eq!(of(coding, &small).expect(coding), text());
            assert_eq!(of(&coding.to_uppercase(), &small).expect(coding), text());
            assert_eq!(of(coding, b"").expect(coding), "");
            let cut = of(coding, &small[..small.len() / 2]).expect_err("half a reason is none");
            let name = coding.trim_start_matches("x-");
            assert!(cut.starts_with(&format!("(the answer is not valid {name}: ")), "{cut}");
        }
        for coding in ["identity", ""] {
            assert_eq!(of(coding, text().as_bytes()).expect(coding), text());
        }
        assert_eq!(read(&HeaderMap::new(), text().into(), MOST).expect("as it is"), text());
    }

    #[test]
    fn what_nobody_here_can_read_is_named() {
        for coding in ["gzip, gzip", "dcz"] {
            let expected = format!("(the answer is compressed as {coding:?}, which is not read here)");
            assert_eq!(of(coding, b"?"), Err(expected));
        }
        let mut twice = HeaderMap::new();
        for coding in ["gzip", "br"] {
            twice.append(CONTENT_ENCODING, coding.parse().expect("a value"));
        }
        let error = read(&twice, Bytes::from_static(b"?"), MOST).expect_err("two codings").to_string();
        assert!(error.contains("gzip, br"), "{error}");
        assert!(of(&"x".repeat(1000), b"?").expect_err("unknown").len() < 120, "a reason is a line");
    }

    #[test]
    fn a_huge_answer_is_its_beginning_and_a_huge_window_is_none() {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut zlib, &vec![b'x'; 10 * MOST]).expect("compresses");
        let small = zlib.finish().expect("compresses");
        assert_eq!(of("deflate", &small).expect("readable"), vec![b'x'; MOST]);
        assert!(of("br", b"\x11\x1e\x00").expect_err("1 GiB").contains("window"));
    }
}
