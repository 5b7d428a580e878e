//! The rules of sessions and leases, every order of what can happen to two processes and a lane: never do both hold it by
//! their own clocks. No broker and no clock: a model of `leases`, small enough to see all of it.
//!
//! What it leaves out: a bucket that is deleted (the far side's epochs keep one of two owners out), clocks that run at
//! different speeds (the margin of a fifth), and epochs (each write's is higher than the one that it read).

mod broker;
mod process;
mod world;

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use world::{Bounds, Rule, World};

/// More than the rules have; a mistake in them must not fill the memory.
const STATES_MAX: usize = 2_000_000;

/// What is explored: each state once, nearest first. Answers how many there are, or how it came to the first in which two
/// processes hold the lane.
fn explore(bounds: Bounds) -> Result<usize, Vec<String>> {
    let start = World::new(bounds);
    let mut seen = HashSet::from([fingerprint(&start)]);
    // From which state, and the how manieth of what can happen in it.
    let mut ways = vec![(0, 0)];
    let mut queue = VecDeque::from([(start.clone(), 0)]);
    while let Some((world, at)) = queue.pop_front() {
        for (nth, (_, next)) in world.next().into_iter().enumerate() {
            if !seen.insert(fingerprint(&next)) {
                continue;
            }
            ways.push((at, nth));
            if next.holders() > 1 {
                return Err(in_words(start, &ways));
            }
            assert!(ways.len() < STATES_MAX, "so many states: {bounds:?}");
            queue.push_back((next, ways.len() - 1));
        }
    }
    Ok(ways.len())
}

/// The state itself would take a hundred times the memory; that two of a million share it is as likely as a lottery's win.
fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// How it came to the last of these states.
fn in_words(mut world: World, ways: &[(usize, usize)]) -> Vec<String> {
    let mut turns = vec![];
    let mut at = ways.len() - 1;
    while at != 0 {
        turns.push(ways[at].1);
        at = ways[at].0;
    }
    let happened = turns.into_iter().rev().map(|nth| {
        let (what, next) = world.next().swap_remove(nth);
        world = next;
        what
    });
    happened.collect()
}

fn assert_sound(bounds: Bounds) {
    let states = explore(bounds).unwrap_or_else(|way| panic!("both hold it:\n{}", way.join("\n")));
    println!("{states} states of {bounds:?}");
    assert!(states > 1_000, "{states} states are not all");
}

#[test]
fn two_processes_never_hold_a_lane_at_once() {
    assert_sound(Bounds::SMALL);
}

#[test]
#[ignore = "make test-long: half a minute"]
fn nor_do_they_with_two_sessions_and_with_two_writes_on_their_way() {
    Bounds::LARGE.into_iter().for_each(assert_sound);
}

#[test]
fn the_lane_of_a_dead_process_can_be_taken_whatever_happened_before() {
    let mut seen = HashSet::from([World::new(Bounds::SMALL)]);
    let mut queue: Vec<World> = seen.iter().cloned().collect();
    while let Some(world) = queue.pop() {
        assert!(world.clone().taken_over(), "{world:#?}");
        for (_, next) in world.next() {
            if seen.insert(next.clone()) {
                queue.push(next);
            }
        }
    }
    assert!(seen.len() > 1_000, "{} states are not all", seen.len());
}

#[test]
fn each_rule_is_needed() {
    for rule in Rule::ALL {
        let sessions = if rule == Rule::LanesEndWithTheirSession { 2 } else { 1 };
        let bounds = Bounds { sessions, without: Some(rule), ..Bounds::SMALL };
        match explore(bounds) {
            Ok(states) => panic!("without {rule:?} nothing happens in {states} states"),
            Err(way) => println!("without {rule:?}:\n  {}", way.join("\n  ")),
        }
    }
}
