//! One lane: what an instance takes over each distance, with fedstream and without.

use std::time::Duration;

use crate::activity::Mix;
use crate::flow;
use crate::link::Line;
use crate::request::prepare;
use crate::results::{Idle, OneLane};
use crate::rig::{Rig, Settings};
use crate::stats::Figures;
use crate::usage::{Processor, memory};

/// Idle memory is read when the start is over: buffers of the start are given back, first timers have run.
const SETTLES: Duration = Duration::from_secs(5);

/// What to run.
pub struct Plan {
    /// Round trip and service time, in milliseconds.
    pub cells: Vec<(u64, u64)>,
    /// Activities in a run, by service time.
    pub activities: fn(u64) -> usize,
    /// How long "direct" and "no network" go on. At 300 ms 4 s are thirteen activities, each the same as the next.
    pub without: Duration,
    /// Whether filled lanes are run for every cell, or only where the instance is quicker than a disk.
    pub all_backlogs: bool,
}

/// Memory at rest, and every cell.
///
/// # Errors
/// A part fails, or the judge objects.
pub async fn run(plan: &Plan, repetitions: usize, settings: &Settings) -> anyhow::Result<(Idle, Vec<OneLane>)> {
    let mut rig = Rig::start(1, settings).await?;
    let mut idle = at_rest(&rig).await?;
    let mut cells: Vec<OneLane> = Vec::new();
    for repetition in 0..repetitions {
        for (number, (round_trip_ms, service_ms)) in plan.cells.iter().copied().enumerate() {
            if repetition == 0 {
                cells.push(empty(round_trip_ms, service_ms, (plan.activities)(service_ms)));
            }
            let cell = &mut cells[number];
            once(&mut rig, cell, plan).await?;
            idle.activities += cell.activities;
            eprintln!(
                "  one lane, {round_trip_ms} ms, service {service_ms} ms: direct {:.1}, no network {:.1}, live {:.1}, backlog {:.1}",
                cell.direct.median(),
                cell.no_network.median(),
                cell.live.median(),
                cell.backlog.median()
            );
        }
    }
    tokio::time::sleep(SETTLES).await;
    idle.after = memory(&rig.parts())?;
    Ok((idle, cells))
}

async fn at_rest(rig: &Rig) -> anyhow::Result<Idle> {
    tokio::time::sleep(SETTLES).await;
    let before = Processor::now(&rig.parts());
    let fresh = memory(&rig.parts())?;
    tokio::time::sleep(SETTLES).await;
    let processor = Processor::now(&rig.parts()).since(&before);
    Ok(Idle { fresh, after: Default::default(), activities: 0, processor })
}

fn empty(round_trip_ms: u64, service_ms: u64, activities: usize) -> OneLane {
    let none = Figures::default;
    OneLane {
        round_trip_ms,
        service_ms,
        activities,
        direct: none(),
        no_network: none(),
        live: none(),
        backlog: none(),
        accepted: none(),
        live_cpu_s: none(),
        backlog_cpu_s: none(),
        spent: Default::default(),
        first_ms: none(),
    }
}

/// Direct, no network, live, backlog: one after the other, so that what else the machine does hits them alike.
async fn once(rig: &mut Rig, cell: &mut OneLane, plan: &Plan) -> anyhow::Result<()> {
    rig.set_line(Line::of(Duration::from_millis(cell.round_trip_ms)));
    rig.instance.set_service_time(Duration::from_millis(cell.service_ms));
    let count = cell.activities;

    let loads = prepare(&rig.keys, 1, count, Mix::Usual)?;
    let direct = flow::without_fedstream(rig, &loads, rig.direct.addr(), plan.without).await?;
    cell.direct.0.push(flow::per_second(&direct));
    let alone = flow::without_fedstream(rig, &loads, rig.instance.addr(), plan.without).await?;
    cell.no_network.0.push(flow::per_second(&alone));

    let live = flow::live(rig, &loads, |_| crate::sender::Pace::Full).await?;
    cell.live.0.push(live.per_second());
    cell.live_cpu_s.0.push(live.spent.per_thousand_s(count));
    cell.first_ms.0.push(live.first_after.as_secs_f64() * 1e3);
    let sending: Duration = live.sent.iter().map(|sent| sent.answered_after).sum();
    cell.accepted.0.push(count as f64 / sending.as_secs_f64());
    cell.spent = live.spent;

    if plan.all_backlogs || cell.service_ms < 5 {
        let loads = prepare(&rig.keys, 1, count, Mix::Usual)?;
        let backlog = flow::backlog(rig, &loads).await?;
        cell.backlog.0.push(backlog.per_second());
        cell.backlog_cpu_s.0.push(backlog.spent.per_thousand_s(count));
        cell.spent = backlog.spent;
    }
    Ok(())
}
