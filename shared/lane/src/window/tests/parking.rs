//! What the sender itself takes out of the way.

use super::*;

/// The copy is acked, and then the purge: only then the next one goes.
fn parked_then_purged(window: &mut SendWindow, seq: u64, reason: ParkReason) {
    assert_eq!(window.poll(Moment(5_000)), Some(Action::Park { seq: Seq(seq), reason }));
    assert_eq!(window.poll(Moment(5_000)), None, "nothing before the copy is acked");
    window.handle(Moment(5_000), Event::Parked { seq: Seq(seq) });
    assert_eq!(window.poll(Moment(5_000)), Some(Action::Trim { upto: Seq(seq), count: 1 }), "at once");
    assert_eq!(window.poll(Moment(5_000)), None, "nothing before the purge is acked");
    window.handle(Moment(5_000), Event::Trimmed { done: true });
}

#[test]
fn an_unreadable_message_is_parked_as_the_head_and_holds_back_what_follows() {
    let mut window = ready(&[10]);
    window.handle(Moment(0), Event::ReadUnreadable { seq: Seq(11), bytes: 10 });
    read(&mut window, &[12]);
    let batch = post(&mut window, 0);
    assert_eq!(seqs(&batch), [10]);
    assert_eq!(window.poll(Moment(999)), None, "not the head yet");
    deliver(&mut window, 0, &batch);
    assert_eq!(window.poll(Moment(0)), Some(Action::Park { seq: Seq(11), reason: ParkReason::Unreadable }));
    assert_eq!(trim(&mut window, 0), (10, 1), "a trim below it does not let the next one go");
    assert_eq!(window.poll(Moment(999)), None);
    window.handle(Moment(0), Event::Parked { seq: Seq(11) });
    assert_eq!(trim(&mut window, 0), (11, 1));
    assert_eq!(seqs(&post(&mut window, 0)), [12]);
}

#[test]
fn an_activity_past_its_deadline_is_never_posted() {
    let mut window = window_with(limits());
    for (seq, deadline) in [(10, None), (11, Some(Moment(4_000))), (12, None)] {
        window.handle(Moment(0), Event::Read { seq: Seq(seq), bytes: 10, deadline });
    }
    let first = post(&mut window, 4_000);
    assert_eq!(seqs(&first), [10]);
    assert_eq!(window.poll(Moment(5_000)), None, "it is not the head yet");
    deliver(&mut window, 4_000, &first);
    assert_eq!(window.poll(Moment(5_000)), Some(Action::Park { seq: Seq(11), reason: ParkReason::Expired }));
    trim(&mut window, 5_000);
    window.handle(Moment(5_000), Event::Parked { seq: Seq(11) });
    trim(&mut window, 5_000);
    assert_eq!(seqs(&post(&mut window, 5_000)), [12]);
}

#[test]
fn a_head_whose_deadline_passes_while_it_backs_off_is_parked_on_time() {
    let mut window = window_with(limits());
    window.handle(Moment(0), Event::Read { seq: Seq(10), bytes: 10, deadline: Some(Moment(50)) });
    let batch = post(&mut window, 0);
    end(&mut window, 0, batch.post, End::Lost);
    assert_eq!(window.next_deadline(), Some(Moment(50)));
    parked_then_purged(&mut window, 10, ParkReason::Expired);
    assert!(window.is_idle());
}

/// Item 10 is past its deadline, and a POST that was given up still carries it: nothing is done about it yet.
fn overdue_in_a_given_up_post() -> (SendWindow, Batch) {
    let mut window = window_with(limits());
    for seq in [10, 11, 12, 13] {
        window.handle(Moment(0), Event::Read { seq: Seq(seq), bytes: 10, deadline: Some(Moment(500)) });
    }
    let (first, second) = (post(&mut window, 0), post(&mut window, 20));
    end(&mut window, 20, second.post, End::Gap);
    assert_eq!(window.poll(Moment(500)), None, "the first may still deliver 10");
    (window, first)
}

#[test]
fn what_a_given_up_post_still_carries_is_not_parked_yet() {
    let (mut window, first) = overdue_in_a_given_up_post();
    end(&mut window, 500, first.post, End::Lost);
    parked_then_purged(&mut window, 10, ParkReason::Expired);
}

