//! One activity to many inboxes: a shared inbox gets it once, however many followers are behind it.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use super::{ActivityPubService, PublishError};
use crate::FederationEvent;
use crate::activity::{self, Activity};
use crate::attempt::Delivery;

/// Events that are published at a time: each waits for its ack, and a broker that syncs each write takes milliseconds.
const AT_A_TIME: usize = 32;

/// A follower's inboxes, as its actor document has them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recipient {
    /// `inbox`.
    pub inbox: Url,
    /// `endpoints.sharedInbox`, where there is one: then it is used.
    pub shared_inbox: Option<Url>,
}

impl Recipient {
    /// Where the activity goes.
    #[must_use]
    pub fn used(&self) -> &Url {
        self.shared_inbox.as_ref().unwrap_or(&self.inbox)
    }
}

impl From<Url> for Recipient {
    fn from(inbox: Url) -> Self {
        Self { inbox, shared_inbox: None }
    }
}

/// What was handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Deliveries: distinct inboxes.
    pub deliveries: usize,
}

/// An inbox to which the activity is not known to be on its way.
#[derive(Debug)]
pub struct NotSent {
    /// The inbox.
    pub inbox: Url,
    /// Why.
    pub error: PublishError,
}

/// Not everybody will get it.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nobody will.
    #[error(transparent)]
    Activity(#[from] activity::Error),
    /// Some won't. Sending it again to all is harmless with a publisher that knows repeats, else to these.
    #[error("not on its way to {} of {of} inboxes: {}", .not_sent.len(), .not_sent.first().map_or_else(String::new, |first| first.error.to_string()))]
    Some {
        /// Distinct inboxes.
        of: usize,
        /// Those that are left.
        not_sent: Vec<NotSent>,
    },
}

impl ActivityPubService {
    /// Sends an activity to everybody in a list, each inbox once, shared ones in place of personal ones.
    ///
    /// # Errors
    /// The activity can't be sent, or is not known to be on its way to some of them.
    pub async fn send(
        &self,
        activity: &Value,
        signing_actor_id: Uuid,
        recipients: impl IntoIterator<Item = Recipient>,
    ) -> Result<Sent, SendError> {
        let prepared = Arc::new(Activity::from_value(activity)?); // digest and bytes: once for all
        let mut seen = HashSet::new();
        let inboxes: Vec<Url> =
            recipients.into_iter().map(|to| to.used().clone()).filter(|to| seen.insert(to.clone())).collect();
        let of = inboxes.len();
        // Room for its bytes once, too.
        let room = match self.shared.publisher {
            Some(_) => None,
            None => self.shared.in_process.room(&prepared).ok(),
        };
        let handing_on = inboxes.into_iter().map(|inbox| {
            let (prepared, room) = (prepared.clone(), &room);
            async move {
                let handed_on = match (&self.shared.publisher, room) {
                    (Some(publisher), _) => {
                        let (inbox, activity) = (inbox.clone(), activity.clone());
                        let event = FederationEvent::DeliveryRequested { inbox, activity, signing_actor_id };
                        publisher.publish(event).await.map_err(PublishError::Publisher)
                    }
                    (None, Some(room)) => {
                        let delivery = Delivery { inbox: inbox.clone(), activity: prepared, signing_actor_id };
                        self.shared.in_process.deliver(delivery, room.clone()).map_err(PublishError::from)
                    }
                    (None, None) => Err(self.shared.in_process.no_room().into()),
                };
                handed_on.err().map(|error| NotSent { inbox, error })
            }
        });
        let results: Vec<Option<NotSent>> = futures::stream::iter(handing_on).buffered(AT_A_TIME).collect().await;
        let not_sent: Vec<NotSent> = results.into_iter().flatten().collect();
        if not_sent.is_empty() { Ok(Sent { deliveries: of }) } else { Err(SendError::Some { of, not_sent }) }
    }
}
