//! The window, one rule a test.

use super::*;

const GATE: GateId = GateId(7);

fn limits() -> WindowLimits {
    WindowLimits { batch_items: 3, batch_bytes: 100, items: 10, bytes: 1000, trim_interval_ms: 200 }
}

fn window() -> SendWindow {
    SendWindow::new(Epoch(1), Seq(9), None, limits(), Backoff::new(100, 1000, 5000))
}

fn read(window: &mut SendWindow, seqs: &[u64]) {
    for seq in seqs {
        window.handle(Moment(0), Event::Read { seq: Seq(*seq), bytes: 10 });
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

/// A window that knows its gate and holds these items.
fn ready(seqs: &[u64]) -> SendWindow {
    let mut window = window();
    read(&mut window, seqs);
    let hello = post(&mut window, 0);
    assert_eq!((hello.gate, hello.items.len()), (None, 0), "the first batch only asks for the gate");
    end(&mut window, 0, hello.post, End::NewGate(GATE));
    window
}

fn seqs(batch: &Batch) -> Vec<u64> {
    batch.items.iter().map(|seq| seq.0).collect()
}

#[test]
fn a_batch_is_bounded_by_items_and_bytes_and_a_large_item_goes_alone() {
    let mut window = ready(&[10, 13, 14, 20]);
    assert_eq!(seqs(&post(&mut window, 0)), [10, 13, 14]);
    let mut window = self::window();
    for (seq, bytes) in [(10, 60), (11, 60), (12, 500)] {
        window.handle(Moment(0), Event::Read { seq: Seq(seq), bytes });
    }
    let hello = post(&mut window, 0);
    end(&mut window, 0, hello.post, End::NewGate(GATE));
    for expected in [10, 11, 12] {
        let batch = post(&mut window, 1000 * expected);
        assert_eq!(seqs(&batch), [expected]);
        outcome(&mut window, batch.post, expected, Final::Delivered);
        end(&mut window, 0, batch.post, End::Done);
        assert!(matches!(window.poll(Moment(1000 * expected)), Some(Action::Trim { count: 1, .. })));
        window.handle(Moment(1000 * expected), Event::Trimmed { done: true });
    }
}

#[test]
fn outcomes_settle_a_growing_prefix_and_one_trim_takes_it() {
    let mut window = ready(&[10, 13, 14]);
    let batch = post(&mut window, 0);
    assert_eq!((batch.floor, batch.prev, batch.gate), (Seq(9), Seq(9), Some(GATE)));
    outcome(&mut window, batch.post, 10, Final::Delivered);
    assert_eq!(window.poll(Moment(0)), Some(Action::Trim { upto: Seq(10), count: 1 }));
    outcome(&mut window, batch.post, 13, Final::Duplicate);
    outcome(&mut window, batch.post, 14, Final::Delivered);
    assert_eq!(window.poll(Moment(0)), None, "one trim at a time");
    window.handle(Moment(5), Event::Trimmed { done: true });
    assert_eq!(window.poll(Moment(5)), None, "coalesced");
    assert_eq!(window.next_deadline(), Some(Moment(205)));
    assert_eq!(window.poll(Moment(205)), Some(Action::Trim { upto: Seq(14), count: 2 }));
}

#[test]
fn a_failed_trim_is_tried_again_with_its_count() {
    let mut window = ready(&[10]);
    let batch = post(&mut window, 0);
    outcome(&mut window, batch.post, 10, Final::Delivered);
    assert!(matches!(window.poll(Moment(0)), Some(Action::Trim { .. })));
    window.handle(Moment(0), Event::Trimmed { done: false });
    assert_eq!(window.poll(Moment(200)), Some(Action::Trim { upto: Seq(10), count: 1 }));
}

#[test]
fn no_floor_passes_a_rejected_item_before_its_copy_is_acked() {
    let mut window = ready(&[10, 13, 14, 15]);
    let batch = post(&mut window, 0);
    outcome(&mut window, batch.post, 10, Final::Rejected);
    assert_eq!(window.poll(Moment(0)), Some(Action::Park { seq: Seq(10), reason: ParkReason::Rejected, attempts: 1 }));
    outcome(&mut window, batch.post, 13, Final::Delivered);
    outcome(&mut window, batch.post, 14, Final::Delivered);
    end(&mut window, 0, batch.post, End::Done);
    assert_eq!(window.floor(), Seq(9));
    assert_eq!(window.poll(Moment(10_000)), None, "neither a trim nor a batch");
    window.handle(Moment(10_000), Event::Parked { seq: Seq(10) });
    assert_eq!(window.floor(), Seq(14));
    assert_eq!(window.poll(Moment(10_000)), Some(Action::Trim { upto: Seq(14), count: 3 }));
    let batch = post(&mut window, 10_000);
    assert_eq!((batch.floor, seqs(&batch)), (Seq(14), vec![15]));
}

#[test]
fn an_unreadable_message_is_parked_as_the_head_and_holds_back_what_follows() {
    let mut window = ready(&[10]);
    window.handle(Moment(0), Event::ReadUnreadable { seq: Seq(11), bytes: 10 });
    read(&mut window, &[12]);
    let batch = post(&mut window, 0);
    assert_eq!(seqs(&batch), [10]);
    assert_eq!(window.poll(Moment(0)), None, "not the head yet");
    outcome(&mut window, batch.post, 10, Final::Delivered);
    end(&mut window, 0, batch.post, End::Done);
    assert_eq!(
        window.poll(Moment(0)),
        Some(Action::Park { seq: Seq(11), reason: ParkReason::Unreadable, attempts: 0 })
    );
    assert_eq!(window.poll(Moment(0)), Some(Action::Trim { upto: Seq(10), count: 1 }));
    assert_eq!(window.poll(Moment(0)), None);
    window.handle(Moment(0), Event::Parked { seq: Seq(11) });
    assert_eq!(seqs(&post(&mut window, 0)), [12]);
}

#[test]
fn a_retry_rewinds_to_the_floor_and_waits() {
    let mut window = ready(&[10, 13, 14]);
    let batch = post(&mut window, 0);
    outcome(&mut window, batch.post, 10, Final::Delivered);
    window.poll(Moment(0));
    end(
        &mut window,
        0,
        batch.post,
        End::Retry { seq: Seq(13), status: Some(503), alive: false, retry_after_ms: Some(700) },
    );
    assert_eq!(window.poll(Moment(699)), None);
    assert_eq!(window.next_deadline(), Some(Moment(700)));
    let batch = post(&mut window, 700);
    assert_eq!((batch.floor, seqs(&batch)), (Seq(10), vec![13, 14]));
}

#[test]
fn a_closing_line_without_all_outcomes_is_a_lost_answer() {
    let mut window = ready(&[10, 13]);
    let batch = post(&mut window, 0);
    end(&mut window, 0, batch.post, End::Done);
    assert_eq!(window.failures(), 1);
    assert_eq!(seqs(&post(&mut window, 100)), [10, 13]);
}

#[test]
fn a_new_gate_is_followed_at_once_but_alternating_ones_back_off() {
    let mut window = ready(&[10]);
    let batch = post(&mut window, 0);
    assert_eq!(batch.gate, Some(GATE));
    end(&mut window, 0, batch.post, End::NewGate(GateId(8)));
    assert!(window.gate_alternates());
    assert_eq!(window.poll(Moment(0)), None, "the second life in a row that takes nothing");
    let batch = post(&mut window, 100);
    outcome(&mut window, batch.post, 10, Final::Delivered);
    assert!(!window.gate_alternates());
}

#[test]
fn an_instance_that_is_down_after_a_new_gate_is_no_second_receiver() {
    let mut window = ready(&[10]);
    let batch = post(&mut window, 0);
    end(&mut window, 0, batch.post, End::Lost);
    let batch = post(&mut window, 100);
    end(
        &mut window,
        100,
        batch.post,
        End::Retry { seq: Seq(10), status: Some(503), alive: false, retry_after_ms: None },
    );
    assert!(window.failures() > 0 && !window.gate_alternates());
}

#[test]
fn a_batch_that_is_not_taken_is_halved_until_it_is_one_item() {
    let mut window = ready(&[10, 13, 14]);
    let batch = post(&mut window, 0);
    end(&mut window, 0, batch.post, End::Unfit);
    let batch = post(&mut window, 0);
    assert_eq!(seqs(&batch), [10]);
    end(&mut window, 0, batch.post, End::Unfit);
    assert_eq!(window.poll(Moment(0)), None, "a single item that is not taken backs off");
    assert_eq!(window.failures(), 1);
}

#[test]
fn after_a_batch_that_was_not_taken_batches_grow_again_slowly() {
    let mut window = ready(&[10, 13, 14, 15, 16]);
    let mut sizes = vec![];
    let refused = post(&mut window, 0);
    end(&mut window, 0, refused.post, End::Unfit);
    for now in [0, 1000, 2000] {
        let batch = post(&mut window, now);
        sizes.push(batch.items.len());
        for seq in seqs(&batch) {
            outcome(&mut window, batch.post, seq, Final::Delivered);
        }
        end(&mut window, now, batch.post, End::Done);
        assert!(matches!(window.poll(Moment(now)), Some(Action::Trim { .. })));
        window.handle(Moment(now), Event::Trimmed { done: true });
    }
    assert_eq!((refused.items.len(), sizes), (3, vec![1, 2, 2]));
}

#[test]
fn a_stale_owner_stops_for_good() {
    let mut window = ready(&[10]);
    let batch = post(&mut window, 0);
    end(&mut window, 0, batch.post, End::StaleEpoch(Epoch(4)));
    assert_eq!(window.poll(Moment(0)), Some(Action::Stop(StopReason::StaleEpoch { known: Epoch(4) })));
    assert_eq!(window.poll(Moment(9_999)), None);
    assert!(!window.has_room());
}

#[test]
fn a_drain_settles_what_is_in_flight_and_trims_it() {
    let mut window = ready(&[10, 13, 14, 15]);
    let batch = post(&mut window, 0);
    window.handle(Moment(0), Event::Drain);
    assert_eq!(window.poll(Moment(0)), None, "still in flight");
    for seq in [10, 13, 14] {
        outcome(&mut window, batch.post, seq, Final::Delivered);
    }
    end(&mut window, 0, batch.post, End::Done);
    assert_eq!(window.poll(Moment(0)), Some(Action::Trim { upto: Seq(14), count: 3 }));
    assert_eq!(window.poll(Moment(0)), None);
    window.handle(Moment(0), Event::Trimmed { done: true });
    assert_eq!(window.poll(Moment(0)), Some(Action::Stop(StopReason::Drained)));
}

#[test]
fn a_drain_does_not_hammer_a_broker_that_does_not_trim() {
    let mut window = ready(&[10]);
    let batch = post(&mut window, 0);
    outcome(&mut window, batch.post, 10, Final::Delivered);
    end(&mut window, 0, batch.post, End::Done);
    window.handle(Moment(0), Event::Drain);
    assert!(matches!(window.poll(Moment(0)), Some(Action::Trim { .. })));
    window.handle(Moment(0), Event::Trimmed { done: false });
    assert_eq!((window.poll(Moment(0)), window.next_deadline()), (None, Some(Moment(200))));
    assert!(matches!(window.poll(Moment(200)), Some(Action::Trim { count: 1, .. })));
}

#[test]
fn a_gate_that_is_known_is_not_asked_for() {
    let mut window = SendWindow::new(Epoch(1), Seq(9), Some(GATE), limits(), Backoff::new(100, 1000, 5000));
    read(&mut window, &[10]);
    let batch = post(&mut window, 0);
    assert_eq!((batch.gate, seqs(&batch)), (Some(GATE), vec![10]));
    end(&mut window, 0, batch.post, End::NewGate(GateId(8)));
    assert_eq!(post(&mut window, 0).gate, Some(GateId(8)), "it was the wrong one: posted again at once");
}

#[test]
fn a_late_end_of_an_old_post_is_ignored() {
    let mut window = ready(&[10]);
    let first = post(&mut window, 0);
    end(&mut window, 0, first.post, End::Lost);
    let second = post(&mut window, 100);
    end(&mut window, 100, first.post, End::Done);
    outcome(&mut window, first.post, 10, Final::Delivered);
    assert_eq!(window.floor(), Seq(9));
    outcome(&mut window, second.post, 10, Final::Delivered);
    assert_eq!(window.floor(), Seq(10));
}
