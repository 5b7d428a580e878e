//! Stored before `publish` returns, once however often, and what happens when it can't be.

use std::time::Duration;

use federation::{EventPublisher, FederationEvent, JetStreamOptions, JetStreamPublisher, NatsSettings};
use fedstream_tests::broker::{Broker, Options, PASSWORD, deployed_users};
use fedstream_tests::eventually::eventually;
use serde_json::Value;
use url::Url;

use crate::streams::{PARTITIONS, all, publisher, publisher_that_waits};
use crate::support::{ALICE, BOB, PATIENCE, note};

fn requested(number: usize, inbox: &str) -> FederationEvent {
    let inbox: Url = inbox.parse().expect("a URL");
    FederationEvent::DeliveryRequested { inbox, activity: note(number), signing_actor_id: ALICE }
}

#[tokio::test]
async fn a_delivery_is_in_its_lane_when_publish_returns_and_a_repeat_is_the_same_message() {
    let broker = Broker::start().await.expect("a broker");
    let publisher = publisher(&broker).await;
    for _ in 0..3 {
        publisher.publish(requested(1, "https://remote.example/inbox")).await.expect("stored");
    }
    publisher.publish(requested(2, "https://remote.example/inbox")).await.expect("stored");
    publisher.publish(requested(1, "https://other.example:8443/inbox")).await.expect("stored");

    let found = all(&broker, "FED_OUTBOX").await;
    let lane = federation::lanes::partition_of(ALICE, PARTITIONS);
    let subjects: Vec<_> = found.iter().map(|found| found.subject.as_str()).collect();
    let remote = format!("fed.outbox.remote_example.{lane}");
    let other = format!("fed.outbox.other_example=3A8443.{lane}");
    assert_eq!(subjects, [&remote, &remote, &other]);
    let delivery = found[0].delivery();
    assert_eq!(delivery.inbox.as_str(), "https://remote.example/inbox");
    assert_eq!(delivery.signing_actor_id, ALICE);
    assert_eq!(serde_json::from_slice::<Value>(delivery.activity.body()).expect("JSON"), note(1));
    assert_eq!(found[0].header("Fed-Activity-Id"), note(1)["id"].as_str());
    assert_eq!(found[0].header("Fed-Activity-Type"), Some("Create"));
    assert!(delivery.particulars.requested_at.is_some());
}

#[tokio::test]
async fn a_backfill_and_a_failure_have_subjects_of_their_own() {
    let broker = Broker::start().await.expect("a broker");
    let publisher = publisher(&broker).await;
    let backfill = FederationEvent::BackfillRequested {
        owner_user_id: BOB,
        follower_inbox_url: "https://remote.example/users/carol/inbox".to_owned(),
    };
    let failed = FederationEvent::DeliveryFailed {
        inbox: "https://remote.example/inbox".parse().expect("a URL"),
        activity: note(1),
        signing_actor_id: BOB,
        error: "gone".to_owned(),
    };
    for event in [&backfill, &backfill, &failed, &failed] {
        publisher.publish(event.clone()).await.expect("stored");
    }
    for (stream, subject, event) in [
        ("FED_BACKFILL", format!("fed.backfill.remote_example.{BOB}"), &backfill),
        ("FED_EVENTS", "fed.event.delivery_failed.remote_example".to_owned(), &failed),
    ] {
        let found = all(&broker, stream).await;
        assert_eq!(found.len(), 1, "{stream}");
        assert_eq!(found[0].subject, subject);
        assert_eq!(&serde_json::from_slice::<FederationEvent>(&found[0].payload).expect("an event"), event);
    }
    let odd = FederationEvent::BackfillRequested { owner_user_id: BOB, follower_inbox_url: "what?".to_owned() };
    assert_eq!(publisher.publish(odd).await.expect_err("no URL").to_string(), "\"what?\" is no URL of an inbox");
}

#[tokio::test]
async fn a_broker_that_is_away_is_the_callers_error_and_the_same_event_is_stored_once_afterwards() {
    let mut broker = Broker::start().await.expect("a broker");
    let (publisher, impatient) =
        (publisher(&broker).await, publisher_that_waits(&broker, Duration::from_millis(500)).await);
    publisher.publish(requested(1, "https://remote.example/inbox")).await.expect("stored");
    broker.kill9();
    let error = impatient.publish(requested(2, "https://remote.example/inbox")).await.expect_err("nobody there");
    assert!(error.to_string().contains("is not known to be stored"), "{error}");
    broker.start_again().await.expect("it starts");
    eventually("it is stored", PATIENCE, async || {
        publisher.publish(requested(2, "https://remote.example/inbox")).await.ok()
    })
    .await
    .expect("in time");
    publisher.publish(requested(2, "https://remote.example/inbox")).await.expect("a repeat");
    assert_eq!(all(&broker, "FED_OUTBOX").await.len(), 2);
}

