//! What the model's bounds don't reach, played by hand: streams made anew, two sites, and waits for nothing.
//!
//! Each scenario asserts an invariant by its name; with all rules in force each passes.

use fedstream_lane::{
    Action, Answer, Backoff, Batch, Epoch, Event, Final, GateId, GateLimits, Head, MemoryLimits, Moment, MsgId, Origin,
    ReceiveGate, SendWindow, Seq, Start, Step, Visit, WindowLimits,
};

const LIFE: GateId = GateId(1);
const NOW: Moment = Moment(0);

/// A site's stream, in one of its incarnations.
#[derive(Clone, Copy)]
struct Stream(&'static str, u64);

fn gate() -> ReceiveGate {
    ReceiveGate::new(LIFE, GateLimits { memory: MemoryLimits { items: 8, bytes: 10_000 }, wait_max_ms: 0 })
}

fn admits(gate: &mut ReceiveGate, stream: Stream, epoch: u64, floor: u64) -> bool {
    let origin = Origin { site: stream.0.into(), created_us: stream.1 };
    gate.admit(&Head { gate: Some(LIFE), origin, epoch: Epoch(epoch), floor: Seq(floor) }).is_ok()
}

/// An item asks; what may go to the instance is taken there.
fn visit(gate: &mut ReceiveGate, epoch: u64, prev: u64, seq: u64, text: &str) -> Step {
    let msg_id = MsgId::new(text);
    let step =
        gate.step(NOW, &Visit { epoch: Epoch(epoch), prev: Seq(prev), seq: Seq(seq), msg_id: &msg_id, since: NOW });
    if step == Step::Deliver {
        gate.finished(Some(Answer { outcome: Final::Delivered, status: 200, body: None }));
    }
    step
}

/// The second of two POSTs side by side arrives when the first is through: there is nothing that it could wait for.
pub fn a_hole_between_sequences_is_no_missing_batch() {
    let limits = WindowLimits {
        batch_items: 1,
        batch_bytes: 1,
        posts: 2,
        in_flight_items: 2,
        in_flight_bytes: 2,
        items: 2,
        bytes: 2,
        linger_ms: 0,
        rate_per_s: None,
        trim_interval_ms: 0,
        rejections_max: 0,
        poison_attempts: 2,
        poison_after_ms: 0,
    };
    let start = Start { epoch: Epoch(1), floor: Seq(1), gate: Some(LIFE), lease_until: Moment(u64::MAX) };
    let mut window = SendWindow::new(start, limits, Backoff::new(1, 1, 1));
    for seq in [2, 7] {
        window.handle(NOW, Event::Read { seq: Seq(seq), bytes: 1, deadline: None });
    }
    let mut gate = gate();
    for seq in [2, 7] {
        let Some(Action::Post(Batch { prev, floor, .. })) = window.poll(NOW) else { panic!("two POSTs side by side") };
        assert!(admits(&mut gate, Stream("near", 1), 1, floor.0));
        assert_eq!(visit(&mut gate, 1, prev.0, seq, "m"), Step::Deliver, "awake: {seq} waits, and nothing is missing");
    }
}

/// A new owner repeats what the gate remembers, and goes on behind it in the same batch.
pub fn what_is_remembered_is_not_waited_for() {
    let mut gate = gate();
    let stream = Stream("near", 1);
    assert!(admits(&mut gate, stream, 1, 1) && visit(&mut gate, 1, 1, 2, "a") == Step::Deliver);
    assert!(admits(&mut gate, stream, 2, 1));
    assert!(matches!(visit(&mut gate, 2, 1, 2, "a"), Step::Answer(_)));
    assert_eq!(visit(&mut gate, 2, 2, 7, "b"), Step::Deliver, "awake: 7 waits, and nothing is missing");
}

/// A stream made anew begins with low sequences again; its second batch comes first.
pub fn a_stream_made_anew_has_an_order_of_its_own() {
    let mut gate = gate();
    assert!(admits(&mut gate, Stream("near", 1), 1, 8) && visit(&mut gate, 1, 8, 9, "old") == Step::Deliver);
    assert!(admits(&mut gate, Stream("near", 2), 2, 0));
    assert!(visit(&mut gate, 2, 1, 2, "second") != Step::Deliver, "in-order: the second before the first");
}

/// A stream made anew brings another activity under a sequence that is remembered.
pub fn a_sequence_that_comes_back_is_another_activity() {
    let mut gate = gate();
    assert!(admits(&mut gate, Stream("near", 1), 1, 0) && visit(&mut gate, 1, 0, 1, "old") == Step::Deliver);
    assert!(admits(&mut gate, Stream("near", 2), 2, 0));
    assert_eq!(visit(&mut gate, 2, 0, 1, "new"), Step::Deliver, "no-loss: answered, purged, never delivered");
}

/// Two sites happen to use one epoch: the floor of the one says nothing about the other's activities.
pub fn one_sites_floor_does_not_vouch_for_anothers_activities() {
    let mut gate = gate();
    assert!(admits(&mut gate, Stream("near", 1), 1, 9));
    let answered =
        admits(&mut gate, Stream("far", 1), 1, 0) && matches!(visit(&mut gate, 1, 0, 1, "f"), Step::Answer(_));
    assert!(!answered, "no-loss: answered, purged, never delivered");
}
