//! What is tried again, how often, in which order, and what is given up.

use std::time::{Duration, Instant};

use federation::Recipient;
use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::becomes_true;

use crate::support::{ALICE, BOB, Failures, PATIENCE, hurried, inbox, note, remote, service};

#[tokio::test]
async fn an_activity_goes_once_to_each_inbox_and_a_shared_one_stands_for_all() {
    let (service, remote) = (service().await, remote().await);
    let shared = inbox(&remote);
    let follower = |name: &str| Recipient {
        inbox: shared.join(&format!("/users/{name}/inbox")).expect("a URL"),
        shared_inbox: Some(shared.clone()),
    };
    let own = Recipient::from(shared.join("/users/dan/inbox").expect("a URL"));
    let followers = [follower("a"), follower("b"), own.clone(), follower("c"), own];
    assert_eq!(service.send(&note(1), ALICE, followers).await.expect("taken").deliveries, 2);
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    let mut targets: Vec<_> = remote.seen().into_iter().map(|seen| seen.message.target).collect();
    targets.sort();
    assert_eq!(targets, ["/inbox", "/users/dan/inbox"]);
}

#[tokio::test]
async fn a_delivery_is_tried_until_the_remote_takes_it_and_nothing_overtakes_it() {
    let failures = Failures::default();
    let (service, remote) = (hurried(&failures).build().await.expect("a service"), remote().await);
    remote.behave_next(2, Behaviour::busy(503, None));
    for number in 0..10 {
        service.send(&note(number), ALICE, [inbox(&remote).into()]).await.expect("taken");
    }
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    let seen = remote.seen();
    let ids: Vec<_> = seen.iter().map(|seen| seen.id.rsplit('/').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(ids, ["0", "0", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert!(seen.iter().all(|seen| !seen.overlaps), "one at a time");
    assert_eq!(failures.all(), []);
}

#[tokio::test]
async fn after_the_last_attempt_it_is_told_with_the_reason_and_the_next_one_goes() {
    let failures = Failures::default();
    let service = hurried(&failures).delivery_max_attempts(3).build().await.expect("a service");
    let remote = remote().await;
    remote.behave_where(None, Behaviour::busy(503, None), |seen| seen.id.ends_with("/1"));
    for number in [1, 2] {
        service.send(&note(number), ALICE, [inbox(&remote).into()]).await.expect("taken");
    }
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    assert_eq!(failures.all(), [(inbox(&remote), "the remote answered 503".to_owned())]);
    assert_eq!((remote.arrivals(), remote.accepted()), (4, 1));
}

#[tokio::test]
async fn what_is_refused_for_good_is_told_at_once() {
    for status in [400, 404, 410, 413, 422] {
        let failures = Failures::default();
        let (service, remote) = (hurried(&failures).build().await.expect("a service"), remote().await);
        remote.behave(Behaviour::rejects(status, "no"));
        service.send(&note(1), ALICE, [inbox(&remote).into()]).await.expect("taken");
        assert_eq!(service.shut_down(PATIENCE).await.events, []);
        assert_eq!(failures.all(), [(inbox(&remote), format!("the remote answered {status}: no"))]);
        assert_eq!(remote.arrivals(), 1);
    }
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let (service, remote) = (service().await, remote().await);
    remote.behave_next(1, Behaviour::busy(429, Some(1)));
    let began = Instant::now();
    service.send(&note(1), ALICE, [inbox(&remote).into()]).await.expect("taken");
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    assert_eq!(remote.accepted(), 1);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_remote_that_hangs_delays_nobody_else() {
    let failures = Failures::default();
    let service = hurried(&failures).concurrency(2).build().await.expect("a service");
    let (dead, well) = (remote().await, remote().await);
    dead.behave(Behaviour::Hang);
    for number in 0..10 {
        service.send(&note(number), ALICE, [inbox(&dead).into()]).await.expect("taken");
        service.send(&note(number), ALICE, [inbox(&well).into()]).await.expect("taken");
        service.send(&note(number + 100), BOB, [inbox(&well).into()]).await.expect("taken");
    }
    becomes_true("the one that is well has everything", PATIENCE, || well.accepted() == 20).await.expect("in time");
    assert_eq!(dead.arrivals(), 1, "nothing goes to the dead one beside what hangs there");
}
