//! Who sends a v1 batch, where that is one of our own batch-senders. The format has no place for it, so it goes as an HTTP
//! header, which the existing receiver passes over: `fed-owner: <subject of the lane> <site> <stream's creation> <epoch>`.
//!
//! Ours learns from it that a lane which goes on in the other format still has the same sender, and which batch is the
//! later one. It says nothing about activities: nothing is settled or refused by it.

use fedstream_lane::{Epoch, Lane, Origin};

/// The HTTP header of a request.
pub const OWNER_HEADER: &str = "fed-owner";

/// The owner of a lane, as a v2 batch's header has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The lane that the batch is of, as its sender knows it.
    pub lane: Lane,
    /// Site and stream.
    pub origin: Origin,
    /// Which owner in turn.
    pub epoch: Epoch,
}

impl Owner {
    /// The header's value.
    #[must_use]
    pub fn header(&self) -> String {
        format!("{} {} {} {}", self.lane.subject(), self.origin.site, self.origin.created_us, self.epoch)
    }

    /// Whoever wrote this value; nobody where it is none.
    #[must_use]
    pub fn read(header: &str) -> Option<Self> {
        let mut words = header.split(' ');
        let lane = Lane::from_subject(words.next()?).ok()?;
        let site = Some(words.next()?).filter(|site| !site.is_empty())?;
        let (created_us, epoch) = (words.next()?.parse().ok()?, Epoch(words.next()?.parse().ok()?));
        words.next().is_none().then(|| Self { lane, origin: Origin { site: site.into(), created_us }, epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_reads_back_and_anything_else_is_nobody() {
        let lane = Lane::from_subject("fed.inbox.b_example.a_example=3A8443").expect("a lane");
        let owner = Owner { lane, origin: Origin { site: "near-1".into(), created_us: 17 }, epoch: Epoch(3) };
        assert_eq!(owner.header(), "fed.inbox.b_example.a_example=3A8443 near-1 17 3");
        assert_eq!(Owner::read(&owner.header()), Some(owner));
        for text in [
            "",
            "near 17 3",
            "b/a near 17 3",
            "fed.inbox.b.a  17 3",
            "fed.inbox.b.a near 17",
            "fed.inbox.b.a near 17 3 4",
            "fed.inbox.b.a near -1 3",
        ] {
            assert_eq!(Owner::read(text), None, "{text}");
        }
    }
}
