//! What became of an activity at the instance.

use std::fmt;

/// A final outcome: the activity will not be posted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Final {
    /// The instance answered 2xx.
    Delivered,
    /// Delivered before, or vouched for by the sender's floor. Never refused.
    Duplicate,
    /// The instance refused it for good; settled when a copy is parked.
    Rejected,
    /// The instance no longer takes its signature; settled when a copy is parked.
    Expired,
    /// The instance gave up while it worked on it, and knows its id: a repeat would be called a duplicate and do nothing.
    /// Settled when a copy is parked.
    Unprocessed,
}

impl Final {
    /// Under which reason its copy is parked, where it was not taken.
    #[must_use]
    pub fn park_reason(self) -> Option<ParkReason> {
        match self {
            Self::Delivered | Self::Duplicate => None,
            Self::Rejected => Some(ParkReason::Rejected),
            Self::Expired => Some(ParkReason::Expired),
            Self::Unprocessed => Some(ParkReason::Unprocessed),
        }
    }

    /// The word in logs and spans.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Duplicate => "duplicate",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Unprocessed => "unprocessed",
        }
    }
}

/// Why an activity leaves its lane undelivered, or never came into it (DESIGN section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParkReason {
    /// The instance refused it for good.
    Rejected,
    /// Its signature is no longer accepted: the deadline passed here, or the instance said so.
    Expired,
    /// The instance fails on it again and again, while it takes others.
    Poison,
    /// The instance gave up in the middle of it, and would call a repeat a duplicate.
    Unprocessed,
    /// Somebody wanted it out of the way.
    Operator,
    /// Written by another version, or by another program.
    Unreadable,
    /// The lane of a remote that takes nothing was full when it was published. It was never in it.
    RemoteFull,
}

impl ParkReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Rejected,
        Self::Expired,
        Self::Poison,
        Self::Unprocessed,
        Self::Operator,
        Self::Unreadable,
        Self::RemoteFull,
    ];

    /// Those for which a lane parks its head.
    pub const LEAVING: [Self; 6] =
        [Self::Rejected, Self::Expired, Self::Poison, Self::Unprocessed, Self::Operator, Self::Unreadable];

    /// The word in headers, ids and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Poison => "poison",
            Self::Unprocessed => "unprocessed",
            Self::Operator => "operator",
            Self::Unreadable => "unreadable",
            Self::RemoteFull => "remote-full",
        }
    }
}

impl fmt::Display for ParkReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no [`ParkReason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of rejected, expired, poison, unprocessed, operator, unreadable, remote-full")]
pub struct InvalidReason;

impl std::str::FromStr for ParkReason {
    type Err = InvalidReason;

    fn from_str(text: &str) -> Result<Self, InvalidReason> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text).ok_or(InvalidReason)
    }
}

/// A final outcome with what the instance said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The outcome.
    pub outcome: Final,
    /// HTTP status of the instance; 0 where no instance was asked (a vouched duplicate).
    pub status: u16,
    /// The beginning of the instance's answer, kept where a copy will be parked.
    pub body: Option<Box<str>>,
}

impl Answer {
    /// An answer to an activity that the sender's own floor vouches for.
    #[must_use]
    pub fn vouched() -> Self {
        Self { outcome: Final::Duplicate, status: 0, body: None }
    }
}
