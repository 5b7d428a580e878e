//! A backfill's recipient in process: the follower's inbox, one activity after the other, each by the retry rule.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::time::Instant;
use tracing::Span;
use url::Url;
use uuid::Uuid;

use super::{Recipient, Refusal};
use crate::activity::Activity;
use crate::attempt::Delivery;
use crate::in_process::{Outcome, Retrying};

pub(crate) struct Inbox<'r> {
    retrying: &'r Retrying,
    owner: Uuid,
    inbox: Url,
}

impl<'r> Inbox<'r> {
    pub(crate) fn new(retrying: &'r Retrying, owner: Uuid, inbox: Url) -> Self {
        Self { retrying, owner, inbox }
    }
}

#[async_trait]
impl Recipient for Inbox<'_> {
    async fn take(&mut self, activity: Value) -> Result<(), Refusal> {
        let activity = Activity::from_value(&activity).map_err(|error| Refusal::ThisOne(error.to_string()))?;
        let delivery =
            Delivery { inbox: self.inbox.clone(), activity: Arc::new(activity), signing_actor_id: self.owner };
        match self.retrying.deliver(&delivery, Instant::now(), Span::current()).await {
            Outcome::Delivered => Ok(()),
            // The inbox itself is not there any more: the rest of the history would hear the same.
            Outcome::Failed { status: Some(404 | 410), cause, .. } => Err(Refusal::Gone(cause)),
            Outcome::Failed { refused: true, cause, .. } => Err(Refusal::ThisOne(cause)),
            Outcome::Failed { refused: false, cause, .. } => Err(Refusal::NotNow(cause)),
        }
    }
}
