//! What must be seen to work while something breaks: nothing is lost, the order is kept, and a repeat comes only where
//! the promise (DESIGN section 13) allows one.
//!
//! Each test breaks one thing in the middle of a steady load, mends it, and lets the independent checker compare what
//! the front accepted with what the instance saw. One binary, since each links the whole harness.

mod broker;
mod destination;
mod kills;
mod link;
mod parking;

use std::time::Duration;

use fedstream_tests::eventually::becomes_true;
use fedstream_tests::pipeline::{Builder, Pipeline};

/// For anything that happens of itself: generous, since two cores may be shared with a build.
const SOON: Duration = Duration::from_secs(30);

/// Delivered before the fault, so that it comes in mid-stream.
const BEFORE: usize = 30;

/// Delivered after it, with the load still on.
const AFTER: usize = 30;

const LANES: [(&str, &str); 2] = [("a.test", "home.test"), ("b.test", "home.test")];

/// Two sources, one destination.
fn two_lanes() -> Builder {
    Pipeline::builder().source("a.test").source("b.test")
}

/// The instance takes this many more.
async fn more_delivered(pipeline: &Pipeline, count: usize) {
    pipeline.instance().wait_accepted(pipeline.instance().accepted() + count, SOON).await.expect("deliveries go on");
}

/// The front takes this many more: what is broken behind it is not the senders' business.
async fn more_accepted(pipeline: &Pipeline, count: usize) {
    let enough = pipeline.ledger.accepted() + count;
    becomes_true("the front goes on accepting", SOON, || pipeline.ledger.accepted() >= enough)
        .await
        .expect("room in the lanes");
}
