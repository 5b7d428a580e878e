//! What only people can put right: actors without a key, actors whose signature a remote never takes, inboxes that send everything
//! elsewhere. All of a lane are waited for together and once, nobody else of it waits for them one by one; and where the
//! remote takes nothing at all, they are not to blame.

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::eventually;
use fedstream_tests::outbound::{Outbound, partition, put};

use crate::SOON;

/// With the time that each of so many would be waited for, were they waited for one by one, a test is over.
const OBSTACLES: usize = 25;
const WAIT: &str = "3s";

/// More attempts than a delivery has in that time: all but the first four of them come a quarter of a second after the one
/// before, or later.
const ATTEMPTS: usize = 18;

/// Actors of one lane, and one of another.
fn of_a_lane<const N: usize>(outbound: &Outbound) -> ([String; N], String) {
    let first = outbound.actor(1).expect("a key");
    let is_beside = |actor: &String| partition(actor) == partition(&first);
    let actors = || (1..).map(|number| outbound.actor(number).expect("a key"));
    let mut beside = actors().filter(is_beside);
    let other = actors().find(|actor| !is_beside(actor)).expect("there are several partitions");
    (std::array::from_fn(|_| beside.next().expect("there are four partitions only")), other)
}

/// Publishes what others have for this remote until everything is settled.
async fn settle_while_others_pass(outbound: &Outbound, remote: usize, other: &str) {
    let jetstream = outbound.jetstream().await.expect("JetStream");
    let settled = async || {
        outbound.publish(&jetstream, remote, other).await.ok()?;
        (outbound.depth("FED_PARKED").await? == OBSTACLES as u64).then_some(())
    };
    eventually("they are given up", SOON, settled).await.expect("parked");
    outbound.wait_empty("FED_OUTBOX", SOON).await.expect("an empty stream"); // copies are parked while the lane goes on
}

/// Reason and status of each parked copy, without repeats.
async fn parked(outbound: &Outbound) -> Vec<[String; 2]> {
    let copies = outbound.messages("FED_PARKED").await.expect("FED_PARKED");
    let header = |name: &str, of: usize| copies[of].headers.get(name).map(ToString::to_string).unwrap_or_default();
    let mut said: Vec<_> =
        (0..copies.len()).map(|of| ["Fed-Parked-Reason", "Fed-Parked-Status"].map(|name| header(name, of))).collect();
    said.dedup();
    said
}

/// Whether the good actor's, behind all of them, was taken.
fn is_taken(outbound: &Outbound, actor: &str) -> bool {
    outbound.remotes[0].seen().iter().any(|seen| seen.id.contains(actor) && seen.accepted())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_actors_that_a_remote_never_takes_hold_one_behind_them_up_for_one_wait_only() {
    let outbound = Outbound::with(1).env("FED_KEY_WAIT", WAIT).start().await.unwrap();
    let ([bad @ .., good], other) = of_a_lane::<4>(&outbound);
    let of = bad.clone();
    let is_bad = move |id: &str| of.iter().any(|actor| id.contains(actor));
    outbound.remotes[0].behave_where(None, Behaviour::rejects(401, ""), move |seen| is_bad(&seen.id));
    for number in 0..OBSTACLES {
        outbound.publish_many(0, &bad[number % bad.len()], 1).await.unwrap();
    }
    outbound.publish_many(0, &good, 1).await.unwrap();
    // Nobody has seen it take anything: it may be a remote that takes nobody's.
    outbound.wait_arrivals(0, 2 * ATTEMPTS, SOON).await.unwrap(); // in both forms of signature
    assert_eq!(outbound.depth("FED_PARKED").await, Some(0));
    settle_while_others_pass(&outbound, 0, &other).await;
    assert_eq!(parked(&outbound).await, [["rejected".to_owned(), "401".to_owned()]]);
    assert!(is_taken(&outbound, &good));
    assert_eq!(outbound.depth("FED_EVENTS").await, Some(OBSTACLES as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inboxes_that_send_everything_elsewhere_are_given_up_where_another_inbox_is_taken() {
    let outbound = Outbound::with(1).env("FED_KEY_WAIT", WAIT).start().await.unwrap();
    let ([actor], other) = of_a_lane(&outbound);
    let remote = &outbound.remotes[0];
    remote.behave_where(None, Behaviour::rejects(302, ""), |seen| seen.id.starts_with("moved"));
    let jetstream = outbound.jetstream().await.unwrap();
    for number in 0..OBSTACLES {
        let inbox = format!("http://{}/users/{number}/inbox", remote.addr());
        let activity = serde_json::json!({ "id": format!("moved {number}"), "type": "Like" });
        put(&jetstream, &inbox, &actor, activity).await.unwrap();
    }
    outbound.publish_many(0, &actor, 1).await.unwrap();
    outbound.wait_arrivals(0, ATTEMPTS, SOON).await.unwrap();
    assert_eq!(outbound.depth("FED_PARKED").await, Some(0));
    settle_while_others_pass(&outbound, 0, &other).await;
    assert_eq!(parked(&outbound).await, [["rejected".to_owned(), "302".to_owned()]]);
    assert!(is_taken(&outbound, &actor));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_whose_keys_never_come_hold_one_behind_them_up_for_one_wait_only() {
    let outbound = Outbound::with(1).env("FED_KEY_WAIT", WAIT).start().await.unwrap();
    let ([keyless @ .., good], other) = of_a_lane::<4>(&outbound);
    for actor in &keyless {
        outbound.set_key(actor, false).unwrap();
    }
    for number in 0..OBSTACLES {
        outbound.publish_many(0, &keyless[number % keyless.len()], 1).await.unwrap();
    }
    outbound.publish_many(0, &good, 1).await.unwrap();
    settle_while_others_pass(&outbound, 0, &other).await;
    assert_eq!(parked(&outbound).await, [["rejected".to_owned(), String::new()]]);
    assert!(is_taken(&outbound, &good));
    // A key is there again: so are its actor's deliveries.
    outbound.set_key(&keyless[0], true).unwrap();
    outbound.publish_many(0, &keyless[0], 1).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    assert!(is_taken(&outbound, &keyless[0]));
}
