//! Several batches of one lane in flight over a long link: faster than one at a time, and in order whatever happens in the
//! middle of them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::instance::Seen;
use fedstream_tests::pipeline::{Builder, Which};

use crate::{LANE, SOON, comment, one_lane, view};

/// Half of a round trip of 300 ms: from Europe to Australia and back.
const ONE_WAY: Duration = Duration::from_millis(150);

/// Activities in a batch, and in the backlog.
const BATCH: usize = 10;
const BACKLOG: usize = 200;

/// What a scheduler and a socket take on two busy cores.
const SLACK: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_link_of_300_ms_a_lane_has_several_batches_in_flight_and_keeps_its_order() {
    let mut pipeline = far_away().start().await.unwrap();
    pipeline.sender("a.test", "home.test").send_many(BACKLOG).await;
    let began = Instant::now();
    pipeline.batch_sender.start().await.unwrap();
    let several = |lane: &serde_json::Value| lane["posts"].as_u64() > Some(2);
    let lane = view::wait(&pipeline.batch_sender, LANE, "several batches in flight", several).await;
    assert!(lane["in_flight"].as_u64() > Some(2 * BATCH as u64), "{lane}");
    pipeline.settle(SOON).await.assert_clean(BACKLOG);
    let took = began.elapsed();
    println!("{BACKLOG} activities in batches of {BATCH} in {} ms", took.as_millis());
    let one_by_one = 2 * ONE_WAY * u32::try_from(BACKLOG / BATCH).unwrap();
    assert!(took < one_by_one, "a batch at a time would have taken {one_by_one:?}: {took:?}");
    pipeline.wait_trimmed(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_in_the_middle_of_a_window_repeats_nothing_and_keeps_the_order() {
    let mut pipeline = far_away().start().await.unwrap();
    for number in [25, 26, 61] {
        pipeline.instance().behave_where(Some(2), Behaviour::busy(503, None), comment(number));
    }
    pipeline.sender("a.test", "home.test").send_many(BACKLOG / 2).await;
    pipeline.batch_sender.start().await.unwrap();
    pipeline.settle(SOON).await.assert_clean(BACKLOG / 2);
    let seen = pipeline.instance().seen();
    let busy = seen.iter().filter(|seen| seen.status == Some(503)).count();
    assert_eq!((busy, seen.len()), (6, BACKLOG / 2 + 6), "tried again, and nothing else with it");
    pipeline.wait_trimmed(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_receiver_that_is_killed_with_several_batches_in_flight_repeats_only_what_was_not_told_yet() {
    let mut pipeline = far_away().start().await.unwrap();
    pipeline.instance().set_service_time(Duration::from_millis(5)); // so that it is killed with something in hand
    pipeline.sender("a.test", "home.test").send_many(BACKLOG).await;
    pipeline.batch_sender.start().await.unwrap();
    pipeline.instance().wait_accepted(BACKLOG / 4, SOON).await.unwrap();
    let lane = view::lane(&pipeline.batch_sender, LANE).await.unwrap();
    assert!(lane["posts"].as_u64() > Some(1), "{lane}");
    pipeline.batch_receiver.kill9();
    let killed = Instant::now();
    pipeline.batch_receiver.start().await.unwrap();

    let report = pipeline.settle(SOON).await;
    report.assert_clean_but_repeated();
    assert_eq!((report.accepted, report.delivered), (BACKLOG, BACKLOG), "{report}");
    println!("{} repeats", report.repeated.len());
    let mut first: HashMap<String, Seen> = HashMap::new();
    for seen in pipeline.instance().seen().into_iter().filter(Seen::accepted) {
        first.entry(seen.id.clone()).or_insert(seen);
    }
    for id in &report.repeated {
        // Its line was still on its way, or was never written.
        let ended = first[id].ended.expect("accepted");
        assert!(ended + ONE_WAY + SLACK > killed, "told long before: {:?} ago", killed - ended);
    }
    pipeline.wait_trimmed(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_instance_asks_for_in_retry_after_is_waited_for_whoever_answers_it() {
    const ASKED: Duration = Duration::from_secs(2);
    let pipeline = one_lane().start().await.unwrap();
    for status in [429, 503] {
        pipeline.instance().behave_next(1, Behaviour::busy(status, Some(ASKED.as_secs())));
        pipeline.sender("a.test", "home.test").send_many(3).await;
        pipeline.settle(SOON).await;
        let seen = pipeline.instance().seen();
        let at = seen.iter().position(|seen| seen.status == Some(status)).expect("it was busy once");
        let waited = seen[at + 1].arrived - seen[at].ended.expect("it was answered");
        println!("asked for {ASKED:?} with {status}, tried again after {} ms", waited.as_millis());
        // The clocks of the two ends round to milliseconds.
        assert!(waited + Duration::from_millis(5) >= ASKED, "{waited:?}");
        assert!(waited < ASKED + SLACK * 2, "{waited:?}");
    }
    pipeline.report().assert_clean(6);
}

/// A lane in small batches over a long link; its batch-sender starts when the test has a backlog for it.
fn far_away() -> Builder {
    one_lane()
        .one_way(ONE_WAY)
        .env(Which::BatchSender, "HTTP_BATCH_SIZE", &BATCH.to_string())
        .without(Which::BatchSender)
}
