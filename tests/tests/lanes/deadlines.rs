//! The time until which a destination accepts a signature: nothing is posted after it.

use std::time::{Duration, SystemTime};

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::chaos::deliveries;
use fedstream_tests::pipeline::Which;

use crate::{LANE, SOON, copies, one_lane, view};

/// How long the destination accepts a signature, for the front door.
const WINDOW: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_outlives_its_signature_while_the_instance_is_away_is_parked_and_never_posted_after_it() {
    let pipeline = one_lane()
        .env(Which::InboxReceiver, "FED_SIGNATURE_WINDOW", &format!("{}s", WINDOW.as_secs()))
        .env(Which::InboxReceiver, "FED_SIGNATURE_MARGIN", "1s")
        .env(Which::InboxReceiver, "FED_LANE_AGE_MAX", "4s")
        .start()
        .await
        .unwrap();
    pipeline.instance().behave(Behaviour::busy(503, None));
    let mut sender = pipeline.sender("a.test", "home.test");
    sender.send_many(2).await;
    // So that those behind them have some of their own time left when these have none.
    let waited = |lane: &serde_json::Value| lane["oldest_age_s"].as_u64() >= Some(2);
    view::wait(&pipeline.batch_sender, LANE, "the first two have waited", waited).await;
    sender.send_many(3).await;

    let parked = copies::wait(&pipeline, 2).await;
    pipeline.instance().behave_well();
    pipeline.instance().wait_accepted(3, SOON).await.unwrap();
    let sent = pipeline.ledger.submissions();
    let attempts = deliveries::read(&pipeline.batch_receiver.log());
    for (number, copy) in parked.iter().enumerate() {
        assert_eq!((copy.reason(), copy.header("Fed-Activity-Id")), ("expired", sent[number].id.as_str()));
        let deadline = copy.time("Fed-Deadline");
        // Rounded to milliseconds at both ends, and never late.
        assert!(copy.time("Fed-Parked-At") + Duration::from_millis(2) >= deadline, "{copy:?}");
        let late = attempts.iter().filter(|attempt| attempt.id == sent[number].id);
        let late = late.filter(|attempt| attempt.begun > SystemTime::from(deadline)).count();
        assert_eq!(late, 0, "{number} was posted after its deadline");
    }
    let head = &parked[0];
    assert!(head.attempts() > 1, "the head is tried until its time is over: {head:?}");
    assert_eq!(head.header("Fed-Parked-Status"), "503");
    let (first, last) = (head.time("Fed-Parked-First-Attempt"), head.time("Fed-Parked-Last-Attempt"));
    assert!(head.time("Fed-Received-At") < first && first < last && last < head.time("Fed-Parked-At"), "{head:?}");

    let report = pipeline.report();
    assert_eq!((report.accepted, report.delivered), (5, 3), "{report}");
    assert!(report.out_of_order.is_empty() && report.repeated.is_empty(), "{report}");
    let lost: Vec<&str> = report.lost.iter().map(String::as_str).collect();
    assert_eq!(lost, [sent[0].id.as_str(), sent[1].id.as_str()], "neither lost nor delivered: parked");
    pipeline.wait_trimmed(SOON).await.unwrap();
}