#[test]
fn an_overdue_item_that_was_delivered_all_the_same_is_not_parked() {
    let (mut window, first) = overdue_in_a_given_up_post();
    outcome(&mut window, first.post, 10, Final::Delivered);
    assert_eq!((window.floor(), trim(&mut window, 500)), (Seq(10), (10, 1)));
}

#[test]
fn a_wall_clock_that_steps_takes_the_deadlines_along() {
    let mut window = window_with(limits());
    window.handle(Moment(0), Event::Read { seq: Seq(10), bytes: 10, deadline: Some(Moment(60_000)) });
    window.handle(Moment(0), Event::ClockStepped { ahead_ms: 59_000 });
    window.handle(Moment(0), Event::ClockStepped { ahead_ms: -500 });
    assert_eq!(window.items[0].deadline, Some(Moment(1_500)));
    assert_eq!(window.poll(Moment(1_500)), Some(Action::Park { seq: Seq(10), reason: ParkReason::Expired }));
}

#[test]
fn poison_takes_enough_failures_over_enough_time_and_an_instance_that_answers_others() {
    // attempts at, alive -> parked
    for (attempts, parked) in [
        (vec![(0, false), (600, false), (1_200, true)], true),
        (vec![(0, false), (600, true), (1_200, false)], false),
        (vec![(0, false), (300, true), (900, true)], false),
        (vec![(0, false), (1_200, true)], false),
        (vec![(0, false), (600, false), (1_200, false), (2_400, false)], false),
    ] {
        let mut window = ready(&[10]);
        for (now, alive) in &attempts {
            let batch = post(&mut window, *now);
            end(&mut window, *now, batch.post, retry(10, 500, *alive));
        }
        let next = window.poll(Moment(5_000));
        let expected = Some(Action::Park { seq: Seq(10), reason: ParkReason::Poison });
        assert_eq!(next == expected, parked, "{attempts:?}: {next:?}");
    }
}

#[test]
fn an_outage_is_no_poison() {
    let mut window = ready(&[10]);
    for now in [0, 600, 1_200, 2_400, 4_000] {
        let batch = post(&mut window, now);
        end(&mut window, now, batch.post, retry(10, 503, true));
    }
    assert_eq!(seqs(&post(&mut window, 9_000)), [10]);
}

#[test]
fn the_operator_parks_the_head_and_nothing_else() {
    let mut window = ready(&[10, 11, 12]);
    let batch = post(&mut window, 0);
    window.handle(Moment(0), Event::ParkHead { seq: Seq(11) });
    outcome(&mut window, batch.post, 10, Final::Delivered);
    trim(&mut window, 0);
    end(&mut window, 0, batch.post, retry(11, 503, false));
    parked_then_purged(&mut window, 11, ParkReason::Operator);
    assert_eq!(seqs(&post(&mut window, 5_000)), [12]);
}

#[test]
fn a_park_that_is_not_acked_stops_the_lane() {
    let mut window = window_with(limits());
    window.handle(Moment(0), Event::ReadUnreadable { seq: Seq(10), bytes: 10 });
    read(&mut window, &[11]);
    assert!(matches!(window.poll(Moment(0)), Some(Action::Park { .. })));
    assert_eq!((window.poll(Moment(99_999)), window.next_deadline()), (None, None));
    assert_eq!(window.standing(), Some(Standing::ParkingTheHead(Seq(10))));
}

#[test]
fn a_purge_of_the_parked_head_that_fails_is_tried_again_and_nothing_passes() {
    let mut window = window_with(limits());
    window.handle(Moment(0), Event::ReadUnreadable { seq: Seq(10), bytes: 10 });
    read(&mut window, &[11]);
    assert!(matches!(window.poll(Moment(0)), Some(Action::Park { .. })));
    window.handle(Moment(0), Event::Parked { seq: Seq(10) });
    assert!(matches!(window.poll(Moment(0)), Some(Action::Trim { .. })));
    window.handle(Moment(0), Event::Trimmed { done: false });
    assert_eq!((window.poll(Moment(199)), window.next_deadline()), (None, Some(Moment(200))));
    trim(&mut window, 200);
    assert_eq!(seqs(&post(&mut window, 200)), [11]);
}
