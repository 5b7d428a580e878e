//! An activity that a remote can't stand: it gets 500 each time, while the remote takes all others. It must not hold its lane
//! up for days; and a remote that fails on everything must not make its deliveries look like that.

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::eventually;
use fedstream_tests::instance::Seen;
use fedstream_tests::outbound::{Builder, Outbound, partition};

use crate::SOON;

/// Three attempts over half a second, where the pauses are up to half a second long.
fn outbound() -> Builder {
    Outbound::with(1).env("FED_POISON_ATTEMPTS", "3").env("FED_POISON_AFTER", "500ms")
}

/// The second activity of this actor.
fn second_of(actor: &str) -> impl Fn(&Seen) -> bool + Send + 'static {
    let actor = actor.to_owned();
    move |seen| seen.id.contains(&actor) && seen.id.ends_with("/1")
}

/// Two actors of different lanes.
fn two_lanes(outbound: &Outbound) -> [String; 2] {
    let first = outbound.actor(1).expect("a key");
    let actors = (2..).map(|number| outbound.actor(number).expect("a key"));
    let other = actors.into_iter().find(|actor| partition(actor) != partition(&first));
    [first, other.expect("there are several partitions")]
}

/// Reason and status of the one parked copy, and what the application was told.
async fn given_up(outbound: &Outbound) -> [String; 3] {
    let parked = outbound.messages("FED_PARKED").await.expect("FED_PARKED");
    let told = outbound.messages("FED_EVENTS").await.expect("FED_EVENTS");
    let ([parked], [told]) = (&parked[..], &told[..]) else { panic!("one copy and one event") };
    let header = |name: &str| parked.headers.get(name).map(ToString::to_string).unwrap_or_default();
    let event: serde_json::Value = serde_json::from_slice(&told.payload).expect("JSON");
    [header("Fed-Parked-Reason"), header("Fed-Parked-Status"), event["error"].as_str().unwrap_or_default().to_owned()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_remote_fails_on_while_it_takes_others_is_parked_and_told_and_its_lane_goes_on() {
    // Were the 500s taken for a remote that is down, it would be for longer than this test waits.
    let outbound =
        outbound().env("FED_POISON_PROBE", "off").env("FED_BREAKER_MIN", "10m").env("FED_BREAKER_MAX", "10m");
    let outbound = outbound.start().await.unwrap();
    let [poisoned, other] = two_lanes(&outbound);
    let remote = &outbound.remotes[0];
    remote.behave_where(None, Behaviour::busy(500, None), second_of(&poisoned));
    outbound.publish_many(0, &poisoned, 4).await.unwrap();
    // More than FED_BREAKER_FAILURES, and more than enough for poison: but nobody has seen it take anything else meanwhile.
    outbound.wait_arrivals(0, 8, SOON).await.unwrap();
    assert_eq!((remote.accepted(), outbound.depth("FED_PARKED").await), (1, Some(0)));

    let jetstream = outbound.jetstream().await.unwrap();
    let mut others = 0;
    let parked = async || {
        outbound.publish(&jetstream, 0, &other).await.ok()?;
        others += 1;
        (outbound.depth("FED_PARKED").await? == 1).then_some(())
    };
    eventually("it is parked", SOON, parked).await.unwrap();
    remote.wait_accepted(3 + others, SOON).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let [reason, status, told] = given_up(&outbound).await;
    assert_eq!((reason.as_str(), status.as_str()), ("poison", "500"));
    assert!(told.contains("while the remote answered others") && told.contains("answered 500"), "{told}");
    let verdict = outbound.verdict();
    assert_eq!((verdict.lost.len(), verdict.out_of_order.len(), verdict.repeats), (1, 0, 0), "{verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_that_fails_on_everything_loses_nothing() {
    let outbound = outbound().env("FED_POISON_PROBE", "off").start().await.unwrap();
    let remote = &outbound.remotes[0];
    remote.behave(Behaviour::busy(500, None));
    for actor in two_lanes(&outbound) {
        outbound.publish_many(0, &actor, 3).await.unwrap();
    }
    outbound.wait_arrivals(0, 16, SOON).await.unwrap();
    remote.behave_well();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    outbound.verdict().assert_whole(6);
    assert_eq!((remote.accepted(), outbound.depth("FED_PARKED").await), (6, Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_other_lane_a_page_of_the_remote_says_in_time_that_it_is_up() {
    let outbound = outbound().env("FED_POISON_PROBED_AFTER", "700ms").start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    let remote = &outbound.remotes[0];
    remote.set_probe_status(503);
    remote.behave_where(None, Behaviour::busy(500, None), second_of(&actor));
    outbound.publish_many(0, &actor, 3).await.unwrap();
    // The last of them are half a second apart, well beyond the time at which the page is asked for.
    outbound.wait_arrivals(0, 10, SOON).await.unwrap();
    assert_eq!(outbound.depth("FED_PARKED").await, Some(0), "its page fails as well: it is ill");
    remote.set_probe_status(200);
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let [reason, ..] = given_up(&outbound).await;
    assert_eq!((reason.as_str(), remote.accepted()), ("poison", 2));
}
