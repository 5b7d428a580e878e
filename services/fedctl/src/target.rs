//! A lane as a person writes it: `<destination>/<source>` or, where it leads out, `<remote>/<partition>`, as in the logs; or
//! its key, as in the buckets.
//!
//! What stands behind the `/` tells the kinds apart: a number is a partition, a UUID the owner of a history, anything else
//! a host. No instance is called by a number alone.

use std::fmt;
use std::str::FromStr;

use fedstream_jetstream::lane_settings::Key;
use fedstream_lane::{AnyLane, BackfillLane, InstanceName, Lane, OutboxLane};
use uuid::Uuid;

/// How a UUID is written out, `-` and all: its other spellings are taken for hosts.
const UUID_CHARS: usize = 36;

/// A text that names no lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no lane: write <destination>/<source>, for example aussie.zone/lemmy.world, and for one that leads out \
     <remote>/<partition>, for example mastodon.social/3"
)]
pub struct NoLane;

/// A lane that has no settings of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("backfill jobs have no settings of their own: those of `outbox` hold, which are of all that leads out")]
pub struct NoSettings;

/// A text that names nothing that has settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// No lane.
    #[error(transparent)]
    Lane(#[from] NoLane),
    /// One without settings.
    #[error(transparent)]
    Settings(#[from] NoSettings),
}

/// A lane of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneName(pub AnyLane);

/// A lane that has settings, or the default of a kind: `default` of what leads in, `outbox` of what leads out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(pub Key);

impl FromStr for LaneName {
    type Err = NoLane;

    fn from_str(text: &str) -> Result<Self, NoLane> {
        let Some((first, second)) = text.split_once('/') else {
            return AnyLane::from_subject(&format!("fed.{text}")).map(Self).map_err(|_| NoLane);
        };
        let remote: InstanceName = first.parse().map_err(|_| NoLane)?;
        if !second.is_empty() && second.bytes().all(|byte| byte.is_ascii_digit()) {
            let partition: u16 = second.parse().map_err(|_| NoLane)?;
            return Ok(Self(OutboxLane { remote, partition }.into()));
        }
        if second.len() == UUID_CHARS
            && let Ok(owner) = second.parse::<Uuid>()
        {
            return Ok(Self(BackfillLane { remote, owner }.into()));
        }
        let source = second.parse().map_err(|_| NoLane)?;
        Ok(Self(Lane { destination: remote, source }.into()))
    }
}

impl Target {
    /// The lane, where it is one; not a default.
    pub fn lane(&self) -> Option<AnyLane> {
        match &self.0 {
            Key::Lane(lane) => Some(lane.clone().into()),
            Key::Outbox(lane) => Some(lane.clone().into()),
            Key::Default | Key::OutboxDefault => None,
        }
    }
}

impl TryFrom<LaneName> for Target {
    type Error = NoSettings;

    fn try_from(LaneName(lane): LaneName) -> Result<Self, NoSettings> {
        match lane {
            AnyLane::Inbox(lane) => Ok(Self(Key::Lane(lane))),
            AnyLane::Outbox(lane) => Ok(Self(Key::Outbox(lane))),
            AnyLane::Backfill(_) => Err(NoSettings),
        }
    }
}

impl FromStr for Target {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        match text.parse() {
            Ok(default @ (Key::Default | Key::OutboxDefault)) => Ok(Self(default)),
            _ => Ok(Self::try_from(text.parse::<LaneName>()?)?),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Key::Lane(lane) => lane.fmt(f),
            Key::Outbox(lane) => lane.fmt(f),
            default => default.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: &str = "7f9c24e8-3b12-4fef-91e1-4c1d2f1a0b77";

    #[test]
    fn a_lane_is_read_in_both_its_forms() {
        for text in
            ["aussie.zone/lemmy.world:8536", "Aussie.Zone/lemmy.world:8536", "inbox.aussie_zone.lemmy_world=3A8536"]
        {
            let LaneName(lane) = text.parse().unwrap();
            assert_eq!(lane.to_string(), "aussie.zone/lemmy.world:8536", "{text}");
        }
        for text in ["Mastodon.Social/3", "mastodon.social/03", "outbox.mastodon_social.3"] {
            let LaneName(lane) = text.parse().unwrap();
            assert_eq!(lane.subject(), "fed.outbox.mastodon_social.3", "{text}");
        }
        for text in [format!("a.test/{OWNER}"), format!("backfill.a_test.{OWNER}")] {
            let LaneName(lane) = text.parse().unwrap();
            assert_eq!(lane.subject(), format!("fed.backfill.a_test.{OWNER}"), "{text}");
        }
        for text in [
            "default",
            "outbox",
            "",
            "/",
            "a",
            "a/",
            "a/b/c",
            "a/65536",
            "inbox.a",
            "outbox.a.b",
            "fed.inbox.a.b",
            "a /b",
        ] {
            assert_eq!(text.parse::<LaneName>(), Err(NoLane), "{text}");
        }
    }

    #[test]
    fn settings_are_of_a_lane_or_of_all_of_a_kind() {
        let read = |text: &str| text.parse::<Target>().map(|target| (target.to_string(), target.lane().is_some()));
        assert_eq!(read("default"), Ok(("default".to_owned(), false)));
        assert_eq!(read("outbox"), Ok(("outbox".to_owned(), false)));
        assert_eq!(read("inbox.home_test.a_test"), Ok(("home.test/a.test".to_owned(), true)));
        assert_eq!(read("outbox.a_test.3"), Ok(("a.test/3".to_owned(), true)));
        assert_eq!(read(&format!("a.test/{OWNER}")), Err(NoSettings.into()));
        assert_eq!(read("nowhere"), Err(NoLane.into()));
    }
}
