//! What is to be reached, as issue 6 has it, and whether it is.

use crate::results::{OneLane, Results};
use crate::usage::Memory;

/// What the existing batcher needs for a thousand activities, all parts and broker: 7 to 8 s.
pub const BATCHER_CPU_S: f64 = 7.5;

/// One goal.
pub struct Goal {
    /// In words.
    pub what: String,
    /// The figure that is to be reached, in words.
    pub wanted: String,
    /// What was measured, in words.
    pub measured: String,
    /// Whether it is reached.
    pub met: bool,
}

/// Every goal that there is a measurement for.
#[must_use]
pub fn of(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    for cell in &results.one_lane {
        goals.push(one_lane(cell));
    }
    for lanes in &results.lanes {
        let (share, fairness) = (lanes.backlog.over(&lanes.no_network).median(), lanes.fairness.min());
        goals.push(Goal {
            what: format!("{} lanes, {} ms, service {} ms", lanes.lanes, lanes.round_trip_ms, lanes.service_ms),
            wanted: "grows until a core is full; no lane below half its share".to_owned(),
            measured: format!(
                "{:.0}/s, {} of the limit, {:.2} cores; slowest lane {}",
                lanes.backlog.median(),
                percent(share),
                lanes.cores.median(),
                percent(fairness)
            ),
            met: (share >= 0.9 || lanes.cores.median() >= 0.95) && fairness >= 0.5,
        });
    }
    if let Some(steady) = results.steady.iter().find(|steady| (steady.rate - 20.0).abs() < 0.1) {
        let (round_trip, service) = (steady.round_trip_ms as f64, steady.service_ms as f64);
        let (p50, p99) = (round_trip / 2.0 + service + 10.0, round_trip * 2.0);
        goals.push(Goal {
            what: format!("20/s at {round_trip} ms, end to end"),
            wanted: format!("p50 {p50:.0} ms, p99 {p99:.0} ms at most"),
            measured: format!("p50 {:.0} ms, p99 {:.0} ms", steady.latency.p50_ms, steady.latency.p99_ms),
            met: steady.latency.p50_ms <= p50 && steady.latency.p99_ms <= p99,
        });
    }
    for front in &results.front {
        let share = front.front.over(&front.bare).median();
        goals.push(Goal {
            what: format!("front, sync always, {} in flight", front.in_flight),
            wanted: "70 % of a bare publisher at least".to_owned(),
            measured: format!("{:.0}/s of {:.0}/s, {}", front.front.median(), front.bare.median(), percent(share)),
            met: share >= 0.7,
        });
    }
    if let Some(cell) =
        results.one_lane.iter().filter(|cell| cell.service_ms == 5).max_by_key(|cell| cell.round_trip_ms)
    {
        let spent = cell.live_cpu_s.median();
        goals.push(Goal {
            what: "processor time for 1,000 activities, all parts and broker".to_owned(),
            wanted: "0.8 s at most".to_owned(),
            measured: format!("{spent:.2} s, {} of the existing batcher's", percent(spent / BATCHER_CPU_S)),
            met: spent <= 0.8,
        });
    }
    if let Some(idle) = &results.idle {
        let mb = |parts: &std::collections::BTreeMap<String, Memory>| {
            parts.values().map(|m| m.rss_kib).sum::<u64>() as f64 * 1024.0 / 1e6
        };
        let (fresh, after) = (mb(&idle.fresh), mb(&idle.after));
        goals.push(Goal {
            what: "memory idle, all parts and broker".to_owned(),
            wanted: "60 MB at most".to_owned(),
            measured: format!("{fresh:.0} MB after the start, {after:.0} MB after {} activities", idle.activities),
            met: fresh <= 60.0,
        });
    }
    if let Some(bytes) = results.bytes.first() {
        let share = bytes.line.iter().sum::<u64>() as f64 / bytes.raw as f64;
        goals.push(Goal {
            what: format!("bytes over the line, {}", bytes.mix),
            wanted: "a third of the requests at most".to_owned(),
            measured: format!(
                "{:.0} of {:.0} bytes, {}",
                bytes.line.iter().sum::<u64>() as f64 / bytes.activities as f64,
                bytes.raw as f64 / bytes.activities as f64,
                percent(share)
            ),
            met: share <= 1.0 / 3.0,
        });
    }
    if let [one, .., most] = results.spread.as_slice() {
        let ratio = most.spent.per_thousand_s(most.activities) / one.spent.per_thousand_s(one.activities);
        goals.push(Goal {
            what: format!("processor time an activity, {} lanes against {}, the same rate", most.lanes, one.lanes),
            wanted: "1.5 times at most".to_owned(),
            measured: format!("{ratio:.2} times"),
            met: ratio <= 1.5,
        });
    }
    if let Some(recovery) = &results.recovery {
        let share = recovery.drained / recovery.no_network;
        goals.push(Goal {
            what: format!("after an outage with {} waiting", recovery.lane_limit),
            wanted: "drains at 95 % of the limit, in order".to_owned(),
            measured: format!("{:.0}/s of {:.0}/s, {}", recovery.drained, recovery.no_network, percent(share)),
            met: share >= 0.95,
        });
    }
    goals
}

fn one_lane(cell: &OneLane) -> Goal {
    // What the lane can do: from a filled one where the source is held up by the disk, not by fedstream.
    let reached = if cell.service_ms >= 5 || cell.backlog.0.is_empty() { &cell.live } else { &cell.backlog };
    let (share, wanted) = (reached.over(&cell.no_network).median(), if cell.service_ms >= 5 { 0.95 } else { 0.9 });
    Goal {
        what: format!("one lane, {} ms, service {} ms", cell.round_trip_ms, cell.service_ms),
        wanted: format!("{} of no network at least", percent(wanted)),
        measured: format!("{:.0}/s of {:.0}/s, {}", reached.median(), cell.no_network.median(), percent(share)),
        met: share >= wanted,
    }
}

/// `95 %`.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}
