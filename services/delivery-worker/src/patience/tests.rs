use federation::activity::Activity;
use federation::attempt::{Exchange, NoAnswer};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const WAIT: Duration = Duration::from_secs(60 * 60);
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
const HORIZON: Duration = Duration::from_secs(3 * 24 * 60 * 60);

fn patience() -> Arc<Patience> {
    Arc::new(Patience::new(WAIT))
}

fn lane(patience: &Arc<Patience>, remote: &str, now: Instant) -> Waiting {
    Waiting::new(patience, &remote.parse().expect("a name"), now)
}

fn delivery(actor: u128, inbox: &str) -> Delivery {
    let activity = Activity::from_value(&serde_json::json!({ "id": "x" })).expect("an activity");
    Delivery {
        inbox: format!("https://a.example/{inbox}").parse().expect("a URL"),
        activity: Arc::new(activity),
        signing_actor_id: Uuid::from_u128(actor),
    }
}

fn attempted(answers: &[Result<u16, NoAnswer>], verdict: Verdict) -> Attempted {
    let requests = answers.iter().map(|answered| Exchange { took: Duration::ZERO, answered: *answered }).collect();
    Attempted { verdict, form: None, requests, answer: None }
}

fn retry(status: Option<u16>) -> Verdict {
    Verdict::Retry { status, after: None, cause: String::new() }
}

fn keyless() -> Attempted {
    attempted(&[], retry(None))
}

fn answered(status: u16) -> Attempted {
    let verdict = match status {
        200..=299 => Verdict::Delivered { status },
        410 => Verdict::Refused { status: Some(status), cause: String::new() },
        _ => retry(Some(status)),
    };
    attempted(&[Ok(status)], verdict)
}

/// An attempt that takes no time, at what has come just now.
fn tries(lane: &Waiting, now: Instant, seq: u64, delivery: &Delivery, attempted: &Attempted) -> bool {
    tries_old(lane, now, seq, Duration::ZERO, delivery, attempted)
}

/// And at what waits for so long.
fn tries_old(lane: &Waiting, now: Instant, seq: u64, age: Duration, of: &Delivery, attempted: &Attempted) -> bool {
    lane.heard(now, &lane.begins(now, Seq(seq), age), of, attempted, false)
}

/// The remote takes what another lane has.
fn passes(lane: &Waiting, now: Instant) {
    assert!(!tries(lane, now, 1, &delivery(99, "users/99"), &answered(202)));
}

/// Tries one delivery, that came as `came` says, with the pauses of a lane. Answers when it was given up, where it was before the
/// horizon. `between` is what happens a moment before each attempt.
fn given_up(
    lane: &Waiting,
    (from, came): (Instant, Instant),
    seq: u64,
    (delivery, attempted): (&Delivery, &Attempted),
    between: impl Fn(Instant),
) -> Option<Instant> {
    let (mut now, mut pause) = (from, 2 * SECOND);
    while now < from + HORIZON {
        between(now.checked_sub(SECOND).expect("a time"));
        if tries_old(lane, now, seq, now - came, delivery, attempted) {
            return Some(now);
        }
        now += pause;
        pause = (2 * pause).min(PAUSE_MAX);
    }
    None
}

#[test]
fn many_actors_of_a_lane_that_never_pass_are_waited_for_together() {
    for attempted in [keyless(), answered(401), answered(302)] {
        let (patience, began) = (patience(), Instant::now());
        let (bad, good) = (lane(&patience, "a.example", began), lane(&patience, "a.example", began));
        let mut now = began;
        for actor in 0..12 {
            let delivery = delivery(actor, &format!("users/{actor}"));
            let of = (&delivery, &attempted);
            now = given_up(&bad, (now, began), 7 + actor as u64, of, |now| passes(&good, now)).expect("given up");
            assert!(now >= began + WAIT, "{attempted:?}");
        }
        assert!(now <= began + WAIT + PAUSE_MAX + 12 * 6 * SECOND, "{attempted:?}: {:?}", now - began);
        // What they have later is not waited for again.
        let (later, alice) = (now + WAIT, delivery(0, "users/0"));
        let over = given_up(&bad, (later, later), 30, (&alice, &attempted), |now| passes(&good, now));
        assert_eq!(over, Some(later + 6 * SECOND), "{attempted:?}");
    }
}

