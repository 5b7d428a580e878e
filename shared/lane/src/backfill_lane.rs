//! A lane of backfill jobs: what one user's history is brought to, at one remote instance.

use std::fmt;

use uuid::Uuid;

use crate::{InstanceName, InvalidSubject, LaneName};

/// The backfill jobs for one remote instance of one user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackfillLane {
    /// The follower's instance.
    pub remote: InstanceName,
    /// Whose history.
    pub owner: Uuid,
}

impl LaneName for BackfillLane {
    const KIND: &'static str = "backfill";
    const TEMPLATE: &'static str = "fed.backfill.{remote}.{owner}";
    const PARKED_TEMPLATE: &'static str = "fed.parked.backfill.{remote}.{owner}";

    fn key(&self) -> String {
        format!("backfill.{}.{}", self.remote.token(), self.owner)
    }

    fn from_subject(subject: &str) -> Result<Self, InvalidSubject> {
        let form = InvalidSubject::Form("fed.backfill.<remote>.<owner>");
        let tokens = subject.strip_prefix("fed.backfill.").ok_or(form)?;
        let (remote, owner) = tokens.split_once('.').ok_or(form)?;
        let lane = Self { remote: InstanceName::from_token(remote)?, owner: owner.parse().map_err(|_| form)? };
        if lane.subject() == subject { Ok(lane) } else { Err(form) } // a UUID has more than one spelling
    }

    fn remote(&self) -> &InstanceName {
        &self.remote
    }
}

impl fmt::Display for BackfillLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.remote, self.owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jobs_of_a_remote_and_an_owner_are_a_lane() {
        let jobs = BackfillLane { remote: "mastodon.social".parse().expect("name"), owner: Uuid::from_u128(1) };
        assert_eq!(jobs.subject(), "fed.backfill.mastodon_social.00000000-0000-0000-0000-000000000001");
        assert_eq!(BackfillLane::from_subject(&jobs.subject()), Ok(jobs));
        for subject in ["fed.backfill.a", "fed.backfill.a.1", "fed.backfill.a.00000000000000000000000000000001"] {
            assert!(BackfillLane::from_subject(subject).is_err(), "{subject}");
        }
    }
}
