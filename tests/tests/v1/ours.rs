//! v1 between our own halves: what `BATCH_PROTOCOL=v1` towards our batch-receiver is, which is the way back from v2.

use fedstream_tests::pipeline::{Pipeline, Which};
use serde_json::json;

use crate::sending::set;
use crate::{SOON, wait_lane};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_nearly_twenty_megabytes_goes_through() {
    // A note has its text twice, so an activity has just below FED_BODY_MAX, and 1.3 MB in base64.
    const TEXT_BYTES: usize = 480 * 1024;
    const FULL_BATCH: usize = 15;
    let mut pipeline = Pipeline::builder()
        .source("a.test")
        .without(Which::BatchSender)
        .env(Which::BatchSender, "BATCH_PROTOCOL", "v1")
        .start()
        .await
        .unwrap();
    let mut sender = pipeline.sender("a.test", "home.test");
    sender.text_bytes = TEXT_BYTES;
    sender.send_many(FULL_BATCH + 1).await;
    // All of them are read before the first one goes, and the instance takes its time.
    set(&pipeline, &json!({"paused": true})).await;
    pipeline.instance().freeze();
    pipeline.batch_sender.start().await.unwrap();
    wait_lane(&pipeline, "all are read", |lane| lane["held"] == FULL_BATCH + 1).await;
    set(&pipeline, &json!({"paused": false})).await;
    wait_lane(&pipeline, "one batch is as large as may be", |lane| lane["in_flight"] == FULL_BATCH).await;
    pipeline.instance().thaw();
    pipeline.settle(SOON).await.assert_clean(FULL_BATCH + 1);
    pipeline.wait_trimmed(SOON).await.unwrap();
}
