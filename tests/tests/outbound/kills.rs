//! `kill -9` in mid-delivery: nothing is lost, the order is kept, and what comes twice is counted.

use std::time::Duration;

use fedstream_tests::outbound::Outbound;

use crate::SOON;

/// So that a kill finds something under way.
const SERVICE_TIME: Duration = Duration::from_millis(100);

/// Of each of three actors.
const EACH: usize = 25;

/// Three actors, each with a backlog; some of it delivered.
async fn under_way() -> Outbound {
    let outbound = Outbound::with(1).start().await.expect("all of it");
    outbound.remotes[0].set_service_time(SERVICE_TIME);
    for number in 1..=3 {
        let actor = outbound.actor(number).expect("a key");
        outbound.publish_many(0, &actor, EACH).await.expect("published");
    }
    outbound.wait_accepted(0, 10, SOON).await.expect("delivered");
    outbound
}

/// Ends with everything delivered; answers how many came twice.
async fn settled(outbound: &Outbound) -> usize {
    outbound.wait_empty("FED_OUTBOX", SOON).await.expect("delivered or parked");
    let verdict = outbound.verdict();
    verdict.assert_whole(3 * EACH);
    assert_eq!(outbound.depth("FED_PARKED").await, Some(0));
    println!("{} repeats", verdict.repeats);
    verdict.repeats
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_goes_on_where_it_was() {
    let mut outbound = under_way().await;
    let not_purged = outbound.kill_worker().await.unwrap();
    outbound.worker.start().await.unwrap();
    let repeats = settled(&outbound).await;
    assert!(repeats <= not_purged, "{repeats} repeats, where {not_purged} were taken and not purged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_worker_takes_a_killed_ones_lanes_over() {
    let mut outbound = under_way().await;
    let mut other = outbound.worker.twin().unwrap();
    other.start().await.unwrap();
    outbound.worker.kill9();
    settled(&outbound).await;
    assert_eq!(other.terminate(SOON).await.unwrap(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_loses_nothing() {
    let mut outbound = under_way().await;
    outbound.broker.kill9();
    let arrived = outbound.remotes[0].arrivals();
    outbound.broker.start_again().await.unwrap();
    outbound.wait_arrivals(0, arrived + 1, SOON).await.unwrap();
    let repeats = settled(&outbound).await;
    // Where the lease was lost meanwhile: what each window held, and as much that was taken and not purged. Not the lane.
    assert!(repeats <= 3 * 2 * 8, "{repeats} repeats");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_told_to_stop_finishes_what_is_under_way() {
    let mut outbound = under_way().await;
    assert_eq!(outbound.worker.terminate(SOON).await.unwrap(), Some(0));
    let arrived = outbound.remotes[0].arrivals();
    assert_eq!(outbound.remotes[0].in_progress(), 0);
    outbound.worker.start().await.unwrap();
    outbound.wait_arrivals(0, arrived + 1, SOON).await.unwrap();
    assert_eq!(settled(&outbound).await, 0, "nothing comes twice");
}
