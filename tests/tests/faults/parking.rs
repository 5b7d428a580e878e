//! What leaves its lane undelivered: a copy with the reason, and the lane goes on.

use async_nats::jetstream::message::StreamMessage;
use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::eventually;
use fedstream_tests::load::Load;
use fedstream_tests::pipeline::Pipeline;

use crate::{AFTER, BEFORE, LANES, SOON, more_delivered, two_lanes};

const LANE: &str = "fed.inbox.home_test.a_test";
const PARKED: &str = "fed.parked.inbox.home_test.a_test";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activity_that_the_instance_rejects_is_parked_whole_and_its_lane_goes_on() {
    const ANSWER: &str = r#"{"error":"couldnt_find_community"}"#;
    let pipeline = two_lanes().start().await.unwrap();
    let in_the_middle = |body: &[u8]| body.windows(14).any(|part| part == b"<p>comment 20 ");
    let (on, other) = ("home.test/a.test", "home.test/b.test");
    pipeline.instance().behave_where(None, Behaviour::rejects(400, ANSWER), move |seen| {
        seen.lane == on && in_the_middle(&seen.message.body)
    });
    let load = Load::on(&pipeline, &LANES);
    let parked = parked(&pipeline).await;
    more_delivered(&pipeline, AFTER).await;
    let sent = load.stop().await;

    let report = pipeline.settle(SOON).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.accepted, report.delivered, report.rejected), (sent, sent - 1, 1), "{report}");
    let seen = pipeline.instance().seen();
    let rejected: Vec<_> = seen.iter().filter(|seen| seen.status == Some(400)).collect();
    assert_eq!(rejected.len(), 1, "refused once, and not tried again");
    assert_eq!(parked.payload, rejected[0].message.body);
    assert_eq!(header(&parked, "Fed-Parked-Reason"), "rejected");
    assert_eq!(header(&parked, "Fed-Parked-Status"), "400");
    assert_eq!(header(&parked, "Fed-Parked-Answer"), ANSWER);
    assert_eq!(header(&parked, "Fed-Activity-Id"), rejected[0].id);
    assert_eq!(header(&parked, "Fed-Target"), "/inbox");
    assert!(pipeline.instance().accepted_on(on) > 20 && pipeline.instance().accepted_on(other) > 0);
    pipeline.wait_trimmed(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_another_program_left_in_a_lane_is_parked_as_unreadable_and_its_lane_goes_on() {
    let pipeline = two_lanes().start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, BEFORE).await;
    let jetstream = pipeline.broker.jetstream().await.unwrap();
    jetstream.publish(LANE, "not one of ours".into()).await.unwrap().await.unwrap();

    let parked = parked(&pipeline).await;
    let before = pipeline.instance().accepted_on("home.test/a.test");
    more_delivered(&pipeline, AFTER).await;
    let sent = load.stop().await;
    pipeline.settle(SOON).await.assert_clean(sent);
    assert!(pipeline.instance().accepted_on("home.test/a.test") > before, "the lane goes on behind it");
    assert_eq!(parked.payload, "not one of ours");
    assert_eq!(header(&parked, "Fed-Parked-Reason"), "unreadable");
    assert_eq!(header(&parked, "Fed-Parked-Answer"), "the header Fed-Version is missing");
    pipeline.wait_trimmed(SOON).await.unwrap();
}

/// The first copy of the lane, when there is one; and there is no second.
async fn parked(pipeline: &Pipeline) -> StreamMessage {
    let jetstream = pipeline.broker.jetstream().await.expect("a connection");
    let stream = jetstream.get_stream("FED_PARKED").await.expect("the batch-sender made it");
    let last = async || stream.get_last_raw_message_by_subject(PARKED).await.ok();
    let parked = eventually("a copy is parked", SOON, last).await.expect("the lane parks it");
    assert_eq!(parked.sequence, 1);
    parked
}

fn header<'a>(message: &'a StreamMessage, name: &str) -> &'a str {
    message.headers.get(name).map_or("", |value| value.as_str())
}
