//! What a world is made of, and what may happen in it: all of it generated, so that a failure shrinks.

use std::num::NonZeroU32;

use fedstream_lane::{Final, WindowLimits};
use proptest::collection::vec;
use proptest::prelude::*;

/// What an activity meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The instance takes it.
    Taken,
    /// The instance refuses it for good, in one way or another.
    Refused(Final),
    /// The instance fails on it, and on it alone.
    Poison,
    /// No reader can read it.
    Unreadable,
    /// Its signature is accepted until this moment.
    Until(u16),
}

/// One activity of the lane.
#[derive(Clone, Copy, Debug)]
pub struct Activity {
    /// How far its sequence is above the one before: holes are larger than 1.
    pub step: u8,
    /// Its size.
    pub bytes: usize,
    /// What it meets.
    pub fate: Fate,
}

/// A world before its first step.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the lane will hold.
    pub activities: Vec<Activity>,
    /// How many outcomes the far side remembers.
    pub memory_items: usize,
    /// The limits in force first, and those that the operator may set.
    pub limits: Vec<WindowLimits>,
}

/// What the instance does with what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It answers for good (what its fate is).
    Final,
    /// It has no time now, and says for how long.
    Unavailable(Option<u16>),
    /// It fails as if the activity were the trouble; it may be known to answer others.
    Fault(bool),
    /// It does its work, and the answer is lost.
    AnswerLost,
}

/// What the broker does with a copy or a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broker {
    /// Done, and acked.
    Acks,
    /// Not done.
    Refuses,
    /// Done, and nobody knows.
    LosesTheAck,
}

/// One thing that happens. A number chooses among what is there.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// The front door accepts the next activity.
    Accept,
    /// An owner (the newest is 0) reads, polls, and does what its window wants.
    Drive(u8),
    /// It polls and is paused before it does anything.
    Pause(u8),
    /// The broker answers an owner.
    Broker(u8, Broker),
    /// A request reaches the far side, in any order.
    Arrive(u8),
    /// A request reaches it, and once more later; which of the two the sender hears.
    ArriveTwice(u8, bool),
    /// A request is lost.
    Lose(u8),
    /// The far side takes a request one step on.
    Work(u8),
    /// The instance is done with an item.
    Finish(u8, Ending),
    /// The next line of a POST's answer reaches its owner.
    Hear(u8),
    /// An owner waits no longer for a POST.
    GiveUp(u8),
    /// The far side learns that nobody listens.
    FindOut(u8),
    /// The batch-receiver is killed and started again.
    RestartReceiver,
    /// The newest owner is killed.
    Crash,
    /// A new owner takes the lane once the lease is over; it may know the gate from another lane.
    TakeOver(bool),
    /// The newest owner renews its lease.
    Renew,
    /// The newest owner is told to end.
    Drain,
    /// The operator pauses the lane, or lets it go on.
    SetPaused(bool),
    /// The operator lifts the pause after refusals.
    Resume,
    /// The operator wants one out of the way.
    ParkHead(u8),
    /// Other limits.
    Limits(u8),
    /// Time passes.
    Wait(u8),
}

impl Op {
    /// Something that the design calls a fault, or that makes a repeat at the instance possible.
    pub fn is_fault_of_the_far_side(&self) -> bool {
        matches!(self, Self::RestartReceiver | Self::Finish(_, Ending::AnswerLost))
    }
}

fn limits() -> impl Strategy<Value = WindowLimits> {
    let batch = (1..=4usize, 20..=120usize, 1..=4usize);
    let window = (1..=8usize, 20..=200usize, 2..=10usize);
    let pace =
        (prop_oneof![Just(0), Just(20u64)], prop_oneof![3 => Just(None), 1 => (50..500u32).prop_map(NonZeroU32::new)]);
    (batch, window, pace, prop_oneof![Just(0), Just(30u64)], prop_oneof![2 => Just(0), 1 => 1..4u32]).prop_map(
        |((batch_items, batch_bytes, posts), (in_flight_items, in_flight_bytes, items), pace, trim, rejections_max)| {
            WindowLimits {
                batch_items,
                batch_bytes,
                posts,
                in_flight_items,
                in_flight_bytes,
                items,
                bytes: 10_000,
                linger_ms: pace.0,
                rate_per_s: pace.1,
                trim_interval_ms: trim,
                rejections_max,
                poison_attempts: 2,
                poison_after_ms: 50,
            }
        },
    )
}

fn activity() -> impl Strategy<Value = Activity> {
    let refused = prop_oneof![Just(Final::Rejected), Just(Final::Expired), Just(Final::Unprocessed)];
    let fate = prop_oneof![
        8 => Just(Fate::Taken),
        2 => refused.prop_map(Fate::Refused),
        1 => Just(Fate::Poison),
        1 => Just(Fate::Unreadable),
        1 => (0..600u16).prop_map(Fate::Until),
    ];
    (1..4u8, prop_oneof![Just(10usize), Just(60usize)], fate).prop_map(|(step, bytes, fate)| Activity {
        step,
        bytes,
        fate,
    })
}

/// Any world.
pub fn plan() -> impl Strategy<Value = Plan> {
    (vec(activity(), 1..12), 1..24usize, vec(limits(), 1..3)).prop_map(|(activities, memory_items, limits)| Plan {
        activities,
        memory_items,
        limits,
    })
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        8 => Just(Ending::Final),
        1 => prop_oneof![Just(None), Just(Some(60u16))].prop_map(Ending::Unavailable),
        1 => any::<bool>().prop_map(Ending::Fault),
        1 => Just(Ending::AnswerLost),
    ]
}

/// Anything that may happen.
pub fn op() -> impl Strategy<Value = Op> {
    let which = || 0..8u8;
    let owner = || prop_oneof![4 => Just(0u8), 1 => Just(1u8), 1 => Just(2u8)];
    let broker = prop_oneof![6 => Just(Broker::Acks), 1 => Just(Broker::Refuses), 1 => Just(Broker::LosesTheAck)];
    prop_oneof![
        4 => Just(Op::Accept),
        10 => owner().prop_map(Op::Drive),
        2 => owner().prop_map(Op::Pause),
        6 => (owner(), broker).prop_map(|(owner, broker)| Op::Broker(owner, broker)),
        10 => which().prop_map(Op::Arrive),
        1 => (which(), any::<bool>()).prop_map(|(which, hears)| Op::ArriveTwice(which, hears)),
        1 => which().prop_map(Op::Lose),
        16 => which().prop_map(Op::Work),
        12 => (which(), ending()).prop_map(|(which, ending)| Op::Finish(which, ending)),
        16 => which().prop_map(Op::Hear),
        2 => which().prop_map(Op::GiveUp),
        1 => which().prop_map(Op::FindOut),
        1 => Just(Op::RestartReceiver),
        1 => Just(Op::Crash),
        2 => any::<bool>().prop_map(Op::TakeOver),
        4 => Just(Op::Renew),
        1 => Just(Op::Drain),
        1 => any::<bool>().prop_map(Op::SetPaused),
        1 => Just(Op::Resume),
        1 => which().prop_map(Op::ParkHead),
        1 => which().prop_map(Op::Limits),
        4 => (1..120u8).prop_map(Op::Wait),
    ]
}
