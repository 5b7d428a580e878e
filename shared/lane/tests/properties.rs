//! Both ends of a lane over a link that loses, delays, repeats and reorders, with restarts of either side, paused
//! owners, parks of every kind and an operator: the invariants of `fedstream_lane::invariants`, by name.
//!
//! `PROPTEST_CASES` sets how many worlds are tried; a failure is shrunk, and kept in `proptest-regressions/`.

mod world;

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use world::{Plan, World, op, plan};

/// In CI; `make test-long` tries a million.
const CASES: u32 = 10_000;

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES)
}

/// A failure is kept beside this file.
fn config(cases: u32) -> ProptestConfig {
    let kept = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { cases, failure_persistence: Some(Box::new(kept)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(cases()))]

    #[test]
    fn no_fault_loses_reorders_or_jams_a_lane(plan in plan(), ops in vec(op(), 0..200)) {
        let mut world = World::new(plan);
        for op in ops {
            world.apply(op);
        }
        world.run_out();
    }
}

proptest! {
    #![proptest_config(config(cases() / 5))]

    /// Whatever the link and the owners do: a repeat at the instance needs a receiver that restarted, forgot, or did
    /// not get the answer.
    #[test]
    fn a_receiver_that_lives_and_remembers_repeats_nothing(plan in plan(), ops in vec(op(), 0..200)) {
        let mut world = World::new(Plan { memory_items: 100, ..plan });
        for op in ops.into_iter().filter(|op| !op.is_fault_of_the_far_side()) {
            world.apply(op);
        }
        world.run_out();
        prop_assert_eq!(&world.ledger.repeats, &[]);
    }
}

/// What the worlds above have to reach, or they prove nothing.
const REACHED: [&str; 23] = [
    "asks for the gate",
    "posts several",
    "cancels",
    "parks: rejected",
    "parks: expired",
    "parks: poison",
    "parks: unprocessed",
    "parks: operator",
    "parks: unreadable",
    "stops: stale epoch",
    "stops: lease lost",
    "stops: drained",
    "end: done",
    "end: retry",
    "end: retry-after",
    "end: gap",
    "end: new gate",
    "end: stale epoch",
    "end: lost",
    "repeat: receiver restarted",
    "repeat: answer lost",
    "repeat: forgotten",
    "three POSTs in flight",
];

#[test]
fn the_worlds_reach_everything_that_a_lane_can_meet() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<&'static str, u64> = BTreeMap::new();
    for _ in 0..2_000 {
        let (plan, ops) = (plan(), vec(op(), 0..200)).new_tree(&mut runner).expect("a world").current();
        let mut world = World::new(plan);
        ops.into_iter().for_each(|op| world.apply(op));
        world.run_out();
        for (what, times) in world.ledger.seen {
            *seen.entry(what).or_default() += times;
        }
    }
    println!("{seen:#?}");
    let missing: Vec<_> = REACHED.iter().filter(|what| !seen.contains_key(*what)).collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
}
