//! The far half is replaced while lanes run: by ours, and back. `auto` notices, and nothing is lost or reordered.

use fedstream_tests::load::Load;
use fedstream_tests::pipeline::Pipeline;

use crate::{SOON, former, near_half, wait_protocol};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_far_half_can_be_replaced_by_ours_and_back_while_traffic_runs() {
    let mut pipeline = near_half().start().await.unwrap();
    let mut former = former(&pipeline).await;
    let load = Load::on(&pipeline, &[("a.test", "home.test")]);
    more_delivered(&pipeline, "v1").await;

    former.go_down().await;
    pipeline.batch_receiver.start().await.unwrap();
    more_delivered(&pipeline, "v2").await;

    assert_eq!(pipeline.batch_receiver.terminate(SOON).await.unwrap(), Some(0));
    former.come_up().await.unwrap();
    more_delivered(&pipeline, "v1").await;

    former.go_down().await;
    pipeline.batch_receiver.start().await.unwrap();
    more_delivered(&pipeline, "v2").await;

    load.stop().await;
    pipeline.settle(SOON).await.assert_clean_but_repeated();
    pipeline.wait_trimmed(SOON).await.unwrap();
    let log = pipeline.batch_sender.log();
    assert_eq!(log.matches("was asked which batch format it takes").count(), 4, "{log}");
    assert_eq!(log.matches("its batch-receiver takes another format").count(), 4, "from the guess, and three times");
}

async fn more_delivered(pipeline: &Pipeline, protocol: &str) {
    wait_protocol(pipeline, protocol).await;
    let wanted = pipeline.instance().accepted() + 60;
    pipeline.instance().wait_accepted(wanted, SOON).await.expect("deliveries go on");
}
