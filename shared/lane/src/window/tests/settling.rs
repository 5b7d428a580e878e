//! What is settled, and trimmed.

use super::*;

#[test]
fn outcomes_settle_a_growing_prefix_and_one_trim_takes_it() {
    let mut window = ready(&[10, 13, 14]);
    let batch = post(&mut window, 0);
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
fn the_floor_waits_for_the_batch_before() {
    let mut window = ready(&[10, 11, 12, 13]);
    let (first, second) = (post(&mut window, 0), post(&mut window, 20));
    deliver(&mut window, 20, &second);
    assert_eq!((window.floor(), window.poll(Moment(999))), (Seq(9), None), "its own line settles 13, and nothing else");
    end(&mut window, 20, first.post, End::Lost);
    let again = post(&mut window, 1200);
    assert_eq!((again.floor, seqs(&again)), (Seq(9), vec![10]));
    deliver(&mut window, 1200, &again);
    trim(&mut window, 1200);
    let rest = post(&mut window, 1200);
    assert_eq!((rest.prev, seqs(&rest)), (Seq(10), vec![11, 12]), "13 is not asked for again");
    deliver(&mut window, 1200, &rest);
    assert_eq!(window.floor(), Seq(13));
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
fn no_floor_passes_a_refused_item_before_its_copy_is_acked() {
    let mut window = ready(&[10, 13, 14, 15]);
    let batch = post(&mut window, 0);
    outcome(&mut window, batch.post, 10, Final::Rejected);
    assert_eq!(window.poll(Moment(0)), Some(Action::Park { seq: Seq(10), reason: ParkReason::Rejected }));
    outcome(&mut window, batch.post, 13, Final::Expired);
    assert_eq!(window.poll(Moment(0)), Some(Action::Park { seq: Seq(13), reason: ParkReason::Expired }));
    outcome(&mut window, batch.post, 14, Final::Delivered);
    end(&mut window, 0, batch.post, End::Done);
    let next = post(&mut window, 0);
    assert_eq!((next.floor, next.prev, seqs(&next)), (Seq(9), Seq(14), vec![15]), "the pipe goes on meanwhile");
    window.handle(Moment(0), Event::Parked { seq: Seq(13) });
    assert_eq!(window.floor(), Seq(9));
    window.handle(Moment(0), Event::Parked { seq: Seq(10) });
    assert_eq!(trim(&mut window, 0), (14, 3));
}

#[test]
fn a_late_outcome_of_an_item_that_was_posted_again_counts_once() {
    let mut window = ready(&[10, 11]);
    let first = post(&mut window, 0);
    let other = Batch { items: vec![], ..first.clone() };
    window.handle(Moment(0), Event::Read { seq: Seq(12), bytes: 10, deadline: None });
    let second = post(&mut window, 20);
    end(&mut window, 20, first.post, End::Lost);
    let again = post(&mut window, 120);
    assert_eq!((seqs(&again), seqs(&second)), (vec![10], vec![12]));
    outcome(&mut window, second.post, 12, Final::Delivered);
    outcome(&mut window, again.post, 10, Final::Delivered);
    end(&mut window, 120, second.post, End::Done);
    end(&mut window, 120, again.post, End::Done);
    assert_eq!((window.floor(), other.items.len()), (Seq(10), 0));
    trim(&mut window, 120);
    let last = post(&mut window, 400);
    assert_eq!(seqs(&last), [11], "12 had its outcome");
    deliver(&mut window, 400, &last);
    assert_eq!(window.floor(), Seq(12));
}

#[test]
fn nothing_is_told_of_a_post_that_ended() {
    let mut window = ready(&[10]);
    let first = post(&mut window, 0);
    end(&mut window, 0, first.post, End::Lost);
    end(&mut window, 0, first.post, End::Done);
    outcome(&mut window, first.post, 10, Final::Delivered);
    assert_eq!(window.floor(), Seq(9));
}

#[test]
fn a_purge_that_was_acked_after_the_lease_is_not_counted() {
    let mut window = ready(&[10]);
    let batch = post(&mut window, 0);
    deliver(&mut window, 0, &batch);
    assert!(matches!(window.poll(Moment(0)), Some(Action::Trim { .. })));
    window.handle(Moment(0), Event::Lease { until: Moment(50) });
    window.handle(Moment(50), Event::Trimmed { done: true });
    assert!(!window.is_idle());
}

#[test]
fn a_broker_that_does_not_trim_stops_the_lane_before_it_runs_away() {
    let mut window = window_with(WindowLimits { items: 4, batch_items: 1, posts: 1, ..limits() });
    let mut posted = 0;
    for seq in 10..30 {
        if window.has_room() {
            read(&mut window, &[seq]);
        }
        while let Some(action) = window.poll(Moment(seq)) {
            match action {
                Action::Post(batch) => {
                    posted += 1;
                    deliver(&mut window, seq, &batch);
                }
                Action::Trim { .. } => window.handle(Moment(seq), Event::Trimmed { done: false }),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(posted, 4, "as many as it may hold");
    assert_eq!(window.next_deadline(), Some(window.trim_due), "and it asks again");
}
