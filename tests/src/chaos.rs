//! Faults at random, seeded moments, against the real thing: is every promise kept?
//!
//! ```text
//!   plan (seed) ─▶ for each step: quiet, fault(s) begin, end, all lanes must move again ─▶ table
//!                                   World: all parts, a link between any two
//!   ledger, instance, FED_PARKED, the batch-receiver's log ─────────────────────────────▶ verdict
//! ```
//!
//! Lanes are under a steady signed load from the first fault to the last. A step has recovered when each lane brought an
//! activity that was sent after its last fault had ended all the way to a final outcome. A lane that does not within
//! [`JAMMED`] is a jam, and fails the run as a broken promise does.

pub mod deliveries;
pub mod fault;
pub mod owners;
pub mod parked;
pub mod part;
pub mod plan;
mod rule;
pub mod services;
pub mod table;
pub mod verdict;
pub mod world;

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::eventually::eventually;
use crate::load::Load;
use crate::pipeline::INBOX_STREAM;
use fault::{Fault, Happened};
use part::{Part, Shape};
use plan::{Bounds, Planned, Step};
use services::LANES;
use table::Table;
use verdict::{Evidence, Verdict};
use world::{LOOK_EVERY, Ongoing, World};

/// A lane that has not moved for so long after the last fault had ended does not move: above a lease's TTL (15 s) and a
/// start of everything on two busy cores.
const JAMMED: Duration = Duration::from_secs(90);

/// The others see that an entry has expired within a second, and ask for a lane twice a second.
const BEYOND_A_LEASE: Duration = Duration::from_secs(3);

/// What a sender waits at most for an activity that it has begun, and the backlog behind it.
const DRAINED: Duration = Duration::from_secs(60);

/// How a run is set up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything but time.
    pub seed: u64,
    /// How many faults.
    pub faults: usize,
    /// `FAULTS` was given: there is time for faults and leases of their usual length.
    pub long: bool,
    /// How many batch-senders.
    pub senders: usize,
}

impl Options {
    /// `FAULTS` and `FAULTS_SEED`, or what is given and a seed that no run had.
    ///
    /// # Errors
    /// One of them is no number.
    pub fn from_env(faults: usize, senders: usize) -> anyhow::Result<Self> {
        let number = |name: &str| -> anyhow::Result<Option<u64>> {
            let Ok(text) = std::env::var(name) else { return Ok(None) };
            Ok(Some(text.parse().with_context(|| format!("{name}={text} is no number"))?))
        };
        let asked = number("FAULTS")?.map(usize::try_from).transpose()?;
        Ok(Self {
            seed: number("FAULTS_SEED")?.unwrap_or_else(|| u64::from(fastrand::u32(..))),
            faults: asked.unwrap_or(faults),
            senders,
            long: asked.is_some(),
        })
    }

    /// The longest of the usual faults.
    fn longest(&self) -> Duration {
        Duration::from_secs(if self.long { 5 } else { 2 })
    }

    /// For so long a dead batch-sender keeps its lanes: the default, or little above the shortest that there is. Now and
    /// then one is dead, stopped or cut off for longer.
    fn lease_ttl(&self) -> Duration {
        Duration::from_secs(if self.long { 15 } else { 3 })
    }
}

/// What became of a run.
pub struct Outcome {
    /// Recovery by kind of fault.
    pub table: Table,
    /// What was kept and what was not.
    pub verdict: Verdict,
}

/// Runs the plan, prints a line for each step, and the table and the verdict at the end.
///
/// # Panics
/// A part does not start; a lane is jammed; a promise is broken. All parts' logs are shown then, and the seed.
pub async fn run(options: Options) -> Outcome {
    println!("{}", replay(&options));
    let shape = Shape { fronts: 2, senders: options.senders };
    let bounds = Bounds {
        faults: options.faults,
        shape,
        lanes: LANES.len(),
        longest: options.longest(),
        outlasting: options.lease_ttl() + BEYOND_A_LEASE,
    };
    let mut world = World::start(shape, options.lease_ttl()).await.expect("all parts start");
    let load = Load::of(world.outside_senders());
    moves(&mut world, Instant::now()).await.expect("the lanes move before the first fault");

    let (mut table, mut happened, mut done) = (Table::default(), Vec::new(), 0);
    for step in plan::plan(options.seed, &bounds) {
        done += step.faults.len();
        let faults: Vec<Fault> = step.faults.iter().map(|planned| planned.fault).collect();
        let what = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        let head = format!("fault {done}/{} seed {} {what}", options.faults, options.seed);
        let recovered = async {
            happened.extend(play(&mut world, &step).await?);
            moves(&mut world, Instant::now()).await
        };
        match recovered.await {
            Ok(took) => {
                println!("{head} recovered in {:.1} s", took.as_secs_f64());
                table.enter(&faults, took);
            }
            Err(error) => {
                let described = world.describe().await;
                panic!("{head}: {error:#}\n{described}\n{}", replay(&options));
            }
        }
    }
    load.stop().await;
    let verdict = judge(&mut world, &happened).await;
    println!("{table}\n{verdict}");
    let tries = world.ledger.tries();
    println!("tries of the senders: {tries}; ended of themselves: {:?}", world.ended_by_themselves);
    assert!(verdict.holds(), "a promise was broken\n{verdict}\n{}", replay(&options));
    let changes = verdict.changes_of_owner;
    assert!(!options.long || options.senders == 1 || changes > 0, "no lane changed hands: nothing was looked at");
    Outcome { table, verdict }
}