#[test]
fn what_passes_in_a_moment_is_never_given_up_whoever_met_it_before() {
    for obstacle in [keyless(), answered(401), answered(302)] {
        let (patience, began) = (patience(), Instant::now());
        let lanes = [lane(&patience, "a.example", began), lane(&patience, "a.example", began)];
        let alice = delivery(1, "users/a");
        let over = given_up(&lanes[0], (began, began), 7, (&alice, &obstacle), |now| passes(&lanes[1], now));
        let late = over.expect("given up") + 20 * WAIT;
        for (attempt, at) in [0, 2].into_iter().enumerate() {
            passes(&lanes[1], late);
            assert!(!tries_old(&lanes[0], late + at * SECOND, 8, WAIT, &alice, &obstacle), "attempt {attempt}");
        }
        assert!(!tries(&lanes[0], late + 6 * SECOND, 8, &alice, &answered(202)));
        // It is over: as long again.
        let again =
            given_up(&lanes[0], (late + WAIT, late + WAIT), 9, (&alice, &obstacle), |now| passes(&lanes[1], now));
        assert!(again.expect("given up") >= late + 2 * WAIT);
    }
}

#[test]
fn an_inbox_or_a_signature_is_tried_to_the_horizon_where_the_remote_takes_nothing_else() {
    for status in [401, 302] {
        let (patience, began) = (patience(), Instant::now());
        let (one, other) = (lane(&patience, "a.example", began), lane(&patience, "a.example", began));
        let elsewhere = lane(&patience, "b.example", began);
        let (alice, bob) = (delivery(1, "inbox"), delivery(2, "inbox"));
        passes(&other, began); // before it was met
        let meanwhile = |now| {
            assert!(!tries(&other, now, 9, &bob, &answered(status)));
            passes(&elsewhere, now);
        };
        assert_eq!(given_up(&one, (began, began), 7, (&alice, &answered(status)), meanwhile), None);
        let next = began + HORIZON;
        assert_eq!(given_up(&one, (next, began), 8, (&alice, &answered(status)), meanwhile), None);
    }
}

#[test]
fn a_redirect_is_the_inboxs_where_another_inbox_is_taken() {
    let (patience, began) = (patience(), Instant::now());
    let (one, other) = (lane(&patience, "a.example", began), lane(&patience, "a.example", began));
    let (alice, moved) = (delivery(1, "inbox"), answered(301));
    assert!(given_up(&one, (began, began), 7, (&alice, &moved), |now| passes(&other, now)).is_some());
    // A page that others see no more is over for it too.
    let shared = |now| assert!(!tries(&other, now, 9, &delivery(2, "inbox"), &answered(202)));
    assert_eq!(given_up(&one, (began + WAIT, began), 8, (&alice, &moved), shared), None);
}

#[test]
fn a_mount_that_is_gone_costs_a_lane_one_delivery_a_wait_and_not_all_it_has() {
    let (patience, began) = (patience(), Instant::now());
    let (one, other) = (lane(&patience, "a.example", began), lane(&patience, "b.example", began));
    let (alice, bob) = (delivery(1, "inbox"), delivery(2, "inbox"));
    let meanwhile = |now| assert!(!tries(&other, now, now.duration_since(began).as_secs(), &bob, &keyless()));
    let mut now = began + SECOND;
    for seq in 7..10 {
        let over = given_up(&one, (now, began), seq, (&alice, &keyless()), meanwhile).expect("given up");
        assert!(over - now >= WAIT, "each has its own: {:?}", over - now);
        now = over;
    }
    // It is alice's key alone: bob's is there.
    assert!(!tries(&other, now + SECOND, 9, &bob, &answered(503)));
    let over = given_up(&one, (now + 2 * SECOND, began), 11, (&alice, &keyless()), |_| {});
    assert_eq!(over, Some(now + 8 * SECOND));
}

#[test]
fn failures_in_between_begin_nothing_anew_and_a_remote_that_was_away_does() {
    let (patience, began) = (patience(), Instant::now());
    let (one, other) = (lane(&patience, "a.example", began), lane(&patience, "a.example", began));
    let (alice, age) = (delivery(1, "inbox"), 2 * WAIT);
    for minute in 0..60 {
        let now = began + minute * MINUTE;
        assert!(!tries_old(&one, now, 7, age, &alice, &answered(401)), "{minute}");
        assert!(!tries_old(&one, now + 10 * SECOND, 7, age, &alice, &answered(503)));
        assert!(!tries_old(&one, now + 20 * SECOND, 7, age, &alice, &answered(410)), "says nothing of the signature");
        passes(&other, now + 30 * SECOND);
    }
    assert!(tries_old(&one, began + WAIT, 7, age, &alice, &answered(401)));

    let away = began + WAIT + MINUTE;
    let begun = one.begins(away, Seq(8), age);
    assert!(!one.heard(away, &begun, &alice, &answered(503), true));
    let back = away + 5 * WAIT;
    one.stands(back);
    let over = given_up(&one, (back, began), 8, (&alice, &answered(401)), |now| passes(&other, now));
    assert!(over.expect("given up") >= back + WAIT);
}

