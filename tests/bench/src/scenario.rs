//! What is measured, one file each. Each starts a rig of its own and ends with the judge.

pub mod front;
pub mod lanes;
pub mod one_lane;
pub mod recovery;
pub mod spread;
pub mod steady;
pub mod volume;
pub mod worse_line;

use std::time::Duration;

/// Europe to Australia and back.
pub const OCEAN: Duration = Duration::from_millis(300);

/// Half of what a Lemmy takes, so that fedstream is what one looks at.
pub const SERVICE: Duration = Duration::from_millis(5);
