//! Whether anything could be stored now: the connection to the broker and the state of the stream, watched, on `/readyz`.

use std::sync::Arc;
use std::time::Duration;

use fedstream_jetstream::{Broker, Held, StreamState, durability};
use fedstream_service::readiness::Readiness;
use tokio::sync::watch;

use crate::admit::Admission;

/// The connection's state has no event of its own to wait for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The checks of `/readyz`.
pub fn checks() -> Readiness {
    Readiness::new(&["broker", "stream"])
}

/// Follows broker and stream for as long as it is polled.
pub async fn follow(
    readiness: Readiness,
    broker: Broker,
    mut state: watch::Receiver<StreamState>,
    admission: Arc<Admission>,
) {
    let mut generation = broker.generation();
    loop {
        show_broker(&readiness, &broker);
        let now = state.borrow_and_update().clone();
        show_stream(&readiness, &now);
        readiness.note("lane-age", admission.ages().trouble());
        readiness.note("lane-settings", admission.rules().trouble());
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            changed = generation.changed() => {
                if changed.is_err() { return }
                // Another server may sync otherwise.
                note_durability(&readiness, &broker, &now).await;
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Says how an acknowledged activity is held, where that is less than promised or can't be seen.
pub async fn note_durability(readiness: &Readiness, broker: &Broker, state: &StreamState) {
    let Some(facts) = state.facts() else { return };
    let held = durability::seen(broker.settings(), facts).await;
    fedstream_connect::metrics::held(&held);
    match &held {
        Held::NotSeen(_) => {
            tracing::warn!(%held, "what a 204 promises can't be seen to hold");
            readiness.note("durability", Some(held.to_string()));
        }
        Held::Synced | Held::Replicated(_) => {
            tracing::info!(%held, "an activity answered with 204 is held");
            readiness.note("durability", None);
        }
    }
}

fn show_broker(readiness: &Readiness, broker: &Broker) {
    if broker.connected() {
        readiness.ready("broker", format!("connected to nats-server {}", broker.server_version()));
    } else {
        readiness.not_ready("broker", "there is no connection to the broker");
    }
}

fn show_stream(readiness: &Readiness, state: &StreamState) {
    match state {
        StreamState::Present(facts) => readiness.ready("stream", format!("{} is there and safe", facts.name)),
        StreamState::Missing => readiness.not_ready("stream", "the stream is missing"),
        StreamState::Unsafe(reason) | StreamState::Unknown(reason) => readiness.not_ready("stream", reason.clone()),
    }
}
