//! Both ends of a lane over a link that loses, delays, repeats and reorders, with restarts of either side, paused
//! owners, parks of every kind and an operator: the invariants of `fedstream_lane::invariants`, by name.
//!
//! `PROPTEST_CASES` sets how many worlds are tried; a failure is shrunk, and kept beside this file.

mod world;

use std::collections::BTreeMap;

use fedstream_lane::WindowLimits;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use world::{Activity, Broker, Ending, Fate, Op, Plan, World, op, plan};

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
        assert!(world.ledger.repeats.is_empty(), "no-repeat: {:?}", world.ledger.repeats);
    }
}

proptest! {
    #![proptest_config(config(cases() / 5))]

    /// What has to be posted again although nothing went wrong would be a mistake of the rules.
    #[test]
    fn without_faults_every_post_is_taken_as_it_is(plan in plan()) {
        let takes_all = |activity: Activity| Activity { fate: Fate::Taken, ..activity };
        let activities = plan.activities.iter().copied().map(takes_all).collect();
        let mut world = World::new(Plan { activities, memory_items: 100, ..plan });
        world.run_out();
        let expected = ["end: done", "end: new gate"];
        let other = world.ledger.seen.keys().filter(|what| what.starts_with("end: ") && !expected.contains(what));
        assert!(other.count() == 0, "no-repeat: without a fault: {:?}", world.ledger.seen);
        assert!(world.ledger.repeats.is_empty(), "no-repeat: {:?}", world.ledger.repeats);
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

/// Too rare a history to be left to chance: given up, parked, overtaken, and only then does its request arrive.
#[test]
fn a_request_that_comes_late_brings_no_parked_item_back() {
    let mut runner = TestRunner::deterministic();
    let any = plan().new_tree(&mut runner).expect("a plan").current();
    let one = Activity { step: 1, bytes: 10, fate: Fate::Taken };
    let limits = WindowLimits { batch_items: 1, trim_interval_ms: 0, rate_per_s: None, ..any.limits[0] };
    let mut world = World::new(Plan { activities: vec![one; 2], memory_items: 100, limits: vec![limits] });
    let parked =
        [Op::ParkHead(0), Op::Drive(0), Op::Broker(0, Broker::Acks), Op::Drive(0), Op::Broker(0, Broker::Acks)];
    let overtaken = [Op::Accept, Op::Wait(100), Op::Drive(0), Op::Arrive(1), Op::Work(0), Op::Finish(0, Ending::Final)];
    let mut ops = vec![Op::TakeOver(true), Op::Drive(0), Op::GiveUp(0)];
    ops.extend(parked.into_iter().chain(overtaken));
    ops.extend([Op::Arrive(0), Op::Work(0), Op::Work(1)]);
    ops.into_iter().for_each(|op| world.apply(op));
    assert_eq!(world.ledger.outcomes, 1, "the second one was taken");
    world.run_out();
    assert_eq!(world.ledger.outcomes, 1, "and the first one never");
}
