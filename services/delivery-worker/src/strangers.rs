//! Remotes that nothing was heard of yet: asked by one request at a time, until they answer.
//!
//! After a start everybody is one. Those that are dead would have all their lanes wait for a connection at once, as many as there
//! are partitions, and each time before those of others; so they cost one place each. Who has answered once is none any more,
//! whatever becomes of it: that is the breaker's.

use std::collections::{HashMap, HashSet};

use fedstream_lane::InstanceName;
use fedstream_service::shutdown::CancellationToken;

/// Remotes that are known to have answered: some 50 bytes each, and more than most have. Beyond it all are strangers again.
const ANSWERED_MAX: usize = 50_000;

/// Who is none, and which of the others are asked now.
#[derive(Debug, Default)]
pub struct Strangers {
    answered: HashSet<InstanceName>,
    /// Cancelled when that request is over.
    asked: HashMap<InstanceName, CancellationToken>,
}

/// What a request is to its remote.
#[derive(Debug)]
pub enum Meeting {
    /// One of many: the remote has answered before.
    Known,
    /// The only one. [`Strangers::over`] when it is.
    First,
    /// Another is the only one, until then.
    Later(CancellationToken),
}

impl Strangers {
    /// A request would go to this remote.
    pub fn meet(&mut self, remote: &InstanceName) -> Meeting {
        if self.answered.contains(remote) {
            return Meeting::Known;
        }
        if let Some(over) = self.asked.get(remote) {
            return Meeting::Later(over.clone());
        }
        self.asked.insert(remote.clone(), CancellationToken::new());
        Meeting::First
    }

    /// The remote answered, whatever it said.
    pub fn answers(&mut self, remote: &InstanceName) {
        if self.answered.contains(remote) {
            return;
        }
        if self.answered.len() >= ANSWERED_MAX {
            self.answered.clear();
        }
        self.answered.insert(remote.clone());
    }

    /// The only request to this remote is over; answers what those wait for that come later.
    pub fn over(&mut self, remote: &InstanceName) -> Option<CancellationToken> {
        self.asked.remove(remote)
    }

    /// How many are asked now.
    #[cfg(test)]
    pub fn asked(&self) -> usize {
        self.asked.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(number: usize) -> InstanceName {
        format!("r{number}.example").parse().expect("a name")
    }

    #[test]
    fn the_first_request_is_the_only_one_until_it_is_over_and_all_may_go_once_there_was_an_answer() {
        let mut strangers = Strangers::default();
        assert!(matches!(strangers.meet(&remote(1)), Meeting::First));
        let Meeting::Later(over) = strangers.meet(&remote(1)) else { panic!("two at a time") };
        assert!(matches!(strangers.meet(&remote(2)), Meeting::First));
        strangers.over(&remote(1)).expect("it was asked").cancel();
        assert!(over.is_cancelled());
        assert!(matches!(strangers.meet(&remote(1)), Meeting::First));
        strangers.answers(&remote(1));
        assert!(matches!(strangers.meet(&remote(1)), Meeting::Known));
    }

    #[test]
    fn it_remembers_a_bounded_number() {
        let mut strangers = Strangers::default();
        (0..=ANSWERED_MAX).for_each(|number| strangers.answers(&remote(number)));
        assert!(strangers.answered.len() <= ANSWERED_MAX);
        assert!(matches!(strangers.meet(&remote(ANSWERED_MAX)), Meeting::Known));
    }
}
