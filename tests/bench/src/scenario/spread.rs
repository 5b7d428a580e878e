//! The same rate over one lane, a hundred, a thousand: what a lane costs that has little to do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::activity::Mix;
use crate::flow::{self, Outcome};
use crate::link::Line;
use crate::request::prepare;
use crate::results::Spread;
use crate::rig::{Rig, Settings};
use crate::scenario::SERVICE;
use crate::sender::Pace;
use crate::stats::Latency;
use crate::usage::{Processor, memory};

/// All lanes together, a second: half of what one lane takes at 5 ms.
pub const RATE: f64 = 100.0;
const ROUND_TRIP: Duration = Duration::from_millis(100);
const REST: Duration = Duration::from_secs(10);

/// So many lanes, for as long as `lasts`.
///
/// # Errors
/// A part fails, or the judge objects.
pub async fn run(lanes: usize, lasts: Duration, settings: &Settings) -> anyhow::Result<Spread> {
    let rig = Rig::start(lanes, settings).await?;
    rig.set_line(Line::of(ROUND_TRIP));
    rig.instance.set_service_time(SERVICE);
    // Each lane once: leases are taken, readers stand, connections are made. What is measured is the daily work.
    at_rate(&rig, lanes, lanes).await?;
    let activities = (RATE * lasts.as_secs_f64()) as usize;
    let outcome = at_rate(&rig, lanes, activities).await?;
    let memory = memory(&rig.parts())?;
    let before = Processor::now(&rig.parts());
    tokio::time::sleep(REST).await;
    let rest = Processor::now(&rig.parts()).since(&before);
    let found = Spread {
        lanes,
        rate: RATE,
        activities,
        latency: Latency::of(latencies(&outcome)),
        spent: outcome.spent,
        rest,
        memory,
    };
    eprintln!(
        "  {lanes} lanes at {RATE}/s: {:.2} s a thousand, {:.3} cores at rest",
        found.spent.per_thousand_s(activities),
        found.rest.total_s() / found.rest.wall_s
    );
    Ok(found)
}

async fn at_rate(rig: &Rig, lanes: usize, activities: usize) -> anyhow::Result<Outcome> {
    let mut loads = prepare(&rig.keys, lanes, activities.div_ceil(lanes), Mix::Usual)?;
    let mut surplus = loads.iter().map(|load| load.requests.len()).sum::<usize>() - activities;
    for load in loads.iter_mut().rev() {
        let less = surplus.min(1);
        surplus -= less;
        load.requests.truncate(load.requests.len() - less);
    }
    let every = Duration::from_secs_f64(lanes as f64 / RATE);
    // One after the other, evenly: lane 0, lane 1, ..
    let first = |lane: usize| Duration::from_secs_f64(lane as f64 / RATE);
    flow::live(rig, &loads, |lane| Pace::Every { every, first: first(lane) }).await
}

fn latencies(outcome: &Outcome) -> Vec<Duration> {
    let due: HashMap<&str, Instant> = outcome.sent.iter().map(|sent| (sent.submission.id.as_str(), sent.due)).collect();
    let ends = outcome.records.iter().filter_map(|record| {
        let body: serde_json::Value = serde_json::from_slice(&record.wire[record.head..]).ok()?;
        let due = due.get(body["id"].as_str()?)?;
        Some(record.ended.saturating_duration_since(*due))
    });
    ends.collect()
}
