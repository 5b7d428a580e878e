//! A lane whose batches go to another receiver from now on: the gate at the old one is closed first.
//!
//! What was posted there and never answered may still be on its way. A batch of the new epoch, empty, voids it: after
//! that the old receiver begins nothing of the lane. Only then does the new one get anything. Until it is done the old
//! address stays in the lane's settings (`batch_url_before`), so that a crash in between forgets nothing.
//!
//! A v1 receiver has no gate to close: its batches were answered, or are given up, before the lane got here.

use std::time::Duration;

use fedstream_carrier::{Ownership, Trouble};
use fedstream_jetstream::Created;
use fedstream_jetstream::lane_settings::{self, Key};
use fedstream_lane::{End, GateId, Lane, Seq};
use fedstream_service::shutdown::CancellationToken;
use fedstream_wire::protocol::Protocol;
use fedstream_wire::v2;

use crate::inbound::Shared;
use crate::plan::batch_url;

/// Why a lane stands meanwhile.
const CLOSING: &str = "the change to another receiver waits until the old one's gate is closed";

/// Between two tries to close the old gate, the first and the longest.
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// Notes in the lane's settings where its batches went until now.
pub async fn note_former(shared: &Shared, lane: &Lane, from: &str) {
    if let Err(error) = remember(shared, lane, from).await {
        tracing::warn!(%lane, %error, "the former address is not in the lane's settings: known only here until it is closed");
    }
}

async fn remember(shared: &Shared, lane: &Lane, before: &str) -> Result<(), lane_settings::Error> {
    let edit = |settings: &mut lane_settings::LaneSettings| {
        settings.batch_url_before.get_or_insert_with(|| before.to_owned());
    };
    lane_settings::update(&shared.broker, &Key::Lane(lane.clone()), edit).await.map(drop)
}

/// Closes the gate that the lane's settings still name, or that it comes `from`, if there is one. Answers false when told
/// to leave before.
pub async fn close_the_gate_before(
    shared: &Shared,
    lane: &Lane,
    created: Created,
    ownership: &Ownership,
    from: Option<String>,
    leave: &CancellationToken,
) -> bool {
    if let Some(from) = &from {
        note_former(shared, lane, from).await;
    }
    let epoch = ownership.epoch();
    let mut trouble = Trouble::none(lane, &shared.registry);
    let mut pause = AGAIN_MIN;
    let mut changed = shared.settings.snapshot();
    loop {
        changed.mark_unchanged();
        let settings = shared.settings.for_lane(lane);
        let Some(before) = settings.batch_url_before.as_ref().or(from.as_ref()) else {
            trouble.over(epoch.0);
            return true;
        };
        let forced = settings.batch_url_forced == Some(true);
        let now = batch_url(&shared.direction.config, &settings);
        let leaves_it = async {
            if !forced && *before != now {
                shared.registry.update(lane, |view| view.stands = Some(CLOSING.to_owned()));
                let closed = close(shared, before, lane, created, ownership).await;
                closed.map_err(|cause| format!("the old one can't be closed: {cause}"))?;
            }
            forget(shared, lane, before).await.map_err(|error| error.to_string())
        };
        // An answer may take half a minute: too long for a service that is told to stop, and for a lease that is lost.
        let done = tokio::select! {
            done = leaves_it => done,
            gone = gone(lane, ownership, leave) => return gone,
        };
        match done {
            Ok(()) => {
                shared.registry.update(lane, |view| view.stands = None);
                tracing::info!(%lane, %epoch, from = before, to = now, forced, "the lane goes to another receiver");
                return true;
            }
            Err(cause) => trouble.failed(epoch.0, cause),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = changed.changed() => continue, // forced, or back to the old one
            gone = gone(lane, ownership, leave) => return gone,
        }
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

/// Waits until told to leave, or until the lane is not ours any more: false.
async fn gone(lane: &Lane, ownership: &Ownership, leave: &CancellationToken) -> bool {
    tokio::select! {
        () = leave.cancelled() => {}
        why = ownership.lost() => {
            tracing::error!(%lane, epoch = %ownership.epoch(), why, "the lease is lost: this owner posts nothing more");
        }
    }
    false
}

/// An empty batch of this epoch to a receiver that has a gate, once to learn the gate and once to close it.
async fn close(
    shared: &Shared,
    before: &str,
    lane: &Lane,
    created: Created,
    ownership: &Ownership,
) -> Result<(), String> {
    if shared.direction.link.to(before).ask().await? == Protocol::V1 {
        return Ok(());
    }
    let link = shared.direction.link.to(before); // which speaks what was found
    let mut gate: Option<GateId> = shared.direction.gates.known(link.url());
    for _ in 0..2 {
        let header = v2::BatchHeader {
            origin: shared.direction.config.origin(created),
            lane: lane.clone(),
            epoch: ownership.epoch(),
            gate,
            floor: Seq(0),
            prev: Seq(0),
            profile: None,
        };
        let ended = link
            .post(&v2::Batch { header, items: vec![] }, None, &CancellationToken::new(), |_, _| std::future::ready(()))
            .await;
        match ended.end {
            End::Done | End::StaleEpoch(_) => return Ok(()), // a later owner has closed it for us
            End::NewGate(current) => gate = Some(current),
            _ => return Err(ended.cause.unwrap_or_default()),
        }
    }
    Err("two batch-receivers answer in turn".to_owned())
}

/// Takes the old address out of the lane's settings.
async fn forget(shared: &Shared, lane: &Lane, before: &str) -> Result<(), lane_settings::Error> {
    let edit = |settings: &mut lane_settings::LaneSettings| {
        if settings.batch_url_before.as_deref() == Some(before) {
            (settings.batch_url_before, settings.batch_url_forced) = (None, None);
        }
    };
    lane_settings::update(&shared.broker, &Key::Lane(lane.clone()), edit).await.map(drop)
}
