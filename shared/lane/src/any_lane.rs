//! A lane of whatever kind: what a tool is told of, and what a parked copy left.
//!
//! Whoever carries lanes knows their kind when it is compiled, and uses [`LaneName`]. Here the kind is in the value; the
//! names are those of the kinds.

use std::fmt;
use std::str::FromStr;

use crate::{BackfillLane, InstanceName, InvalidSubject, Lane, LaneName, OutboxLane};

/// Which way a lane leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaneKind {
    /// In.
    Inbox,
    /// Out.
    Outbox,
    /// Histories, on their way to the lanes that lead out.
    Backfill,
}

impl LaneKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Inbox, Self::Outbox, Self::Backfill];

    /// The token in keys and subjects.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => Lane::KIND,
            Self::Outbox => OutboxLane::KIND,
            Self::Backfill => BackfillLane::KIND,
        }
    }
}

impl fmt::Display for LaneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no [`LaneKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of inbox, outbox, backfill")]
pub struct InvalidKind;

impl FromStr for LaneKind {
    type Err = InvalidKind;

    fn from_str(text: &str) -> Result<Self, InvalidKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(InvalidKind)
    }
}

/// A lane of one of the kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnyLane {
    /// That leads in.
    Inbox(Lane),
    /// That leads out.
    Outbox(OutboxLane),
    /// Of backfill jobs.
    Backfill(BackfillLane),
}

impl AnyLane {
    /// The lane behind a subject.
    ///
    /// # Errors
    /// A subject that is no lane's.
    pub fn from_subject(subject: &str) -> Result<Self, InvalidSubject> {
        let kind = subject.strip_prefix("fed.").and_then(|rest| rest.split('.').next()).unwrap_or_default();
        match kind.parse() {
            Ok(LaneKind::Inbox) => Lane::from_subject(subject).map(Self::Inbox),
            Ok(LaneKind::Outbox) => OutboxLane::from_subject(subject).map(Self::Outbox),
            Ok(LaneKind::Backfill) => BackfillLane::from_subject(subject).map(Self::Backfill),
            Err(InvalidKind) => Err(InvalidSubject::Form("fed.<inbox, outbox or backfill>.<a>.<b>")),
        }
    }

    /// The lane behind the subject of what it parked.
    ///
    /// # Errors
    /// A subject that is no lane's.
    pub fn from_parked_subject(subject: &str) -> Result<Self, InvalidSubject> {
        let rest = subject.strip_prefix("fed.parked.");
        let rest = rest.ok_or(InvalidSubject::Form("fed.parked.<inbox, outbox or backfill>.<a>.<b>"))?;
        Self::from_subject(&format!("fed.{rest}"))
    }

    /// Which way it leads.
    #[must_use]
    pub fn kind(&self) -> LaneKind {
        match self {
            Self::Inbox(_) => LaneKind::Inbox,
            Self::Outbox(_) => LaneKind::Outbox,
            Self::Backfill(_) => LaneKind::Backfill,
        }
    }

    /// As [`LaneName::key`].
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Inbox(lane) => lane.key(),
            Self::Outbox(lane) => lane.key(),
            Self::Backfill(lane) => lane.key(),
        }
    }

    /// As [`LaneName::subject`].
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Inbox(lane) => lane.subject(),
            Self::Outbox(lane) => lane.subject(),
            Self::Backfill(lane) => lane.subject(),
        }
    }

    /// As [`LaneName::parked_subject`].
    #[must_use]
    pub fn parked_subject(&self) -> String {
        match self {
            Self::Inbox(lane) => lane.parked_subject(),
            Self::Outbox(lane) => lane.parked_subject(),
            Self::Backfill(lane) => lane.parked_subject(),
        }
    }

    /// As [`LaneName::remote`].
    #[must_use]
    pub fn remote(&self) -> &InstanceName {
        match self {
            Self::Inbox(lane) => lane.remote(),
            Self::Outbox(lane) => lane.remote(),
            Self::Backfill(lane) => lane.remote(),
        }
    }
}

impl fmt::Display for AnyLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inbox(lane) => lane.fmt(f),
            Self::Outbox(lane) => lane.fmt(f),
            Self::Backfill(lane) => lane.fmt(f),
        }
    }
}

impl From<Lane> for AnyLane {
    fn from(lane: Lane) -> Self {
        Self::Inbox(lane)
    }
}

impl From<OutboxLane> for AnyLane {
    fn from(lane: OutboxLane) -> Self {
        Self::Outbox(lane)
    }
}

impl From<BackfillLane> for AnyLane {
    fn from(lane: BackfillLane) -> Self {
        Self::Backfill(lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_of_each_kind_reads_back_from_its_subjects() {
        for (subject, kind, shown) in [
            ("fed.inbox.aussie_zone.lemmy_world", LaneKind::Inbox, "aussie.zone/lemmy.world"),
            ("fed.outbox.mastodon_social.3", LaneKind::Outbox, "mastodon.social/3"),
            (
                "fed.backfill.a_example.00000000-0000-0000-0000-000000000001",
                LaneKind::Backfill,
                "a.example/00000000-0000-0000-0000-000000000001",
            ),
        ] {
            let lane = AnyLane::from_subject(subject).expect(subject);
            assert_eq!((lane.subject(), lane.kind(), lane.to_string()), (subject.to_owned(), kind, shown.to_owned()));
            assert_eq!(format!("fed.{}", lane.key()), subject);
            assert_eq!(AnyLane::from_parked_subject(&lane.parked_subject()), Ok(lane));
        }
    }

    #[test]
    fn what_is_no_lanes_subject_is_told() {
        for subject in ["", "fed.", "fed.event.a.b", "fed.outbox.a.b", "inbox.a.b", "fed.parked.inbox.a.b"] {
            assert!(AnyLane::from_subject(subject).is_err(), "{subject}");
            assert!(AnyLane::from_parked_subject(subject).is_err() || subject.contains("parked"), "{subject}");
        }
    }
}
