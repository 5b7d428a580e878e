//! What metrics say of the broker: is it there, how often was the connection made again, and what is an ack worth.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use fedstream_jetstream::{Broker, Held};
use fedstream_service::metrics::table::{BROKER_CONNECTED, BROKER_RECONNECTS, BROKER_UNSYNCED};
use tokio::sync::watch;

/// Neither synced nor replicated, as far as was seen last.
static UNSYNCED: OnceLock<AtomicBool> = OnceLock::new();

/// Shows this connection from now on.
pub(crate) fn observe(broker: &Broker) {
    let shown = broker.clone();
    BROKER_CONNECTED.observe(move |connected| connected.is(f64::from(u8::from(shown.connected())), &[]));
    BROKER_RECONNECTS.add(0, &[]);
    tokio::spawn(count_reconnects(broker.generation()));
}

/// Shows how an acknowledged activity is held, as it was seen just now.
pub(crate) fn held(held: &Held) {
    let unsynced = UNSYNCED.get_or_init(|| {
        BROKER_UNSYNCED.observe(|unsynced| {
            let now = UNSYNCED.get().is_some_and(|unsynced| unsynced.load(Ordering::Relaxed));
            unsynced.is(f64::from(u8::from(now)), &[]);
        });
        AtomicBool::new(false)
    });
    unsynced.store(matches!(held, Held::NotSeen(_)), Ordering::Relaxed);
}

/// Until the connection is closed for good.
async fn count_reconnects(mut generation: watch::Receiver<u64>) {
    let mut made = *generation.borrow_and_update();
    while generation.changed().await.is_ok() {
        let now = *generation.borrow_and_update();
        BROKER_RECONNECTS.add(now.saturating_sub(made), &[]);
        made = now;
    }
}
