//! A dead destination and full lanes: the stream holds them, and no service more of them than its settings say.
//!
//! Every lane is filled until the front refuses for the lane's limit. First the destination refuses connections. Then it
//! is well for a moment, so that every window opens and is in the batch-receiver's hands, and says nothing any more in the
//! middle of that. Then the kernel is asked how much memory each process ever had.
//!
//! A few small lanes here; `make test-memory` fills twenty of 5,000.

use std::time::Duration;

use async_nats::jetstream;
use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::eventually;
use fedstream_tests::http1;
use fedstream_tests::memory::{Mib, Resident};
use fedstream_tests::pipeline::{INBOX_STREAM, Pipeline, Which};
use futures::{StreamExt, stream};
use tokio::task::JoinSet;

/// Thousands of signatures and 100,000 publishes, on two busy cores.
const FILLED: Duration = Duration::from_secs(600);

/// For anything else.
const SOON: Duration = Duration::from_secs(60);

/// The note's text: it is in the body twice, so an activity has about 8 KB with its headers.
const TEXT_BYTES: usize = 3600;
const ACTIVITY_BYTES: u64 = 8 * 1024;

// The settings that the bounds are made of. All are the defaults but FED_HELD_BYTES: so that twenty lanes reach it.
const BATCH_ITEMS: u64 = 100;
const BATCH_BYTES: u64 = 1 << 20;
const WINDOW_ITEMS: u64 = 400;
const WINDOW_BYTES: u64 = 4 << 20;
const HELD_BYTES: u64 = 32 << 20;
const INFLIGHT_BYTES: u64 = 256 << 20;

/// A reader has `max_batch` messages in the broker's library, and one that waits to be taken.
const READ_AHEAD_BYTES: u64 = (64 + 1) * ACTIVITY_BYTES;

/// What a window holds: what is in flight, and one batch that waits.
fn window_bytes() -> u64 {
    (WINDOW_BYTES + BATCH_BYTES).min((WINDOW_ITEMS + BATCH_ITEMS) * ACTIVITY_BYTES)
}

/// All windows together: beyond FED_HELD_BYTES a lane reads only when it holds nothing.
fn held_by_sender(lanes: u64) -> u64 {
    (lanes * window_bytes()).min(HELD_BYTES + lanes * ACTIVITY_BYTES) + lanes * READ_AHEAD_BYTES
}

/// What is in flight, inflated: each activity is a part of its batch's one buffer.
fn held_by_receiver(lanes: u64) -> u64 {
    (lanes * WINDOW_BYTES.min(WINDOW_ITEMS * ACTIVITY_BYTES)).min(INFLIGHT_BYTES)
}

/// Each held byte may be there three times for a moment: as it is held, in the batch that is being encoded or was just
/// inflated, and in the compressed one or a buffer of the connection.
const COPIES: u64 = 3;

/// Code, threads, connections and the allocator's own, in KiB: what a service needs before it holds anything is measured
/// and taken off, and this is for what comes with a first use (TLS tables, zstd contexts, arenas of the allocator).
const FIRST_USE_KIB: u64 = 48 * 1024;

/// What an instance takes for an activity that lets a lane's window fill, and does not empty the lane.
const SLOW: Duration = Duration::from_millis(10);

/// Activities of a lane that are signed and sent.
const THROUGH_THE_FRONT: u64 = 250;

/// Of one lane, by the test itself.
const COPIES_IN_FLIGHT: usize = 64;

