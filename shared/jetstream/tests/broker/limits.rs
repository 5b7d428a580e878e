//! What "full" means: the broker's limits, exact, each under its own name.

use std::time::Duration;

use fedstream_jetstream::publish::{Storage, StreamLimit};
use fedstream_jetstream::{Broker, Publisher, Refused, Stored, StreamNeed, definitions, streams};
use fedstream_lane::Seq;
use futures::future::join_all;

use crate::server::{PATIENCE, Server, body, eventually, headers, inbox_need, lane, within};

async fn store(publisher: &Publisher, destination: &str, id: &str, text: &str) -> Result<Stored, Refused> {
    within("an ack", publisher.store(&lane(destination), headers(id), body(text), PATIENCE)).await
}

async fn with_inbox(server: &Server, messages_per_lane: u64, bytes: u64) -> (Broker, Publisher) {
    let broker = server.connect().await;
    streams::ensure(&broker, &inbox_need(messages_per_lane, bytes)).await.expect("a fit stream");
    let publisher = Publisher::new(&broker);
    (broker, publisher)
}

#[tokio::test]
async fn a_lane_takes_exactly_its_limit_from_50_publishers_at_once_and_others_go_on() {
    let server = Server::start().await;
    let (broker, publisher) = with_inbox(&server, 20, 1 << 30).await;
    let ids: Vec<_> = (0..50).map(|number| format!("id-{number}")).collect();
    let answers = join_all(ids.iter().map(|id| store(&publisher, "full.example", id, "{}"))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 20);
    assert_eq!(answers.iter().filter(|answer| **answer == Err(Refused::LaneFull)).count(), 30);
    assert!(store(&publisher, "other.example", "id-x", "{}").await.is_ok());
    let (subject, messages) = fedstream_jetstream::lanes::largest(&broker).await.expect("an answer").expect("a lane");
    assert_eq!((subject.as_str(), messages), ("fed.inbox.full_example.sender_example", 20));
}

#[tokio::test]
async fn a_duplicate_of_a_stored_message_is_acked_even_when_the_lane_is_full() {
    let server = Server::start().await;
    let (_broker, publisher) = with_inbox(&server, 1, 1 << 30).await;
    let first = store(&publisher, "a.example", "id-1", "{}").await.expect("stored");
    assert_eq!(first, Stored { sequence: Seq(1), duplicate: false });
    assert_eq!(store(&publisher, "a.example", "id-2", "{}").await, Err(Refused::LaneFull));
    assert_eq!(store(&publisher, "a.example", "id-1", "{}").await, Ok(Stored { sequence: Seq(1), duplicate: true }));
    // Refused before, so not a duplicate later: it would be acknowledged and stored nowhere.
    assert_eq!(store(&publisher, "a.example", "id-2", "{}").await, Err(Refused::LaneFull));
}

#[tokio::test]
async fn a_full_stream_is_told_from_a_full_lane() {
    let server = Server::start().await;
    let (broker, publisher) = with_inbox(&server, 1_000, 20_000).await;
    let text = "x".repeat(6_000);
    for id in ["1", "2", "3"] {
        store(&publisher, "a.example", id, &text).await.expect("room");
    }
    assert_eq!(store(&publisher, "b.example", "4", &text).await, Err(Refused::StreamFull(StreamLimit::Bytes)));

    let mut info = broker.context().get_stream("FED_INBOX").await.expect("a stream");
    let mut config = info.info().await.expect("its configuration").config.clone();
    config.max_messages = 3;
    broker.context().update_stream(config).await.expect("an update");
    assert_eq!(store(&publisher, "b.example", "5", "{}").await, Err(Refused::StreamFull(StreamLimit::Messages)));
}

#[tokio::test]
async fn full_storage_of_account_or_server_is_a_refusal_of_its_own() {
    for (whose, jetstream) in
        [(Storage::Account, "jetstream { max_file: 100KB, max_memory: 1MB }"), (Storage::Server, "jetstream: enabled")]
    {
        let server = Server::start_configured(&format!(
            "host: 127.0.0.1, port: $FED_NATS_PORT
             jetstream {{ store_dir: $FED_NATS_STORE_DIR, max_file_store: 200KB, max_memory_store: 1MB }}
             accounts {{ A {{ {jetstream}, users: [ {{ user: a, password: a }} ] }} }}"
        ))
        .await;
        let settings = fedstream_jetstream::NatsSettings {
            user: Some("a".into()),
            password: Some("a".into()),
            ..server.settings()
        };
        let broker = Broker::connect(settings, "test").await.expect("a broker");
        // Made by somebody who set no bytes: what we make reserves its bytes, and is refused at once instead.
        let mut config = definitions::inbox().config.clone();
        config["max_bytes"] = (-1).into();
        let config: async_nats::jetstream::stream::Config = serde_json::from_value(config).expect("a configuration");
        broker.context().create_stream(config).await.expect("a stream");
        let publisher = Publisher::new(&broker);
        let text = "x".repeat(20_000);
        let refused = eventually("the storage is full", async || {
            let id = format!("id-{}", fastrand::u64(..));
            store(&publisher, "a.example", &id, &text).await.err()
        })
        .await;
        assert_eq!(refused, Refused::StorageFull(whose), "{jetstream}");
    }
}

