//! A lane in this process, from the lease to the last trim.
//!
//! ```text
//!   lease ─▶ (what is due before its first POST) ─▶ one owner, one epoch ─▶ why it let go
//!     ▲                                                           │
//!     └── a new epoch: stale; its batches go another way ◀────────┤
//!                      given back: idle, leaving, made anew ◀─────┘
//! ```

mod actions;
mod owner;
mod reports;

use std::sync::Arc;
use std::time::Duration;

use fedstream_jetstream::Created;
use fedstream_jetstream::leases::Error as LeaseError;
use fedstream_lane::Epoch;
use fedstream_service::shutdown::CancellationToken;
use tokio::sync::watch;

pub use actions::Outcomes;

use crate::ownership::{self, Ownership, Shown};
use crate::registry::Standpoint;
use crate::trouble::Trouble;
use crate::{Direction, Shared};
use owner::{Came, Owner, Released};

/// A stale epoch is followed by a higher one at once, and if that is stale too after this long, then twice as long:
/// two sites on one lane, or a second broker, take turns safely, slowly and loudly.
const STALE_AGAIN_MIN: Duration = Duration::from_secs(1);
const STALE_AGAIN_MAX: Duration = Duration::from_secs(60);

/// Between two tries to take a new epoch.
const EPOCH_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Carries a lane of the stream that was created at `created`, until it is idle, somebody else's, the service leaves,
/// or the stream is another one. `shown` is what the bucket of leases shows of it.
pub async fn carry<D: Direction>(
    shared: Arc<Shared<D>>,
    lane: D::Lane,
    created: Created,
    shown: watch::Receiver<Shown>,
    leave: CancellationToken,
) {
    let Some(mut ownership) = Ownership::take(&shared, &lane, shown, &leave).await else { return };
    shared.registry.update(&lane, |view| {
        (view.owner, view.standpoint) = (Some(shared.sender_id.clone()), Standpoint::Owner);
    });
    let mut stale_pause = Duration::ZERO;
    let mut former = None;
    let mut came = Came::Taken { epoch: ownership.epoch(), again: ownership.is_again() };
    loop {
        if !D::prepare(&shared, &lane, created, &ownership, former.take(), &leave).await {
            return ownership.release().await;
        }
        let owner = Owner::new(Arc::clone(&shared), lane.clone(), created, &ownership, came, leave.clone());
        let epoch = ownership.epoch();
        let (released, way) = Box::pin(owner.run()).await;
        let (at_least, why) = match released {
            Released::Done => return ownership.release().await,
            Released::Anew(why) => {
                tracing::warn!(%lane, %epoch, why, "the lane is let go, and starts again under a new epoch");
                return ownership.release().await; // the next discovery starts it again
            }
            Released::LeaseLost { why, floor } => {
                ownership::changed("lost");
                shared.mine.is_anothers(&lane.to_string());
                tracing::error!(%lane, %epoch, seq = floor.0, why, "the lease is lost: this owner posts nothing more");
                return;
            }
            Released::Rerouted(why) => {
                former = Some(way);
                (Epoch(0), why)
            }
            Released::Stale { known, proven, floor } => {
                if proven {
                    stale_pause = Duration::ZERO;
                }
                tracing::warn!(%lane, %epoch, seq = floor.0, %known, again_s = stale_pause.as_secs(), "stale epoch: a higher one is taken");
                let why = format!("the far side knows epoch {known}: does another site feed this lane?");
                shared.registry.update(&lane, |view| view.trouble = (!stale_pause.is_zero()).then_some(why));
                tokio::select! {
                    () = tokio::time::sleep(stale_pause) => {}
                    () = leave.cancelled() => return ownership.release().await,
                }
                stale_pause = (stale_pause * 2).clamp(STALE_AGAIN_MIN, STALE_AGAIN_MAX);
                (Epoch(known.0.saturating_add(1)), "the far side knew a later owner")
            }
        };
        if !new_epoch(&shared, &lane, &mut ownership, at_least, &leave).await {
            return;
        }
        came = Came::NewEpoch(ownership.epoch(), why);
    }
}

/// A higher epoch under the same lease. Answers whether the lane is still ours.
async fn new_epoch<D: Direction>(
    shared: &Shared<D>,
    lane: &D::Lane,
    ownership: &mut Ownership,
    at_least: Epoch,
    leave: &CancellationToken,
) -> bool {
    let mut trouble = Trouble::none(lane, &shared.registry);
    loop {
        match ownership.bump(at_least).await {
            Ok(_) => return true,
            Err(error @ LeaseError::Lost { .. }) => {
                ownership::changed("lost");
                shared.mine.is_anothers(&lane.to_string());
                tracing::error!(%lane, epoch = %ownership.epoch(), %error, "the lease is lost");
                return false;
            }
            Err(error) => trouble.failed(ownership.epoch().0, format!("no new epoch yet: {error}")),
        }
        tokio::select! {
            () = tokio::time::sleep(EPOCH_RETRY_AFTER) => {}
            () = leave.cancelled() => return false,
        }
    }
}
