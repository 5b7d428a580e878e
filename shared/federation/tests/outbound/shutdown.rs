//! Leaving: what is queued is waited for, or handed back; and how much may be queued.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use federation::backfill::Unreadable;
use federation::{Cursor, FederationEvent, History, Page, PublishError, SendError};
use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::becomes_true;

use uuid::Uuid;

use crate::support::{ALICE, Failures, PATIENCE, hurried, inbox, note, remote};

/// A history that is never read to the end.
struct Endless;

#[async_trait]
impl History for Endless {
    async fn page(&self, _: Uuid, _: Option<&Cursor>) -> Result<Page, Unreadable> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_shutdown_hands_back_what_it_did_not_wait_for_and_takes_nothing_more() {
    let service = hurried(&Failures::default()).history(Arc::new(Endless)).build().await.expect("a service");
    let remote = remote().await;
    remote.behave(Behaviour::Hang);
    for number in 0..3 {
        service.send(&note(number), ALICE, [inbox(&remote).into()]).await.expect("taken");
    }
    service.request_backfill(ALICE, inbox(&remote).into()).await.expect("taken");
    becomes_true("the first is on its way", PATIENCE, || remote.arrivals() == 1).await.expect("in time");
    let left = service.shut_down(Duration::ZERO).await;
    let mut expected: Vec<_> = (0..3)
        .map(|number| FederationEvent::DeliveryRequested {
            inbox: inbox(&remote),
            activity: note(number),
            signing_actor_id: ALICE,
        })
        .collect();
    expected
        .push(FederationEvent::BackfillRequested { owner_user_id: ALICE, follower_inbox_url: inbox(&remote).into() });
    assert_eq!(left.events, expected);
    let late = service.send(&note(9), ALICE, [inbox(&remote).into()]).await;
    assert!(matches!(late, Err(SendError::Some { of: 1, .. })), "{late:?}");
    assert_eq!(service.shut_down(Duration::ZERO).await.events, []);
}

#[tokio::test]
async fn a_queue_that_is_full_is_the_callers_error_and_has_room_again() {
    let service = hurried(&Failures::default()).queue(2).build().await.expect("a service");
    let remote = remote().await;
    remote.behave(Behaviour::Hang);
    for number in 0..2 {
        service.send(&note(number), ALICE, [inbox(&remote).into()]).await.expect("taken");
    }
    let Err(SendError::Some { not_sent, .. }) = service.send(&note(2), ALICE, [inbox(&remote).into()]).await else {
        panic!("two are as many as may be");
    };
    assert!(matches!(not_sent[0].error, PublishError::InProcess(_)));
    assert_eq!(not_sent[0].error.to_string(), "2 deliveries and backfills are queued, and no more may be");
    remote.behave_well();
    remote.release();
    becomes_true("both are there", PATIENCE, || remote.accepted() == 2).await.expect("in time");
    let again = fedstream_tests::eventually::eventually("there is room", PATIENCE, async || {
        service.send(&note(3), ALICE, [inbox(&remote).into()]).await.ok()
    });
    again.await.expect("in time");
}

#[tokio::test]
async fn a_queue_that_has_no_room_for_more_bytes_counts_an_activity_once() {
    let service = hurried(&Failures::default()).queue_bytes(8 * 1024).build().await.expect("a service");
    let remote = remote().await;
    remote.behave(Behaviour::Hang);
    let mut large = note(1);
    large["object"]["content"] = "x".repeat(6 * 1024).into();
    let inboxes = (0..5).map(|number| inbox(&remote).join(&format!("/{number}")).expect("a URL").into());
    assert_eq!(service.send(&large, ALICE, inboxes).await.expect("taken").deliveries, 5);
    let error = service.send(&large, ALICE, [inbox(&remote).into()]).await.expect_err("no room for a second");
    assert!(error.to_string().contains("8192 bytes of activities are as many as may be queued"), "{error}");
    assert_eq!(service.shut_down(Duration::ZERO).await.events.len(), 5);
}

#[tokio::test]
async fn bounds_beyond_any_are_the_largest_there_are() {
    let builder = hurried(&Failures::default()).queue(usize::MAX).queue_bytes(usize::MAX).concurrency(usize::MAX);
    let (service, remote) = (builder.build().await.expect("a service"), remote().await);
    service.send(&note(1), ALICE, [inbox(&remote).into()]).await.expect("taken");
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    assert_eq!(remote.accepted(), 1);
}
