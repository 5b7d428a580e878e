//! Each rule of the lane is taken away, and a named invariant breaks: found by the model at its smallest bounds, or
//! shown by a scenario. Compiled against `lane-mutants`; see `src/guard.rs`.

extern crate fedstream_lane_mutants as fedstream_lane;

#[path = "../../lane/tests/model/mod.rs"]
mod lane_model;
#[path = "mutations/scenarios.rs"]
mod scenarios;

use fedstream_lane::guard::{self, Guard};
use lane_model::report::{explores, holds};
use lane_model::{Bounds, ParkBy};

/// Two activities with a hole between them, one owner, no restart, no look at whether the lane drains.
const ONE: Bounds = Bounds { seqs: &[2, 4], owners: 1, restarts: 0, drains_from_one_in: 0, ..Bounds::SMALL };
const TWO: Bounds = Bounds { owners: 2, ..ONE };
const OPERATOR: Option<(usize, ParkBy)> = Some((0, ParkBy::Operator));

/// Rules that no invariant needs. What each is for is in ARCHITECTURE.md.
const NEEDED_BY_NO_INVARIANT: [Guard; 2] = [Guard::AbandonedEndsAreVoid, Guard::AdoptionWaits];

/// How a rule's absence shows.
enum Shown {
    /// The model finds it.
    Model(Bounds, &'static str),
    /// A scenario shows it.
    Scenario(fn(), &'static str),
    /// It doesn't.
    Nowhere,
}

fn shown(guard: Guard) -> Shown {
    use Shown::{Model, Nowhere, Scenario};
    let rejected = Bounds { rejected: Some(0), ..ONE };
    let taken_over = Bounds { parked: OPERATOR, ..TWO };
    match guard {
        Guard::PrevIsTheItemBefore => Scenario(scenarios::a_hole_between_sequences_is_no_missing_batch, "awake"),
        Guard::OwnLine | Guard::CopyBeforeSettled | Guard::PrefixTrim => Model(rejected, "prefix"),
        Guard::RewindOnRetry => Model(ONE, "prefix"),
        Guard::OnlyTheHeadIsParked => {
            // What is before it can't be posted until it is purged, and it can't be purged before that.
            Model(Bounds { parked: Some((1, ParkBy::Unreadable)), ..ONE }, "awake")
        }
        Guard::ParkBeforeTrim => Model(Bounds { parked: OPERATOR, ..ONE }, "prefix"),
        Guard::PurgeBeforeNext => Model(taken_over, "parked-stays-out"),
        Guard::LeaseBeforePost | Guard::GateId | Guard::EpochBeforeEachItem => {
            Model(Bounds { restarts: 1, ..TWO }, "fenced")
        }
        Guard::DeadlineBeforePost => Model(Bounds { parked: Some((0, ParkBy::Deadline)), ..ONE }, "fresh"),
        Guard::EpochAtAdmission => Model(TWO, "fenced"),
        Guard::Origin => Scenario(scenarios::one_sites_floor_does_not_vouch_for_anothers_activities, "no-loss"),
        Guard::GapCheck => Model(ONE, "in-order"),
        Guard::OneAtTheInstance => Model(ONE, "single"),
        Guard::LastBelongsToItsEpoch => Scenario(scenarios::a_stream_made_anew_has_an_order_of_its_own, "in-order"),
        Guard::FloorMovesLast => Model(Bounds { drains_from_one_in: 1, ..TWO }, "awake"),
        Guard::FloorVouches => Model(taken_over, "parked-stays-out"),
        Guard::Memory => Model(ONE, "once"),
        Guard::MemoryMovesLast => Scenario(scenarios::what_is_remembered_is_not_waited_for, "awake"),
        Guard::MemoryByMessageId => Scenario(scenarios::a_sequence_that_comes_back_is_another_activity, "no-loss"),
        Guard::RefusedIsNoDuplicate => Model(Bounds { owners: 2, ..rejected }, "prefix"),
        Guard::AbandonedEndsAreVoid | Guard::AdoptionWaits => Nowhere,
    }
}

#[test]
fn taking_a_rule_away_breaks_the_invariant_that_it_is_there_for() {
    for guard in Guard::ALL {
        match shown(guard) {
            Shown::Model(bounds, invariant) => {
                let broken = explores(&format!("without {guard:?}"), Bounds { without: Some(guard), ..bounds });
                let names: Vec<&str> = broken.iter().map(|(name, _)| *name).collect();
                assert!(names.contains(&invariant), "{guard:?}: {invariant} is not among the broken {names:?}");
            }
            Shown::Scenario(scenario, invariant) => {
                scenario();
                let panic = std::panic::catch_unwind(|| guard::without(guard, scenario)).expect_err("nothing broke");
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into())).unwrap_or_default();
                assert!(text.contains(&format!("{invariant}: ")), "{guard:?}: not {invariant}, but {text}");
            }
            Shown::Nowhere => assert!(NEEDED_BY_NO_INVARIANT.contains(&guard)),
        }
    }
}

#[test]
fn the_bounds_that_show_mutants_show_nothing_with_all_rules_in_force() {
    let mut explored: Vec<Bounds> = vec![];
    for guard in Guard::ALL {
        if let Shown::Model(bounds, _) = shown(guard)
            && !explored.contains(&bounds)
        {
            holds(&format!("as for {guard:?}"), bounds);
            explored.push(bounds);
        }
    }
}

/// Findings, and kept as tests: should one of them become necessary, its row in the table changes.
#[test]
fn two_rules_are_needed_by_no_invariant() {
    for guard in NEEDED_BY_NO_INVARIANT {
        for bounds in [TWO, Bounds { restarts: 1, ..TWO }, Bounds { parked: OPERATOR, rejected: Some(1), ..TWO }] {
            let broken = explores(&format!("without {guard:?}"), Bounds { without: Some(guard), ..bounds });
            assert!(broken.is_empty(), "{guard:?}: {broken:?}");
        }
    }
}

/// `stop before TTL`: what the margin between the local lease and the entry is for.
#[test]
fn a_lease_that_outlives_its_entry_breaks_the_fence_and_lets_parked_ones_in() {
    for (bounds, invariant) in
        [(Bounds { parked: OPERATOR, ..TWO }, "parked-stays-out"), (Bounds { restarts: 1, ..TWO }, "fenced")]
    {
        let broken = explores("a lease that outlives its entry", Bounds { lease_outlives_entry: true, ..bounds });
        assert!(broken.iter().any(|(name, _)| *name == invariant), "{invariant} is not among the broken: {broken:?}");
    }
}