#[tokio::test]
async fn a_full_lane_parks_the_delivery_and_says_so_and_another_lane_has_room() {
    let broker = Broker::start().await.expect("a broker");
    let publisher = publisher(&broker).await;
    let jetstream = broker.jetstream().await.expect("a connection");
    let mut outbox = jetstream.get_stream("FED_OUTBOX").await.expect("the stream");
    let mut config = outbox.info().await.expect("an answer").config.clone();
    config.max_messages_per_subject = 2;
    jetstream.update_stream(config).await.expect("a shorter lane");

    for number in 0..2 {
        publisher.publish(requested(number, "https://dead.example/inbox")).await.expect("stored");
    }
    for _ in 0..2 {
        publisher.publish(requested(2, "https://dead.example/inbox")).await.expect("parked, once");
    }
    publisher.publish(requested(2, "https://well.example/inbox")).await.expect("stored");

    assert_eq!(all(&broker, "FED_OUTBOX").await.len(), 3);
    let parked = all(&broker, "FED_PARKED").await;
    let lane = federation::lanes::partition_of(ALICE, PARTITIONS);
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0].subject, format!("fed.parked.outbox.dead_example.{lane}"));
    assert_eq!(parked[0].header("Fed-Parked-Reason"), Some("remote-full"));
    assert!(parked[0].header("Fed-Parked-Msg-Id").is_some_and(|id| id.len() == 64));
    assert_eq!(serde_json::from_slice::<Value>(parked[0].delivery().activity.body()).expect("JSON"), note(2));
    let told = all(&broker, "FED_EVENTS").await;
    assert_eq!(told.len(), 1);
    let FederationEvent::DeliveryFailed { activity, error, .. } =
        serde_json::from_slice(&told[0].payload).expect("an event")
    else {
        panic!("{told:?}");
    };
    assert_eq!(activity, note(2));
    assert!(error.contains("is full"), "{error}");
}

#[tokio::test]
async fn an_application_needs_no_more_rights_than_deploy_gives_it() {
    let users = deployed_users("delivery-worker.conf").expect("a file");
    let broker = Broker::start_with(Options { lines: users, ..Options::default() }).await.expect("a broker");
    let settings = NatsSettings {
        url: broker.url(),
        user: Some("application".to_owned()),
        password: Some(PASSWORD.to_owned()),
        inbox_prefix: Some("_INBOX_application".to_owned()),
        ..NatsSettings::default()
    };
    // The first of all: it makes the streams.
    let connected = JetStreamPublisher::connect(settings, JetStreamOptions::default()).await;
    let publisher = connected.expect("it may look at the streams, and make them");
    let jetstream = broker.jetstream().await.expect("a connection");
    let mut outbox = jetstream.get_stream("FED_OUTBOX").await.expect("the stream");
    let mut config = outbox.info().await.expect("an answer").config.clone();
    config.max_messages_per_subject = 1;
    jetstream.update_stream(config).await.expect("a shorter lane");
    for number in 0..2 {
        publisher.publish(requested(number, "https://dead.example/inbox")).await.expect("stored, or parked");
    }
    let follower_inbox_url = "https://remote.example/inbox".to_owned();
    let backfill = FederationEvent::BackfillRequested { owner_user_id: ALICE, follower_inbox_url };
    publisher.publish(backfill).await.expect("stored");
    for stream in ["FED_OUTBOX", "FED_BACKFILL", "FED_PARKED", "FED_EVENTS"] {
        assert_eq!(all(&broker, stream).await.len(), 1, "{stream}");
    }
}

#[tokio::test]
async fn a_delivery_that_is_parked_is_taken_though_it_can_not_be_announced() {
    let broker = Broker::start().await.expect("a broker");
    let publisher = publisher(&broker).await;
    let jetstream = broker.jetstream().await.expect("a connection");
    let mut outbox = jetstream.get_stream("FED_OUTBOX").await.expect("the stream");
    let mut config = outbox.info().await.expect("an answer").config.clone();
    config.max_messages_per_subject = 1;
    jetstream.update_stream(config).await.expect("a shorter lane");
    publisher.publish(requested(1, "https://dead.example/inbox")).await.expect("stored");
    jetstream.delete_stream("FED_EVENTS").await.expect("it is there");
    publisher.publish(requested(2, "https://dead.example/inbox")).await.expect("an error would have it sent twice");
    assert_eq!(all(&broker, "FED_PARKED").await.len(), 1);
}

#[tokio::test]
async fn a_delivery_that_was_given_up_is_stored_once_more_under_another_id() {
    let broker = Broker::start().await.expect("a broker");
    let publisher = publisher(&broker).await;
    let event = || requested(1, "https://remote.example/inbox");
    for _ in 0..2 {
        publisher.publish(event()).await.expect("stored");
        for again in [1, 2].map(|again| again.try_into().expect("not 0")) {
            publisher.store_again(event(), again).await.expect("stored");
        }
    }
    let found = all(&broker, "FED_OUTBOX").await;
    assert_eq!(found.len(), 3, "each once, however often it is said");
    assert!(found.iter().all(|once| once.payload == found[0].payload));
}

#[tokio::test]
async fn a_full_stream_is_the_callers_error() {
    let broker = Broker::start().await.expect("a broker");
    let publisher = publisher(&broker).await;
    let jetstream = broker.jetstream().await.expect("a connection");
    let mut outbox = jetstream.get_stream("FED_OUTBOX").await.expect("the stream");
    let mut config = outbox.info().await.expect("an answer").config.clone();
    config.max_bytes = 4096;
    jetstream.update_stream(config).await.expect("a smaller stream");
    let mut refused = None;
    for number in 0..20 {
        refused = refused.or(publisher.publish(requested(number, "https://remote.example/inbox")).await.err());
    }
    let error = refused.expect("4 kB are no room for twenty").to_string();
    assert!(error.contains("as many bytes as it may"), "{error}");
    assert_eq!(all(&broker, "FED_PARKED").await.len(), 0);
}
