//! The whole pair in virtual time: one lane, its senders with their leases and clocks, the broker, the ocean, the
//! receiver and the instance, through crashes, pauses and outages of hours. A seed is a history.
//!
//! `FED_SEEDS` sets how many histories are lived through, `FED_FROM` the first. A failure prints the command that
//! replays it with every step.

#[path = "world/far.rs"]
mod far;
#[path = "world/ledger.rs"]
mod ledger;
#[path = "world/owner.rs"]
mod owner;

mod pair {
    pub mod broker;
    pub mod clock;
    pub mod crossing;
    pub mod history;
    pub mod instance;
    pub mod rng;
    pub mod sender;
    pub mod summary;
    pub mod weather;
}

use std::panic::catch_unwind;

use pair::history::History;
use pair::summary::Summary;

/// In CI; `make test-long` tries more.
const SEEDS: u64 = 10_000;
/// Fewer don't reach everything that a long run has to reach.
const ENOUGH_SEEDS: u64 = 5_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

fn live_through(seeds: impl Iterator<Item = u64>) -> Summary {
    let mut summary = Summary::default();
    for seed in seeds {
        match catch_unwind(|| History::new(seed, false).run()) {
            Ok(report) => summary.add(seed, report),
            Err(_) => {
                panic!("replay with: FED_SEED={seed} cargo test -p fedstream-lane --test pair replay -- --nocapture")
            }
        }
    }
    summary
}

#[test]
fn a_lane_survives_every_history() {
    let (from, many) = (number("FED_FROM").unwrap_or(1), number("FED_SEEDS").unwrap_or(SEEDS));
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let summary = std::thread::scope(|scope| {
        let shares =
            (0..threads).map(|share| (from + share..from + many).step_by(usize::try_from(threads).unwrap_or(1)));
        let running: Vec<_> = shares.map(|seeds| scope.spawn(|| live_through(seeds))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("a history failed; its seed is above"))
            .fold(Summary::default(), Summary::with)
    });
    println!("{summary}");
    if many >= ENOUGH_SEEDS {
        assert_eq!(summary.never_reached(), Vec::<&str>::new(), "these prove nothing about it");
    }
}

/// Lives through the history of `FED_SEED` once more, and tells it.
#[test]
fn replay() {
    if let Some(seed) = number("FED_SEED") {
        println!("{:#?}", History::new(seed, true).run());
    }
}

#[test]
fn a_seed_is_a_whole_history() {
    let twice = || format!("{:?}", History::new(7, false).run());
    assert_eq!(twice(), twice());
}
