//! Whether anything could be stored now: the connection to the broker and the state of the stream, watched, on `/readyz`.

use std::sync::Arc;
use std::time::Duration;

use fedstream_jetstream::{Broker, StreamState};
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
    loop {
        show_broker(&readiness, &broker);
        show_stream(&readiness, &state.borrow_and_update());
        readiness.note("lane-age", admission.ages().trouble());
        readiness.note("lane-settings", admission.rules().trouble());
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_EVERY) => {}
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
