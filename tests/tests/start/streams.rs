//! Streams that somebody configured dangerously: the service refuses to start, and names the stream and the field.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::Config;
use fedstream_tests::broker::{self, Broker};
use fedstream_tests::eventually::eventually;
use serde_json::{Value, json};

use crate::process::{Env, Taken, right, run, set};

const INBOX: &str = "FED_INBOX";

/// What was changed in FED_INBOX, and the field that is named for it. The names are those of JetStream's own JSON.
fn dangerous() -> Vec<(&'static str, Value)> {
    vec![
        // The server allows the one only without the other.
        ("discard", json!({ "discard": "old", "discard_new_per_subject": false })),
        ("discard_new_per_subject", json!({ "discard_new_per_subject": false })),
        ("max_msgs_per_subject", json!({ "max_msgs_per_subject": -1, "discard_new_per_subject": false })),
        ("max_age", json!({ "max_age": 3_600_000_000_000_u64 })),
        ("allow_rollup_hdrs", json!({ "allow_rollup_hdrs": true })),
        ("allow_msg_ttl", json!({ "allow_msg_ttl": true })),
        ("retention", json!({ "retention": "workqueue" })),
        ("retention", json!({ "retention": "interest" })),
        ("storage", json!({ "storage": "memory", "max_bytes": 1_048_576 })),
        ("no_ack", json!({ "no_ack": true })),
        ("deny_purge", json!({ "deny_purge": true })),
        ("subjects", json!({ "subjects": ["fed.inbox.home_test.*"] })),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dangerous_stream_is_refused_by_the_name_of_its_field() {
    let broker = Broker::start().await.unwrap();
    let jetstream = broker.jetstream().await.unwrap();
    for (field, change) in dangerous() {
        for service in ["inbox-receiver", "batch-sender"] {
            for mode in ["create", "bind"] {
                refused(&broker, &jetstream, service, &[("FED_STREAMS", mode)], field, &change).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_the_service_itself_would_hit_are_refused_too() {
    let broker = Broker::start().await.unwrap();
    let jetstream = broker.jetstream().await.unwrap();
    let small = json!({ "max_msg_size": 1_048_576 });
    refused(&broker, &jetstream, "inbox-receiver", &[], "max_msg_size", &small).await;
    // 2.15 makes a thousand of "no limit": not enough for a thousand lanes and the readers that are being replaced.
    for consumers in [100, 1000, -1] {
        let few = json!({ "max_consumers": consumers });
        refused(&broker, &jetstream, "batch-sender", &[], "max_consumers", &few).await;
    }
    let hundred = json!({ "max_consumers": 100 });
    refused(&broker, &jetstream, "batch-sender", &[("FED_LANES_MAX", "90")], "max_consumers", &hundred).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_batch_sender_stores_itself_must_last_as_well() {
    let broker = Broker::start().await.unwrap();
    let jetstream = broker.jetstream().await.unwrap();
    for (list, name) in [("archives", "FED_PARKED"), ("buckets", "KV_fed_leases")] {
        let config = defined(list, name, &json!({ "storage": "memory", "max_bytes": 1_048_576 }));
        jetstream.create_stream(config).await.unwrap();
        let ended = run("batch-sender", &[], right_with_free_ports("batch-sender", &broker)).await;
        assert_eq!(ended.code, Some(78), "{ended:?}");
        let line = ended.line("batch-sender");
        assert!(line.starts_with(&format!("stream {name} is unsafe: storage is memory")), "{line}");
        jetstream.delete_stream(name).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_stream_is_no_reason_to_make_one_where_others_declare_them() {
    let broker = Broker::start().await.unwrap();
    for service in ["inbox-receiver", "batch-sender"] {
        let mut env = right_with_free_ports(service, &broker);
        set(&mut env, "FED_STREAMS", "bind");
        let ended = run(service, &[], env).await;
        assert_eq!(ended.code, Some(69), "{ended:?}");
        let line = ended.line(service);
        assert!(line.contains("stream FED_INBOX is missing") && line.contains("FED_STREAMS=bind"), "{line}");
    }
    assert!(broker.jetstream().await.unwrap().get_stream(INBOX).await.is_err(), "nobody made it");
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_that_do_not_fit_the_broker_are_refused_in_its_words() {
    let options = broker::Options { jetstream: vec!["max_file_store: 1MB".into()], ..broker::Options::default() };
    let broker = Broker::start_with(options).await.unwrap();
    let ended = run("inbox-receiver", &[], right_with_free_ports("inbox-receiver", &broker)).await;
    assert_eq!(ended.code, Some(78), "{ended:?}");
    let line = ended.line("inbox-receiver");
    assert!(line.contains(INBOX) && line.contains("max_file_store"), "{line}");
}

/// Makes the stream with this change, starts the service, and takes the stream away again.
async fn refused(
    broker: &Broker,
    jetstream: &Context,
    service: &str,
    settings: &[(&str, &str)],
    field: &str,
    change: &Value,
) {
    // The broker may still be busy with the files of the one of that name that was deleted a moment ago.
    let made = async || jetstream.create_stream(inbox_with(change)).await.ok().map(drop);
    eventually(format_args!("a stream with {change}"), Duration::from_secs(10), made).await.expect("made");
    let mut env = right_with_free_ports(service, broker);
    settings.iter().for_each(|(name, value)| set(&mut env, name, *value));
    let ended = run(service, &[], env).await;
    assert_eq!(ended.code, Some(78), "{service}, {change}: {ended:?}");
    let line = ended.line(service);
    assert!(line.starts_with(&format!("stream FED_INBOX is unsafe: {field} is ")), "{service}, {change}: {line}");
    let after = jetstream.get_stream(INBOX).await.expect("it is still there").cached_info().config.clone();
    let as_made: Value = serde_json::to_value(inbox_with(change)).expect("JSON");
    let after: Value = serde_json::to_value(after).expect("JSON");
    for (name, _) in change.as_object().expect("an object") {
        assert_eq!(after[name], as_made[name], "{service} changed {name}");
    }
    jetstream.delete_stream(INBOX).await.expect("deleted");
}

/// FED_INBOX of nats/streams.json with some fields changed.
fn inbox_with(change: &Value) -> Config {
    defined("queues", INBOX, change)
}

/// A stream of nats/streams.json with some fields changed.
fn defined(list: &str, name: &str, change: &Value) -> Config {
    let path = broker::repository().join("nats/streams.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("nats/streams.json")).expect("JSON");
    let streams = all[list].as_array().expect("a list of streams");
    let mut config = streams.iter().find(|stream| stream["name"] == name).expect("the stream").clone();
    for (field, value) in change.as_object().expect("an object") {
        config[field] = value.clone();
    }
    serde_json::from_value(config).expect("a stream's configuration")
}

/// Should it start after all, it must be for no other reason that it ends.
fn right_with_free_ports(service: &str, broker: &Broker) -> Env {
    let mut env = right(service, &Taken::new(), &broker.url());
    for name in ["FED_LISTEN", "FED_ADMIN_LISTEN"] {
        if env.iter().any(|(other, _)| other == name) {
            set(&mut env, name, fedstream_tests::ports::free().to_string());
        }
    }
    env
}
