//! `nats/events.schema.json` against what this crate writes and reads.

use federation::FederationEvent;
use federation::stored::StoredDelivery;
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../../../../nats/events.schema.json");

fn allows(event: &Value) -> bool {
    let schema = serde_json::from_str(SCHEMA).expect("JSON");
    jsonschema::draft202012::new(&schema).expect("a schema").is_valid(event)
}

fn requested() -> Value {
    json!({
        "type": "DeliveryRequested",
        "inbox": "https://remote.example/inbox",
        "activity": { "id": "https://our.example/1", "type": "Like" },
        "signing_actor_id": "7f9c24e8-3b12-4fef-91e1-4c1d2f1a0b77"
    })
}

fn failed() -> Value {
    let mut event = requested();
    event["type"] = "DeliveryFailed".into();
    event["error"] = "gone".into();
    event
}

fn backfill() -> Value {
    json!({
        "type": "BackfillRequested",
        "owner_user_id": "7f9c24e8-3b12-4fef-91e1-4c1d2f1a0b77",
        "follower_inbox_url": "https://remote.example/inbox"
    })
}

#[test]
fn what_this_crate_writes_is_what_the_schema_says_and_reads_back() {
    for event in [requested(), failed(), backfill()] {
        assert!(allows(&event), "{event}");
        let read: FederationEvent = serde_json::from_value(event.clone()).expect("an event");
        assert_eq!(serde_json::to_value(read).expect("JSON"), event);
    }
}

#[test]
fn an_event_without_one_of_its_members_is_refused_by_both() {
    for event in [requested(), failed(), backfill()] {
        for member in event.as_object().expect("an object").keys() {
            let mut less = event.clone();
            less.as_object_mut().expect("an object").remove(member);
            assert!(!allows(&less), "{less}");
            assert!(serde_json::from_value::<FederationEvent>(less.clone()).is_err(), "{less}");
        }
    }
}

#[test]
fn an_odd_member_is_refused_by_both_and_one_more_is_not() {
    let read = |event: &Value| StoredDelivery::read(|_| None, &event.to_string().into()).is_ok();
    for (member, odd) in [
        ("type", json!("DeliveryDone")),
        ("inbox", json!("remote.example/inbox")),
        ("inbox", json!(7)),
        ("activity", json!("https://our.example/1")),
        ("activity", json!([])),
        ("signing_actor_id", json!("alice")),
    ] {
        let mut event = requested();
        event[member] = odd;
        assert!(!allows(&event) && !read(&event), "{event}");
    }
    let mut more = requested();
    more["trace"] = json!("x");
    assert!(allows(&more) && read(&more));
}
