//! When a lane stands still on purpose.

use super::*;

fn reject(window: &mut SendWindow, batch: &Batch) {
    for seq in &batch.items {
        outcome(window, batch.post, seq.0, Final::Rejected);
    }
}

/// Acks every copy and trim that is asked for; what else is asked for.
fn settle(window: &mut SendWindow, now: u64) -> Option<Action> {
    loop {
        match window.poll(Moment(now))? {
            Action::Park { seq, .. } => window.handle(Moment(now), Event::Parked { seq }),
            Action::Trim { .. } => window.handle(Moment(now), Event::Trimmed { done: true }),
            other => return Some(other),
        }
    }
}

#[test]
fn refusals_in_a_row_pause_the_lane_and_single_items_are_tried() {
    let mut window = ready(&[10, 11, 12, 13, 14, 15, 16]);
    let (first, second) = (post(&mut window, 0), post(&mut window, 0));
    reject(&mut window, &first);
    assert_eq!(window.poll(Moment(0)), Some(Action::Cancel { post: second.post }), "what is under way is called back");
    end(&mut window, 0, first.post, End::Lost);
    end(&mut window, 0, second.post, End::Lost);
    assert_eq!(settle(&mut window, 0), None);
    assert_eq!((window.standing(), window.next_deadline()), (Some(Standing::Rejections), Some(Moment(100))));

    let Some(Action::Post(probe)) = settle(&mut window, 100) else { panic!("a probe") };
    assert_eq!(seqs(&probe), [13]);
    window.handle(Moment(100), Event::Outcome { post: probe.post, seq: Seq(13), outcome: Final::Rejected });
    end(&mut window, 100, probe.post, End::Done);
    assert!(window.is_paused_by_rejections(), "it is parked like the others, and the next one is tried later");

    let Some(Action::Post(probe)) = settle(&mut window, 5_000) else { panic!("a probe") };
    assert_eq!(seqs(&probe), [14]);
    deliver(&mut window, 5_000, &probe);
    let Some(Action::Post(batch)) = settle(&mut window, 5_000) else { panic!("a batch") };
    assert_eq!(seqs(&batch), [15, 16], "one that is accepted ends the pause");
}

#[test]
fn an_already_received_neither_counts_nor_ends_the_row() {
    let mut window = ready(&[10, 11, 12, 13]);
    let batch = post(&mut window, 0);
    outcome(&mut window, batch.post, 10, Final::Rejected);
    outcome(&mut window, batch.post, 11, Final::Duplicate);
    outcome(&mut window, batch.post, 12, Final::Rejected);
    assert!(!window.is_paused_by_rejections());
    end(&mut window, 0, batch.post, End::Done);
    let Some(Action::Post(batch)) = settle(&mut window, 500) else { panic!("a batch") };
    outcome(&mut window, batch.post, 13, Final::Rejected);
    assert!(window.is_paused_by_rejections());
}

#[test]
fn the_operator_lifts_the_pause() {
    let mut window = ready(&[10, 11, 12, 13]);
    let batch = post(&mut window, 0);
    reject(&mut window, &batch);
    window.poll(Moment(0));
    end(&mut window, 0, batch.post, End::Lost);
    assert_eq!(settle(&mut window, 0), None);
    window.handle(Moment(0), Event::Resume);
    assert!(matches!(settle(&mut window, 0), Some(Action::Post(_))));
}

#[test]
fn a_lane_that_is_never_to_pause_does_not() {
    let mut window = window_with(WindowLimits { rejections_max: 0, ..limits() });
    read(&mut window, &[10, 11, 12]);
    let batch = post(&mut window, 0);
    reject(&mut window, &batch);
    assert!(!window.is_paused_by_rejections());
}

#[test]
fn a_paused_lane_settles_what_is_in_flight_and_posts_and_parks_nothing() {
    let mut window = ready(&[10, 11, 12]);
    let batch = post(&mut window, 0);
    window.handle(Moment(0), Event::ReadUnreadable { seq: Seq(13), bytes: 1 });
    window.handle(Moment(0), Event::Pause(true));
    deliver(&mut window, 0, &batch);
    assert_eq!(trim(&mut window, 0), (12, 3));
    assert_eq!((window.poll(Moment(9_999)), window.standing()), (None, Some(Standing::Paused)));
    window.handle(Moment(0), Event::Pause(false));
    assert!(matches!(window.poll(Moment(0)), Some(Action::Park { .. })));
}

#[test]
fn single_items_are_tried_further_and_further_apart() {
    let mut window = ready(&[10, 11, 12, 13, 14, 15, 16]);
    let (mut now, mut last, mut gaps) = (0, 0, vec![]);
    while !window.is_idle() {
        if let Some(Action::Post(batch)) = settle(&mut window, now) {
            for seq in &batch.items {
                window.handle(Moment(now), Event::Outcome { post: batch.post, seq: *seq, outcome: Final::Rejected });
            }
            end(&mut window, now, batch.post, End::Done);
            gaps.push(now - last);
            last = now;
        }
        let Some(due) = window.next_deadline() else { continue };
        now = due.0.max(now);
    }
    assert_eq!(gaps, [0, 100, 200, 400, 800], "to the longest backoff");
}
