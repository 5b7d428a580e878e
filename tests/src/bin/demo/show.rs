//! The demonstration: 1,000 activities through the pipeline, then the same two senders without it, over the same ocean.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use fedstream_tests::check::Report;
use fedstream_tests::ledger::{Ledger, Submission};
use fedstream_tests::link::Link;
use fedstream_tests::otlp_sink::Span;
use fedstream_tests::pipeline::Pipeline;
use fedstream_tests::sender::Sender;
use fedstream_tests::waterfall::Waterfall;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::table::{Side, print};

const DESTINATION: &str = "home.test";
const SOURCES: [&str; 2] = ["busy.test", "bigger.test"];
const ACTIVITIES_EACH: usize = 500;

/// Europe to Australia and back is about 300 ms.
const ONE_WAY: Duration = Duration::from_millis(150);

/// A Lemmy takes 9 to 12 ms; half of it, so that the pipeline and not the instance is what one looks at.
const SERVICE_TIME: Duration = Duration::from_millis(5);

const SAMPLE: Duration = Duration::from_secs(20);

/// For the last spans: they leave every 100 ms, and were all ended seconds ago.
const SPANS_PATIENCE: Duration = Duration::from_secs(5);

/// Both parts together stay below 90 s.
const PATIENCE: Duration = Duration::from_secs(50);

/// Runs it all; `false` when something went wrong with an activity.
pub async fn demo() -> anyhow::Result<bool> {
    println!(
        "starting the broker, the three services, a link of {} ms round trip and an instance",
        2 * ONE_WAY.as_millis()
    );
    let mut builder = Pipeline::builder().destination(DESTINATION).one_way(ONE_WAY).traced();
    for source in SOURCES {
        builder = builder.source(source);
    }
    let pipeline = builder.start().await?;
    pipeline.instance().set_service_time(SERVICE_TIME);

    println!("{} instances post {ACTIVITIES_EACH} signed activities each, one after the other", SOURCES.len());
    let report = through_the_pipeline(&pipeline).await?;
    let ours = Side::of(&report, &pipeline.ledger.submissions(), &pipeline.instance().seen());

    println!("the same two senders without fedstream, straight over the same link, for {} s", SAMPLE.as_secs());
    let theirs = one_at_a_time(&pipeline).await?;
    print(&ours, &theirs, &report);
    show_the_slowest(&pipeline).await;
    let all = report.delivered == SOURCES.len() * ACTIVITIES_EACH;
    if !all || !report.is_clean() {
        eprintln!("\nthis is not as promised:\n{report}");
        for service in [&pipeline.inbox_receiver, &pipeline.batch_sender, &pipeline.batch_receiver] {
            eprintln!("{}", service.log_tail());
        }
    }
    Ok(all && report.is_clean())
}

/// The services' spans came in meanwhile.
async fn show_the_slowest(pipeline: &Pipeline) {
    let Some(traces) = &pipeline.traces else { return };
    let total = SOURCES.len() * ACTIVITIES_EACH;
    let delivered = |spans: &[Span]| spans.iter().filter(|span| span.get("fedstream.outcome") == "delivered").count();
    // Two spans of each activity have its outcome: the attempt, and the delivery. Some are missing where one was lost.
    let _missing = traces.until("every activity's spans", SPANS_PATIENCE, |spans| delivered(spans) >= 2 * total).await;
    match Waterfall::of_slowest(&traces.spans()) {
        Some(waterfall) => print!("\n{waterfall}"),
        None => println!("\nno trace of a delivered activity arrived"),
    }
}

async fn through_the_pipeline(pipeline: &Pipeline) -> anyhow::Result<Report> {
    let total = SOURCES.len() * ACTIVITIES_EACH;
    let mut sending = JoinSet::new();
    for source in SOURCES {
        let mut sender = pipeline.sender(source, DESTINATION);
        sending.spawn(async move { sender.send_many(ACTIVITIES_EACH).await });
    }
    let mut progress = Progress::new();
    while progress.elapsed() < PATIENCE {
        let (accepted, delivered) = (pipeline.ledger.accepted(), pipeline.instance().accepted());
        let done = accepted == total && delivered >= total;
        if done || progress.due() {
            let depth = pipeline.depth().await.map_or("?".to_owned(), |depth| depth.to_string());
            progress
                .show(&format!("accepted {accepted:>5}   delivered {delivered:>5}   in the lanes {depth:>5}"), done);
        }
        if done {
            break;
        }
        progress.pause().await;
    }
    progress.end();
    sending.abort_all();
    while let Some(ended) = sending.join_next().await {
        if let Err(error) = ended {
            anyhow::ensure!(error.is_cancelled(), "a sender was refused: {error}");
        }
    }
    // All is delivered, or patience has ended: what is missing now is missing.
    Ok(pipeline.report())
}

async fn one_at_a_time(pipeline: &Pipeline) -> anyhow::Result<Side> {
    let link = Link::start(pipeline.instance().addr(), ONE_WAY).await.context("the second link")?;
    let (ledger, stop) = (Ledger::default(), CancellationToken::new());
    let before = pipeline.instance().arrivals();
    let mut sending = JoinSet::new();
    for source in SOURCES {
        let mut sender = Sender::new(source, DESTINATION, link.addr(), &pipeline.keys, &ledger);
        let stop = stop.clone();
        sending.spawn(async move { sender.send_until(&stop).await });
    }
    let mut progress = Progress::new();
    while progress.elapsed() < SAMPLE {
        if progress.due() {
            progress.show(&format!("one at a time: delivered {:>5}", ledger.accepted()), false);
        }
        progress.pause().await;
    }
    progress.end();
    stop.cancel();
    while sending.join_next().await.is_some() {}
    let submissions: Vec<Submission> = ledger.submissions();
    let seen = pipeline.instance().seen().split_off(before);
    Ok(Side::of(&Report::of(&submissions, &seen), &submissions, &seen))
}

/// One line that changes in a terminal, a line every two seconds elsewhere.
struct Progress {
    start: Instant,
    terminal: bool,
    next: Instant,
}

impl Progress {
    fn new() -> Self {
        Self { start: Instant::now(), terminal: std::io::stdout().is_terminal(), next: Instant::now() }
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn due(&self) -> bool {
        Instant::now() >= self.next
    }

    fn show(&mut self, text: &str, last: bool) {
        let line = format!("  {text}   {:>5.1} s", self.elapsed().as_secs_f64());
        if self.terminal && !last {
            print!("\r{line}");
        } else if self.terminal {
            print!("\r{line}\n");
        } else {
            println!("{line}");
        }
        // A progress line that can't be shown is no reason to stop.
        let _shown = std::io::stdout().flush();
        self.next = Instant::now() + if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(2) };
    }

    fn end(&self) {
        if self.terminal {
            println!();
        }
    }

    async fn pause(&self) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
