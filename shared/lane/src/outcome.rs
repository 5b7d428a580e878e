//! What became of an activity at the instance.

/// A final outcome: the activity will not be posted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Final {
    /// The instance answered 2xx.
    Delivered,
    /// Delivered before, or vouched for by the sender's floor. Never rejected.
    Duplicate,
    /// The instance refused it for good; settled when a copy is parked.
    Rejected,
}

/// A final outcome with what the instance said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The outcome.
    pub outcome: Final,
    /// HTTP status of the instance; 0 where no instance was asked (a vouched duplicate).
    pub status: u16,
    /// The beginning of the instance's answer, kept for rejections.
    pub body: Option<Box<str>>,
}

impl Answer {
    /// An answer to an activity that the sender's own floor vouches for.
    #[must_use]
    pub fn vouched() -> Self {
        Self { outcome: Final::Duplicate, status: 0, body: None }
    }
}
