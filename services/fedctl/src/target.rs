//! A lane as a person writes it: `<destination>/<source>`, as in the logs, or its key, as in the buckets.

use std::fmt;
use std::str::FromStr;

use fedstream_jetstream::lane_settings::Key;
use fedstream_lane::Lane;

/// A text that names no lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no lane: write <destination>/<source>, for example aussie.zone/lemmy.world")]
pub struct NoLane;

/// A lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneName(pub Lane);

/// A lane, or `default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(pub Key);

impl FromStr for LaneName {
    type Err = NoLane;

    fn from_str(text: &str) -> Result<Self, NoLane> {
        if let Some((destination, source)) = text.split_once('/') {
            let name = |text: &str| text.parse().map_err(|_| NoLane);
            return Ok(Self(Lane { destination: name(destination)?, source: name(source)? }));
        }
        match text.parse() {
            Ok(Key::Lane(lane)) => Ok(Self(lane)),
            _ => Err(NoLane),
        }
    }
}

impl FromStr for Target {
    type Err = NoLane;

    fn from_str(text: &str) -> Result<Self, NoLane> {
        if text.parse() == Ok(Key::Default) {
            Ok(Self(Key::Default))
        } else {
            text.parse().map(|LaneName(lane)| Self(Key::Lane(lane)))
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Key::Default => f.write_str("default"),
            Key::Lane(lane) => lane.fmt(f),
            Key::OutboxDefault => f.write_str("outbox"),
            Key::Outbox(lane) => lane.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_read_in_both_its_forms() {
        for text in
            ["aussie.zone/lemmy.world:8536", "Aussie.Zone/lemmy.world:8536", "inbox.aussie_zone.lemmy_world=3A8536"]
        {
            let LaneName(lane) = text.parse().unwrap();
            assert_eq!(lane.to_string(), "aussie.zone/lemmy.world:8536", "{text}");
        }
        for text in ["default", "", "/", "a", "a/b/c", "inbox.a", "fed.inbox.a.b", "a /b"] {
            assert_eq!(text.parse::<LaneName>(), Err(NoLane), "{text}");
        }
        assert_eq!("default".parse(), Ok(Target(Key::Default)));
    }
}
