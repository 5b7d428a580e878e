//! What inbound and outbound lanes have in common: a name, from which the subject and the keys follow.

use std::fmt::{Debug, Display};
use std::hash::Hash;

use crate::{InstanceName, InvalidName};

/// The name of a lane. Shown, it is short and for people; its key and its subject read back.
pub trait LaneName: Clone + Debug + Display + Eq + Hash + Ord + Send + Sync + 'static {
    /// Which lanes: the first token of their keys, and the second one of their subjects.
    const KIND: &'static str;

    /// Their subject with a name in place of each token of its own, for telemetry.
    const TEMPLATE: &'static str;

    /// The same of what was parked.
    const PARKED_TEMPLATE: &'static str;

    /// `<kind>.<a>.<b>`: the lane's key in the buckets.
    fn key(&self) -> String;

    /// The lane behind a subject.
    ///
    /// # Errors
    /// A subject that is no such lane's.
    fn from_subject(subject: &str) -> Result<Self, InvalidSubject>;

    /// The instance at the other end of the lane, which is not ours.
    fn remote(&self) -> &InstanceName;

    /// `fed.<kind>.<a>.<b>`: the one subject that holds the lane.
    fn subject(&self) -> String {
        format!("fed.{}", self.key())
    }

    /// `fed.parked.<kind>.<a>.<b>`: where an activity goes that leaves the lane undelivered.
    fn parked_subject(&self) -> String {
        format!("fed.parked.{}", self.key())
    }
}

/// A subject that is no lane's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubject {
    /// Not of the form that the lanes' subjects have.
    #[error("not a subject of the form {0}")]
    Form(&'static str),
    /// One of its tokens is no instance's.
    #[error("a token of the subject names no instance")]
    Token(#[from] InvalidName),
}
