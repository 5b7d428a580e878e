//! `Nats-Msg-Id`: the same event, published again, is one message.
//!
//! Hex SHA-256 over the subject, the kind, the inbox, the actor and the activity. The activity counts in a form of its own
//! (members by name, no white space), so that an application that builds it a second time, in another order, still repeats
//! itself. Any other stable id does as well: it only has to be the same for the same delivery, and another for another.

use std::num::NonZeroU32;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::FederationEvent;

/// The id of an event on this subject.
///
/// A `DeliveryFailed` has one of its own kind; see [`of_delivery`].
#[must_use]
pub fn of(subject: &str, event: &FederationEvent) -> String {
    let (kind, inbox, actor, activity) = match event {
        FederationEvent::DeliveryRequested { inbox, activity, signing_actor_id } => {
            ("DeliveryRequested", inbox.as_str(), signing_actor_id, Some(activity))
        }
        FederationEvent::DeliveryFailed { inbox, activity, signing_actor_id, .. } => {
            ("DeliveryFailed", inbox.as_str(), signing_actor_id, Some(activity))
        }
        FederationEvent::BackfillRequested { owner_user_id, follower_inbox_url } => {
            ("BackfillRequested", follower_inbox_url.as_str(), owner_user_id, None)
        }
    };
    let activity = activity.map(canonical).unwrap_or_default();
    hash_of(&[subject, kind, inbox, &actor.to_string(), &activity])
}

fn hash_of(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes()); // lengths keep ("ab", "c") and ("a", "bc") apart
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// JSON with members by name and no white space, however the application's `serde_json` keeps its objects.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members: Vec<_> =
                members.into_iter().map(|(name, value)| format!("{}:{}", quoted(name), canonical(value))).collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The id of an event that is sent once more on purpose, after it was given up: the broker would take one under its own id for
/// a repeat, and drop it. `again` says which time it is, so that a repeat of this one is known too.
#[must_use]
pub fn again(id: &str, again: NonZeroU32) -> String {
    format!("{id}.again.{again}")
}

/// The id of what is told of one delivery, where there may be equal ones: a failure of what was sent again is another event
/// than that of the first. `delivery` is anything that is the delivery's own, and stays.
#[must_use]
pub fn of_delivery(id: &str, delivery: &str) -> String {
    hash_of(&[id, delivery])
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn requested(inbox: &str, activity: &str, actor: u128) -> FederationEvent {
        FederationEvent::DeliveryRequested {
            inbox: inbox.parse().expect("a URL"),
            activity: serde_json::from_str(activity).expect("JSON"),
            signing_actor_id: Uuid::from_u128(actor),
        }
    }

    #[test]
    fn a_repeat_is_known_in_whatever_order_its_members_stand() {
        let one =
            requested("https://a.example/inbox", r#"{"id":"x","object":{"b":[1,{"d":1,"c":"\u00e9"}],"a":null}}"#, 1);
        let other =
            requested("https://a.example/inbox", r#"{"object":{"a":null,"b":[1,{"c":"é","d":1}]}, "id":"x"}"#, 1);
        assert_eq!(of("fed.outbox.a.0", &one), of("fed.outbox.a.0", &other));
        assert_eq!(of("fed.outbox.a.0", &one).len(), 64);
    }

    #[test]
    fn another_inbox_actor_activity_lane_or_kind_is_another_delivery() {
        let inbox = "https://a.example/inbox";
        let first = requested(inbox, r#"{"id":"x"}"#, 1);
        let id = of("fed.outbox.a.0", &first);
        for (subject, other) in [
            ("fed.outbox.a.0", requested("https://a.example/inbox2", r#"{"id":"x"}"#, 1)),
            ("fed.outbox.a.0", requested(inbox, r#"{"id":"x","a":1}"#, 1)),
            ("fed.outbox.a.0", requested(inbox, r#"{"id":"x"}"#, 2)),
            ("fed.outbox.a.1", first.clone()),
        ] {
            assert_ne!(of(subject, &other), id);
        }
        let FederationEvent::DeliveryRequested { inbox, activity, signing_actor_id } = first else {
            panic!("it is one")
        };
        let failed = FederationEvent::DeliveryFailed { inbox, activity, signing_actor_id, error: "x".into() };
        assert_ne!(of("fed.outbox.a.0", &failed), id);
    }

    #[test]
    fn what_is_told_of_two_equal_deliveries_are_two_events_and_the_same_of_one_is_one() {
        let id = of("fed.event.delivery_failed.a", &requested("https://a.example/inbox", r#"{"id":"x"}"#, 1));
        assert_eq!(of_delivery(&id, "first"), of_delivery(&id, "first"));
        assert_ne!(of_delivery(&id, "first"), of_delivery(&id, "first.again.1"));
        assert_ne!(of_delivery(&id, "first"), id);
    }

    #[test]
    fn members_stand_by_name_all_the_way_down() {
        let value = serde_json::json!({ "b": [{ "z": 1, "a\"": 2.5 }], "a": "\n" });
        assert_eq!(canonical(&value), r#"{"a":"\n","b":[{"a\"":2.5,"z":1}]}"#);
    }
}
