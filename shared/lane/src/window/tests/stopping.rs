//! How an owner ends.

use super::*;

#[test]
fn a_stale_owner_stops_for_good() {
    let mut window = ready(&[10]);
    let batch = post(&mut window, 0);
    end(&mut window, 0, batch.post, End::StaleEpoch(Epoch(4)));
    assert_eq!(window.poll(Moment(0)), Some(Action::Stop(StopReason::StaleEpoch { known: Epoch(4) })));
    assert_eq!((window.poll(Moment(9_999)), window.next_deadline()), (None, None));
    assert!(!window.has_room());
}

#[test]
fn a_stale_epoch_counts_also_where_the_post_was_given_up() {
    let mut window = ready(&[10, 11, 12, 13]);
    let (first, second) = (post(&mut window, 0), post(&mut window, 20));
    end(&mut window, 20, first.post, End::Lost);
    end(&mut window, 20, second.post, End::StaleEpoch(Epoch(4)));
    assert_eq!(window.poll(Moment(0)), Some(Action::Stop(StopReason::StaleEpoch { known: Epoch(4) })));
}

#[test]
fn an_owner_whose_lease_ended_does_nothing_more() {
    let mut window = ready(&[10, 11, 12, 13]);
    window.handle(Moment(0), Event::Lease { until: Moment(100) });
    let batch = post(&mut window, 99);
    deliver(&mut window, 99, &batch);
    assert_eq!(window.poll(Moment(100)), Some(Action::Stop(StopReason::LeaseLost)), "neither a trim nor a batch");
    assert_eq!(window.poll(Moment(101)), None);
}

#[test]
fn a_renewed_lease_goes_on_and_the_window_wakes_when_it_ends() {
    let mut window = ready(&[]);
    window.handle(Moment(0), Event::Lease { until: Moment(100) });
    window.handle(Moment(90), Event::Lease { until: Moment(200) });
    assert_eq!((window.poll(Moment(150)), window.next_deadline()), (None, Some(Moment(200))));
}

#[test]
fn a_drain_settles_what_is_in_flight_and_trims_it() {
    let mut window = ready(&[10, 13, 14, 15]);
    let batch = post(&mut window, 0);
    window.handle(Moment(0), Event::Drain(Settle::Oldest));
    assert_eq!(window.poll(Moment(999)), None, "still in flight");
    deliver(&mut window, 999, &batch);
    assert_eq!(window.poll(Moment(999)), Some(Action::Trim { upto: Seq(14), count: 3 }));
    assert_eq!(window.poll(Moment(999)), None);
    window.handle(Moment(999), Event::Trimmed { done: true });
    assert_eq!(window.poll(Moment(999)), Some(Action::Stop(StopReason::Drained)));
}

#[test]
fn a_drain_does_not_wait_for_what_was_given_up() {
    let mut window = ready(&[10, 11, 12, 13]);
    let (first, second) = (post(&mut window, 0), post(&mut window, 20));
    window.handle(Moment(20), Event::Drain(Settle::Oldest));
    assert_eq!(window.poll(Moment(20)), Some(Action::Cancel { post: second.post }), "the next owner posts it again");
    end(&mut window, 20, first.post, End::Lost);
    assert_eq!(window.poll(Moment(20)), Some(Action::Stop(StopReason::Drained)));
}

#[test]
fn a_drain_does_not_hammer_a_broker_that_does_not_trim() {
    let mut window = ready(&[10]);
    let batch = post(&mut window, 0);
    deliver(&mut window, 0, &batch);
    window.handle(Moment(0), Event::Drain(Settle::Oldest));
    assert!(matches!(window.poll(Moment(0)), Some(Action::Trim { .. })));
    window.handle(Moment(0), Event::Trimmed { done: false });
    assert_eq!((window.poll(Moment(0)), window.next_deadline()), (None, Some(Moment(200))));
    assert!(matches!(window.poll(Moment(200)), Some(Action::Trim { count: 1, .. })));
}

#[test]
fn a_lane_that_goes_to_another_receiver_waits_for_every_answer() {
    let mut window = ready(&[10, 11, 12, 13, 14]);
    let (first, second) = (post(&mut window, 0), post(&mut window, 20));
    end(&mut window, 20, second.post, End::Gap);
    window.handle(Moment(20), Event::Drain(Settle::All));
    assert_eq!(window.poll(Moment(9_999)), None, "one that was given up may still be delivered");
    end(&mut window, 9_999, first.post, End::Lost);
    assert_eq!(window.poll(Moment(9_999)), Some(Action::Stop(StopReason::Drained)));
}

#[test]
fn a_drain_does_not_call_back_the_one_that_is_at_work() {
    let mut window = ready(&[10, 11, 12, 13]);
    let (first, second) = (post(&mut window, 0), post(&mut window, 20));
    for seq in [10, 11, 12] {
        outcome(&mut window, first.post, seq, Final::Delivered);
    }
    window.handle(Moment(20), Event::Drain(Settle::Oldest));
    assert_eq!(trim(&mut window, 20), (12, 3));
    outcome(&mut window, second.post, 13, Final::Delivered);
    assert_eq!(window.floor(), Seq(13));
}
