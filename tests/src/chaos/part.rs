//! The parts that faults happen to, and the pairs of them that talk to each other.

use std::fmt;

use crate::cluster::NODES;

/// Who can be killed, paused, or parted from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The sending instances. Nothing happens to them, only to their way to a front.
    Outside,
    /// An inbox-receiver.
    Front(usize),
    /// A nats-server of the cluster.
    Node(usize),
    /// All of them, as the other end of a link: who is cut off from it has no node to go to.
    Broker,
    /// A batch-sender.
    Sender(usize),
    /// The batch-receiver.
    Receiver,
    /// The receiving instance.
    Instance,
}

impl Part {
    /// What it is one of.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Front(_) => "inbox-receiver",
            Self::Node(_) => "nats node",
            Self::Broker => "all nats nodes",
            Self::Sender(_) => "batch-sender",
            Self::Receiver => "batch-receiver",
            Self::Instance => "instance",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Front(number) | Self::Node(number) | Self::Sender(number) => write!(f, "{} {number}", self.kind()),
            _ => f.write_str(self.kind()),
        }
    }
}

/// How many there are of the parts that there are several of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// inbox-receivers.
    pub fronts: usize,
    /// batch-senders.
    pub senders: usize,
}

impl Shape {
    /// All parts that can be killed and paused.
    #[must_use]
    pub fn parts(self) -> Vec<Part> {
        let fronts = (0..self.fronts).map(Part::Front);
        let senders = (0..self.senders).map(Part::Sender);
        fronts.chain(senders).chain((0..NODES).map(Part::Node)).chain([Part::Receiver, Part::Instance]).collect()
    }

    /// All pairs that talk, the one that connects first; grouped by what the two are.
    #[must_use]
    pub fn pairs(self) -> Vec<Vec<(Part, Part)>> {
        let nodes = |from: Part| (0..NODES).map(move |node| (from, Part::Node(node)));
        vec![
            (0..self.fronts).map(|front| (Part::Outside, Part::Front(front))).collect(),
            (0..self.fronts).flat_map(|front| nodes(Part::Front(front))).collect(),
            (0..NODES).flat_map(|a| (a + 1..NODES).map(move |b| (Part::Node(a), Part::Node(b)))).collect(),
            (0..self.senders).flat_map(|sender| nodes(Part::Sender(sender))).collect(),
            (0..self.fronts).map(|front| (Part::Front(front), Part::Broker)).collect(),
            (0..self.senders).map(|sender| (Part::Sender(sender), Part::Broker)).collect(),
            (0..self.senders).map(|sender| (Part::Sender(sender), Part::Receiver)).collect(),
            vec![(Part::Receiver, Part::Instance)],
        ]
    }
}