#[test]
fn what_waited_while_its_remote_was_away_has_waited_for_nobody() {
    let (patience, began) = (patience(), Instant::now());
    let [probes, stands, good] = [(); 3].map(|()| lane(&patience, "a.example", began));
    let (alice, bob) = (delivery(1, "users/a"), delivery(2, "users/b"));
    let back = began + 5 * WAIT;
    let begun = probes.begins(back, Seq(8), 5 * WAIT);
    assert!(!probes.heard(back, &begun, &alice, &answered(503), true));
    stands.stands(back);
    for (lane, of) in [(&probes, &alice), (&stands, &bob)] {
        let over = given_up(lane, (back + MINUTE, began), 8, (of, &answered(401)), |now| passes(&good, now));
        assert!(over.expect("given up") >= back + WAIT);
    }
}

#[test]
fn a_remote_that_asks_to_be_left_alone_was_not_away() {
    let (patience, began) = (patience(), Instant::now());
    let (one, other) = (lane(&patience, "a.example", began), lane(&patience, "a.example", began));
    let alice = delivery(1, "inbox");
    assert!(!tries(&one, began, 7, &alice, &answered(401)));
    assert!(!tries(&one, began + SECOND, 7, &alice, &answered(401)));
    passes(&other, began + 2 * SECOND);
    let busy = Verdict::Retry { status: Some(429), after: Some(MINUTE), cause: String::new() };
    let begun = one.begins(began + 3 * SECOND, Seq(7), Duration::ZERO);
    assert!(!one.heard(began + 3 * SECOND, &begun, &alice, &attempted(&[Ok(429)], busy), true));
    assert!(tries(&one, began + WAIT, 7, &alice, &answered(401)));
}

#[test]
fn what_passes_as_a_remote_goes_away_or_comes_back_is_no_evidence() {
    let (patience, began) = (patience(), Instant::now());
    let (one, other) = (lane(&patience, "a.example", began), lane(&patience, "a.example", began));
    let (alice, bob) = (delivery(1, "inbox"), delivery(2, "users/b"));
    // Bob's was at the remote when it began to answer 401 to all.
    let early = other.begins(began, Seq(3), Duration::ZERO);
    for second in 1..4 {
        assert!(!tries(&one, began + second * SECOND, 7, &alice, &answered(401)));
    }
    assert!(!other.heard(began + 5 * SECOND, &early, &bob, &answered(202), false));
    assert!(!tries(&one, began + WAIT + MINUTE, 7, &alice, &answered(401)));
    // And alice's, when it ended to.
    let last = one.begins(began + 2 * WAIT, Seq(7), Duration::ZERO);
    passes(&other, began + 2 * WAIT + SECOND);
    assert!(!one.heard(began + 2 * WAIT + 2 * SECOND, &last, &alice, &answered(401), false));
    assert!(tries(&one, began + 3 * WAIT, 7, &alice, &answered(401)), "it is hers after all");
}

#[test]
fn what_is_not_met_for_a_day_is_new() {
    let (patience, began) = (patience(), Instant::now());
    let (one, other) = (lane(&patience, "a.example", began), lane(&patience, "a.example", began));
    let (alice, obstacle) = (delivery(1, "inbox"), answered(401));
    let over = given_up(&one, (began, began), 7, (&alice, &obstacle), |now| passes(&other, now)).expect("given up");
    let again = over + FORGOTTEN;
    let over = given_up(&one, (again, again), 8, (&alice, &obstacle), |now| passes(&other, now));
    assert!(over.expect("given up") >= again + WAIT);
}

#[test]
fn nothing_is_kept_of_who_meets_nothing_and_a_bounded_number_of_who_does() {
    let (patience, now) = (patience(), Instant::now());
    let lane = lane(&patience, "a.example", now);
    for status in [202, 410, 503] {
        assert!(!tries(&lane, now, 7, &delivery(1, "inbox"), &answered(status)));
    }
    assert!(patience.known().is_empty());
    let patience = Patience { known_max: 3, ..Patience::new(WAIT) };
    for actor in [1, 2, 3, 1, 2, 3] {
        patience.met(now, Place::Here, Obstacle::NoKey(Uuid::from_u128(actor)));
    }
    assert_eq!(patience.known()[&Place::Here].met.len(), 3);
    patience.met(now, Place::Here, Obstacle::NoKey(Uuid::from_u128(4)));
    assert_eq!(patience.known()[&Place::Here].met.len(), 1);
}
