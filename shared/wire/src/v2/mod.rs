//! The batch format v2.
//!
//! Request: `Content-Type: application/cbor-seq` (RFC 8742), a header item and one item per activity ([`batch`]).
//! Answer: 200 at once, then `application/x-ndjson`, one line per activity as soon as its outcome is known, and a
//! closing line ([`answer`]). What is decided before the 200 is problem+json ([`refusal`]).

pub mod answer;
pub mod batch;
pub mod refusal;

pub use answer::{AnswerError, AnswerReader, Closing, Line};
pub use batch::{Batch, BatchHeader, BatchItem, HTTP_HEADERS_MAX};
pub use refusal::{Refusal, RefusalKind};

/// The version in a batch's header.
pub const VERSION: u64 = 2;

/// `Content-Type` of a request.
pub const CONTENT_TYPE: &str = "application/cbor-seq";

/// `Content-Type` of an answer.
pub const ANSWER_CONTENT_TYPE: &str = "application/x-ndjson";

/// HTTP header of every answer: which life of the batch-receiver gave it.
pub const GATE_HEADER: &str = "fed-gate";
