//! An outage of the line until the lane is full, and what follows.

use std::time::{Duration, Instant};

use fedstream_tests::eventually::becomes_true;

use crate::activity::Mix;
use crate::flow::{self, Meter};
use crate::link::Line;
use crate::request::prepare;
use crate::results::Recovery;
use crate::rig::{Rig, Settings};
use crate::scenario::{OCEAN, SERVICE};
use crate::sender::{self, Pace};
use crate::usage::memory;

const WITHOUT: Duration = Duration::from_secs(3);
const FILLS: Duration = Duration::from_secs(120);

/// Sent beyond what the lane takes: the source holds them until there is room.
const BEYOND: usize = 100;

/// A lane that holds so many.
///
/// # Errors
/// A part fails, or the judge objects.
pub async fn run(lane_limit: usize, settings: &Settings) -> anyhow::Result<Recovery> {
    let mut settings = settings.clone();
    settings
        .entry("inbox-receiver".to_owned())
        .or_default()
        .push(("FED_LANE_MESSAGES_MAX".to_owned(), lane_limit.to_string()));
    let rig = Rig::start(1, &settings).await?;
    rig.set_line(Line::of(OCEAN));
    rig.instance.set_service_time(SERVICE);
    let loads = prepare(&rig.keys, 1, lane_limit + BEYOND, Mix::Usual)?;
    let no_network = flow::per_second(&flow::without_fedstream(&rig, &loads, rig.instance.addr(), WITHOUT).await?);

    rig.batches.break_off();
    let meter = Meter::start(&rig);
    let (load, front) = (loads[0].clone(), rig.front);
    let sending = tokio::task::spawn_blocking(move || sender::send(&load, front, Pace::Full, None));
    wait_full(&rig, lane_limit).await?;
    let full = memory(&rig.parts())?;
    rig.batches.restore();
    let restored = Instant::now();
    becomes_true("the line carries again", FILLS, || rig.instance.taken() > 0).await?;
    let first_after_s = restored.elapsed().as_secs_f64();

    let sent = sending.await?;
    let refused = sent.iter().map(|sent| sent.submission.tries() - 1).sum();
    let mut outcome = meter.finish(&rig, &loads, sent).await?;
    // What filled the lane: behind it comes what had to wait for its sender's pauses.
    outcome.records.truncate(lane_limit);
    let drained = outcome.per_second();
    eprintln!("  after an outage: no network {no_network:.0}, drained at {drained:.0}, {refused} refused");
    Ok(Recovery {
        lane_limit,
        activities: lane_limit + BEYOND,
        round_trip_ms: OCEAN.as_millis() as u64,
        service_ms: SERVICE.as_millis() as u64,
        no_network,
        drained,
        first_after_s,
        refused,
        full,
    })
}

async fn wait_full(rig: &Rig, lane_limit: usize) -> anyhow::Result<()> {
    let jetstream = rig.broker.jetstream().await?;
    let full = async || {
        let mut stream = jetstream.get_stream("FED_INBOX").await.ok()?;
        (stream.info().await.ok()?.state.messages >= lane_limit as u64).then_some(())
    };
    Ok(fedstream_tests::eventually::eventually("the lane is full", FILLS, full).await?)
}
