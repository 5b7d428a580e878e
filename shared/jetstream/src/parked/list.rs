//! The list of copies, page by page.

use fedstream_lane::{AnyLane, InstanceName, LaneKind, ParkReason, Seq};
use uuid::Uuid;

use super::{Error, Parked, ParkedMessage};
use crate::{Broker, api, definitions};

/// Most copies on a page: headers of 64 KiB each at worst.
pub const LIST_MAX: usize = 500;

/// Most messages looked at for one page. With a reason that is rare a page may end here, with fewer copies or none, and
/// [`Page::next`] says where to go on: about a second, and nobody waits longer for a sign of life.
const LOOKED_AT_MAX: usize = 5_000;

/// Which copies: those for which all of it holds.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of one lane.
    pub lane: Option<AnyLane>,
    /// Of one kind of lanes.
    pub kind: Option<LaneKind>,
    /// Of the lanes of one remote instance: that sent it, or was to have it.
    pub remote: Option<InstanceName>,
    /// Outbound, signed by one actor.
    pub actor: Option<Uuid>,
    /// With one reason.
    pub reason: Option<ParkReason>,
}

impl Filter {
    /// As much of it as a subject can say: the broker passes the others over.
    fn subject(&self) -> String {
        if let Some(lane) = &self.lane {
            return lane.parked_subject();
        }
        match (self.kind, &self.remote) {
            (Some(kind @ LaneKind::Inbox), Some(remote)) => format!("fed.parked.{kind}.*.{}", remote.token()),
            (Some(kind), Some(remote)) => format!("fed.parked.{kind}.{}.*", remote.token()),
            (Some(kind), None) => format!("fed.parked.{kind}.>"),
            (None, _) => "fed.parked.>".to_owned(), // a remote is at another place in each kind's subjects
        }
    }

    fn takes(&self, copy: &Parked) -> bool {
        self.lane.as_ref().is_none_or(|lane| copy.lane == *lane)
            && self.kind.is_none_or(|kind| copy.lane.kind() == kind)
            && self.remote.as_ref().is_none_or(|remote| copy.lane.remote() == remote)
            && self.actor.is_none_or(|actor| copy.errand.as_ref().and_then(|errand| errand.actor) == Some(actor))
            && self.reason.is_none_or(|reason| copy.reason == Some(reason))
    }
}

/// A part of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order in which they were parked.
    pub copies: Vec<Parked>,
    /// Where the next page begins; none at the end.
    pub next: Option<Seq>,
}

/// Copies from sequence `from` on (0 or 1: from the first), at most `limit` and never more than [`LIST_MAX`].
///
/// # Errors
/// The broker does not answer.
pub async fn list(broker: &Broker, filter: &Filter, from: Seq, limit: usize) -> Result<Page, Error> {
    let limit = limit.clamp(1, LIST_MAX);
    let subject = filter.subject();
    let mut page = Page { copies: Vec::new(), next: Some(Seq(from.0.max(1))) };
    for _ in 0..LOOKED_AT_MAX {
        let Some(at) = page.next.filter(|_| page.copies.len() < limit) else {
            break;
        };
        let found = next(broker, at, &subject).await?;
        page.next = found.as_ref().map(|(seq, _)| Seq(seq.0 + 1));
        if let Some((_, Some(ParkedMessage { parked, .. }))) = found
            && filter.takes(&parked)
        {
            page.copies.push(parked);
        }
    }
    Ok(page)
}

/// A copy with all that it carries; none where there is no such message, or one that is no lane's.
///
/// # Errors
/// The broker does not answer.
pub async fn read(broker: &Broker, seq: Seq) -> Result<Option<ParkedMessage>, Error> {
    if !broker.connected() {
        return Err(Error::Unavailable("there is no connection to the broker".to_owned()));
    }
    let found = api::message(broker, &definitions::parked().name, seq.0, None).await;
    let found = found.map_err(|error| Error::Unavailable(error.to_string()))?;
    Ok(found.and_then(ParkedMessage::read))
}

/// The first message of the subject from `at` on: its sequence, and the copy where it is one.
async fn next(broker: &Broker, at: Seq, subject: &str) -> Result<Option<(Seq, Option<ParkedMessage>)>, Error> {
    if !broker.connected() {
        return Err(Error::Unavailable("there is no connection to the broker".to_owned()));
    }
    let found = api::message(broker, &definitions::parked().name, at.0, Some(subject)).await;
    let found = found.map_err(|error| Error::Unavailable(error.to_string()))?;
    Ok(found.map(|message| (Seq(message.sequence), ParkedMessage::read(message))))
}
