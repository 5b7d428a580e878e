//! The near half of fedstream in front of the existing batch-receiver, which knows v1 only, and what happens when that is
//! replaced by ours, or ours by that, while lanes run.
//!
//! The far half fed by the existing batch-sender is in `services/batch-receiver/tests/v1.rs`.

mod former;
mod ours;
mod refusals;
mod sending;
mod settling;
mod switching;

use std::time::Duration;

use fedstream_tests::eventually::eventually;
use fedstream_tests::http1;
use fedstream_tests::pipeline::{Builder, Pipeline, Which};
use fedstream_tests::process::Service;
use fedstream_tests::{broker, pipeline};
use former::Former;
use serde_json::Value;

/// For anything that happens of itself: generous, since two cores may be shared with a build.
const SOON: Duration = Duration::from_secs(30);

/// One source and one destination; no batch-receiver of ours runs.
fn near_half() -> Builder {
    // Nobody kills the broker here: what it acknowledged need not be on disk.
    let broker = broker::Options { sync_always: false, ..broker::Options::default() };
    Pipeline::builder().source("a.test").broker(broker).without(Which::BatchReceiver).env(
        Which::BatchSender,
        "FED_DISCOVERY_INTERVAL",
        "200ms",
    )
}

/// The existing batch-receiver where ours would be.
async fn former(pipeline: &Pipeline) -> Former {
    let mut former = Former::at(pipeline.batch_address(), pipeline.instance().addr(), pipeline::CREDENTIAL);
    former.come_up().await.expect("nobody else is there");
    former
}

/// Waits until `/lanes` looks so; if it never does, says how it looked last.
async fn wait_lane(pipeline: &Pipeline, what: &str, looks: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let seen = eventually(what, SOON, async || {
        let page = http1::get(pipeline.batch_sender.admin(), "/lanes").await.ok()?.json();
        last = page["lanes"]["home.test/a.test"].clone();
        Some(last.clone()).filter(&looks)
    });
    let seen = seen.await;
    seen.unwrap_or_else(|timeout| panic!("{timeout}; the lane looks so: {last}\n{}", pipeline.batch_sender.log_tail()))
}

/// Waits until the page says, with these words, why the lane does not move.
async fn wait_why(pipeline: &Pipeline, words: &str) -> Value {
    let what = format!("the page says {words:?}");
    wait_lane(pipeline, &what, |lane| lane["why"].as_str().is_some_and(|why| why.contains(words))).await
}

/// Waits until the lane speaks this format.
async fn wait_protocol(pipeline: &Pipeline, protocol: &str) {
    wait_lane(pipeline, &format!("the lane speaks {protocol}"), |lane| lane["protocol"] == protocol).await;
}

/// Stops it, so that it gives its lanes back, and starts it as it is set up now.
async fn begin_anew(sender: &mut Service) {
    assert_eq!(sender.terminate(SOON).await.expect("it ends"), Some(0));
    sender.start().await.expect("it starts");
}
