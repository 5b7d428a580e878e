//! Which batch format a receiver takes, found out without posting an activity.
//!
//! Every batch-receiver answers 405 to a GET of its batch path, ours and the existing batcher's. Ours says more in that
//! answer: `Accept-Post` (a registered header: the types that may be posted here) names the formats, and the gate
//! header names its life. So a GET is enough, before any credential is shown to anybody.

use std::fmt;
use std::str::FromStr;

use fedstream_lane::GateId;

use crate::v2;

/// HTTP header of each 405: the media types of batches that are taken, best first.
pub const ACCEPT_POST_HEADER: &str = "accept-post";

/// Its value here.
pub const ACCEPT_POST: &str = "application/cbor-seq, application/json";

/// The status of every batch-receiver's answer to a GET.
const METHOD_NOT_ALLOWED: u16 = 405;

/// A batch format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// The existing batcher's, see [`crate::v1`].
    V1,
    /// Ours, see [`v2`].
    V2,
}

/// A name that is no format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of v1, v2")]
pub struct UnknownProtocol;

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        match text.trim().to_ascii_lowercase().as_str() {
            "v1" => Ok(Self::V1),
            "v2" => Ok(Self::V2),
            _ => Err(UnknownProtocol),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

impl Protocol {
    /// What the answer to a GET of the batch path says: its status, and its `Accept-Post` and `fed-gate` headers.
    ///
    /// None where it is no batch-receiver's answer: a proxy whose receiver is away, a wrong path, a web page. Nothing
    /// is known then, and the question is for later.
    #[must_use]
    pub fn of_probe(status: u16, accept_post: Option<&str>, gate: Option<&str>) -> Option<Self> {
        if status != METHOD_NOT_ALLOWED {
            return None;
        }
        let takes = |wanted: &str| {
            let types = accept_post.unwrap_or_default().split(',');
            types
                .map(|one| one.split(';').next().unwrap_or_default().trim())
                .any(|one| one.eq_ignore_ascii_case(wanted))
        };
        let has_gate = gate.is_some_and(|text| text.trim().parse::<GateId>().is_ok());
        Some(if has_gate && takes(v2::CONTENT_TYPE) { Self::V2 } else { Self::V1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    #[test]
    fn what_is_said_of_the_types_names_both_formats() {
        assert_eq!(ACCEPT_POST, format!("{}, {}", v2::CONTENT_TYPE, v1::CONTENT_TYPE));
    }

    #[test]
    fn a_405_with_our_headers_is_v2_and_one_without_is_v1() {
        let gate = GateId(7).to_string();
        let of = |accept_post, gate| Protocol::of_probe(405, accept_post, gate);
        assert_eq!(of(Some(ACCEPT_POST), Some(&gate)), Some(Protocol::V2));
        assert_eq!(of(Some("application/json , Application/CBOR-Seq;q=1"), Some(&gate)), Some(Protocol::V2));
        for (accept_post, gate) in [
            (None, None),
            (None, Some(gate.as_str())),
            (Some(ACCEPT_POST), None),
            (Some(ACCEPT_POST), Some("no gate")),
            (Some("application/json"), Some(gate.as_str())),
        ] {
            assert_eq!(of(accept_post, gate), Some(Protocol::V1), "{accept_post:?}, {gate:?}");
        }
    }

    #[test]
    fn an_answer_that_is_no_batch_receivers_says_nothing() {
        let gate = GateId(7).to_string();
        for status in [200, 301, 401, 403, 404, 502, 503] {
            assert_eq!(Protocol::of_probe(status, Some(ACCEPT_POST), Some(&gate)), None, "{status}");
        }
    }

    #[test]
    fn names_read_back() {
        for protocol in [Protocol::V1, Protocol::V2] {
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
        assert_eq!("v3".parse::<Protocol>(), Err(UnknownProtocol));
    }
}
