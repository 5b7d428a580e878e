//! What a batch-receiver says before the 200: problem+json (RFC 9457) that a sender acts on.

use fedstream_lane::{Epoch, GateId};
use serde::{Deserialize, Serialize};

/// What all problem types of fedstream begin with; the kind follows.
pub const TYPE_PREFIX: &str = "urn:fedstream:problem:";

/// The kinds that mean something to a sender. Others count as "refused".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// A later owner of the lane is known.
    StaleEpoch,
    /// The batch was meant for another life of the receiver.
    NewGate,
    /// Another site feeds this lane.
    OtherOrigin,
    /// Anything else; the text tells.
    Other,
}

impl RefusalKind {
    /// The end of the problem type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StaleEpoch => "stale-epoch",
            Self::NewGate => "new-gate",
            Self::OtherOrigin => "other-origin",
            Self::Other => "other",
        }
    }
}

/// The members of the problem document that a sender reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Problem type.
    #[serde(rename = "type", default)]
    pub problem_type: String,
    /// The reason in words.
    #[serde(default)]
    pub detail: String,
    /// `stale-epoch`: the epoch that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// `new-gate`: the current gate id, 16 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
}

impl Refusal {
    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> RefusalKind {
        let kinds = [RefusalKind::StaleEpoch, RefusalKind::NewGate, RefusalKind::OtherOrigin];
        let kind = self.problem_type.strip_prefix(TYPE_PREFIX);
        kinds.into_iter().find(|known| kind == Some(known.as_str())).unwrap_or(RefusalKind::Other)
    }

    /// The epoch of a `stale-epoch`.
    #[must_use]
    pub fn known_epoch(&self) -> Option<Epoch> {
        self.epoch.map(Epoch).filter(|_| self.kind() == RefusalKind::StaleEpoch)
    }

    /// The gate of a `new-gate`.
    #[must_use]
    pub fn current_gate(&self) -> Option<GateId> {
        self.gate.as_deref().filter(|_| self.kind() == RefusalKind::NewGate)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_by_its_type() {
        let refusal: Refusal =
            serde_json::from_str(r#"{"type":"urn:fedstream:problem:new-gate","title":"x","gate":"00000000000000ab"}"#)
                .expect("json");
        assert_eq!(
            (refusal.kind(), refusal.current_gate(), refusal.known_epoch()),
            (RefusalKind::NewGate, Some(GateId(0xab)), None)
        );
        let other: Refusal = serde_json::from_str("{}").expect("json");
        assert_eq!(other.kind(), RefusalKind::Other);
    }
}
