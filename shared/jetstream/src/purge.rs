//! Trimming: what is settled leaves its lane, and nothing else does.
//!
//! A purge with the bound 0 empties the whole subject, and a purge meant for a stream that was made anew takes other
//! messages: both are excluded here, in the one place that purges.

use fedstream_lane::Seq;

use crate::Broker;
use crate::identity::{self, Created};

/// Why nothing is known to be purged. (A purge whose answer was lost may have happened; doing it again is harmless.)
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream is not the one that was meant, or can't be told.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The broker refused, or did not answer.
    #[error("the lane {subject} can't be trimmed: {cause}")]
    Failed {
        /// The lane's subject.
        subject: String,
        /// The library's words.
        cause: String,
    },
}

/// Purges the lane up to and including `upto`; answers how many messages left.
///
/// Confirms right before that the stream is the one created at `created`. (The broker knows no conditional purge: a
/// stream deleted and made anew within that millisecond, and filled beyond `upto`, would not be noticed.)
///
/// # Errors
/// Another stream, a missing one, or no answer.
///
/// # Panics
/// On `upto` 0: no message has it, and the broker would take it for "everything".
pub async fn trim(broker: &Broker, stream: &str, subject: &str, upto: Seq, created: Created) -> Result<u64, Error> {
    assert!(upto.0 > 0, "a purge below sequence 1 would empty the lane");
    let failed = |cause: String| Error::Failed { subject: subject.to_owned(), cause };
    let handle = broker.context().get_stream_no_info(stream).await.map_err(|error| failed(error.to_string()))?;
    let bound = upto.0 + 1; // the broker purges below the bound
    identity::confirm(broker, stream, created).await?;
    let answer = handle.purge().filter(subject).sequence(bound).await.map_err(|error| failed(error.to_string()))?;
    Ok(answer.purged)
}
