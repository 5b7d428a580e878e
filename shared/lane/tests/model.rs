//! The model, explored exhaustively at small bounds: in each state that can be reached no invariant is broken, and from
//! each (from a sample, in the larger ones) the lane drains once there are no more faults. `--nocapture` prints how many
//! states that is. The ignored ones are for `make test-long`.

#[path = "model/mod.rs"]
mod lane_model;

use lane_model::report::holds;
use lane_model::{Bounds, ParkBy};

const TWO: Bounds = Bounds { seqs: &[2, 4], ..Bounds::SMALL };
const THREE: Bounds = Bounds { restarts: 0, ..Bounds::SMALL };

#[test]
fn a_paused_owner_and_its_successor_carry_three_activities() {
    holds("two owners, 3 activities", THREE);
}

#[test]
fn two_owners_and_a_restart_of_the_receiver() {
    holds("two owners, 2 activities, restart, silent instance", Bounds { silent: true, ..TWO });
}

#[test]
fn a_new_owner_asks_for_the_receivers_life_and_reads_one_by_one() {
    let bounds = Bounds { reads_all: false, asks_for_gate: true, purge_fails: true, restarts: 0, ..TWO };
    holds("two owners, 2 activities, reading one by one, failing purges", bounds);
}

#[test]
fn a_rejection_is_settled_by_its_copy_whoever_owns_the_lane() {
    holds("two owners, 2 activities, restart, a rejection", Bounds { rejected: Some(0), ..TWO });
}

#[test]
fn batches_of_two_with_an_unreadable_message_between_them() {
    let parked = Some((1, ParkBy::Unreadable));
    holds(
        "two owners, 4 activities, batches of 2, one unreadable",
        Bounds { seqs: &[2, 3, 7, 9], batch_items: 2, posts: 1, parked, drains_from_one_in: 4, ..THREE },
    );
}

#[test]
fn a_parked_head_stays_out_for_every_reason_to_park_it() {
    for by in [ParkBy::Unreadable, ParkBy::Deadline, ParkBy::Operator, ParkBy::Poison] {
        holds(&format!("two owners, 2 activities, {by:?}"), Bounds { restarts: 0, parked: Some((0, by)), ..TWO });
    }
}

#[test]
fn a_memory_that_forgets_costs_repeats_and_nothing_else() {
    holds("two owners, 2 activities, one outcome remembered", Bounds { memory_items: 1, restarts: 0, ..TWO });
}

#[test]
#[ignore = "minutes: make test-long"]
fn long_a_park_for_each_reason_with_a_restart() {
    for by in [ParkBy::Unreadable, ParkBy::Deadline, ParkBy::Operator, ParkBy::Poison] {
        holds(&format!("two owners, 2 activities, restart, {by:?}"), Bounds { parked: Some((0, by)), ..TWO });
    }
}

#[test]
#[ignore = "minutes: make test-long"]
fn long_three_activities_with_a_restart() {
    holds("two owners, 3 activities, restart", Bounds { drains_from_one_in: 16, ..Bounds::SMALL });
}

#[test]
#[ignore = "minutes: make test-long"]
fn long_three_owners() {
    holds("three owners, 2 activities, restart", Bounds { owners: 3, drains_from_one_in: 16, ..TWO });
}

#[test]
#[ignore = "minutes: make test-long"]
fn long_a_park_and_a_rejection_among_three() {
    let parked = Some((0, ParkBy::Operator));
    let bounds = Bounds { parked, rejected: Some(1), drains_from_one_in: 16, ..THREE };
    holds("two owners, 3 activities, a park, a rejection", bounds);
}

#[test]
#[ignore = "minutes: make test-long"]
fn long_everything_at_once() {
    // The operator's choice instead of an unreadable one, among three: tens of millions of states, more than 6 GiB hold.
    let bounds = Bounds { parked: Some((0, ParkBy::Operator)), rejected: Some(1), drains_from_one_in: 16, ..TWO };
    holds("two owners, 2 activities, restart, a park by the operator, a rejection", bounds);
    for place in [0, 1] {
        let parked = Some((place, ParkBy::Unreadable));
        let bounds = Bounds { parked, rejected: Some(1 - place), drains_from_one_in: 16, ..Bounds::SMALL };
        holds(&format!("two owners, 3 activities, restart, unreadable at {place}, a rejection"), bounds);
    }
    let parked = Some((1, ParkBy::Unreadable));
    let bounds = Bounds { seqs: &[2, 3, 7, 9], parked, rejected: Some(0), drains_from_one_in: 16, ..Bounds::SMALL };
    holds("two owners, 4 activities, restart, one unreadable, a rejection", bounds);
}
