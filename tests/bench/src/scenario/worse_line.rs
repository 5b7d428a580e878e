//! Lines that are more than a delay: a window that opens slowly, losses, little width.

use std::time::Duration;

use crate::activity::Mix;
use crate::flow;
use crate::link::Line;
use crate::request::prepare;
use crate::results::WorseLine;
use crate::rig::{Rig, Settings};
use crate::scenario::{OCEAN, SERVICE, steady};

const WITHOUT: Duration = Duration::from_secs(3);

/// Each line, with so many activities from a filled lane and for as long as `lasts` at 20 a second.
///
/// # Errors
/// A part fails, or the judge objects.
pub async fn run(activities: usize, lasts: Duration, settings: &Settings) -> anyhow::Result<Vec<WorseLine>> {
    let mut rig = Rig::start(1, settings).await?;
    rig.instance.set_service_time(SERVICE);
    let slow = Line { slow_start: true, ..Line::of(OCEAN) };
    let lines = [
        ("a delay alone", Line::of(OCEAN)),
        ("with slow start", slow),
        ("with slow start and 0.1 % of segments lost", Line { loss: 0.001, ..slow }),
        ("with slow start and 1 % of segments lost", Line { loss: 0.01, ..slow }),
        ("with slow start and 10 Mbit/s", Line { bits_per_second: 10_000_000, ..slow }),
        ("with slow start and 2 Mbit/s", Line { bits_per_second: 2_000_000, ..slow }),
    ];
    let mut all = Vec::new();
    for (name, line) in lines {
        rig.set_line(line);
        let loads = prepare(&rig.keys, 1, activities, Mix::Usual)?;
        let alone = flow::without_fedstream(&rig, &loads, rig.instance.addr(), WITHOUT).await?;
        let drained = flow::backlog(&mut rig, &loads).await?;
        let steady = steady::at_rate(&rig, 20.0, (20.0 * lasts.as_secs_f64()) as usize).await?;
        let found = WorseLine {
            line: name.to_owned(),
            service_ms: SERVICE.as_millis() as u64,
            no_network: flow::per_second(&alone),
            backlog: drained.per_second(),
            latency: steady.latency,
        };
        eprintln!(
            "  300 ms {name}: {:.0} of {:.0}, p99 {:.0} ms",
            found.backlog, found.no_network, found.latency.p99_ms
        );
        all.push(found);
    }
    Ok(all)
}
