//! Resume points of jobs that take long: one entry a job's lane, in the bucket `fed_cursors`.
//!
//! Written by compare-and-set: an owner that lost its lane and does not know it yet can't move the next one's point. What an
//! entry says is its writer's affair.

use std::time::Duration;

use bytes::Bytes;

use crate::bucket::Bucket;
use crate::{Broker, definitions, streams};

/// A broker that is there answers in milliseconds; one that is not is asked again later.
const WITHIN: Duration = Duration::from_secs(5);

/// A resume point can't be read or written now.
#[derive(Debug, thiserror::Error)]
#[error("the resume point {key}: {cause}")]
pub struct Error {
    key: String,
    cause: String,
}

/// A resume point as it stands in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// What the next write compares with; 0 where there is no entry.
    pub revision: u64,
    /// What it says, where there is an entry.
    pub value: Option<Bytes>,
}

/// The bucket. Cheap to clone.
#[derive(Clone)]
pub struct Cursors(Bucket);

impl Cursors {
    /// Makes or finds the bucket.
    ///
    /// # Errors
    /// It is missing, or not as it must be.
    pub async fn open(broker: &Broker) -> Result<Self, streams::Error> {
        Bucket::open(broker, definitions::cursors()).await.map(Self)
    }

    /// The resume point under this key.
    ///
    /// # Errors
    /// It can't be read now.
    pub async fn load(&self, key: &str) -> Result<Cursor, Error> {
        let found = self.0.get(key, WITHIN).await.map_err(|cause| Error { key: key.to_owned(), cause })?;
        Ok(Cursor { revision: found.revision, value: found.value })
    }

    /// Moves it, if nobody else did meanwhile; answers the new revision.
    ///
    /// # Errors
    /// Somebody did, or it is not known to be written.
    pub async fn store(&self, key: &str, value: Bytes, revision: u64) -> Result<u64, Error> {
        let stored = self.0.put_if(key, value, revision, WITHIN).await;
        stored.map_err(|refused| Error { key: key.to_owned(), cause: refused.to_string() })
    }

    /// Takes it away, if nobody moved it meanwhile.
    ///
    /// # Errors
    /// As [`Cursors::store`].
    pub async fn remove(&self, key: &str, revision: u64) -> Result<(), Error> {
        let removed = self.0.delete_if(key, revision, WITHIN).await;
        removed.map_err(|refused| Error { key: key.to_owned(), cause: refused.to_string() })
    }
}
