//! A remote that fails for a while: the order is kept, and nothing is given up before its time.

use std::time::Duration;

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::eventually;
use fedstream_tests::http1;
use fedstream_tests::outbound::{Outbound, partition};
use fedstream_tests::sign::Kind;

use crate::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_arrive_in_the_order_of_their_actor_through_every_kind_of_failure() {
    let outbound = Outbound::with(1).start().await.unwrap();
    let actors = [outbound.actor(1).unwrap(), outbound.actor(2).unwrap()];
    let remote = &outbound.remotes[0];
    remote.behave_where(Some(2), Behaviour::busy(503, None), |seen| seen.id.ends_with("/3"));
    remote.behave_where(Some(2), Behaviour::Reset, |seen| seen.id.ends_with("/5"));
    remote.behave_where(Some(1), Behaviour::LoseAnswer { status: 202 }, |seen| seen.id.ends_with("/7"));
    remote.behave_where(Some(1), Behaviour::busy(408, None), |seen| seen.id.ends_with("/9"));
    for actor in &actors {
        outbound.publish_many(0, actor, 12).await.unwrap();
    }
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let verdict = outbound.verdict();
    verdict.assert_whole(24);
    assert_eq!((verdict.repeats, verdict.side_by_side), (1, 0), "only the lost answer is asked for again: {verdict:?}");
    assert_eq!(outbound.depth("FED_PARKED").await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_after_is_kept_by_every_lane_of_the_remote_and_one_request_finds_out_whether_it_is_over() {
    // Far above FED_BREAKER_MAX, which is for remotes that say nothing.
    let outbound = Outbound::with(1).start().await.unwrap();
    let (first, other) = (outbound.actor(1).unwrap(), outbound.actor(2).unwrap());
    assert_ne!(partition(&first), partition(&other), "two lanes");
    outbound.remotes[0].set_service_time(Duration::from_millis(100)); // so that two at a time would be seen
    outbound.remotes[0].behave_next(1, Behaviour::busy(429, Some(3)));
    outbound.publish_many(0, &first, 1).await.unwrap();
    let answered = async || outbound.remotes[0].seen().first().and_then(|seen| seen.ended);
    let answered = eventually("the 429", SOON, answered).await.unwrap();
    let known = async || {
        let page = http1::get(outbound.worker.admin(), "/lanes").await.ok()?;
        String::from_utf8_lossy(&page.body).contains("answered 429").then_some(())
    };
    eventually("the lane knows of it", SOON, known).await.unwrap();
    outbound.publish_many(0, &first, 2).await.unwrap();
    outbound.publish_many(0, &other, 2).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    outbound.verdict().assert_whole(5);
    let seen = outbound.remotes[0].seen();
    for (at, again) in seen.iter().enumerate().skip(1) {
        let left_alone = again.arrived - answered;
        assert!(left_alone >= Duration::from_millis(2_900), "request {at} came after {left_alone:?}");
    }
    assert!(seen[1].ended.is_some_and(|ended| ended <= seen[2].arrived), "the second came beside the first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_that_takes_only_the_other_form_of_signature_is_remembered() {
    let outbound = Outbound::with(1).start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    let cavage = |seen: &fedstream_tests::instance::Seen| seen.signature == Ok(Kind::Cavage);
    outbound.remotes[0].behave_where(None, Behaviour::rejects(401, "no"), cavage);
    outbound.publish_many(0, &actor, 5).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let kinds: Vec<_> = outbound.remotes[0].seen().iter().map(|seen| seen.signature.clone()).collect();
    let mut expected = vec![Ok(Kind::Rfc9421); 6];
    expected[0] = Ok(Kind::Cavage);
    assert_eq!((kinds, outbound.remotes[0].accepted()), (expected, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_missing_is_waited_for_and_delays_no_other_actor() {
    let outbound = Outbound::with(1).start().await.unwrap();
    let (without, with) = (outbound.actor(1).unwrap(), outbound.actor(2).unwrap());
    outbound.set_key(&without, false).unwrap();
    outbound.publish_many(0, &without, 3).await.unwrap();
    outbound.publish_many(0, &with, 3).await.unwrap();
    outbound.wait_accepted(0, 3, SOON).await.unwrap();
    let said = async || {
        let page = http1::get(outbound.worker.admin(), "/lanes").await.ok()?;
        String::from_utf8_lossy(&page.body).contains("there is no signing key of actor").then_some(())
    };
    eventually("/lanes says what is missing", SOON, said).await.unwrap();
    outbound.set_key(&without, true).unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    outbound.verdict().assert_whole(6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_never_comes_holds_its_lane_up_no_longer_than_it_is_waited_for() {
    let outbound = Outbound::with(1).env("FED_KEY_WAIT", "1s").start().await.unwrap();
    let gone = outbound.actor(1).unwrap();
    outbound.set_key(&gone, false).unwrap();
    outbound.publish_many(0, &gone, 1).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let copies = outbound.messages("FED_PARKED").await.unwrap();
    let said = copies[0].headers.get("Fed-Parked-Answer").map(ToString::to_string).unwrap_or_default();
    assert!(said.starts_with("there is no signing key of actor"), "{said}");
    assert_eq!((copies.len(), outbound.depth("FED_EVENTS").await, outbound.remotes[0].arrivals()), (1, Some(1), 0));
}
