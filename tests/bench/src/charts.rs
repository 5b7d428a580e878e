//! The pictures.

use crate::plot::{Chart, Scale, Series};
use crate::results::{OneLane, Results};

/// File name and chart, of what was measured.
#[must_use]
pub fn of(results: &Results) -> Vec<(String, Chart)> {
    let mut charts = Vec::new();
    let mut services: Vec<u64> = results.one_lane.iter().map(|cell| cell.service_ms).collect();
    services.sort_unstable();
    services.dedup();
    for service in services {
        let cells: Vec<&OneLane> = results.one_lane.iter().filter(|cell| cell.service_ms == service).collect();
        // A point is no line.
        if cells.len() > 1 {
            charts.push((format!("throughput-service-{service}ms.svg"), throughput(service, &cells)));
        }
    }
    if results.steady.len() > 1 {
        charts.push(("latency.svg".to_owned(), latency(results)));
    }
    if results.spread.len() > 1 {
        charts.push(("processor-lanes.svg".to_owned(), processor(results)));
    }
    if results.lanes.len() > 1 {
        charts.push(("lanes.svg".to_owned(), lanes(results)));
    }
    charts
}

fn throughput(service: u64, cells: &[&OneLane]) -> Chart {
    let series = |name: &str, dashed, figure: fn(&OneLane) -> f64| Series {
        name: name.to_owned(),
        points: cells.iter().map(|cell| (cell.round_trip_ms as f64, figure(cell))).collect(),
        dashed,
    };
    Chart {
        title: format!("One lane, the instance needs {service} ms"),
        x: ("round trip, ms".to_owned(), Scale::Linear),
        y: ("activities a second".to_owned(), Scale::Decades),
        series: vec![
            series("no network", true, |cell| cell.no_network.median()),
            series("fedstream, backlog", false, |cell| cell.backlog.median()),
            series("fedstream, live", false, |cell| cell.live.median()),
            series("direct", false, |cell| cell.direct.median()),
        ],
    }
}

fn latency(results: &Results) -> Chart {
    let series = |name: &str, figure: fn(&crate::stats::Latency) -> f64| Series {
        name: name.to_owned(),
        points: results.steady.iter().map(|steady| (steady.rate, figure(&steady.latency))).collect(),
        dashed: false,
    };
    let floor =
        results.steady.iter().map(|steady| (steady.rate, steady.round_trip_ms as f64 / 2.0 + steady.service_ms as f64));
    Chart {
        title: "End to end at a steady rate, round trip 300 ms".to_owned(),
        x: ("activities a second".to_owned(), Scale::Linear),
        y: ("ms".to_owned(), Scale::Linear),
        series: vec![
            series("p99", |latency| latency.p99_ms),
            series("p50", |latency| latency.p50_ms),
            Series { name: "half a round trip".to_owned(), points: floor.collect(), dashed: true },
        ],
    }
}

fn processor(results: &Results) -> Chart {
    let series = |name: &str, part: &'static str| Series {
        name: name.to_owned(),
        points: results
            .spread
            .iter()
            .map(|spread| {
                let total = spread.spent.parts_s.iter().filter(|(name, _)| part.is_empty() || *name == part);
                (spread.lanes as f64, total.map(|(_, s)| s).sum::<f64>() / spread.activities as f64 * 1_000.0)
            })
            .collect(),
        dashed: false,
    };
    Chart {
        title: format!("Processor time at {} a second over all lanes", results.spread[0].rate),
        x: ("lanes".to_owned(), Scale::Decades),
        y: ("seconds for 1,000 activities".to_owned(), Scale::Linear),
        series: vec![
            series("all", ""),
            series("nats-server", "nats-server"),
            series("batch-sender", "batch-sender"),
            series("batch-receiver", "batch-receiver"),
            series("inbox-receiver", "inbox-receiver"),
        ],
    }
}

fn lanes(results: &Results) -> Chart {
    let series = |name: &str, dashed, figure: fn(&crate::results::Lanes) -> f64| Series {
        name: name.to_owned(),
        points: results.lanes.iter().map(|lanes| (lanes.lanes as f64, figure(lanes))).collect(),
        dashed,
    };
    Chart {
        title: "Sum over lanes, round trip 300 ms, service 5 ms".to_owned(),
        x: ("lanes".to_owned(), Scale::Decades),
        y: ("activities a second".to_owned(), Scale::Decades),
        series: vec![
            series("no network", true, |lanes| lanes.no_network.median()),
            series("fedstream", false, |lanes| lanes.backlog.median()),
        ],
    }
}
