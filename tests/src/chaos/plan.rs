//! Which faults, in which order, how long: all of it from one seed, before the first of them.
//!
//! Kinds are dealt from a shuffled deck, so that a long run has each of them about as often as any other and a short
//! one repeats none. What only time decides (where a request is when its link is cut) is not in the seed.

use std::time::Duration;

use fastrand::Rng;

use super::fault::Fault;
use super::part::{Part, Shape};

/// Now and then two at once: one step in this many.
const OVERLAPPING: usize = 5;

/// One death or stop of a batch-sender in this many outlasts its leases, and so does one parting from the broker: it still reaches
/// the batch-receiver then.
const LASTING: usize = 2;

/// For so long the instance has to fail on an activity, while it is well, until it is parked.
pub const POISON_AFTER: Duration = Duration::from_secs(3);

/// A fault and its time within its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub fault: Fault,
    /// After the step's begin.
    pub after: Duration,
    /// From its begin to its end.
    pub lasts: Duration,
}

/// One fault, or two at once, and then the recovery of all lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What happens.
    pub faults: Vec<Planned>,
    /// Quiet time before it, so that faults don't all come in the same phase of a recovery.
    pub quiet: Duration,
}

/// What bounds a plan.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How many faults.
    pub faults: usize,
    /// The parts.
    pub shape: Shape,
    /// How many lanes.
    pub lanes: usize,
    /// The longest of the usual faults.
    pub longest: Duration,
    /// What lasts longer than a lease.
    pub outlasting: Duration,
}

/// The same steps for the same seed and bounds.
#[must_use]
pub fn plan(seed: u64, bounds: &Bounds) -> Vec<Step> {
    let mut rng = Rng::with_seed(seed);
    let mut deck = Vec::new();
    let mut steps = Vec::new();
    let mut left = bounds.faults;
    while left > 0 {
        let mut faults = vec![planned(&mut rng, &mut deck, bounds, Duration::ZERO)];
        if left > 1 && rng.usize(..OVERLAPPING) == 0 {
            let after = between(&mut rng, Duration::ZERO, faults[0].lasts);
            let second = planned(&mut rng, &mut deck, bounds, after);
            if second.fault.parts().iter().all(|part| !faults[0].fault.parts().contains(part)) {
                faults.push(second);
            } else {
                deck.push(second.fault);
            }
        }
        left -= faults.len();
        steps.push(Step { faults, quiet: between(&mut rng, Duration::ZERO, Duration::from_millis(400)) });
    }
    steps
}

fn planned(rng: &mut Rng, deck: &mut Vec<Fault>, bounds: &Bounds, after: Duration) -> Planned {
    if deck.is_empty() {
        *deck = new_deck(rng, bounds);
    }
    let fault = deck.pop().expect("a deck has cards");
    let usual = between(rng, Duration::from_millis(200), bounds.longest);
    let lasts = match fault {
        Fault::Kill(Part::Sender(_))
        | Fault::Pause(Part::Sender(_))
        | Fault::Cut(Part::Sender(_), Part::Broker)
        | Fault::Stall(Part::Sender(_), Part::Broker)
            if rng.usize(..LASTING) == 0 =>
        {
            bounds.outlasting
        }
        // Its end is that it is parked. This is for another fault beside it, and a change of owner: each owner counts anew.
        Fault::Poison(_) => Duration::from_secs(60),
        // For longer than an activity of a living instance would have to fail.
        Fault::Broken500 => POISON_AFTER + Duration::from_secs(2),
        _ => usual,
    };
    Planned { fault, after, lasts }
}

fn new_deck(rng: &mut Rng, bounds: &Bounds) -> Vec<Fault> {
    let mut deck = Vec::new();
    for part in bounds.shape.parts() {
        deck.extend([Fault::Kill(part), Fault::Pause(part)]);
    }
    for pairs in bounds.shape.pairs() {
        for make in [Fault::Cut, Fault::Stall, Fault::Reset] {
            let (from, to) = pairs[rng.usize(..pairs.len())];
            deck.push(make(from, to));
        }
    }
    deck.extend([
        Fault::KillLeader,
        Fault::KillLeader,
        Fault::Busy503,
        Fault::Busy429,
        Fault::Broken500,
        Fault::Hang,
        Fault::LoseAnswers,
    ]);
    deck.extend([Fault::Poison(rng.usize(..bounds.lanes)), Fault::Reject(rng.usize(..bounds.lanes))]);
    rng.shuffle(&mut deck);
    deck
}

fn between(rng: &mut Rng, from: Duration, to: Duration) -> Duration {
    from + to.saturating_sub(from).mul_f64(rng.f64())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn bounds(faults: usize) -> Bounds {
        Bounds {
            faults,
            shape: Shape { fronts: 2, senders: 2 },
            lanes: 4,
            longest: Duration::from_secs(4),
            outlasting: Duration::from_secs(18),
        }
    }

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(plan(7, &bounds(100)), plan(7, &bounds(100)));
        assert_ne!(plan(7, &bounds(100)), plan(8, &bounds(100)));
    }

    #[test]
    fn a_long_plan_has_every_kind_and_as_many_faults_as_were_asked_for() {
        let all: HashSet<String> = new_deck(&mut Rng::with_seed(1), &bounds(1)).into_iter().map(Fault::kind).collect();
        for seed in 0..50 {
            let steps = plan(seed, &bounds(100));
            let faults: Vec<Fault> = steps.iter().flat_map(|step| &step.faults).map(|planned| planned.fault).collect();
            assert_eq!(faults.len(), 100);
            let kinds: HashSet<String> = faults.into_iter().map(Fault::kind).collect();
            assert_eq!(kinds, all, "seed {seed}");
        }
    }

    #[test]
    fn two_at_once_have_no_part_in_common() {
        let steps = plan(3, &bounds(1000));
        let doubles: Vec<&Step> = steps.iter().filter(|step| step.faults.len() == 2).collect();
        assert!(!doubles.is_empty());
        for step in doubles {
            let second = step.faults[1].fault.parts();
            assert!(step.faults[0].fault.parts().iter().all(|part| !second.contains(part)), "{step:?}");
        }
    }
}
