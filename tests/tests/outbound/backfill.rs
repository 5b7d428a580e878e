//! A user's history for a new follower: from the application's outbox, oldest first, each activity once, through a crash.

use std::time::{Duration, Instant};

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::outbound::{Outbound, Outboxes};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::SOON;

/// Activities of the history; `BACKFILL_ACTIVITIES=5000` for the long run.
fn length() -> usize {
    std::env::var("BACKFILL_ACTIVITIES").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

/// As many on a page as the harness' application shows.
const PAGE: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_that_is_killed_half_way_goes_on_where_it_was() {
    let (length, began) = (length(), Instant::now());
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
    // Each page once, and one that is empty, behind the newest; again that of the crash, and one that was in hand for 10 s.
    let aged = usize::try_from(began.elapsed().as_secs() / 10).unwrap();
    let once = length.div_ceil(PAGE) + 1;
    assert!(outboxes.pages_read() <= once + 1 + aged, "{} pages, and {once} are enough", outboxes.pages_read());
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_that_was_parked_meanwhile_sends_what_was_there_when_it_was_asked_for() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let outboxes = Outboxes::start_dated(6, HOUR).await.unwrap();
    let outbound = Outbound::with(1).env("FED_OUTBOX_URL_TEMPLATE", outboxes.template()).start().await.unwrap();
    // When the older three were there; the other three went out live since.
    let at = (OffsetDateTime::now_utc() - HOUR * 5 / 2).format(&Rfc3339).unwrap();
    let actor = outbound.actor(1).unwrap();
    outbound.request_backfill_with(0, &actor, &[("Fed-Requested-At", &at), ("Fed-Redrive", "7")]).await.unwrap();
    outbound.wait_empty("FED_BACKFILL", SOON).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let seen = outbound.remotes[0].seen();
    let ids: Vec<_> = seen.iter().map(|seen| seen.id.clone()).collect();
    assert_eq!(ids, Outboxes::history(&actor, 3).collect::<Vec<_>>());
    for seen in &seen {
        let activity: Value = serde_json::from_slice(&seen.message.body).unwrap();
        assert_eq!(activity["@context"], Outboxes::context(), "that of the page, on which it has none");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_clock_is_behind_leaves_nothing_of_the_history_out() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let outboxes = Outboxes::start_dated(6, HOUR).await.unwrap();
    let outbound = Outbound::with(1).env("FED_OUTBOX_URL_TEMPLATE", outboxes.template()).start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    outbound.request_backfill_with(0, &actor, &[("Fed-Requested-At", "2020-01-01T00:00:00Z")]).await.unwrap();
    outbound.wait_empty("FED_BACKFILL", SOON).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let ids: Vec<_> = outbound.remotes[0].seen().into_iter().map(|seen| seen.id).collect();
    assert_eq!(ids, Outboxes::history(&actor, 6).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_that_is_given_up_is_parked_and_the_application_hears_of_it() {
    let nowhere = "http://127.0.0.1:9/users/{owner}/outbox";
    let outbound = Outbound::with(1).env("FED_OUTBOX_URL_TEMPLATE", nowhere).env("FED_DELIVERY_HORIZON", "3s");
    let outbound = outbound.start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    outbound.request_backfill(0, &actor).await.unwrap();
    outbound.wait_empty("FED_BACKFILL", SOON).await.unwrap();
    assert_eq!((outbound.depth("FED_PARKED").await, outbound.depth("FED_EVENTS").await), (Some(1), Some(1)));
    let told: Value = serde_json::from_slice(&outbound.messages("FED_EVENTS").await.unwrap()[0].payload).unwrap();
    let inbox = format!("http://{}/inbox", outbound.remotes[0].addr());
    assert_eq!(
        (&told["type"], &told["inbox"], &told["signing_actor_id"]),
        (&json!("DeliveryFailed"), &json!(inbox), &json!(actor))
    );
    let again = json!({ "type": "BackfillRequested", "owner_user_id": actor, "follower_inbox_url": inbox });
    assert_eq!(told["activity"], again, "the event that asks for it once more");
    let error = told["error"].as_str().unwrap_or_default();
    assert!(error.starts_with("the backfill failed: given up after ") && error.contains("can't be read"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_for_an_inbox_that_is_gone_ends_there_and_not_activity_by_activity() {
    const LENGTH: usize = 300;
    let outboxes = Outboxes::start(LENGTH).await.unwrap();
    let outbound = Outbound::with(1)
        .env("FED_OUTBOX_URL_TEMPLATE", outboxes.template())
        .env("FED_BACKFILL_PAUSE", "10ms")
        .env("FED_BACKFILL_WATERMARK", "5");
    let outbound = outbound.start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    outbound.remotes[0].behave(Behaviour::rejects(410, "gone"));
    outbound.request_backfill(0, &actor).await.unwrap();
    outbound.wait_empty("FED_BACKFILL", SOON).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    // Those that say so, and what the lane held by then: a watermark or two.
    let requests = outbound.remotes[0].arrivals();
    assert!((3..=30).contains(&requests), "{requests} requests");
    // One of each, and one of the whole, which asks for it again: what was not sent is not done.
    assert_eq!(outbound.depth("FED_PARKED").await, Some(requests as u64 + 1));
    let told = outbound.messages("FED_EVENTS").await.unwrap();
    let told: Vec<Value> = told.iter().map(|told| serde_json::from_slice(&told.payload).unwrap()).collect();
    let of_whole: Vec<_> = told.iter().filter(|told| told["activity"]["type"] == "BackfillRequested").collect();
    assert_eq!((told.len(), of_whole.len()), (requests + 1, 1));
    let error = of_whole[0]["error"].as_str().unwrap_or_default();
    assert!(error.starts_with("the backfill failed: ") && error.contains("404 or 410"), "{error}");
}
