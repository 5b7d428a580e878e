//! An inbound lane: which instance sends to which, and the names that follow from it.

use std::fmt;

use crate::{InstanceName, InvalidSubject, LaneName};

/// An inbound lane: what `source` sends to `destination`. Inside it nothing overtakes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The instance that the activities are for.
    pub destination: InstanceName,
    /// The instance that sends them.
    pub source: InstanceName,
}

impl Lane {
    /// `fed.inbox.<destination>.<source>`: the one subject that holds the lane.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("fed.{}", self.key())
    }

    /// `fed.parked.inbox.<destination>.<source>`: where an activity goes that leaves the lane undelivered.
    #[must_use]
    pub fn parked_subject(&self) -> String {
        format!("fed.parked.{}", self.key())
    }

    /// `inbox.<destination>.<source>`: the lane's key in the buckets.
    #[must_use]
    pub fn key(&self) -> String {
        format!("inbox.{}.{}", self.destination.token(), self.source.token())
    }

    /// The lane behind a subject.
    ///
    /// # Errors
    /// A subject that is no inbound lane's.
    pub fn from_subject(subject: &str) -> Result<Self, InvalidSubject> {
        let form = InvalidSubject::Form("fed.inbox.<destination>.<source>");
        let tokens = subject.strip_prefix("fed.inbox.").ok_or(form)?;
        let (destination, source) = tokens.split_once('.').ok_or(form)?;
        Ok(Self { destination: InstanceName::from_token(destination)?, source: InstanceName::from_token(source)? })
    }
}

impl LaneName for Lane {
    const KIND: &'static str = "inbox";
    const TEMPLATE: &'static str = "fed.inbox.{destination}.{source}";
    const PARKED_TEMPLATE: &'static str = "fed.parked.inbox.{destination}.{source}";

    fn key(&self) -> String {
        Self::key(self)
    }

    fn from_subject(subject: &str) -> Result<Self, InvalidSubject> {
        Self::from_subject(subject)
    }

    fn remote(&self) -> &InstanceName {
        &self.source
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.destination, self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_reads_back_from_its_subject() {
        let lane = Lane {
            destination: "aussie.zone".parse().expect("name"),
            source: "lemmy.world:8536".parse().expect("name"),
        };
        assert_eq!(lane.subject(), "fed.inbox.aussie_zone.lemmy_world=3A8536");
        assert_eq!(lane.parked_subject(), "fed.parked.inbox.aussie_zone.lemmy_world=3A8536");
        assert_eq!(Lane::from_subject(&lane.subject()), Ok(lane));
        for subject in ["fed.inbox.a", "fed.inbox.a.b.c", "fed.outbox.a.b", "fed.inbox..b", "fed.inbox.A.b"] {
            assert!(Lane::from_subject(subject).is_err(), "{subject}");
        }
    }
}
