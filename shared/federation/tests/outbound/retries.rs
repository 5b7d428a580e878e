//! What is tried again, how often, in which order, and what is given up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use federation::keys::Error as KeysError;
use federation::{ActorKeys, KeysInMemory, Limits, Recipient, SigningKeys};
use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::becomes_true;

use uuid::Uuid;

use crate::support::{ALICE, BOB, Failures, PATIENCE, RSA, hurried, inbox, key_id, note, remote, service};

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

#[tokio::test]
async fn a_remote_that_hangs_delays_nobody_else_however_many_actors_write_to_it() {
    const AT_A_TIME: u128 = 4;
    let rsa = || ActorKeys::from_pem(RSA, Some(&key_id(ALICE))).expect("a key");
    let actors: Vec<Uuid> = (0..3 * AT_A_TIME).map(Uuid::from_u128).collect();
    let keys = actors.iter().fold(KeysInMemory::default(), |keys, actor| keys.with(*actor, rsa()));
    let service = hurried(&Failures::default()).signing_keys(Arc::new(keys)).concurrency(AT_A_TIME as usize);
    let service = service.build().await.expect("a service");
    let (dead, well) = (remote().await, remote().await);
    dead.behave(Behaviour::Hang);
    for (number, actor) in actors.iter().enumerate() {
        service.send(&note(number), *actor, [inbox(&dead).into()]).await.expect("taken");
    }
    becomes_true("the dead one has its share", PATIENCE, || dead.arrivals() == 2).await.expect("in time");
    for (number, actor) in actors.iter().enumerate() {
        service.send(&note(number), *actor, [inbox(&well).into()]).await.expect("taken");
    }
    becomes_true("the one that is well has everything", PATIENCE, || well.accepted() == actors.len())
        .await
        .expect("in time");
    assert_eq!(dead.arrivals(), 2, "half of what may go at a time");
}

#[tokio::test]
async fn nothing_of_a_queue_is_given_up_without_a_request_of_its_own() {
    let failures = Failures::default();
    let service = hurried(&failures).delivery_max_attempts(2).build().await.expect("a service");
    let remote = remote().await;
    remote.behave(Behaviour::busy(503, None));
    for number in 0..12 {
        service.send(&note(number), ALICE, [inbox(&remote).into()]).await.expect("taken");
    }
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    let asked: std::collections::BTreeSet<_> = remote.seen().into_iter().map(|seen| seen.id).collect();
    assert_eq!((asked.len(), failures.all().len()), (12, 12));
    assert!(failures.all().iter().all(|(_, cause)| cause == "the remote answered 503"), "{:?}", failures.all());
}

/// Keys that never come.
struct Pending;

#[async_trait]
impl SigningKeys for Pending {
    async fn keys(&self, _: Uuid) -> Result<Arc<ActorKeys>, KeysError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn an_attempt_has_an_end_whatever_it_waits_for() {
    let limits = Limits { attempt: Duration::from_millis(20), ..Limits::default() };
    let service = hurried(&Failures::default()).signing_keys(Arc::new(Pending)).limits(limits).build().await;
    let (service, remote) = (service.expect("a service"), remote().await);
    let error = service.deliver_to_inbox(inbox(&remote), note(1), ALICE).await.expect_err("no keys");
    assert_eq!(error.to_string(), "not now: no end of the attempt within 0.02 s");
}
