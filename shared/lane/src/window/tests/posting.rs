//! What goes out, and when.

use super::*;

#[test]
fn the_first_batch_of_a_process_asks_for_the_gate_and_is_empty() {
    let mut window = SendWindow::new(start(None), limits(), Backoff::new(100, 1000, 5000));
    read(&mut window, &[10]);
    let hello = post(&mut window, 0);
    assert_eq!((hello.gate, hello.items.len()), (None, 0));
    assert_eq!(window.poll(Moment(999)), None, "one question at a time");
    end(&mut window, 0, hello.post, End::NewGate(GATE));
    assert_eq!(seqs(&post(&mut window, 0)), [10]);
}

#[test]
fn a_batch_is_bounded_by_items_and_bytes_and_a_large_item_goes_alone() {
    let mut window = ready(&[10, 13, 14, 20]);
    assert_eq!(seqs(&post(&mut window, 0)), [10, 13, 14]);
    let mut window = window_with(limits());
    for (seq, bytes) in [(10, 60), (11, 60), (12, 500), (13, 500)] {
        window.handle(Moment(0), Event::Read { seq: Seq(seq), bytes, deadline: None });
    }
    let (first, second) = (post(&mut window, 0), post(&mut window, 0));
    assert_eq!((seqs(&first), seqs(&second)), (vec![10], vec![11]));
    deliver(&mut window, 0, &first);
    deliver(&mut window, 0, &second);
    trim(&mut window, 0);
    for seq in [12, 13] {
        let batch = post(&mut window, 0);
        assert_eq!(seqs(&batch), [seq], "larger than the window, and alone in it");
        assert_eq!(window.poll(Moment(100)), None);
        deliver(&mut window, 0, &batch);
    }
}

#[test]
fn several_batches_are_in_flight_each_told_where_the_one_before_it_ended() {
    let mut window = ready(&[10, 13, 14, 20, 21, 22, 23]);
    let (first, second) = (post(&mut window, 0), post(&mut window, 0));
    assert_eq!((seqs(&first), first.floor, first.prev), (vec![10, 13, 14], Seq(9), Seq(9)));
    assert_eq!((seqs(&second), second.floor, second.prev), (vec![20, 21, 22], Seq(9), Seq(14)));
    assert_eq!((window.posts(), window.in_flight()), (2, 6));
    assert_eq!(window.poll(Moment(999)), None, "two POSTs are the limit");
    outcome(&mut window, first.post, 10, Final::Delivered);
    deliver(&mut window, 0, &Batch { items: vec![Seq(13), Seq(14)], ..first });
    trim(&mut window, 0);
    let third = post(&mut window, 20);
    assert_eq!((seqs(&third), third.floor, third.prev), (vec![23], Seq(14), Seq(22)));
}

#[test]
fn an_idle_lane_posts_at_once_and_a_busy_one_a_linger_after_the_last_batch() {
    let mut window = ready(&[10]);
    assert_eq!(seqs(&post(&mut window, 5)), [10]);
    window.handle(Moment(6), Event::Read { seq: Seq(11), bytes: 10, deadline: None });
    assert_eq!((window.poll(Moment(6)), window.next_deadline()), (None, Some(Moment(25))));
    window.handle(Moment(8), Event::Read { seq: Seq(12), bytes: 10, deadline: None });
    assert_eq!(window.poll(Moment(24)), None);
    assert_eq!(seqs(&post(&mut window, 25)), [11, 12]);
}

#[test]
fn what_comes_seldom_does_not_linger_although_others_are_in_flight() {
    let mut window = window_with(WindowLimits { posts: 3, ..limits() });
    for (seq, now) in [(10, 0), (11, 50), (12, 70)] {
        window.handle(Moment(now), Event::Read { seq: Seq(seq), bytes: 10, deadline: None });
        assert_eq!(seqs(&post(&mut window, now)), [seq]);
    }
    assert_eq!(window.posts(), 3);
}

#[test]
fn a_full_batch_does_not_linger() {
    let mut window = ready(&[10]);
    post(&mut window, 0);
    read(&mut window, &[11, 12, 13]);
    assert_eq!(seqs(&post(&mut window, 0)), [11, 12, 13]);
}

