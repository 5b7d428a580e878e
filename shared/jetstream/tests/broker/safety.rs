//! Streams that somebody else made: bound to when they are fit, refused by the field's name when they are not.

use fedstream_jetstream::{Broker, NatsSettings, Publisher, StreamNeed, StreamsMode, definitions, streams};
use serde_json::{Value, json};

use crate::server::{PATIENCE, Server, body, headers, inbox_need, lane};

/// Makes the inbox with some fields changed, past this crate.
async fn make_with(broker: &Broker, changes: Value) {
    let mut config = definitions::inbox().config.clone();
    for (field, value) in changes.as_object().expect("fields") {
        config[field] = value.clone();
    }
    let answer: Value = broker.context().request("STREAM.CREATE.FED_INBOX", &config).await.expect("an answer");
    assert!(answer.get("error").is_none(), "{changes}: {answer}");
}

async fn config_of(broker: &Broker) -> Value {
    let mut answer: Value = broker.context().request("STREAM.INFO.FED_INBOX", &json!({})).await.expect("an answer");
    answer["config"].take()
}

#[tokio::test]
async fn each_dangerous_configuration_is_refused_by_name_in_both_modes_and_left_as_it_is() {
    let server = Server::start().await;
    let create = server.connect().await;
    let bind = NatsSettings { streams: StreamsMode::Bind, ..server.settings() };
    let bind = Broker::connect(bind, "test").await.expect("a broker");
    for (field, changes) in [
        ("storage", json!({ "storage": "memory", "max_bytes": 1_000_000 })),
        ("no_ack", json!({ "no_ack": true })),
        ("persist_mode", json!({ "persist_mode": "async" })),
        ("retention", json!({ "retention": "workqueue" })),
        ("subjects", json!({ "subjects": ["fed.inbox.a.*"] })),
        ("subject_transform", json!({ "subject_transform": { "src": "fed.inbox.>", "dest": "fed.inbox.x.>" } })),
        ("discard", json!({ "discard": "old", "discard_new_per_subject": false })),
        ("discard_new_per_subject", json!({ "discard_new_per_subject": false })),
        ("max_msgs_per_subject", json!({ "max_msgs_per_subject": -1, "discard_new_per_subject": false })),
        ("max_age", json!({ "max_age": 3_600_000_000_000_u64 })),
        ("allow_rollup_hdrs", json!({ "allow_rollup_hdrs": true })),
        ("allow_msg_ttl", json!({ "allow_msg_ttl": true })),
        ("deny_purge", json!({ "deny_purge": true })),
        ("max_msg_size", json!({ "max_msg_size": 100_000 })),
        ("max_consumers", json!({ "max_consumers": 1_000 })),
    ] {
        make_with(&create, changes).await;
        let before = config_of(&create).await;
        for broker in [&create, &bind] {
            let error = streams::ensure(broker, &inbox_need(7, 1 << 20)).await.expect_err("dangerous");
            let line = error.to_string();
            assert!(line.starts_with(&format!("stream FED_INBOX is unsafe: {field} is ")), "{line}");
            assert!(!line.contains('\n') && error.exit_code() == 78, "{line}");
        }
        assert_eq!(config_of(&create).await, before, "{field}");
        create.context().delete_stream("FED_INBOX").await.expect("it was there");
    }
}

#[tokio::test]
async fn in_bind_mode_a_missing_stream_is_an_error_and_an_existing_one_is_left_as_it_is() {
    let server = Server::start().await;
    let settings = NatsSettings { streams: StreamsMode::Bind, ..server.settings() };
    let broker = Broker::connect(settings, "test").await.expect("a broker");
    let error = streams::ensure(&broker, &inbox_need(7, 1 << 20)).await.expect_err("missing");
    assert!(matches!(error, streams::Error::Missing { .. }) && error.exit_code() == 69, "{error}");
    make_with(&broker, json!({})).await;
    let before = config_of(&broker).await;
    let facts = streams::ensure(&broker, &inbox_need(7, 1 << 20)).await.expect("fit");
    assert_eq!((facts.messages_per_lane, facts.bytes_max), (Some(5_000), Some(1 << 32)));
    assert_eq!(config_of(&broker).await, before);
}

#[tokio::test]
async fn the_owner_sets_its_two_bounds_and_no_other_field() {
    let server = Server::start().await;
    let broker = server.connect().await;
    make_with(
        &broker,
        json!({ "description": "mine", "duplicate_window": 60_000_000_000_u64, "metadata": { "who": "me" } }),
    )
    .await;
    let mut before = config_of(&broker).await;
    let not_owner = StreamNeed { bounds: None, ..inbox_need(0, 0) };
    streams::ensure(&broker, &not_owner).await.expect("fit");
    assert_eq!(config_of(&broker).await, before);

    let facts = streams::ensure(&broker, &inbox_need(7_000, 1 << 20)).await.expect("fit");
    assert_eq!((facts.messages_per_lane, facts.bytes_max), (Some(7_000), Some(1 << 20)));
    before["max_msgs_per_subject"] = json!(7_000);
    before["max_bytes"] = json!(1 << 20);
    assert_eq!(config_of(&broker).await, before);
}

#[tokio::test]
async fn a_lower_lane_limit_waits_until_no_accepted_activity_would_be_deleted() {
    let server = Server::start().await;
    let broker = server.connect().await;
    streams::ensure(&broker, &inbox_need(20, 1 << 20)).await.expect("fit");
    let publisher = Publisher::new(&broker);
    for id in 0..20 {
        publisher.store(&lane("a.example"), headers(&id.to_string()), body("{}"), PATIENCE).await.expect("stored");
    }
    let facts = streams::ensure(&broker, &inbox_need(10, 1 << 19)).await.expect("fit");
    assert_eq!((facts.messages_per_lane, facts.bytes_max), (Some(20), Some(1 << 19)));
    let mut stream = broker.context().get_stream("FED_INBOX").await.expect("a stream");
    assert_eq!(stream.info().await.expect("its state").state.messages, 20);

    stream.purge().await.expect("a purge");
    let facts = streams::ensure(&broker, &inbox_need(10, 1 << 19)).await.expect("fit");
    assert_eq!(facts.messages_per_lane, Some(10));
}

#[tokio::test]
async fn a_stream_that_does_not_fit_the_brokers_storage_is_refused_with_the_reason() {
    let server = Server::start_configured(
        "host: 127.0.0.1, port: $FED_NATS_PORT, jetstream { store_dir: $FED_NATS_STORE_DIR, max_file_store: 1GB, max_memory_store: 1MB }",
    )
    .await;
    let broker = server.connect().await;
    let error = streams::ensure(&broker, &inbox_need(10, 4 << 30)).await.expect_err("too large");
    assert!(error.to_string().contains("max_file_store"), "{error}");
}
