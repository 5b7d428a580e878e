//! The batch format v1: that of activitypub-federation-queue-batcher, so that either half of it can be replaced first.
//!
//! Request: `Content-Type: application/json`, an array of activities in lane order ([`batch`]). Answer: 200 when all is
//! over, an array with one entry for each activity that was tried, in order ([`answer`]); it is shorter than the
//! request when the last one listed was not tolerable (408, 429, 5xx). Anything but a 2xx settles nothing.
//!
//! There is no epoch, no gate and no sequence: an activity is known by its place and its id, a lane by what its
//! activities say of themselves; only our own sender says who it is, in a header beside the batch ([`owner`]). And it can't
//! carry everything: [`unfit`] says what never goes to such a receiver.

pub mod answer;
pub mod batch;
mod json;
pub mod owner;
mod text;
pub mod unfit;

pub use answer::{Again, AnswerError, Entry, Outcomes, Report, is_tolerable};
pub use batch::{Error, Item};
pub use owner::{OWNER_HEADER, Owner};
pub use unfit::Unfit;

/// `Content-Type` of a request and of its answer.
pub const CONTENT_TYPE: &str = "application/json";

/// The largest request that the existing batch-receiver takes, bytes: its limit is 20 MB, read here as the smaller of
/// the two sizes of that name.
pub const REQUEST_BYTES_MAX: usize = 20_000_000;

/// What a batch of any number of activities has beside them, bytes: the brackets of the array. The comma behind each
/// is in [`Item::encoded_bytes`].
pub const BATCH_OVERHEAD_BYTES: usize = 2;
