//! Many remotes at a time: one that is dead, slow or busy costs the others nothing, and is met gently when it is back.

use std::time::Duration;

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::outbound::Outbound;

use crate::SOON;

const REMOTES: usize = 20;
const DEAD: std::ops::Range<usize> = 0..3;
const SLOW: std::ops::Range<usize> = 3..5;
const BUSY: usize = 5;
const WELL: std::ops::Range<usize> = 6..REMOTES;

/// Of each of two actors, to each remote.
const EACH: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fourteen_of_twenty_remotes_get_everything_while_the_others_are_dead_slow_or_busy() {
    let mut outbound = Outbound::with(REMOTES).env("FED_DELIVERY_TIMEOUT", "30s").start().await.unwrap();
    let actors = [outbound.actor(1).unwrap(), outbound.actor(2).unwrap()];
    for remote in DEAD {
        outbound.remotes[remote].go_down().await;
    }
    for remote in SLOW {
        outbound.remotes[remote].behave(Behaviour::Hang); // as slow as can be: for as long as the test wants
    }
    outbound.remotes[BUSY].behave(Behaviour::busy(429, Some(1)));
    for actor in &actors {
        // The dead ones first: whoever waited for them would be seen.
        for remote in 0..REMOTES {
            outbound.publish_many(remote, actor, EACH).await.unwrap();
        }
    }
    for remote in WELL {
        outbound.wait_accepted(remote, actors.len() * EACH, SOON).await.unwrap();
    }
    let left = |remote: usize| outbound.remotes[remote].accepted();
    assert_eq!((0..WELL.start).map(left).sum::<usize>(), 0, "all of it while the six had taken nothing");

    for remote in DEAD {
        outbound.remotes[remote].come_up().await.unwrap();
    }
    for remote in SLOW.chain([BUSY]) {
        outbound.remotes[remote].behave_well();
    }
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    outbound.verdict().assert_whole(actors.len() * EACH * REMOTES);
    assert_eq!(outbound.depth("FED_PARKED").await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_remote_is_probed_by_one_request_at_a_time_and_not_flooded_when_it_is_back() {
    let outbound = Outbound::with(1)
        .env("FED_BREAKER_FAILURES", "3")
        .env("FED_BREAKER_MIN", "1s")
        .env("FED_BREAKER_MAX", "1s")
        .env("FED_RAMP_PAUSE", "200ms");
    let outbound = outbound.start().await.unwrap();
    let remote = &outbound.remotes[0];
    remote.behave(Behaviour::busy(503, None));
    remote.set_service_time(Duration::from_millis(50)); // so that two at a time would be seen
    for number in 1..=8 {
        let actor = outbound.actor(number).unwrap();
        outbound.publish_many(0, &actor, 5).await.unwrap();
    }
    // Each of four lanes may have been at it when the breaker opened; what comes after that is a probe.
    let probes = 12;
    outbound.wait_arrivals(0, probes, SOON).await.unwrap();
    let seen = remote.seen();
    let overlapping: Vec<_> = seen[8..probes].iter().map(|seen| seen.overlaps).collect();
    assert_eq!(overlapping, [false; 4], "one probe at a time");
    let apart = seen[probes - 1].arrived - seen[8].arrived;
    assert!(apart >= Duration::from_millis(1_000), "three pauses of half a second at least: {apart:?}");

    remote.behave_well();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    outbound.verdict().assert_whole(40);
    let back: Vec<_> = remote.seen().into_iter().filter(|seen| seen.accepted()).collect();
    let first_six = back[5].arrived - back[0].arrived;
    assert!(first_six >= Duration::from_millis(300), "a pause before each of the first: {first_six:?}");
}
