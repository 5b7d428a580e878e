//! What goes wrong, one kind each as issue 3 lists them, and what a kind may excuse.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::part::Part;

/// What an instance says of the activity that it refuses for good.
pub const REFUSAL: &str = r#"{"error":"couldnt_find_community"}"#;

/// One thing that goes wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`, and a start at the end. The instance: all its connections closed and refused.
    Kill(Part),
    /// SIGSTOP, and SIGCONT at the end.
    Pause(Part),
    /// `kill -9` of the node that leads the stream of lanes, and a start at the end.
    KillLeader,
    /// Connections closed, new ones refused.
    Cut(Part, Part),
    /// Nothing arrives, and nothing says so; at the end it all does.
    Stall(Part, Part),
    /// Connections reset, new ones too.
    Reset(Part, Part),
    /// The instance answers 503 to all.
    Busy503,
    /// The instance answers 500 to all, and to the probe too: it is at fault, and no activity.
    Broken500,
    /// The instance answers 429 with a Retry-After to all.
    Busy429,
    /// The instance answers 500 to one activity of this lane, again and again.
    Poison(usize),
    /// The instance answers 400 to one activity of this lane, for good.
    Reject(usize),
    /// The instance takes requests and never answers.
    Hang,
    /// The instance takes a few activities and closes without an answer.
    LoseAnswers,
}

impl Fault {
    /// One row of the table.
    #[must_use]
    pub fn kind(self) -> String {
        match self {
            Self::Kill(Part::Instance) => "instance dies".to_owned(),
            Self::Kill(part) => format!("kill -9 {}", part.kind()),
            Self::Pause(part) => format!("stop {}", part.kind()),
            Self::KillLeader => "kill -9 of the stream's leader".to_owned(),
            Self::Cut(from, to) => format!("cut {} - {}", from.kind(), to.kind()),
            Self::Stall(from, to) => format!("stall {} - {}", from.kind(), to.kind()),
            Self::Reset(from, to) => format!("reset {} - {}", from.kind(), to.kind()),
            Self::Busy503 => "instance answers 503".to_owned(),
            Self::Busy429 => "instance answers 429".to_owned(),
            Self::Broken500 => "instance answers 500 to all".to_owned(),
            Self::Poison(_) => "500 for one activity".to_owned(),
            Self::Reject(_) => "400 for one activity".to_owned(),
            Self::Hang => "instance hangs".to_owned(),
            Self::LoseAnswers => "instance loses answers".to_owned(),
        }
    }

    /// The parts that it happens to: two faults at once have none in common.
    #[must_use]
    pub fn parts(self) -> Vec<Part> {
        match self {
            Self::Kill(part) | Self::Pause(part) => vec![part],
            // Whichever it is.
            Self::KillLeader => (0..crate::cluster::NODES).map(Part::Node).collect(),
            Self::Cut(from, to) | Self::Stall(from, to) | Self::Reset(from, to) => vec![from, to],
            _ => vec![Part::Instance],
        }
    }

    /// Whether an answer of the instance may not have reached the batch-receiver in time because of it.
    #[must_use]
    pub fn loses_answers(self) -> bool {
        match self {
            Self::LoseAnswers | Self::Hang => true,
            Self::Kill(part) | Self::Pause(part) => matches!(part, Part::Instance | Part::Receiver),
            Self::Cut(from, to) | Self::Stall(from, to) | Self::Reset(from, to) => {
                (from, to) == (Part::Receiver, Part::Instance)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(Part::Instance) => f.write_str("instance dies"),
            Self::Kill(part) => write!(f, "kill -9 {part}"),
            Self::Pause(part) => write!(f, "stop {part}"),
            Self::Cut(from, to) => write!(f, "cut {from} - {to}"),
            Self::Stall(from, to) => write!(f, "stall {from} - {to}"),
            Self::Reset(from, to) => write!(f, "reset {from} - {to}"),
            _ => f.write_str(&self.kind()),
        }
    }
}

/// A fault that was.
#[derive(Clone, Debug)]
pub struct Happened {
    /// Which.
    pub fault: Fault,
    /// The activity that it was about, of a fault that is about one.
    pub about: Option<String>,
    /// From.
    pub began: SystemTime,
    /// Until; what it caused may end later.
    pub ended: SystemTime,
}

impl Happened {
    /// Whether it may have had a part in what was from one moment to another: it went on then, or had ended less than
    /// `slack` before.
    #[must_use]
    pub fn touches(&self, from: SystemTime, to: SystemTime, slack: Duration) -> bool {
        self.began <= to && self.ended + slack >= from
    }
}
