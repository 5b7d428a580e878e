//! A lane that other processes share, hold up, set otherwise and park out of: against real servers, with an independent
//! checker at both ends.
//!
//! `faults` breaks things in the middle of a load; here each part of the lane machine is asked for what it promises. One
//! binary, since each links the whole harness.

mod batches;
mod copies;
mod deadlines;
mod entries;
mod lanes_page;
mod leases;
mod parking;
mod pausing;
mod quiet;
mod receivers;
mod settings;
mod view;
mod window;

use std::time::Duration;

use fedstream_tests::broker;
use fedstream_tests::instance::Seen;
use fedstream_tests::pipeline::{Builder, Pipeline, Which};

/// For anything that happens of itself: generous, since two cores may be shared with a build.
const SOON: Duration = Duration::from_secs(30);

/// The lane that most tests look at, as people write it.
const LANE: &str = "home.test/a.test";

/// One source, one destination; the batch-receiver's log says which owner each activity came from.
fn one_lane() -> Builder {
    // Nobody kills the broker here: what it acknowledged need not be on disk.
    let broker = broker::Options { sync_always: false, ..broker::Options::default() };
    Pipeline::builder()
        .source("a.test")
        .broker(broker)
        .env(Which::BatchSender, "FED_DISCOVERY_INTERVAL", "200ms")
        .env(Which::BatchReceiver, "LOG_FORMAT", "json")
        .env(Which::BatchReceiver, "LOG_LEVEL", "info,batch_receiver=debug")
}

/// The activity of this number of its sender, counted from 1.
fn comment(number: usize) -> impl Fn(&Seen) -> bool + Send + Clone + 'static {
    let text = format!("<p>comment {number} ").into_bytes();
    move |seen| seen.message.body.windows(text.len()).any(|part| part == text)
}

/// The numbers of the comments that the instance accepted, in the order in which it was done with them.
fn accepted_comments(pipeline: &Pipeline) -> Vec<usize> {
    let mut seen: Vec<Seen> = pipeline.instance().seen().into_iter().filter(Seen::accepted).collect();
    seen.sort_by_key(|seen| seen.ended);
    seen.iter().map(number).collect()
}

fn number(seen: &Seen) -> usize {
    let body = String::from_utf8_lossy(&seen.message.body);
    let (_, after) = body.split_once("<p>comment ").expect("a comment");
    after.split(' ').next().and_then(|number| number.parse().ok()).expect("its number")
}