#[tokio::test]
async fn what_will_never_fit_is_too_large() {
    let server = Server::start().await;
    let (broker, publisher) = with_inbox(&server, 10, 1 << 30).await;
    assert_eq!(store(&publisher, "a.example", "1", &"x".repeat(2 << 20)).await, Err(Refused::TooLarge)); // max_payload
    let mut many = headers("2");
    many.push(("Fed-Http", "x".repeat(70_000)));
    let answer = publisher.store(&lane("a.example"), many, body("{}"), PATIENCE).await;
    assert_eq!(answer, Err(Refused::TooLarge)); // 64 KiB of headers

    let mut config = broker.context().get_stream("FED_INBOX").await.expect("a stream").cached_info().config.clone();
    config.max_message_size = 1_000;
    broker.context().update_stream(config).await.expect("an update");
    assert_eq!(store(&publisher, "a.example", "3", &"x".repeat(2_000)).await, Err(Refused::TooLarge));
}

#[tokio::test]
async fn a_missing_stream_is_refused_and_taken_again_when_it_is_back() {
    let server = Server::start().await;
    let (broker, publisher) = with_inbox(&server, 10, 1 << 30).await;
    broker.context().delete_stream("FED_INBOX").await.expect("it was there");
    assert_eq!(store(&publisher, "a.example", "1", "{}").await, Err(Refused::StreamMissing));
    streams::ensure(&broker, &inbox_need(10, 1 << 30)).await.expect("a fit stream");
    assert!(store(&publisher, "a.example", "1", "{}").await.is_ok());
}

#[tokio::test]
async fn without_a_connection_a_publish_fails_at_once_and_is_taken_again_within_two_seconds_of_the_brokers_return() {
    let mut server = Server::start().await;
    let (broker, publisher) = with_inbox(&server, 10, 1 << 30).await;
    server.kill().await;
    eventually("the loss is noticed", async || (!broker.connected()).then_some(())).await;
    let asked = tokio::time::Instant::now();
    assert_eq!(store(&publisher, "a.example", "1", "{}").await, Err(Refused::NotConnected));
    assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
    server.start_again().await;
    let back = tokio::time::Instant::now();
    eventually("it is stored", async || store(&publisher, "a.example", "1", "{}").await.ok()).await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
}

#[tokio::test]
async fn a_header_that_would_be_a_command_is_an_error_and_nothing_is_stored() {
    let server = Server::start().await;
    let (broker, publisher) = with_inbox(&server, 10, 1 << 30).await;
    let bad = vec![("Nats-Msg-Id", "1".to_owned()), ("Fed-Target", "/inbox\r\nNats-Rollup: all".to_owned())];
    let answer = publisher.store(&lane("a.example"), bad, body("{}"), PATIENCE).await;
    assert!(matches!(answer, Err(Refused::Other(_))), "{answer:?}");
    assert_eq!(fedstream_jetstream::lanes::backlog(&broker).await.expect("an answer"), []);
}

#[tokio::test]
async fn a_parked_copy_goes_to_the_archive_under_an_id_of_its_own() {
    let server = Server::start().await;
    let (broker, publisher) = with_inbox(&server, 10, 1 << 30).await;
    streams::ensure(&broker, &StreamNeed::plain(definitions::parked())).await.expect("a fit stream");
    let lane = lane("a.example");
    let park = async || publisher.park(&lane, "inbox.a.b.7.rejected", headers("original"), body("{}"), PATIENCE).await;
    assert_eq!(park().await, Ok(Stored { sequence: Seq(1), duplicate: false }));
    assert_eq!(park().await, Ok(Stored { sequence: Seq(1), duplicate: true }));
    let stream = broker.context().get_stream("FED_PARKED").await.expect("a stream");
    let copy = stream.get_raw_message(1).await.expect("the copy");
    assert_eq!(copy.subject.as_str(), "fed.parked.inbox.a_example.sender_example");
    assert_eq!(copy.headers.get("Nats-Msg-Id").map(ToString::to_string).as_deref(), Some("inbox.a.b.7.rejected"));
}
