//! What the application gives may panic, and the runtime that it calls from may go: a lane goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use federation::backfill::Unreadable;
use federation::keys::Error as KeysError;
use federation::{ActorKeys, Cursor, History, Page, SigningKeys};
use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::{becomes_true, eventually};
use uuid::Uuid;

use crate::support::{ALICE, Failures, PATIENCE, hurried, inbox, keys, note, remote, service};

/// Panics the first time.
#[derive(Default)]
struct Startled(AtomicUsize);

impl Startled {
    fn startle(&self) {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) > 0, "the first time");
    }
}

#[async_trait]
impl SigningKeys for Startled {
    async fn keys(&self, actor: Uuid) -> Result<Arc<ActorKeys>, KeysError> {
        self.startle();
        keys().keys(actor).await
    }
}

#[async_trait]
impl History for Startled {
    async fn page(&self, _: Uuid, _: Option<&Cursor>) -> Result<Page, Unreadable> {
        self.startle();
        Ok(Page { activities: vec![note(1)], next: None })
    }
}

#[tokio::test]
async fn keys_that_panic_are_a_failed_attempt() {
    let service = hurried(&Failures::default()).signing_keys(Arc::new(Startled::default())).build().await;
    let (service, remote) = (service.expect("a service"), remote().await);
    for number in 0..3 {
        service.send(&note(number), ALICE, [inbox(&remote).into()]).await.expect("taken");
    }
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    assert_eq!(remote.accepted(), 3);
}

#[tokio::test]
async fn a_listener_that_panics_stops_no_lane() {
    let service = hurried(&Failures::default()).on_delivery_failed(|_| panic!("no ear for it")).build().await;
    let (service, remote) = (service.expect("a service"), remote().await);
    remote.behave_next(1, Behaviour::rejects(422, "no"));
    for number in 0..3 {
        service.send(&note(number), ALICE, [inbox(&remote).into()]).await.expect("taken");
    }
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    assert_eq!((remote.arrivals(), remote.accepted()), (3, 2));
}

#[tokio::test]
async fn a_history_that_panics_is_read_again() {
    let history = Arc::new(Startled::default());
    let service = hurried(&Failures::default()).history(history).build().await.expect("a service");
    let remote = remote().await;
    service.request_backfill(ALICE, inbox(&remote).into()).await.expect("taken");
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    assert_eq!(remote.accepted(), 1);
}

#[tokio::test]
async fn what_was_asked_for_on_a_runtime_that_is_gone_is_delivered() {
    let (service, remote) = (service().await, remote().await);
    for number in 0..3 {
        let (service, to) = (service.clone(), inbox(&remote));
        let caller = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(service.send(&note(number), ALICE, [to.into()])).expect("taken");
            runtime.shutdown_timeout(Duration::ZERO);
        });
        eventually("the caller is gone", PATIENCE, async || caller.is_finished().then_some(())).await.expect("in time");
        caller.join().expect("no panic");
    }
    becomes_true("all are there", PATIENCE, || remote.accepted() == 3).await.expect("in time");
}
