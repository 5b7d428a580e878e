//! Labels are bounded, whatever comes.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::http1;
use fedstream_tests::metrics_page::MetricsPage;
use fedstream_tests::pipeline::Which;

use crate::{SOON, one_lane, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_beyond_the_bound_are_other_and_every_sum_is_right() {
    const SOURCES: [&str; 5] = ["a.test", "b.test", "c.test", "d.test", "e.test"];
    const EACH: usize = 3;
    let mut builder = one_lane().env(Which::InboxReceiver, "FED_SOURCES", "*");
    for which in [Which::InboxReceiver, Which::BatchSender, Which::BatchReceiver] {
        builder = builder.env(which, "FED_METRIC_LANES", "2");
    }
    let pipeline = builder.start().await.unwrap();
    pipeline.instance().behave(Behaviour::Hang);
    for source in SOURCES {
        pipeline.sender(source, "home.test").send_many(EACH).await;
    }
    let all = (SOURCES.len() * EACH) as f64;
    let near = until(&pipeline.batch_sender, "fedstream_lane_depth", &[], all).await;
    assert_eq!(near.sum("fedstream_lane_depth", &[("lane", "other")]), Some((3 * EACH) as f64), "three lanes in one");
    pipeline.instance().behave_well();
    pipeline.instance().wait_accepted(SOURCES.len() * EACH, SOON).await.unwrap();
    pipeline.wait_trimmed(SOON).await.unwrap();

    // What hung is tried again; an outcome whose line was lost on the way is heard as `duplicate`.
    let near = until(&pipeline.batch_sender, "fedstream_lane_outcomes_total", &[], all).await;
    let front = MetricsPage::of(&pipeline.inbox_receiver).await.unwrap();
    let far =
        until(&pipeline.batch_receiver, "fedstream_replay_outcomes_total", &[("outcome", "delivered")], all).await;
    assert_eq!(front.sum("fedstream_front_accepted_total", &[]), Some(all));
    let possible: BTreeSet<String> = SOURCES.iter().map(|source| format!("home.test/{source}")).collect();
    for page in [&front, &near, &far] {
        let lanes = page.values_of("lane");
        assert!(lanes.contains("other") && lanes.len() == 3, "{lanes:?}");
        assert!(lanes.iter().all(|lane| *lane == "other" || possible.contains(*lane)), "{lanes:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_only_a_star_lets_in_has_no_name_before_something_of_it_is_stored() {
    let pipeline = one_lane()
        .env(Which::InboxReceiver, "FED_SOURCES", "*")
        .env(Which::InboxReceiver, "FED_LANES_MAX", "1")
        .without(Which::BatchSender)
        .without(Which::BatchReceiver)
        .start()
        .await
        .unwrap();
    let mut stranger = pipeline.sender("stranger.test", "home.test");
    // Its signature is two hours old: the refusal knows the lane, and nothing was ever stored in it.
    let activity = stranger.compose();
    let mut old = stranger.signed(&activity);
    let date = httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(2 * 3600));
    old.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
    old.headers.push(("Date".to_owned(), date));
    let answer = http1::raw(pipeline.front(), &old.to_bytes(), SOON).await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    let refused = "fedstream_front_refused_total";
    let too_old = [("reason", "signature-too-old"), ("lane", "other")];
    let page = until(&pipeline.inbox_receiver, refused, &too_old, 1.0).await;
    assert_eq!(page.values_of("lane").into_iter().collect::<Vec<_>>(), ["other"]);
    pipeline.sender("a.test", "home.test").send_many(1).await;
    let stored = [("lane", "home.test/a.test"), ("result", "stored")];
    until(&pipeline.inbox_receiver, "fedstream_front_accepted_total", &stored, 1.0).await;
}