/// The broker's cache of what was just written is its own business (two minutes of blocks of 8 MiB a stream); it must
/// not grow with the lanes' contents, which lie on disk.
const BROKER_KIB: u64 = 512 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_lanes_to_a_dead_destination_leave_every_part_within_its_settings() {
    let lanes = from_env("MEMORY_LANES", 6);
    let each = from_env("MEMORY_LANE_MESSAGES", 300);
    let mut pipeline = builder(lanes, each).start().await.unwrap();
    let idle = measured(&pipeline);
    pipeline.instance_mut().go_down().await;

    fill(&pipeline, lanes, each).await;
    failing(&pipeline, lanes).await;
    pipeline.instance().set_service_time(SLOW);
    pipeline.instance_mut().come_up().await.unwrap();
    under_way(&pipeline, lanes, each).await;
    pipeline.instance().behave(Behaviour::Hang);
    let hangs = async || (pipeline.instance().in_progress() as u64 == lanes).then_some(());
    eventually("every lane has one activity at the instance", SOON, hangs).await.unwrap();
    failing(&pipeline, lanes).await;

    let bytes = lanes * each * ACTIVITY_BYTES;
    println!("{lanes} lanes of {each}, about {} in all", Mib(bytes / 1024));
    println!("{:<16} {:>10} {:>10} {:>10} {:>10}  bounded by", "part", "idle", "now", "peak", "bound");
    let mut beyond = Vec::new();
    for ((part, idle), (_, full)) in idle.iter().zip(measured(&pipeline)) {
        let (bound, why) = bound(part, lanes, idle.peak_kib);
        println!(
            "{part:<16} {:>10} {:>10} {:>10} {:>10}  {why}",
            Mib(idle.now_kib),
            Mib(full.now_kib),
            Mib(full.peak_kib),
            Mib(bound)
        );
        if full.peak_kib > bound {
            beyond.push(*part);
        }
    }
    assert!(beyond.is_empty(), "above what the settings allow: {beyond:?}");
}

/// In KiB, and what it is made of.
fn bound(part: &str, lanes: u64, idle_kib: u64) -> (u64, &'static str) {
    let holding = |bytes: u64| idle_kib + FIRST_USE_KIB + bytes * COPIES / 1024;
    match part {
        "batch-sender" => {
            (holding(held_by_sender(lanes)), "FED_WINDOW_*, FED_HELD_BYTES; max_batch of each lane's reader")
        }
        "batch-receiver" => (holding(held_by_receiver(lanes)), "FED_INFLIGHT_BYTES; a lane sends a window"),
        // One activity of each lane at a time.
        "inbox-receiver" => {
            (holding(lanes * ACTIVITY_BYTES), "FED_INFLIGHT_BYTES; a sender has one activity under way")
        }
        _ => (BROKER_KIB, "its write cache; lanes lie on disk"),
    }
}

fn builder(lanes: u64, each: u64) -> fedstream_tests::pipeline::Builder {
    // Not synced: it is memory that is measured, and filling takes a tenth of the time.
    let broker = fedstream_tests::broker::Options { sync_always: false, ..Default::default() };
    let builder = (0..lanes).fold(Pipeline::builder(), |builder, lane| builder.source(&source(lane)));
    builder
        .broker(broker)
        .env(Which::InboxReceiver, "FED_LANE_MESSAGES_MAX", &each.to_string())
        // Full is what is to be seen here, not old.
        .env(Which::InboxReceiver, "FED_LANE_AGE_MAX", "0")
        .env(Which::BatchSender, "HTTP_BATCH_SIZE", &BATCH_ITEMS.to_string())
        .env(Which::BatchSender, "FED_BATCH_BYTES", &BATCH_BYTES.to_string())
        .env(Which::BatchSender, "FED_WINDOW_ITEMS", &WINDOW_ITEMS.to_string())
        .env(Which::BatchSender, "FED_WINDOW_BYTES", &WINDOW_BYTES.to_string())
        .env(Which::BatchSender, "FED_HELD_BYTES", &HELD_BYTES.to_string())
        .env(Which::BatchReceiver, "FED_INFLIGHT_BYTES", &INFLIGHT_BYTES.to_string())
        .env(Which::BatchReceiver, "FED_DELIVERY_TIMEOUT", "3s")
}

fn source(lane: u64) -> String {
    format!("source-{lane}.test")
}

