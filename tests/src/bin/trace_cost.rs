//! What tracing costs: the same traffic through the same pipeline without traces, with 1 % and with all of them, in turn
//! and several times over, so that whatever else the machine does falls on all three alike.
//!
//! CPU seconds are the services' own, from `/proc`; the endpoint that takes the spans is this process, and is not counted.
//! Run a release build: `cargo build --release -p fedstream-tests -p inbox-receiver -p batch-sender -p batch-receiver &&
//! target/release/trace_cost`.
//!
//!   TRACE_COST_EACH     activities of each of eight lanes (500)
//!   TRACE_COST_ROUNDS   rounds (3)

use std::time::{Duration, Instant};

use anyhow::Context;
use fedstream_tests::message::Message;
use fedstream_tests::pipeline::{Builder, Pipeline, Which};
use fedstream_tests::{broker, http1};
use tokio::task::JoinSet;

const SOURCES: [&str; 8] = ["a.test", "b.test", "c.test", "d.test", "e.test", "f.test", "g.test", "h.test"];

const SERVICES: [Which; 3] = [Which::InboxReceiver, Which::BatchSender, Which::BatchReceiver];

/// The kernel's unit of CPU time in `/proc/<pid>/stat`: a hundredth of a second, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

const PATIENCE: Duration = Duration::from_secs(120);

/// The last spans leave within the default delay of 5 s; the work of that counts too.
const AFTERWARDS: Duration = Duration::from_secs(6);

/// How much is traced.
#[derive(Clone, Copy)]
enum Mode {
    None,
    OnePercent,
    All,
}

/// One run.
struct Run {
    per_second: f64,
    /// Seconds of each service, in the order of [`SERVICES`].
    cpu_s: [f64; 3],
    spans: usize,
    lost: f64,
}

impl Mode {
    const ALL: [Self; 3] = [Self::None, Self::OnePercent, Self::All];

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::OnePercent => "1 %",
            Self::All => "all",
        }
    }

    fn set_up(self, builder: Builder) -> Builder {
        let env = |builder: Builder, name: &str, value: &str| {
            SERVICES.into_iter().fold(builder, |builder, which| builder.env(which, name, value))
        };
        // As it runs by default: the harness is in more of a hurry.
        let delayed = |builder: Builder| env(builder.traced(), "OTEL_BSP_SCHEDULE_DELAY", "5000");
        match self {
            Self::None => builder,
            Self::All => delayed(builder),
            Self::OnePercent => {
                let builder = env(delayed(builder), "OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
                env(builder, "OTEL_TRACES_SAMPLER_ARG", "0.01")
            }
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (each, rounds) = (setting("TRACE_COST_EACH", 500)?, setting("TRACE_COST_ROUNDS", 3)?);
    let total = each * SOURCES.len();
    println!("{total} activities on {} lanes, {rounds} rounds of each in turn", SOURCES.len());
    let mut runs: [Vec<Run>; 3] = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..rounds {
        for turn in 0..3 {
            // Another one begins each round: what comes first finds a colder machine.
            let at = (round + turn) % 3;
            let run = measure(Mode::ALL[at], each).await?;
            let cpu: f64 = run.cpu_s.iter().sum();
            println!("  {:<5} {:>7.0} /s   {cpu:>6.2} CPU s", Mode::ALL[at].name(), run.per_second);
            runs[at].push(run);
        }
    }
    print(&runs, total);
    Ok(())
}

async fn measure(mode: Mode, each: usize) -> anyhow::Result<Run> {
    // What the disk does is the same for all: left out.
    let broker = broker::Options { sync_always: false, ..broker::Options::default() };
    let builder = SOURCES.into_iter().fold(Pipeline::builder().broker(broker), Builder::source);
    let mut pipeline = mode.set_up(builder).start().await?;
    let mut senders = Vec::new();
    for source in SOURCES {
        let mut sender = pipeline.sender(source, "home.test");
        let messages: Vec<Message> = (0..each)
            .map(|_| {
                let activity = sender.compose();
                sender.signed(&activity) // before the clock runs: RSA is the senders' work
            })
            .collect();
        senders.push((sender, messages));
    }
    let before = cpu(&mut pipeline)?;
    let start = Instant::now();
    let mut sending = JoinSet::new();
    for (mut sender, messages) in senders {
        sending.spawn(async move {
            for message in messages {
                sender.send_verbatim(&message).await;
            }
        });
    }
    let total = each * SOURCES.len();
    pipeline.instance().wait_accepted(total, PATIENCE).await?;
    let took = start.elapsed();
    sending.abort_all();
    tokio::time::sleep(AFTERWARDS).await;
    let after = cpu(&mut pipeline)?;
    let mut lost = 0.0;
    for which in SERVICES {
        let page = http1::get(pipeline.service(which).admin(), "/metrics").await?;
        lost += dropped(&String::from_utf8_lossy(&page.body));
    }
    Ok(Run {
        per_second: count(total) / took.as_secs_f64(),
        cpu_s: std::array::from_fn(|at| after[at] - before[at]),
        spans: pipeline.traces.as_ref().map_or(0, |traces| traces.spans().len()),
        lost,
    })
}

/// CPU seconds that each service has used.
fn cpu(pipeline: &mut Pipeline) -> anyhow::Result<[f64; 3]> {
    let mut used = [0.0; 3];
    for (used, which) in used.iter_mut().zip(SERVICES) {
        let pid = pipeline.service(which).pid().context("it runs")?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // After the name in brackets: utime and stime are the 14th and 15th of all.
        let (_, fields) = stat.rsplit_once(')').context("a name in brackets")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        *used = ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND;
    }
    Ok(used)
}

/// Spans that were lost, by `/metrics`.
fn dropped(page: &str) -> f64 {
    let lines = page.lines().filter(|line| line.starts_with("fedstream_telemetry_dropped_total{"));
    lines
        .filter(|line| line.contains("signal=\"traces\""))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn print(runs: &[Vec<Run>; 3], total: usize) {
    let thousands = count(total) / 1000.0;
    println!("\nmedians; CPU in milliseconds for 1,000 activities");
    println!(
        "  {:<6}{:>9}{:>10}{:>10}{:>10}{:>9}{:>8}{:>8}{:>7}",
        "traces", "/s", "front", "sender", "receiver", "all", "", "spans", "lost"
    );
    let none = median(runs[0].iter().map(|run| run.cpu_s.iter().sum()));
    for (mode, runs) in Mode::ALL.iter().zip(runs) {
        let ms = |at: usize| median(runs.iter().map(|run| run.cpu_s[at])) * 1000.0 / thousands;
        let all = median(runs.iter().map(|run| run.cpu_s.iter().sum()));
        println!(
            "  {:<6}{:>9.0}{:>10.0}{:>10.0}{:>10.0}{:>9.0}{:>+7.1}%{:>8.0}{:>7.0}",
            mode.name(),
            median(runs.iter().map(|run| run.per_second)),
            ms(0),
            ms(1),
            ms(2),
            all * 1000.0 / thousands,
            (all / none - 1.0) * 100.0,
            median(runs.iter().map(|run| count(run.spans))),
            median(runs.iter().map(|run| run.lost)),
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

fn setting(name: &str, default: usize) -> anyhow::Result<usize> {
    std::env::var(name).map_or(Ok(default), |value| value.parse().with_context(|| format!("{name}={value}")))
}