#[test]
fn what_little_fits_the_window_waits_for_a_batch_s_worth_of_room() {
    let mut window = window_with(WindowLimits { in_flight_items: 4, ..limits() });
    read(&mut window, &[10, 11, 12, 13, 14, 15]);
    let first = post(&mut window, 0);
    assert_eq!(seqs(&first), [10, 11, 12]);
    assert_eq!(window.poll(Moment(999)), None, "one item would fit");
    outcome(&mut window, first.post, 10, Final::Delivered);
    trim(&mut window, 999);
    outcome(&mut window, first.post, 11, Final::Delivered);
    assert_eq!(seqs(&post(&mut window, 999)), [13, 14, 15]);
}

#[test]
fn a_rate_spaces_batches_and_bounds_them() {
    let limits = WindowLimits { rate_per_s: std::num::NonZeroU32::new(2), ..limits() };
    let mut window = window_with(limits);
    read(&mut window, &[10, 11, 12, 13]);
    assert_eq!(seqs(&post(&mut window, 0)), [10, 11]);
    assert_eq!((window.poll(Moment(999)), window.next_deadline()), (None, Some(Moment(1000))));
    assert_eq!(seqs(&post(&mut window, 1000)), [12, 13]);
}

#[test]
fn a_retry_rewinds_to_the_floor_waits_and_tries_a_single_item() {
    let mut window = ready(&[10, 13, 14, 15]);
    let (first, second) = (post(&mut window, 0), post(&mut window, 20));
    outcome(&mut window, first.post, 10, Final::Delivered);
    trim(&mut window, 0);
    let asked = End::Retry { seq: Seq(13), status: Some(503), alive: false, retry_after_ms: Some(700) };
    end(&mut window, 0, first.post, asked);
    assert_eq!((window.poll(Moment(699)), window.next_deadline()), (None, Some(Moment(700))));
    let probe = post(&mut window, 700);
    assert_eq!((probe.floor, probe.prev, seqs(&probe)), (Seq(10), Seq(10), vec![13]));
    end(&mut window, 700, second.post, End::Gap);
    assert_eq!(window.backoff.failures(), 1, "the end of a POST that was given up says nothing");
    outcome(&mut window, probe.post, 13, Final::Delivered);
    trim(&mut window, 700);
    assert_eq!(window.poll(Moment(701)), None, "side by side only when one went through");
    end(&mut window, 701, probe.post, End::Done);
    assert_eq!(seqs(&post(&mut window, 701)), [14, 15]);
}

#[test]
fn a_failure_leaves_what_was_posted_before_it_alone() {
    let mut window = ready(&[10, 11, 12, 13, 14]);
    let (first, second) = (post(&mut window, 0), post(&mut window, 20));
    end(&mut window, 20, second.post, End::Overloaded { retry_after_ms: None });
    assert_eq!(window.poll(Moment(999)), None, "the first one goes on, and is the only one");
    deliver(&mut window, 999, &first);
    trim(&mut window, 999);
    let again = post(&mut window, 999);
    assert_eq!((again.prev, seqs(&again)), (Seq(12), vec![13, 14]));
}

#[test]
fn a_gap_rewinds_what_was_posted_before_it_too() {
    let mut window = ready(&[10, 11, 12, 13, 14]);
    let (first, second) = (post(&mut window, 0), post(&mut window, 20));
    end(&mut window, 20, second.post, End::Gap);
    assert_eq!(seqs(&post(&mut window, 120)), [10]);
    outcome(&mut window, first.post, 10, Final::Delivered);
    assert_eq!(window.floor(), Seq(10), "a final outcome counts, whichever POST it came by");
}

#[test]
fn an_answer_that_leaves_items_out_is_no_progress() {
    let mut window = ready(&[10, 13]);
    let batch = post(&mut window, 0);
    end(&mut window, 0, batch.post, End::Done);
    assert_eq!(window.backoff.failures(), 1);
    assert_eq!(seqs(&post(&mut window, 100)), [10]);
}

