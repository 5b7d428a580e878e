//! Both ends of a lane over a link that loses and cuts, with restarts of either side and owners that were replaced:
//! the invariants of `fedstream_lane::invariants` that need the whole, by name.
//!
//! `PROPTEST_CASES` sets how many worlds are tried; a failure is shrunk, and kept in `proptest-regressions/`.

mod world;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use world::{Plan, World};

/// In CI; `make test-long` tries a million.
const CASES: u32 = 10_000;

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    ProptestConfig { cases, ..ProptestConfig::default() }
}

fn plan() -> impl Strategy<Value = Plan> {
    (vec(1..4u8, 1..10), btree_set(0..10usize, 0..4), 2..20usize).prop_map(|(gaps, rejected, memory_items)| Plan {
        gaps,
        rejected,
        memory_items,
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_fault_loses_reorders_or_jams_a_lane(plan in plan(), choices in vec(any::<u16>(), 0..300)) {
        let mut world = World::new(plan);
        for choice in choices {
            world.step(choice);
        }
        world.run_out();
    }
}

/// A world without faults has no repeats: what the promise of the design calls a repeat needs a reason.
#[test]
fn without_faults_nothing_is_repeated() {
    let plan = Plan { gaps: vec![1; 9], rejected: [3].into(), memory_items: 100 };
    let mut world = World::new(plan);
    world.run_out();
    assert_eq!(world.outcomes, 9);
}
