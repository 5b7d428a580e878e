//! How the instance compresses what it says, where the request takes it so.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
    /// RFC 1950.
    Deflate,
}

impl Coding {
    /// The first of its own that an Accept-Encoding takes.
    #[must_use]
    pub fn of(accepted: &str) -> Option<Self> {
        let takes = |coding: &Self| accepted.split(',').any(|name| name.trim() == coding.name());
        [Self::Brotli, Self::Gzip, Self::Deflate].into_iter().find(takes)
    }

    /// Its Content-Encoding.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// A body that is not empty, in this coding.
    ///
    /// # Errors
    /// It is too large for this.
    pub fn compress(self, body: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Brotli => stored(body),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(body)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(body)?;
                encoder.finish()
            }
        }
    }
}

/// As brotli, but for the compression: one block of literal bytes, and one that ends (RFC 7932, sections 9.1 and 9.2).
fn stored(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let less_one = u16::try_from(body.len().wrapping_sub(1)).map_err(std::io::Error::other)?;
    // From the lowest bit: a window of 64 KiB (0), not the last block (0), four nibbles of length (00), the length, literal.
    let head = u32::from(less_one) << 4 | 1 << 20;
    let mut bytes = head.to_le_bytes()[..3].to_vec();
    bytes.extend_from_slice(body);
    bytes.push(0b11); // the last block, and empty
    Ok(bytes)
}
