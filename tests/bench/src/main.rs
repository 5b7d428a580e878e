//! `make bench`: what fedstream reaches, in tables and pictures, in `docs/performance/`.

mod activity;
mod charts;
mod flow;
mod goals;
mod http;
mod instance;
mod judge;
mod link;
mod machine;
mod nap;
mod page;
mod plot;
mod request;
mod results;
mod rig;
mod scenario;
mod sender;
mod stats;
mod usage;
mod window;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use fedstream_tests::broker;

use crate::machine::Machine;
use crate::results::Results;
use crate::rig::Settings;
use crate::scenario::one_lane::Plan;
use crate::scenario::{front, lanes, one_lane, recovery, spread, steady, volume, worse_line};

/// A thread for each sender: a thousand of them, and some.
const SENDERS_MAX: usize = 1_200;

/// Measures fedstream against what an instance takes and against what a sender has without it.
#[derive(Parser)]
struct Arguments {
    /// The short run, under three minutes: fewer cells, one repetition
    #[arg(long)]
    quick: bool,
    /// Only these: one_lane, lanes, steady, front, volume, spread, recovery, worse_line
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How often each cell is measured
    #[arg(long)]
    repetitions: Option<usize>,
    /// A variable of a service, as SERVICE.NAME=VALUE
    #[arg(long)]
    set: Vec<String>,
    /// Where results.json, the tables and the pictures go
    #[arg(long)]
    out: Option<PathBuf>,
    /// Makes tables and pictures again from results.json, and measures nothing
    #[arg(long)]
    render: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(SENDERS_MAX).build();
    let outcome = runtime.context("no runtime").and_then(|runtime| {
        let outcome = runtime.block_on(run(&arguments));
        // Connections of the rig may still be read by threads that nobody waits for.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let out = arguments.out.clone().unwrap_or_else(|| broker::repository().join("docs/performance"));
    let kept = out.join("results.json");
    let results = if arguments.render {
        serde_json::from_slice(&std::fs::read(&kept).with_context(|| kept.display().to_string())?)?
    } else {
        measure(arguments).await?
    };
    std::fs::create_dir_all(&out)?;
    std::fs::write(&kept, serde_json::to_string_pretty(&results)? + "\n")?;
    std::fs::write(out.join("results.md"), page::of(&results))?;
    for (name, chart) in charts::of(&results) {
        std::fs::write(out.join(name), chart.svg())?;
    }
    println!("{}", page::summary(&results));
    eprintln!("{}", out.join("results.md").display());
    Ok(())
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Results> {
    let quick = arguments.quick;
    let settings = settings(&arguments.set)?;
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    let mut results = Results { machine: Machine::here(), quick, settings: settings.clone(), ..Results::default() };
    let pick = |short: u64, long: u64| Duration::from_secs(if quick { short } else { long });
    let repetitions = arguments.repetitions.unwrap_or(if quick { 1 } else { 3 });

    if wanted("one_lane") {
        began("one lane");
        let (idle, cells) =
            one_lane::run(&if quick { short_plan() } else { long_plan() }, repetitions, &settings).await?;
        (results.idle, results.one_lane) = (Some(idle), cells);
    }
    if wanted("lanes") {
        began("many lanes");
        for (count, each) in if quick { vec![(8, 200)] } else { vec![(2, 800), (8, 600), (64, 200)] } {
            results.lanes.push(lanes::run(count, each, repetitions, &settings).await?);
        }
    }
    if wanted("steady") {
        began("steady rates");
        let rates: &[f64] = if quick { &[20.0] } else { &[2.0, 5.0, 20.0, 50.0, 100.0, 150.0] };
        results.steady = steady::run(rates, pick(10, 20), &settings).await?;
    }
    if wanted("front") {
        began("the front door");
        results.front.push(front::run(1, if quick { 400 } else { 1_000 }, if quick { 2 } else { 5 }, &settings).await?);
        results.front.push(front::run(32, if quick { 40 } else { 100 }, if quick { 2 } else { 5 }, &settings).await?);
    }
    if wanted("volume") {
        began("bytes over the line");
        results.bytes = volume::run(if quick { 500 } else { 3_000 }, &settings).await?;
    }
    if wanted("spread") {
        began("the same rate over more lanes");
        for count in if quick { vec![1, 100] } else { vec![1, 10, 100, 1_000] } {
            results.spread.push(spread::run(count, pick(8, 30), &settings).await?);
        }
    }
    if wanted("recovery") {
        began("an outage");
        results.recovery = Some(recovery::run(if quick { 800 } else { 5_000 }, &settings).await?);
    }
    if wanted("worse_line") && !quick {
        began("worse lines");
        results.lines = worse_line::run(1_500, pick(10, 10), &settings).await?;
    }
    Ok(results)
}

fn short_plan() -> Plan {
    Plan {
        cells: vec![(0, 5), (300, 5), (300, 0)],
        activities: |service_ms| if service_ms == 5 { 600 } else { 1_500 },
        without: Duration::from_secs(2),
        all_backlogs: false,
    }
}

fn long_plan() -> Plan {
    let round_trips = [0, 100, 300];
    let cells = [5, 1, 0].into_iter().flat_map(|service| round_trips.map(|round_trip| (round_trip, service)));
    Plan {
        cells: cells.collect(),
        activities: |service_ms| if service_ms == 5 { 1_500 } else { 4_000 },
        without: Duration::from_secs(4),
        all_backlogs: true,
    }
}

fn settings(words: &[String]) -> anyhow::Result<Settings> {
    let mut settings = Settings::new();
    for word in words {
        let named = word.split_once('.').and_then(|(service, rest)| Some((service, rest.split_once('=')?)));
        let (service, (name, value)) = named.with_context(|| format!("--set {word}: SERVICE.NAME=VALUE"))?;
        settings.entry(service.to_owned()).or_default().push((name.to_owned(), value.to_owned()));
    }
    Ok(settings)
}

/// A line for each scenario, with how long it has been since the last one.
fn began(what: &str) {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    eprintln!("{:>4} s  {what}", start.elapsed().as_secs());
}
