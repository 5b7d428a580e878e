//! Where events go. The shape is k-ap's, `anyhow` included, so that an application changes one line.

use async_trait::async_trait;

use crate::FederationEvent;

/// Takes an event off the application's hands.
///
/// `Ok` means that it is safe with somebody else; an error means that the caller still has it, and that calling again is
/// harmless: a repeat is one delivery. This is the one place of fedstream that answers with `anyhow` outside of `main`: k-ap's trait does.
#[async_trait]
pub trait EventPublisher: Send + Sync {
    /// Publishes one event.
    ///
    /// **The same event within ten minutes is a repeat, and `Ok`**: nothing is sent a second time. So an activity that is to
    /// go out once more on purpose, after a `DeliveryFailed` or because a user follows, unfollows and follows again, needs an
    /// `id` of its own each time, or [`JetStreamPublisher::store_again`](crate::JetStreamPublisher::store_again).
    ///
    /// # Errors
    /// It is not known to be stored.
    async fn publish(&self, event: FederationEvent) -> anyhow::Result<()>;
}
