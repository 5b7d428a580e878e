//! What is counted, against what was sent, refused and seen at the instance.

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::instance::Seen;
use fedstream_tests::metrics_page::MetricsPage;
use fedstream_tests::pipeline::Which;

use crate::{LANE, SOON, one_lane, until};

const OF_LANE: (&str, &str) = ("lane", LANE);
const POSTS: &str = "fedstream_lane_posts_total";
const BATCHES: &str = "fedstream_replay_batches_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_is_delivered_and_counted_once_in_every_part() {
    const SENT: usize = 40;
    let pipeline = one_lane().start().await.unwrap();
    let mut sender = pipeline.sender("a.test", "home.test");
    sender.send_many(SENT - 1).await;
    let again = sender.compose();
    let message = sender.signed(&again);
    assert_eq!(sender.send_verbatim(&message).await.status, 204);
    assert_eq!(sender.send_verbatim(&message).await.status, 204, "a duplicate");
    pipeline.instance().wait_accepted(SENT, SOON).await.unwrap();
    pipeline.wait_trimmed(SOON).await.unwrap();

    let sent = SENT as f64;
    let front = until(&pipeline.inbox_receiver, "fedstream_front_inflight_bytes", &[], 0.0).await;
    assert_eq!(front.sum("fedstream_front_accepted_total", &[OF_LANE, ("result", "stored")]), Some(sent));
    assert_eq!(front.sum("fedstream_front_accepted_total", &[OF_LANE, ("result", "duplicate")]), Some(1.0));
    assert_eq!(front.sum("fedstream_front_refused_total", &[]), Some(0.0), "there, so that the first one is seen");
    let published = &[("messaging_system", "nats"), ("messaging_operation_name", "publish")];
    assert_eq!(front.sum("messaging_client_operation_duration_seconds_count", published), Some(sent + 1.0));
    let answered = &[("http_request_method", "POST"), ("http_response_status_code", "204")];
    assert_eq!(front.sum("http_server_request_duration_seconds_count", answered), Some(sent + 1.0));
    assert_eq!(front.sum("fedstream_broker_connected", &[]), Some(1.0));
    assert_eq!(front.sum("fedstream_broker_unsynced", &[]), Some(1.0), "this broker does not sync each write");

    let outcomes = "fedstream_lane_outcomes_total";
    let near = until(&pipeline.batch_sender, outcomes, &[OF_LANE, ("outcome", "delivered")], sent).await;
    assert_eq!(near.sum(outcomes, &[]), Some(sent));
    assert_eq!(near.sum("fedstream_lane_latency_seconds_count", &[OF_LANE]), Some(sent));
    assert!(near.sum("fedstream_lane_latency_seconds_sum", &[OF_LANE]).is_some_and(|sum| sum > 0.0));
    assert_eq!(near.sum("fedstream_lane_parked_total", &[]), Some(0.0), "there, so that it is seen to grow");
    assert_eq!(near.sum("fedstream_lanes_owned", &[]), Some(1.0));
    assert_eq!(near.sum("fedstream_members", &[]), Some(1.0));
    assert_eq!(near.sum("fedstream_lease_changes_total", &[("change", "taken")]), Some(1.0));
    assert_eq!(near.sum("fedstream_lease_changes_total", &[("change", "lost")]), Some(0.0));
    assert_eq!(near.sum("fedstream_batch_items_sum", &[]), Some(sent));
    assert!(near.sum("fedstream_batch_size_bytes_sum", &[]).is_some_and(|bytes| bytes > 0.0));
    for gauge in ["fedstream_lane_depth", "fedstream_lane_in_flight", "fedstream_lane_held", "fedstream_lane_trouble"] {
        until(&pipeline.batch_sender, gauge, &[OF_LANE], 0.0).await;
    }

    let far = until(&pipeline.batch_receiver, "fedstream_replay_active", &[], 0.0).await;
    assert_eq!(far.sum("fedstream_replay_outcomes_total", &[OF_LANE, ("outcome", "delivered")]), Some(sent));
    assert_eq!(far.sum("fedstream_replay_outcomes_total", &[]), Some(sent));
    assert_eq!(far.sum("fedstream_replay_held_bytes", &[]), Some(0.0));
    assert_eq!(
        far.sum("http_client_request_duration_seconds_count", &[("http_response_status_code", "200")]),
        Some(sent)
    );
    // The first POST of a process is empty, and asks for the gate.
    let taken: f64 = ["accepted", "empty"].iter().filter_map(|result| far.sum(BATCHES, &[("result", result)])).sum();
    let near = until(&pipeline.batch_sender, POSTS, &[OF_LANE, ("end", "done")], taken).await;
    let sent = far.sum(BATCHES, &[]).zip(far.sum(BATCHES, &[("result", "asked")])).map(|(all, asked)| all - asked);
    for measured in ["fedstream_batch_duration_seconds_count", "fedstream_batch_items_count"] {
        assert_eq!(near.sum(measured, &[]), sent, "as many as were sent: {measured}");
    }
    for page in [front, near, far] {
        assert_eq!(page.sum("fedstream_build", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
        assert_eq!(page.sum("fedstream_telemetry_dropped_total", &[]), Some(0.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_counted_by_its_reason_and_names_no_host_that_nobody_configured() {
    let pipeline = one_lane()
        .env(Which::InboxReceiver, "FED_LANE_MESSAGES_MAX", "5")
        .without(Which::BatchSender)
        .without(Which::BatchReceiver)
        .start()
        .await
        .unwrap();
    let mut sender = pipeline.sender("a.test", "home.test");
    sender.send_many(5).await;
    for _ in 0..3 {
        let activity = sender.compose();
        assert_eq!(sender.try_once(&activity).await.unwrap().status, 503);
    }
    let mut stranger = pipeline.sender("stranger.test", "home.test");
    let mut elsewhere = pipeline.sender("a.test", "elsewhere.test");
    for _ in 0..2 {
        let (from_a_stranger, to_elsewhere) = (stranger.compose(), elsewhere.compose());
        assert_eq!(stranger.try_once(&from_a_stranger).await.unwrap().status, 503);
        assert_eq!(elsewhere.try_once(&to_elsewhere).await.unwrap().status, 503);
    }
    let refused = "fedstream_front_refused_total";
    let page = until(&pipeline.inbox_receiver, refused, &[], 7.0).await;
    assert_eq!(page.sum(refused, &[("reason", "lane-full"), OF_LANE]), Some(3.0));
    assert_eq!(page.sum(refused, &[("reason", "source-not-configured")]), Some(2.0));
    assert_eq!(page.sum(refused, &[("reason", "destination-not-configured")]), Some(2.0));
    assert_eq!(page.sum("fedstream_front_accepted_total", &[]), Some(5.0));
    let full = &[("error_type", "lane-full")];
    assert_eq!(page.sum("messaging_client_operation_duration_seconds_count", full), Some(3.0));
    assert_eq!(page.values_of("lane").into_iter().collect::<Vec<_>>(), [LANE, "other"]);
    for sample in &page.samples {
        let told = format!("{sample:?}");
        assert!(!told.contains("stranger") && !told.contains("elsewhere") && !told.contains("http://"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_instance_refuses_or_fails_on_is_counted_by_what_became_of_it() {
    let pipeline = one_lane().start().await.unwrap();
    let third = |seen: &Seen| seen.message.body.windows(13).any(|part| part == b"<p>comment 3 ");
    pipeline.instance().behave_where(None, Behaviour::rejects(400, "no"), third);
    pipeline.instance().behave_where(Some(2), Behaviour::busy(503, None), |_| true);
    pipeline.sender("a.test", "home.test").send_many(6).await;
    pipeline.instance().wait_accepted(5, SOON).await.unwrap();
    pipeline.wait_trimmed(SOON).await.unwrap();

    let parked = "fedstream_lane_parked_total";
    let near = until(&pipeline.batch_sender, parked, &[OF_LANE, ("reason", "rejected")], 1.0).await;
    assert_eq!(near.sum(parked, &[]), Some(1.0));
    let outcome = |outcome| near.sum("fedstream_lane_outcomes_total", &[OF_LANE, ("outcome", outcome)]);
    // An outcome whose line was lost, on a POST that was called back after the 503, is heard as `duplicate`.
    let taken: f64 = ["delivered", "duplicate"].into_iter().filter_map(outcome).sum();
    assert_eq!((taken, outcome("rejected")), (5.0, Some(1.0)));
    assert!(near.sum(POSTS, &[OF_LANE, ("end", "retry")]).is_some_and(|ends| (1.0..=2.0).contains(&ends)), "{near}");
    let far = MetricsPage::of(&pipeline.batch_receiver).await.unwrap();
    let outcome = |outcome| far.sum("fedstream_replay_outcomes_total", &[OF_LANE, ("outcome", outcome)]);
    assert_eq!((outcome("delivered"), outcome("rejected"), outcome("retry")), (Some(5.0), Some(1.0), Some(2.0)));
    for (status, count) in [("200", 5.0), ("400", 1.0), ("503", 2.0)] {
        let answered = far.sum("http_client_request_duration_seconds_count", &[("http_response_status_code", status)]);
        assert_eq!(answered, Some(count), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_went_and_came_back_is_seen() {
    let mut pipeline = one_lane().without(Which::BatchReceiver).start().await.unwrap();
    pipeline.broker.stop().await.unwrap();
    until(&pipeline.inbox_receiver, "fedstream_broker_connected", &[], 0.0).await;
    until(&pipeline.batch_sender, "fedstream_broker_connected", &[], 0.0).await;
    pipeline.broker.start_again().await.unwrap();
    for service in [&pipeline.inbox_receiver, &pipeline.batch_sender] {
        let back = until(service, "fedstream_broker_connected", &[], 1.0).await;
        assert!(back.sum("fedstream_broker_reconnects_total", &[]).is_some());
        crate::page(service, "it counts", |page| page.sum("fedstream_broker_reconnects_total", &[]) >= Some(1.0)).await;
    }
}
