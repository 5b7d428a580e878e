//! Many lanes at once: the sum grows until the processor is full, and none starves.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::activity::Mix;
use crate::flow;
use crate::instance::Record;
use crate::link::Line;
use crate::request::prepare;
use crate::results::Lanes;
use crate::rig::{Rig, Settings};
use crate::scenario::{OCEAN, SERVICE};
use crate::stats::Figures;

const WITHOUT: Duration = Duration::from_secs(3);

/// So many lanes with so many activities each, filled and drained.
///
/// # Errors
/// A part fails, or the judge objects.
pub async fn run(lanes: usize, each: usize, repetitions: usize, settings: &Settings) -> anyhow::Result<Lanes> {
    let mut rig = Rig::start(lanes, settings).await?;
    rig.set_line(Line::of(OCEAN));
    rig.instance.set_service_time(SERVICE);
    let mut found = Lanes {
        lanes,
        round_trip_ms: OCEAN.as_millis() as u64,
        service_ms: SERVICE.as_millis() as u64,
        no_network: Figures::default(),
        backlog: Figures::default(),
        fairness: Figures::default(),
        cores: Figures::default(),
        spent: Default::default(),
        activities: lanes * each,
    };
    for _ in 0..repetitions {
        let loads = prepare(&rig.keys, lanes, each, Mix::Usual)?;
        let alone = flow::without_fedstream(&rig, &loads, rig.instance.addr(), WITHOUT).await?;
        found.no_network.0.push(flow::per_second(&alone));
        let drained = flow::backlog(&mut rig, &loads).await?;
        found.backlog.0.push(drained.per_second());
        found.fairness.0.push(fairness(&drained.records));
        found.cores.0.push(drained.spent.total_s() / drained.spent.wall_s);
        found.spent = drained.spent;
        eprintln!(
            "  {lanes} lanes: no network {:.0}, backlog {:.0}",
            found.no_network.median(),
            found.backlog.median()
        );
    }
    Ok(found)
}

/// The slowest lane by the mean one, until the first of them is done.
fn fairness(records: &[Record]) -> f64 {
    let mut lanes: HashMap<&[u8], Vec<Instant>> = HashMap::new();
    for record in records {
        let key = crate::http::field(&record.wire[..record.head], b"user-agent").unwrap_or_default();
        lanes.entry(key).or_default().push(record.ended);
    }
    let Some(first_done) = lanes.values().filter_map(|ends| ends.iter().max()).min().copied() else { return f64::NAN };
    let done = |ends: &Vec<Instant>| ends.iter().filter(|end| **end <= first_done).count() as f64;
    let mean = lanes.values().map(done).sum::<f64>() / lanes.len() as f64;
    lanes.values().map(done).fold(f64::INFINITY, f64::min) / mean
}
