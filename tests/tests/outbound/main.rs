//! What goes out: every delivery arrives once, in the order of its actor and remote, verified by the remote; or is parked and
//! told of. With a real broker, the real worker, and remotes that fail in every way.

mod application;
mod backfill;
mod kills;
mod many;
mod metrics;
mod patience;
mod poison;
mod ready;
mod redrive;
mod refusals;
mod retries;
mod rights;
mod signatures;

use std::time::Duration;

/// For anything that happens of itself: generous, since two cores may be shared with a build.
const SOON: Duration = Duration::from_secs(60);