/// The line that says how to have this run again.
fn replay(options: &Options) -> String {
    let Options { seed, faults, long, .. } = options;
    if *long {
        format!("replay with: FAULTS_SEED={seed} FAULTS={faults} make test-faults")
    } else {
        format!("replay with: FAULTS_SEED={seed} cargo test -p fedstream-tests --test chaos -- --nocapture")
    }
}

/// All of a step's faults, from the begin of the first to the end of the last.
async fn play(world: &mut World, step: &Step) -> anyhow::Result<Vec<Happened>> {
    tokio::time::sleep(step.quiet).await; // behaviour that is played, not a wait
    let start = tokio::time::Instant::now();
    let mut to_begin: Vec<&Planned> = step.faults.iter().collect();
    let mut ongoing: Vec<(tokio::time::Instant, Ongoing)> = Vec::new();
    let mut happened = Vec::new();
    to_begin.sort_by_key(|planned| std::cmp::Reverse(planned.after));
    loop {
        let next_begin = to_begin.last().map(|planned| start + planned.after);
        let next_end = ongoing.iter().map(|(end, _)| *end).min();
        match (next_begin, next_end) {
            (None, None) => return Ok(happened),
            (Some(begin), end) if end.is_none_or(|end| begin <= end) => {
                tokio::time::sleep_until(begin).await;
                let Some(planned) = to_begin.pop() else { continue };
                let begun = world.begin(planned.fault).await.with_context(|| planned.fault.to_string())?;
                ongoing.push((tokio::time::Instant::now() + planned.lasts, begun));
            }
            (_, Some(end)) | (Some(end), None) => {
                let Some(place) = ongoing.iter().position(|(at, _)| *at == end) else { continue };
                let through = async || ongoing[place].1.is_through().then_some(());
                let left = end.saturating_duration_since(tokio::time::Instant::now());
                // Over in time or through before: both are its end.
                let _through = eventually("it had its effect", left, through).await.is_ok();
                let (_, over) = ongoing.swap_remove(place);
                happened.push(world.end(over).await?);
            }
        }
    }
}

/// Waits until each lane has brought an activity that was sent after this moment to a final outcome. Says how long.
async fn moves(world: &mut World, since: Instant) -> anyhow::Result<Duration> {
    let lanes: Vec<String> = LANES.iter().map(|(source, destination)| format!("{destination}/{source}")).collect();
    let mut standing = lanes;
    let deadline = since + JAMMED;
    while !standing.is_empty() {
        world.keep_running().await?;
        let moved = async || {
            let sent = world.ledger.sent_since(since);
            let settled: Vec<String> = sent
                .into_iter()
                .filter(|(lane, id)| world.instance.has_settled(lane, id))
                .map(|(lane, _)| lane)
                .collect();
            standing.iter().any(|lane| settled.contains(lane)).then_some(settled)
        };
        if let Ok(settled) = eventually("a lane moves", LOOK_EVERY, moved).await {
            standing.retain(|lane| !settled.contains(lane));
        }
        anyhow::ensure!(Instant::now() < deadline, "jammed: {standing:?} did not move for {JAMMED:?}");
    }
    Ok(since.elapsed())
}

/// Waits until nothing is on its way, and looks at what happened.
async fn judge(world: &mut World, happened: &[Happened]) -> Verdict {
    let jetstream = world.cluster.jetstream().await.expect("a node takes a client");
    let drained = async || {
        let parked = parked::read(&jetstream).await.ok()?;
        let settled = verdict::all_settled(&world.ledger.submissions(), &world.instance.seen(), &parked);
        let state = jetstream.get_stream(INBOX_STREAM).await.ok()?.get_info().await.ok()?.state;
        (settled && state.messages == 0 && world.instance.in_progress() == 0).then_some(())
    };
    if let Err(timeout) = eventually("all that was accepted is settled and trimmed", DRAINED, drained).await {
        eprintln!("{timeout}\n{}", world.describe().await);
    }
    let parked = parked::read(&jetstream).await.expect("FED_PARKED can be read");
    let attempts = deliveries::read(&world.receiver_log());
    let owners = owners::read(&world.sender_logs());
    Verdict::of(&Evidence {
        submissions: &world.ledger.submissions(),
        seen: &world.instance.seen(),
        parked: &parked,
        attempts: &attempts,
        faults: happened,
        owners: &owners,
        poison_attempts: services::POISON_ATTEMPTS,
        receiver_ended: world.ended_by_themselves.iter().any(|(part, _)| *part == Part::Receiver),
    })
}
