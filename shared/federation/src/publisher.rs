//! Where events go. The shape is k-ap's, `anyhow` included, so that an application changes one line.

use async_trait::async_trait;

use crate::FederationEvent;

/// Takes an event off the application's hands.
///
/// `Ok` means that it is safe with somebody else; an error means that the caller still has it, and that calling again is
/// harmless: a repeat is one delivery. So who wants to send a delivery once more that was given up (a `DeliveryFailed` came) must not
/// just publish it again: for minutes that is a repeat. [`JetStreamPublisher::store_again`](crate::JetStreamPublisher::store_again)
/// is for that. This is the one place of fedstream that answers with `anyhow` outside of `main`: k-ap's trait does.
#[async_trait]
pub trait EventPublisher: Send + Sync {
    /// Publishes one event.
    ///
    /// # Errors
    /// It is not known to be stored.
    async fn publish(&self, event: FederationEvent) -> anyhow::Result<()>;
}