/// Each lane by a sender of its own, until the front says that it is full. Beyond [`THROUGH_THE_FRONT`] the test copies what
/// lies in the lane: 100,000 signatures would take as long as the rest of the suite, and the front holds no activity longer
/// than it takes to store it.
async fn fill(pipeline: &Pipeline, lanes: u64, each: u64) {
    let jetstream = pipeline.broker.jetstream().await.expect("a client");
    let mut filling = JoinSet::new();
    for lane in 0..lanes {
        let mut sender = pipeline.sender(&source(lane), pipeline.destination(0));
        sender.text_bytes = TEXT_BYTES;
        let jetstream = jetstream.clone();
        filling.spawn(async move {
            let mut stored = 0;
            loop {
                if stored == THROUGH_THE_FRONT {
                    stored += copy(&jetstream, lane, each.saturating_sub(THROUGH_THE_FRONT + 1)).await;
                }
                let activity = sender.compose();
                let answer = sender.try_once(&activity).await.expect("the front answers");
                match answer.status {
                    204 => stored += 1,
                    503 => return (stored, String::from_utf8_lossy(&answer.body).into_owned()),
                    other => panic!("{other}: {:?}", answer.body),
                }
            }
        });
    }
    let filled = tokio::time::timeout(FILLED, filling.join_all()).await.expect("the lanes are filled in time");
    for (stored, refusal) in filled {
        assert_eq!(stored, each, "the limit is exact: {refusal}");
        assert!(refusal.contains("lane-full"), "{refusal}");
    }
}

/// The lane's last message so many times again, each under an id of its own.
async fn copy(jetstream: &jetstream::Context, lane: u64, count: u64) -> u64 {
    let subject = format!("fed.inbox.home_test.source-{lane}_test");
    let lanes = jetstream.get_stream(INBOX_STREAM).await.expect("the stream");
    let last = lanes.get_last_raw_message_by_subject(&subject).await.expect("the lane has a message");
    let sent = |number: u64| {
        let mut headers = async_nats::HeaderMap::new();
        headers.append("Nats-Msg-Id", format!("copy-{lane}-{number}"));
        for (name, values) in last.headers.iter().filter(|(name, _)| name.to_string() != "Nats-Msg-Id") {
            values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
        }
        let publish = jetstream.publish_with_headers(subject.clone(), headers, last.payload.clone());
        async { publish.await.expect("a connection").await.expect("room in the lane") }
    };
    let acks = stream::iter((0..count).map(sent)).buffer_unordered(COPIES_IN_FLIGHT);
    acks.for_each(|_stored| std::future::ready(())).await;
    count
}

/// Waits until each lane has failed, and failed again: a full window has gone out and come back.
async fn failing(pipeline: &Pipeline, lanes: u64) {
    let failed = async || {
        let page = http1::get(pipeline.batch_sender.admin(), "/lanes").await.ok()?.json();
        let shown = page["lanes"].as_object()?;
        let failing = shown.values().filter(|lane| lane["failures"].as_u64() >= Some(2)).count() as u64;
        (failing == lanes).then_some(())
    };
    eventually("every lane fails", SOON, failed).await.expect("nothing is delivered");
}

/// Waits until half of what may be in flight is, over all lanes: they take turns where FED_HELD_BYTES is the bound.
async fn under_way(pipeline: &Pipeline, lanes: u64, each: u64) {
    let most = (lanes * WINDOW_ITEMS.min(each)).min(HELD_BYTES / ACTIVITY_BYTES);
    let in_flight = async || {
        let page = http1::get(pipeline.batch_sender.admin(), "/lanes").await.ok()?.json();
        let lanes = page["lanes"].as_object()?;
        let in_flight: u64 = lanes.values().filter_map(|lane| lane["in_flight"].as_u64()).sum();
        (in_flight >= most / 2).then_some(())
    };
    eventually("windows are full again", SOON, in_flight).await.expect("POSTs side by side come back");
}

fn measured(pipeline: &Pipeline) -> Vec<(&'static str, Resident)> {
    let services = [&pipeline.inbox_receiver, &pipeline.batch_sender, &pipeline.batch_receiver];
    let pids = services.into_iter().zip(["inbox-receiver", "batch-sender", "batch-receiver"]);
    let pids = pids.map(|(service, name)| (name, service.pid())).chain([("nats-server", pipeline.broker.pid())]);
    pids.map(|(name, pid)| (name, Resident::of(pid.expect("it runs")).expect("a Linux"))).collect()
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
