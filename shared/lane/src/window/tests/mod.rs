//! The window, one rule a test.

use super::*;
use crate::{Final, PostId};

mod parking;
mod pausing;
mod posting;
mod settling;
mod stopping;

const GATE: GateId = GateId(7);
const FOR_EVER: Moment = Moment(u64::MAX);

fn limits() -> WindowLimits {
    WindowLimits {
        batch_items: 3,
        batch_bytes: 100,
        posts: 2,
        in_flight_items: 6,
        in_flight_bytes: 200,
        items: 12,
        bytes: 1000,
        linger_ms: 20,
        rate_per_s: None,
        trim_interval_ms: 200,
        rejections_max: 3,
        poison_attempts: 3,
        poison_after_ms: 1_000,
    }
}

fn start(gate: Option<GateId>) -> Start {
    Start { epoch: Epoch(1), floor: Seq(9), gate, lease_until: FOR_EVER }
}

fn window_with(limits: WindowLimits) -> SendWindow {
    SendWindow::new(start(Some(GATE)), limits, Backoff::new(100, 1000, 5000))
}

/// A window that knows its gate and holds these items.
fn ready(seqs: &[u64]) -> SendWindow {
    let mut window = window_with(limits());
    read(&mut window, seqs);
    window
}

fn read(window: &mut SendWindow, seqs: &[u64]) {
    for seq in seqs {
        window.handle(Moment(0), Event::Read { seq: Seq(*seq), bytes: 10, deadline: None });
    }
}

fn post(window: &mut SendWindow, now: u64) -> Batch {
    match window.poll(Moment(now)) {
        Some(Action::Post(batch)) => batch,
        other => panic!("expected a post, got {other:?}"),
    }
}

fn end(window: &mut SendWindow, now: u64, post: PostId, end: End) {
    window.handle(Moment(now), Event::Ended { post, end, jitter: 0 });
}

fn outcome(window: &mut SendWindow, post: PostId, seq: u64, outcome: Final) {
    window.handle(Moment(0), Event::Outcome { post, seq: Seq(seq), outcome });
}

/// Every item of the batch is delivered, and the batch is done.
fn deliver(window: &mut SendWindow, now: u64, batch: &Batch) {
    for seq in &batch.items {
        outcome(window, batch.post, seq.0, Final::Delivered);
    }
    end(window, now, batch.post, End::Done);
}

/// Acks the trim that is due.
fn trim(window: &mut SendWindow, now: u64) -> (u64, u64) {
    match window.poll(Moment(now)) {
        Some(Action::Trim { upto, count }) => {
            window.handle(Moment(now), Event::Trimmed { done: true });
            (upto.0, count)
        }
        other => panic!("expected a trim, got {other:?}"),
    }
}

fn retry(seq: u64, status: u16, alive: bool) -> End {
    End::Retry { seq: Seq(seq), status: Some(status), alive, retry_after_ms: None }
}

fn seqs(batch: &Batch) -> Vec<u64> {
    batch.items.iter().map(|seq| seq.0).collect()
}
