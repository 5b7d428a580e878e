//! Two batch-senders on one lane, before leases say who owns it.

use fedstream_tests::eventually::becomes_true;
use fedstream_tests::load::Load;

use crate::{AFTER, BEFORE, LANES, SOON, more_delivered, two_lanes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_batch_senders_on_a_lane_the_older_stops_and_nothing_is_lost_repeated_or_overtaken() {
    let pipeline = two_lanes().start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, BEFORE).await;

    let mut newer = pipeline.batch_sender.twin().unwrap();
    newer.start().await.unwrap();
    let stale = || pipeline.batch_sender.log().matches("stale epoch").count();
    becomes_true("the older one learns it on both lanes", SOON, || stale() >= LANES.len()).await.unwrap();
    let delivered = pipeline.instance().accepted();

    more_delivered(&pipeline, AFTER).await;
    let sent = load.stop().await;
    assert!(delivered < sent, "in mid-stream: at {delivered} of {sent}");
    pipeline.settle(SOON).await.assert_clean(sent);
    pipeline.wait_trimmed(SOON).await.unwrap();
    assert_eq!(stale(), LANES.len(), "one line a lane");
    assert!(!newer.log().contains("stale epoch"), "the newer one goes on undisturbed");
}
