//! The table at the end of the demonstration.

use std::time::{Duration, Instant};

use fedstream_tests::check::Report;
use fedstream_tests::instance::Seen;
use fedstream_tests::ledger::Submission;

/// Figures of one way to deliver.
pub struct Side {
    accepted: usize,
    delivered: usize,
    accepted_per_second: f64,
    delivered_per_second: f64,
    p50: Duration,
    p99: Duration,
}

impl Side {
    /// From what was sent and what was seen.
    pub fn of(report: &Report, submissions: &[Submission], seen: &[Seen]) -> Self {
        let first = submissions.iter().map(|submission| submission.first_sent).min();
        Self {
            accepted: report.accepted,
            delivered: report.delivered,
            accepted_per_second: rate(report.accepted, first, submissions.iter().filter_map(|s| s.accepted).max()),
            delivered_per_second: rate(report.delivered, first, seen.iter().filter_map(|s| s.ended).max()),
            p50: report.latency(50),
            p99: report.latency(99),
        }
    }
}

fn rate(count: usize, from: Option<Instant>, to: Option<Instant>) -> f64 {
    let (Some(from), Some(to)) = (from, to) else { return 0.0 };
    let count = u32::try_from(count).map_or(f64::MAX, f64::from);
    count / to.duration_since(from).as_secs_f64().max(f64::EPSILON)
}

/// Prints both sides.
pub fn print(ours: &Side, theirs: &Side, report: &Report) {
    let yes = |clean: bool| if clean { "yes" } else { "NO" }.to_owned();
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    let rate = |rate: f64| format!("{rate:.1}");
    println!();
    row("", "fedstream", "one at a time");
    row("accepted", &ours.accepted.to_string(), &theirs.accepted.to_string());
    row("delivered", &ours.delivered.to_string(), &theirs.delivered.to_string());
    row("in order", &yes(report.out_of_order.is_empty()), "");
    row("duplicates", &report.repeated.len().to_string(), "");
    row("lost", &report.lost.len().to_string(), "");
    row("altered", &report.altered.len().to_string(), "");
    row("signature failures", &report.signature_failures.len().to_string(), "");
    row("accepted per second", &rate(ours.accepted_per_second), &rate(theirs.accepted_per_second));
    row("delivered per second", &rate(ours.delivered_per_second), &rate(theirs.delivered_per_second));
    row("latency p50", &seconds(ours.p50), &seconds(theirs.p50));
    row("latency p99", &seconds(ours.p99), &seconds(theirs.p99));
    if theirs.delivered_per_second > 0.0 {
        let times = ours.delivered_per_second / theirs.delivered_per_second;
        println!(
            "\n{times:.0} times as many a second. Latency is from the first try at the front to the end at the instance;"
        );
        println!("here the senders come faster than the instance takes, so it is mostly waiting in a lane.");
    }
}

fn row(name: &str, ours: &str, theirs: &str) {
    println!("  {name:<22}{ours:>12}{theirs:>16}");
}
