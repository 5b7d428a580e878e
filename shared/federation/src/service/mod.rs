//! What an application calls. The names are k-ap's where it has them.

mod builder;
mod send;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use url::Url;
use uuid::Uuid;

use crate::activity::{self, Activity};
use crate::attempt::{Attempts, Delivery};
use crate::backfill::{self, Backfilled, Position};
use crate::in_process::{self, InProcess, Left};
use crate::verdict::Verdict;
use crate::{EventPublisher, FederationEvent};

pub use builder::{Builder, Error as BuildError};
pub use send::{NotSent, Recipient, SendError, Sent};

/// Why a single delivery did not arrive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// For good: another attempt would hear the same.
    #[error("refused: {cause}")]
    Refused {
        /// The remote's status; none where no remote was asked.
        status: Option<u16>,
        /// The reason in words.
        cause: String,
    },
    /// Later, and not before `after` where the remote asked for it.
    #[error("not now: {cause}")]
    Retry {
        /// The remote's status; none where there was no answer.
        status: Option<u16>,
        /// The remote's Retry-After.
        after: Option<Duration>,
        /// The reason in words.
        cause: String,
    },
}

/// Why an event is not known to be taken.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The application's publisher says so.
    #[error("{0:#}")]
    Publisher(anyhow::Error),
    /// In process: nothing more is taken.
    #[error(transparent)]
    InProcess(#[from] in_process::Error),
}

/// Federation for one application: sends activities, in process or through an [`EventPublisher`].
///
/// Cheap to clone; all clones are one service.
#[derive(Clone)]
pub struct ActivityPubService {
    shared: Arc<Shared>,
}

struct Shared {
    attempts: Attempts,
    publisher: Option<Arc<dyn EventPublisher>>,
    in_process: InProcess,
}

impl ActivityPubService {
    /// Begins with the URL at which the application is known, for example `https://our.example`.
    pub fn builder(base_url: impl Into<String>) -> Builder {
        Builder::new(base_url.into())
    }

    /// Makes a single attempt to deliver, now: what a worker calls, and k-ap's method of that name.
    ///
    /// # Errors
    /// Whether it makes sense to try again, and when.
    pub async fn deliver_to_inbox(
        &self,
        inbox: Url,
        activity: Value,
        signing_actor_id: Uuid,
    ) -> Result<(), DeliveryError> {
        let unfit = |error: activity::Error| DeliveryError::Refused { status: None, cause: error.to_string() };
        let activity = Arc::new(Activity::from_value(&activity).map_err(unfit)?);
        let delivery = Delivery { inbox, activity, signing_actor_id };
        match self.shared.attempts.attempt(&delivery).await.verdict {
            Verdict::Delivered { .. } => Ok(()),
            Verdict::Refused { status, cause } => Err(DeliveryError::Refused { status, cause }),
            Verdict::Retry { status, after, cause } => Err(DeliveryError::Retry { status, after, cause }),
        }
    }

    /// Sends the user's own history to a new follower's inbox, oldest to newest: k-ap's method of that name. It is done when
    /// this returns; each activity is tried by the same rule as every other.
    ///
    /// # Errors
    /// There is no history, or it came to a halt: the error says where it can go on.
    pub async fn run_backfill_for_follower(
        &self,
        owner_user_id: Uuid,
        follower_inbox_url: String,
    ) -> Result<Backfilled, backfill::Error> {
        self.resume_backfill(owner_user_id, follower_inbox_url, Position::default()).await
    }

    /// The same, from where another one came to a halt: see [`backfill::Error`] and [`Left`].
    ///
    /// # Errors
    /// As [`run_backfill_for_follower`](Self::run_backfill_for_follower).
    pub async fn resume_backfill(
        &self,
        owner_user_id: Uuid,
        follower_inbox_url: String,
        from: Position,
    ) -> Result<Backfilled, backfill::Error> {
        let inbox = follower_inbox_url.parse().map_err(|_| backfill::Error::InboxUrl(follower_inbox_url))?;
        self.shared.in_process.backfill(owner_user_id, inbox, from).await
    }

    /// Asks for a backfill, to be made in the background: when a new follower was accepted. In process it goes on through
    /// outages as a delivery does; what a follower refuses is told as a `DeliveryFailed` each.
    ///
    /// # Errors
    /// It is not known to be taken; asking again is harmless.
    pub async fn request_backfill(&self, owner_user_id: Uuid, follower_inbox_url: String) -> Result<(), PublishError> {
        self.publish(FederationEvent::BackfillRequested { owner_user_id, follower_inbox_url }).await
    }

    /// Hands an event on: to the publisher, or into this process's own queue.
    ///
    /// # Errors
    /// It is not known to be taken; publishing it again is harmless.
    pub async fn publish(&self, event: FederationEvent) -> Result<(), PublishError> {
        match &self.shared.publisher {
            Some(publisher) => publisher.publish(event).await.map_err(PublishError::Publisher),
            None => Ok(self.shared.in_process.submit(event)?),
        }
    }

    /// Takes nothing more into this process's queue, waits for what is in it for at most `deadline`, and hands back what was
    /// left. With a publisher nothing ever is: it is safe there.
    pub async fn shut_down(&self, deadline: Duration) -> Left {
        self.shared.in_process.shut_down(deadline).await
    }

    /// The engine beneath, for a worker of one's own.
    #[must_use]
    pub fn attempts(&self) -> &Attempts {
        &self.shared.attempts
    }
}
