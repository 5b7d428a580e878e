//! A lane with an activity now and then: it is given back after each, and that is no news.

use fedstream_tests::eventually::eventually;
use fedstream_tests::pipeline::Which;

use crate::{LANE, SOON, one_lane, view};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_is_given_back_after_each_activity_says_who_carries_it_once() {
    let builder = one_lane().env(Which::BatchSender, "FED_LANE_IDLE", "100ms");
    let pipeline = builder.env(Which::BatchReceiver, "LOG_LEVEL", "info").start().await.unwrap();
    let mut sender = pipeline.sender("a.test", "home.test");
    for number in 1..=3 {
        sender.send_many(1).await;
        pipeline.instance().wait_accepted(number, SOON).await.unwrap();
        let given_back = async || {
            let owner = &view::page(&pipeline.batch_sender).await?["lanes"][LANE]["owner"];
            owner.is_null().then_some(())
        };
        eventually("the lane is given back", SOON, given_back).await.unwrap();
    }
    for (service, line) in
        [(&pipeline.batch_sender, "the lane is carried"), (&pipeline.batch_receiver, "a new owner of the lane")]
    {
        let log = service.log();
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
    pipeline.report().assert_clean(3);
}
