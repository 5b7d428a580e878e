//! A user's history for a new follower: from the application's outbox, oldest first, each activity once, through a crash.

use std::time::Duration;

use fedstream_tests::outbound::{Outbound, Outboxes};

use crate::SOON;

/// Activities of the history; `BACKFILL_ACTIVITIES=5000` for the long run.
fn length() -> usize {
    std::env::var("BACKFILL_ACTIVITIES").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

/// As many on a page as the harness' application shows.
const PAGE: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_that_is_killed_half_way_goes_on_where_it_was() {
    let length = length();
    let outboxes = Outboxes::start(length).await.unwrap();
    let outbound =
        Outbound::with(1).env("FED_OUTBOX_URL_TEMPLATE", outboxes.template()).env("FED_BACKFILL_PAUSE", "10ms");
    let mut outbound = outbound.start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    let remote = outbound.remotes[0].addr().to_string();
    outbound.remotes[0].set_service_time(Duration::from_millis(5));
    outbound.sent.enter(&remote, &actor, Outboxes::history(&actor, length));
    outbound.request_backfill(0, &actor).await.unwrap();
    outbound.wait_accepted(0, length / 2, SOON * 10).await.unwrap();
    let not_purged = outbound.kill_worker().await.unwrap();
    outbound.worker.start().await.unwrap();
    outbound.wait_empty("FED_BACKFILL", SOON * 10).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let verdict = outbound.verdict();
    verdict.assert_whole(length);
    println!("{} repeats, {} pages read", verdict.repeats, outboxes.pages_read());
    assert!(verdict.repeats <= not_purged, "each at most once, but for {not_purged} of the crash: {verdict:?}");
    // Each page as itself, and once more for the newer one, which goes on after what stands there; again those of the crash, and
    // the oldest by which the walk began.
    assert!(outboxes.pages_read() <= 2 * length.div_ceil(PAGE) + 4, "{} pages", outboxes.pages_read());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_live_does_not_wait_for_a_backfill() {
    let outboxes = Outboxes::start(200).await.unwrap();
    let outbound = Outbound::with(1)
        .env("FED_OUTBOX_URL_TEMPLATE", outboxes.template())
        .env("FED_BACKFILL_PAUSE", "10ms")
        .env("FED_BACKFILL_WATERMARK", "5");
    let outbound = outbound.start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    outbound.remotes[0].set_service_time(Duration::from_millis(20));
    outbound.request_backfill(0, &actor).await.unwrap();
    outbound.wait_accepted(0, 20, SOON).await.unwrap();
    let live = outbound.publish(&outbound.jetstream().await.unwrap(), 0, &actor).await.unwrap();
    let before = outbound.remotes[0].accepted();
    outbound.wait_empty("FED_BACKFILL", SOON).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let ids: Vec<_> = outbound.remotes[0].seen().into_iter().map(|seen| seen.id).collect();
    let at = ids.iter().position(|id| *id == live).expect("it arrived");
    assert!(at <= before + 10, "it stood behind {} of the history", at - before);
    assert_eq!(ids.len(), 201);
    assert_eq!(outbound.verdict().lost, Vec::<String>::new());
}
