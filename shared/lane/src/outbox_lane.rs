//! An outbound lane: the remote instance, and a partition of the actors that sign.
//!
//! An actor's activities are in one partition, so they reach each remote in order; a remote that answers slowly is given
//! as many activities at a time as there are partitions.

use std::fmt;

use crate::{InstanceName, InvalidSubject, LaneName};

/// What the actors of one partition send to `remote`. Inside it nothing overtakes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboxLane {
    /// The instance that the activities are for.
    pub remote: InstanceName,
    /// The partition of the actors.
    pub partition: u16,
}

impl LaneName for OutboxLane {
    const KIND: &'static str = "outbox";
    const TEMPLATE: &'static str = "fed.outbox.{remote}.{partition}";
    const PARKED_TEMPLATE: &'static str = "fed.parked.outbox.{remote}.{partition}";

    fn key(&self) -> String {
        format!("outbox.{}.{}", self.remote.token(), self.partition)
    }

    fn from_subject(subject: &str) -> Result<Self, InvalidSubject> {
        let form = InvalidSubject::Form("fed.outbox.<remote>.<partition>");
        let tokens = subject.strip_prefix("fed.outbox.").ok_or(form)?;
        let (remote, partition) = tokens.split_once('.').ok_or(form)?;
        let lane = Self { remote: InstanceName::from_token(remote)?, partition: partition.parse().map_err(|_| form)? };
        if lane.subject() == subject { Ok(lane) } else { Err(form) } // `03` is not another spelling of `3`
    }

    fn remote(&self) -> &InstanceName {
        &self.remote
    }
}

impl fmt::Display for OutboxLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.remote, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_reads_back_from_its_subject() {
        let lane = OutboxLane { remote: "mastodon.social:8443".parse().expect("name"), partition: 3 };
        assert_eq!(lane.to_string(), "mastodon.social:8443/3");
        assert_eq!(lane.subject(), "fed.outbox.mastodon_social=3A8443.3");
        assert_eq!(lane.parked_subject(), "fed.parked.outbox.mastodon_social=3A8443.3");
        assert_eq!(OutboxLane::from_subject(&lane.subject()), Ok(lane));
        for subject in [
            "fed.outbox.a",
            "fed.outbox.a.",
            "fed.outbox.a.b",
            "fed.outbox.a.3.3",
            "fed.outbox.a.03",
            "fed.outbox.a.+3",
            "fed.outbox.a.65536",
            "fed.outbox.A.3",
            "fed.inbox.a.3",
        ] {
            assert!(OutboxLane::from_subject(subject).is_err(), "{subject}");
        }
    }
}
