//! Several batch-senders: the sum over all of them is right, and a lane that nobody has is not out of sight.

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::eventually;
use fedstream_tests::metrics_page::MetricsPage;
use fedstream_tests::pipeline::Which;

use crate::{SOON, one_lane, until};

const SOURCES: [&str; 6] = ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_depths_of_two_batch_senders_add_up_to_what_lies_in_the_stream() {
    const EACH: usize = 4;
    let builder = SOURCES.iter().skip(1).fold(one_lane(), |builder, source| builder.source(source));
    let pipeline = builder.env(Which::BatchSender, "FED_SENDER_ID", "sender-a").start().await.unwrap();
    let mut second = pipeline.batch_sender.twin().unwrap();
    second.set_env("FED_SENDER_ID", Some("sender-b"));
    second.start().await.unwrap();
    until(&pipeline.batch_sender, "fedstream_members", &[], 2.0).await;
    until(&second, "fedstream_members", &[], 2.0).await;
    pipeline.instance().behave(Behaviour::Hang);
    for source in SOURCES {
        pipeline.sender(source, "home.test").send_many(EACH).await;
    }

    let all = (SOURCES.len() * EACH) as f64;
    let both = async || Some([MetricsPage::of(&pipeline.batch_sender).await?, MetricsPage::of(&second).await?]);
    let sums = |pages: &[MetricsPage; 2], name| pages.each_ref().map(|page| page.sum(name, &[]).unwrap_or_default());
    let shared = eventually("the lanes are shared out, and every activity is held by one owner", SOON, async || {
        let pages = both().await?;
        let owned = sums(&pages, "fedstream_lanes_owned");
        let held: f64 = sums(&pages, "fedstream_lane_held").iter().sum();
        let depth: f64 = sums(&pages, "fedstream_lane_depth").iter().sum();
        let each_once = owned.iter().all(|lanes| *lanes > 0.0) && owned.iter().sum::<f64>() == SOURCES.len() as f64;
        (each_once && held == all && depth == all).then_some(pages)
    });
    let pages = shared.await.unwrap();
    for source in SOURCES {
        let lane = format!("home.test/{source}");
        let told = pages.iter().filter(|page| page.sum("fedstream_lane_held", &[("lane", &lane)]).is_some()).count();
        assert_eq!(told, 1, "{lane} is told of by its owner");
    }
    pipeline.instance().behave_well();
    pipeline.settle(SOON).await.assert_clean(SOURCES.len() * EACH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_nobody_has_shows_its_depth_and_nothing_else() {
    let pipeline = one_lane().source("b.test").env(Which::BatchSender, "FED_LANES_MAX", "1").start().await.unwrap();
    pipeline.instance().behave(Behaviour::Hang);
    for source in ["a.test", "b.test"] {
        pipeline.sender(source, "home.test").send_many(3).await;
    }
    let page = until(&pipeline.batch_sender, "fedstream_lane_depth", &[], 6.0).await;
    assert_eq!(page.samples.iter().filter(|sample| sample.name == "fedstream_lane_depth").count(), 2);
    let page = until(&pipeline.batch_sender, "fedstream_lane_held", &[], 3.0).await;
    for gauge in ["fedstream_lane_held", "fedstream_lane_trouble", "fedstream_lane_paused"] {
        assert_eq!(page.samples.iter().filter(|sample| sample.name == gauge).count(), 1, "{gauge}");
    }
    pipeline.instance().behave_well();
    pipeline.instance().wait_accepted(3, SOON).await.unwrap();
}