#[test]
fn a_new_gate_is_followed_at_once_but_alternating_ones_back_off() {
    let mut window = ready(&[10, 11, 12, 13]);
    let (first, second) = (post(&mut window, 0), post(&mut window, 20));
    end(&mut window, 20, first.post, End::NewGate(GateId(8)));
    let third = post(&mut window, 20);
    assert_eq!((third.gate, seqs(&third)), (Some(GateId(8)), vec![10, 11, 12]));
    assert_eq!(window.poll(Moment(999)), None, "one POST until the gate took a batch");
    end(&mut window, 20, second.post, End::NewGate(GateId(9)));
    assert_eq!(window.gate, Some(GateId(8)), "the end of a POST that was given up says nothing");
    end(&mut window, 20, third.post, End::NewGate(GATE));
    assert!(window.gate_alternates());
    assert_eq!(window.poll(Moment(20)), None, "the second life in a row that takes nothing");
    let batch = post(&mut window, 120);
    outcome(&mut window, batch.post, 10, Final::Delivered);
    assert!(!window.gate_alternates());
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
}

#[test]
fn a_batch_that_is_lost_without_a_line_comes_back_smaller() {
    let mut window = window_with(WindowLimits { batch_items: 6, posts: 1, ..limits() });
    read(&mut window, &[10, 11, 12, 13, 14, 15]);
    let batch = post(&mut window, 0);
    assert_eq!(batch.items.len(), 6);
    end(&mut window, 0, batch.post, End::Lost);
    let probe = post(&mut window, 100);
    assert_eq!(seqs(&probe), [10]);
    deliver(&mut window, 100, &probe);
    trim(&mut window, 100);
    assert_eq!(post(&mut window, 100).items.len(), 4, "half, and one for the batch that went through");
}

#[test]
fn posts_side_by_side_come_back_by_doubling() {
    let mut window = window_with(WindowLimits { posts: 4, batch_items: 1, ..limits() });
    read(&mut window, &[10, 11, 12, 13, 14, 15, 16, 17, 18]);
    let first = post(&mut window, 0);
    end(&mut window, 0, first.post, End::Lost);
    let mut side_by_side = vec![];
    for round in 1..=3 {
        let mut posted = vec![];
        while let Some(action) = window.poll(Moment(1000 * round)) {
            match action {
                Action::Post(batch) => posted.push(batch),
                Action::Trim { .. } => window.handle(Moment(0), Event::Trimmed { done: true }),
                other => panic!("{other:?}"),
            }
        }
        side_by_side.push(posted.len());
        deliver(&mut window, 1000 * round, &posted[0]);
        for batch in &posted[1..] {
            for seq in &batch.items {
                outcome(&mut window, batch.post, seq.0, Final::Delivered);
            }
            end(&mut window, 1000 * round, batch.post, End::Done);
        }
    }
    assert_eq!(side_by_side, [1, 2, 4]);
}

#[test]
fn other_limits_hold_at_once() {
    let mut window = ready(&[10, 11, 12, 13, 14, 15]);
    let first = post(&mut window, 0);
    window.handle(Moment(0), Event::Limits(WindowLimits { batch_items: 2, ..limits() }));
    assert_eq!(seqs(&post(&mut window, 0)), [13, 14]);
    window.handle(Moment(0), Event::Limits(WindowLimits { batch_items: 5, ..limits() }));
    deliver(&mut window, 0, &first);
    assert_eq!(window.batch_items, 5);
}

#[test]
fn a_larger_batch_of_a_time_with_other_limits_does_not_raise_them_when_it_is_lost() {
    for end_of_it in [End::Lost, End::Unfit] {
        let mut window = window_with(WindowLimits { batch_items: 6, posts: 1, ..limits() });
        read(&mut window, &[10, 11, 12, 13, 14, 15, 16, 17]);
        let batch = post(&mut window, 0);
        window.handle(Moment(0), Event::Limits(WindowLimits { batch_items: 2, ..limits() }));
        end(&mut window, 0, batch.post, end_of_it);
        let again = post(&mut window, 100);
        deliver(&mut window, 100, &again);
        trim(&mut window, 100);
        assert_eq!(post(&mut window, 100).items.len(), 2, "{end_of_it:?}");
    }
}
