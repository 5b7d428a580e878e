//! The small numbers that must not be mixed up.

use std::fmt;

/// A stream sequence: growing within a lane, with holes (JetStream numbers the whole stream). The first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// A fencing token: each owner of a lane takes a higher one than the owner before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Milliseconds on a monotonic clock whose zero does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment `ms` milliseconds later.
    #[must_use]
    pub fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// The random name of one life of one batch-receiver. Written as 16 hex digits.
///
/// What was sent before a restart names the old life, and is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GateId(pub u64);

/// A text that is not 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a gate id is 16 hex digits")]
pub struct InvalidGateId;

impl std::str::FromStr for GateId {
    type Err = InvalidGateId;

    fn from_str(text: &str) -> Result<Self, InvalidGateId> {
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(InvalidGateId);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| InvalidGateId)
    }
}

impl fmt::Display for GateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One POST of a batch, numbered by the window that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PostId(pub u64);

/// The id under which an activity was stored (`Nats-Msg-Id`): the same submission has the same id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MsgId(Box<str>);

impl MsgId {
    /// Takes the text as it is.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a lane's sequence numbers come from: a site's stream, in one of its incarnations.
///
/// A stream that is deleted and made again starts its numbers again; its creation time tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// `FED_SITE` of the sending side.
    pub site: Box<str>,
    /// Creation time of the stream, microseconds since 1970.
    pub created_us: u64,
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for MsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.site, self.created_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_id_reads_back_what_it_writes() {
        for id in [GateId(0), GateId(0x00ab), GateId(u64::MAX)] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert!("ab".parse::<GateId>().is_err());
        assert!("+000000000000000".parse::<GateId>().is_err());
    }
}
