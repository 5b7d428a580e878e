//! Compression of batches, with bounds on what comes out.

use std::io::Read;

/// An inflated body this many times larger than what was sent is refused: no real batch compresses like that.
pub const RATIO_MAX: usize = 100;

/// A batch that would compress better than this is sent as it is, so that no receiver takes it for an attack.
const RATIO_SENT_MAX: usize = RATIO_MAX / 2;

/// Largest zstd window that is accepted, as a power of two: 8 MiB, what levels up to 19 use.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// zstd's own default: 2 to 3 times smaller than the raw activities at a few percent of a core.
const ZSTD_LEVEL: i32 = 3;

/// `Content-Encoding` of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

/// A body that can't be inflated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Larger than the limit once inflated.
    #[error("the body is larger than {limit} bytes once inflated")]
    TooLarge {
        /// The limit, bytes.
        limit: usize,
    },
    /// Inflates more than [`RATIO_MAX`] times.
    #[error("the body inflates more than {RATIO_MAX} times")]
    Ratio,
    /// Not what its Content-Encoding says.
    #[error("the body is not valid {}", .0.name().unwrap_or("identity"))]
    Corrupt(Encoding, #[source] std::io::Error),
}

/// A name that is no encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of zstd, gzip, none")]
pub struct UnknownEncoding;

impl std::str::FromStr for Encoding {
    type Err = UnknownEncoding;

    fn from_str(text: &str) -> Result<Self, UnknownEncoding> {
        match text.trim().to_ascii_lowercase().as_str() {
            "zstd" => Ok(Self::Zstd),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "none" | "identity" | "" => Ok(Self::Identity),
            _ => Err(UnknownEncoding),
        }
    }
}

impl Encoding {
    /// The value of Content-Encoding; none where there is no such header.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Zstd => Some("zstd"),
            Self::Gzip => Some("gzip"),
        }
    }

    /// Compresses, and says how. A body that would not get smaller, or suspiciously small, stays as it is.
    #[must_use]
    pub fn compress(self, body: Vec<u8>) -> (Self, Vec<u8>) {
        let compressed = match self {
            Self::Identity => return (self, body),
            Self::Zstd => zstd::bulk::compress(&body, ZSTD_LEVEL),
            Self::Gzip => {
                let mut out = Vec::new();
                flate2::read::GzEncoder::new(body.as_slice(), flate2::Compression::default())
                    .read_to_end(&mut out)
                    .map(|_| out)
            }
        };
        match compressed {
            Ok(small) if small.len() < body.len() && body.len() / small.len().max(1) <= RATIO_SENT_MAX => (self, small),
            _ => (Self::Identity, body),
        }
    }

    /// Inflates a body, to at most `limit` bytes.
    ///
    /// # Errors
    /// Too large, inflating too much, or not of this encoding. At most `limit` bytes and one buffer are held.
    pub fn inflate(self, body: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
        if self == Self::Identity {
            return if body.len() > limit { Err(Error::TooLarge { limit }) } else { Ok(body.to_vec()) };
        }
        let reader = self.reader(body).map_err(|source| Error::Corrupt(self, source))?;
        self.read_bounded(reader, body.len(), limit)
    }

    /// What is in a body, for somebody who bounds it otherwise than [`Encoding::inflate`].
    ///
    /// # Errors
    /// It can't even be begun.
    pub fn reader<'a>(self, body: &'a [u8]) -> std::io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::Identity => Box::new(body),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(body)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(body)),
        })
    }

    fn read_bounded(self, reader: impl Read, sent: usize, limit: usize) -> Result<Vec<u8>, Error> {
        let by_ratio = sent.saturating_mul(RATIO_MAX);
        let most = limit.min(by_ratio);
        let mut out = Vec::new();
        reader.take(most as u64 + 1).read_to_end(&mut out).map_err(|source| Error::Corrupt(self, source))?;
        if out.len() <= most {
            Ok(out)
        } else if by_ratio < limit {
            Err(Error::Ratio)
        } else {
            Err(Error::TooLarge { limit })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Vec<u8> {
        (0..2000)
            .flat_map(|n: u32| {
                format!("{{\"id\":\"https://a.example/{}\"}}", n.wrapping_mul(2_654_435_761)).into_bytes()
            })
            .collect()
    }

    #[test]
    fn what_was_compressed_inflates_to_the_same_bytes() {
        for encoding in [Encoding::Zstd, Encoding::Gzip, Encoding::Identity] {
            let (used, small) = encoding.compress(text());
            assert_eq!(used, encoding);
            assert!(encoding == Encoding::Identity || small.len() < text().len() / 2);
            assert_eq!(used.inflate(&small, text().len()).expect("inflates"), text());
        }
    }

    #[test]
    fn limits_count_inflated_bytes() {
        for encoding in [Encoding::Zstd, Encoding::Gzip, Encoding::Identity] {
            let (used, small) = encoding.compress(text());
            assert!(matches!(used.inflate(&small, text().len() - 1), Err(Error::TooLarge { .. })));
        }
    }

    #[test]
    fn a_bomb_is_refused_and_never_sent() {
        let zeros = vec![0; 10_000_000];
        let bomb = zstd::bulk::compress(&zeros, 3).expect("compresses");
        assert!(matches!(Encoding::Zstd.inflate(&bomb, 100_000_000), Err(Error::Ratio)));
        assert_eq!(Encoding::Zstd.compress(zeros).0, Encoding::Identity);
    }

    #[test]
    fn what_is_not_of_the_encoding_is_corrupt() {
        for encoding in [Encoding::Zstd, Encoding::Gzip] {
            assert!(matches!(encoding.inflate(b"not compressed", 1000), Err(Error::Corrupt(..))));
            let (_, mut cut) = encoding.compress(text());
            cut.truncate(cut.len() / 2);
            assert!(matches!(encoding.inflate(&cut, 1_000_000), Err(Error::Corrupt(..))));
        }
    }
}
