//! What goes wrong, and when: drawn before a history begins, so that it does not depend on what the lane does.

use super::rng::Rng;

/// A minute, in milliseconds.
pub const MINUTE: u64 = 60_000;

/// How the instance is, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It answers.
    Well,
    /// It answers each activity with this status; with a Retry-After, or none.
    Failing(u16, Option<u64>),
    /// It takes connections and does not answer.
    Hanging,
    /// It works, a hundred times slower.
    Slow,
    /// Something in front of it refuses everything with 403.
    Refusing,
}

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The instance is in this mood for so long.
    Instance(Mood, u64),
    /// Nothing crosses the link for so long, in one direction or in both.
    Link(u64),
    /// The broker can't be reached for so long.
    Broker(u64),
    /// The bucket with the leases is made anew: two owners believe in theirs until the next renewal.
    BucketLost,
    /// A batch-sender is killed, and started again after so long.
    CrashSender(u64),
    /// A batch-sender stands still for so long, and goes on acting with what it had polled.
    PauseSender(u64),
    /// The batch-receiver is killed, and starts again.
    CrashReceiver,
    /// The lane is given to another sender, in peace.
    HandOver,
    /// The operator pauses the lane for so long.
    OperatorPauses(u64),
    /// The operator parks the head.
    OperatorParks,
    /// The operator changes the lane's limits.
    OperatorSetsLimits,
}

impl Fault {
    /// Its name in the summary.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Instance(Mood::Failing(_, Some(_)), _) => "fault: instance fails with retry-after",
            Self::Instance(Mood::Failing(..), _) => "fault: instance fails",
            Self::Instance(Mood::Hanging, _) => "fault: instance hangs",
            Self::Instance(Mood::Slow, _) => "fault: instance slow",
            Self::Instance(Mood::Refusing, _) => "fault: instance refuses all",
            Self::Instance(Mood::Well, _) => "fault: none",
            Self::Link(_) => "fault: link down",
            Self::Broker(_) => "fault: broker away",
            Self::BucketLost => "fault: bucket lost",
            Self::CrashSender(_) => "fault: sender crashes",
            Self::PauseSender(_) => "fault: sender paused",
            Self::CrashReceiver => "fault: receiver crashes",
            Self::HandOver => "fault: lane handed over",
            Self::OperatorPauses(_) => "fault: operator pauses",
            Self::OperatorParks => "fault: operator parks",
            Self::OperatorSetsLimits => "fault: operator sets limits",
        }
    }

    fn draw(rng: &mut Rng, long: u64) -> Self {
        let outage = |rng: &mut Rng| rng.spread(1_000, long);
        match rng.between(0, 16) {
            0 | 1 => {
                let status = rng.pick(&[503, 502, 500, 429, 503]);
                let after = rng.chance(400).then(|| rng.spread(1_000, 30 * MINUTE));
                Self::Instance(Mood::Failing(status, after), outage(rng))
            }
            2 => Self::Instance(Mood::Hanging, outage(rng)),
            3 => Self::Instance(Mood::Slow, outage(rng).min(10 * MINUTE)),
            4 => Self::Instance(Mood::Refusing, rng.spread(1_000, 20 * MINUTE)),
            5 | 6 => Self::Link(outage(rng)),
            7 => Self::Broker(rng.spread(200, long / 4)),
            8 | 9 => Self::CrashSender(rng.spread(100, 2 * MINUTE)),
            10 | 11 => Self::PauseSender(rng.spread(1_000, long)),
            12 => Self::CrashReceiver,
            13 => Self::HandOver,
            15 => Self::BucketLost,
            14 => rng.pick(&[Self::OperatorPauses(0), Self::OperatorSetsLimits]).with(rng.spread(1_000, 20 * MINUTE)),
            _ => Self::OperatorParks,
        }
    }

    fn with(self, ms: u64) -> Self {
        match self {
            Self::OperatorPauses(_) => Self::OperatorPauses(ms),
            other => other,
        }
    }

    fn lasts(&self) -> u64 {
        match self {
            Self::Instance(_, ms) | Self::Link(ms) | Self::Broker(ms) | Self::OperatorPauses(ms) => *ms,
            Self::CrashSender(ms) | Self::PauseSender(ms) => *ms,
            _ => 0,
        }
    }
}

/// All that goes wrong in one history.
#[derive(Debug)]
pub struct Forecast {
    /// When what.
    pub faults: Vec<(u64, Fault)>,
    /// From then on nothing does.
    pub calm_from: u64,
}

impl Forecast {
    /// Most histories last minutes; one in eight has outages of hours.
    pub fn draw(rng: &mut Rng) -> Self {
        let (horizon, long) = if rng.chance(125) {
            (rng.between(60, 300) * MINUTE, 180 * MINUTE)
        } else {
            (rng.between(1, 20) * MINUTE, 5 * MINUTE)
        };
        let many = rng.between(0, 10);
        let faults: Vec<_> = (0..many).map(|_| (rng.between(0, horizon), Fault::draw(rng, long))).collect();
        let calm_from = faults.iter().map(|(at, fault)| at + fault.lasts()).fold(horizon, u64::max);
        Self { faults, calm_from }
    }
}
