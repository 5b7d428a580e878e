//! Batches of the existing batcher's format: no gate and no sequence, the whole answer at the end.
//!
//! What holds of v2 because of its gate holds here by taking turns: a batch has the turn of each of its lanes
//! ([`crate::feeders`]) from before its first activity to after its last, and takes them to the instance one by one, in the
//! array's order ([`visit`]). Nothing is remembered: a batch that comes again is delivered again, as it was by the
//! existing receiver. A lane is the host of the signature's key, or of the actor, and the destination ([`activity`]).

pub mod activity;
pub mod visit;
