//! Which stream it is: not the name, which a stream made anew has again, but the moment it was created.
//!
//! Sequences start again in a new stream. A reader, a purge or a batch that was meant for the old one would touch
//! other messages, so each of them names the creation time it was meant for and confirms it.

use std::fmt;

use time::OffsetDateTime;

use crate::{Broker, api};

/// When a stream was created, as the broker tells it. Two streams of one name never share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Created(OffsetDateTime);

impl Created {
    /// Takes the broker's time.
    #[must_use]
    pub fn new(time: OffsetDateTime) -> Self {
        Self(time)
    }

    /// Microseconds since 1970: the form that travels in a batch's origin.
    #[must_use]
    pub fn unix_micros(self) -> u64 {
        u64::try_from(self.0.unix_timestamp_nanos() / 1_000).unwrap_or(0)
    }

    /// The time itself.
    #[must_use]
    pub fn time(self) -> OffsetDateTime {
        self.0
    }
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.format(&time::format_description::well_known::Rfc3339) {
            Ok(text) => f.write_str(&text),
            Err(_) => self.0.fmt(f),
        }
    }
}

/// Why a stream is not known to be the one that was meant.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was deleted and made again: its sequences mean something else now.
    #[error("stream {stream} was made anew at {now} (it was the one of {meant})")]
    MadeAnew {
        /// The stream's name.
        stream: String,
        /// The creation time that was meant.
        meant: Created,
        /// The one that the broker tells now.
        now: Created,
    },
    /// There is none of that name.
    #[error("stream {stream} is missing")]
    Missing {
        /// The stream's name.
        stream: String,
    },
    /// The broker can't be asked now.
    #[error("the broker does not tell which stream {stream} is: {cause}")]
    Unknown {
        /// The stream's name.
        stream: String,
        /// The library's or the broker's words.
        cause: String,
    },
}

/// Asks the broker whether `stream` is still the one created at `meant`.
///
/// # Errors
/// It is another one, it is missing, or the broker does not answer.
pub async fn confirm(broker: &Broker, stream: &str, meant: Created) -> Result<(), Error> {
    let info = api::stream_info(broker, stream).await.map_err(|error| match error {
        api::Error::Missing => Error::Missing { stream: stream.to_owned() },
        other => Error::Unknown { stream: stream.to_owned(), cause: other.to_string() },
    })?;
    let now = Created::new(info.info.created);
    if now == meant { Ok(()) } else { Err(Error::MadeAnew { stream: stream.to_owned(), meant, now }) }
}
