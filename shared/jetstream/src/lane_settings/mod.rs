//! Settings of a lane: entries in the bucket `fed_lanes`, checked before they are stored, watched, and applied without a
//! restart.
//!
//! ```text
//!   fedctl ─ store, update, remove ─▶ [KV fed_lanes: default, inbox.<a>.<b>, ..] ─ LaneSettingsWatch ─▶ every service
//! ```
//!
//! A key is `default` or a lane's. What is not set comes from `default`, then from the service's own configuration.
//! Outbound lanes have a default of their own, `outbox`: who pauses what comes in does not mean what goes out. Who
//! writes the bucket by other means may write nonsense: such an entry is refused with field and reason, visibly, and the
//! last valid one stays in force. Nothing here knows what a setting does.

mod fields;
mod tools;
mod watch;

use std::fmt;
use std::str::FromStr;

use fedstream_lane::{AnyLane, BackfillLane, InvalidSubject, Lane, LaneName, OutboxLane};

pub use fields::{Fault, Faults, LaneSettings};
pub use tools::{Error, list, load, remove, store, update};
pub use watch::{LaneSettingsWatch, Refusal, Snapshot};

/// The key of the settings of all inbound lanes that have none of their own.
const DEFAULT: &str = "default";

/// And of all outbound ones.
const OUTBOX_DEFAULT: &str = OutboxLane::KIND;

/// Whose settings they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Of every inbound lane that says nothing else.
    Default,
    /// Of one inbound lane.
    Lane(Lane),
    /// Of every outbound lane that says nothing else.
    OutboxDefault,
    /// Of one outbound lane.
    Outbox(OutboxLane),
}

impl From<Lane> for Key {
    fn from(lane: Lane) -> Self {
        Self::Lane(lane)
    }
}

impl From<OutboxLane> for Key {
    fn from(lane: OutboxLane) -> Self {
        Self::Outbox(lane)
    }
}

/// Jobs have no settings of their own: those of all outbound lanes hold, so that who pauses what goes out pauses it all.
impl From<BackfillLane> for Key {
    fn from(_: BackfillLane) -> Self {
        Self::OutboxDefault
    }
}

impl From<AnyLane> for Key {
    fn from(lane: AnyLane) -> Self {
        match lane {
            AnyLane::Inbox(lane) => lane.into(),
            AnyLane::Outbox(lane) => lane.into(),
            AnyLane::Backfill(lane) => lane.into(),
        }
    }
}

impl Key {
    /// The key of all lanes of the same kind.
    #[must_use]
    pub fn default_of(&self) -> Self {
        match self {
            Self::Default | Self::Lane(_) => Self::Default,
            Self::OutboxDefault | Self::Outbox(_) => Self::OutboxDefault,
        }
    }

    /// Refuses what can't be set for all lanes at once.
    fn check(&self, settings: &LaneSettings) -> Result<(), Faults> {
        settings.check()?;
        let of_one_lane = [
            ("park", settings.park.is_some(), "a sequence is one lane's: not in the default"),
            ("batch_url_before", settings.batch_url_before.is_some(), "each lane closes its own: not in the default"),
        ];
        match of_one_lane.into_iter().find(|(_, is_set, _)| *self == self.default_of() && *is_set) {
            Some((field, _, why)) => Err(Faults(vec![Fault { field: field.to_owned(), reason: why.to_owned() }])),
            None => Ok(()),
        }
    }

    fn read(&self, json: &[u8]) -> Result<LaneSettings, Faults> {
        let settings = LaneSettings::read(json)?;
        self.check(&settings)?;
        Ok(settings)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str(DEFAULT),
            Self::Lane(lane) => f.write_str(&lane.key()),
            Self::OutboxDefault => f.write_str(OUTBOX_DEFAULT),
            Self::Outbox(lane) => f.write_str(&lane.key()),
        }
    }
}

impl FromStr for Key {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let subject = format!("fed.{text}");
        match text {
            DEFAULT => Ok(Self::Default),
            OUTBOX_DEFAULT => Ok(Self::OutboxDefault),
            _ if text.starts_with("outbox.") => OutboxLane::from_subject(&subject).map(Self::Outbox),
            _ => Lane::from_subject(&subject).map(Self::Lane),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_default_or_a_lanes_and_nothing_else() {
        for text in ["default", "inbox.aussie_zone.lemmy_world", "outbox", "outbox.mastodon_social.3"] {
            assert_eq!(text.parse::<Key>().map(|key| key.to_string()), Ok(text.to_owned()));
        }
        for text in
            ["Default", "", "inbox.a", "inbox.a.b.c", "outbox.a", "outbox.a.b", "inbox.*.lemmy_world", "member.a"]
        {
            assert!(text.parse::<Key>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_one_lanes_is_refused_in_the_default() {
        for (field, json) in [("park", r#"{"park":3}"#), ("batch_url_before", r#"{"batch_url_before":"http://a/"}"#)] {
            let settings = LaneSettings::read(json.as_bytes()).expect("fine in itself");
            for key in [Key::Default, Key::OutboxDefault] {
                assert_eq!(key.check(&settings).expect_err("no lane").0[0].field, field);
            }
        }
    }
}
