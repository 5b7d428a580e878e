//! A steady rate on one lane: how long an activity takes from its sender to the end of its work at the instance.

use std::time::Duration;

use crate::activity::Mix;
use crate::flow;
use crate::judge;
use crate::link::Line;
use crate::request::prepare;
use crate::results::Steady;
use crate::rig::{Rig, Settings};
use crate::scenario::{OCEAN, SERVICE};
use crate::sender::Pace;
use crate::stats::Latency;

/// Runs before the first rate, so that the lane is known and its connections stand: at 20 a second, for a second.
const WARM: usize = 20;

/// Each rate for as long as `lasts`.
///
/// # Errors
/// A part fails, or the judge objects.
pub async fn run(rates: &[f64], lasts: Duration, settings: &Settings) -> anyhow::Result<Vec<Steady>> {
    let rig = Rig::start(1, settings).await?;
    rig.set_line(Line::of(OCEAN));
    rig.instance.set_service_time(SERVICE);
    at_rate(&rig, 20.0, WARM).await?;
    let mut all = Vec::new();
    for rate in rates {
        let steady = at_rate(&rig, *rate, (rate * lasts.as_secs_f64()) as usize).await?;
        eprintln!("  {rate}/s: p50 {:.0} ms, p99 {:.0} ms", steady.latency.p50_ms, steady.latency.p99_ms);
        all.push(steady);
    }
    Ok(all)
}

/// So many at this rate, on a rig whose line and instance are set.
///
/// # Errors
/// As [`run`].
pub async fn at_rate(rig: &Rig, rate: f64, activities: usize) -> anyhow::Result<Steady> {
    let loads = prepare(&rig.keys, 1, activities, Mix::Usual)?;
    let pace = Pace::Every { every: Duration::from_secs_f64(1.0 / rate), first: Duration::ZERO };
    let outcome = flow::live(rig, &loads, |_| pace).await?;
    Ok(Steady {
        rate,
        round_trip_ms: OCEAN.as_millis() as u64,
        service_ms: SERVICE.as_millis() as u64,
        latency: Latency::of(judge::latencies(&outcome.sent, &outcome.records)),
        activities,
        spent: outcome.spent,
    })
}
