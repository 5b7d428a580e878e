//! What an application asks of federation, and what it is told: three events, with the fields that k-ap gives them.
//!
//! The JSON is an object with the variant's name as `type` and the fields beside it: `nats/events.schema.json` has it for
//! every other language.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

/// One event. The names of variants and fields are k-ap's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum FederationEvent {
    /// An activity is to be brought to one inbox: published for every outbound delivery.
    DeliveryRequested {
        /// Where it goes; a shared inbox stands for all its followers.
        inbox: Url,
        /// The activity.
        activity: Value,
        /// Whose key signs it.
        signing_actor_id: Uuid,
    },
    /// It was given up: published once, after the last attempt.
    DeliveryFailed {
        /// Where it should have gone.
        inbox: Url,
        /// The activity. Of a backfill that was given up it is the `BackfillRequested` that had asked for it, as JSON: to be
        /// published once more, ten minutes after the first at the earliest or by `store_again`: before, the broker takes the same
        /// for a repeat.
        activity: Value,
        /// Whose key signed it; whose history it was.
        signing_actor_id: Uuid,
        /// What the last attempt met, in words.
        error: String,
    },
    /// A new follower was accepted and is to be sent the user's own history.
    BackfillRequested {
        /// Whose history.
        owner_user_id: Uuid,
        /// Where it goes. Text, as in k-ap: it may come straight from a remote actor.
        follower_inbox_url: String,
    },
}

impl FederationEvent {
    /// What is told of a backfill that was given up.
    #[must_use]
    pub(crate) fn backfill_failed(owner_user_id: Uuid, inbox: Url, cause: &str) -> Self {
        let activity = serde_json::json!({
            "type": "BackfillRequested", "owner_user_id": owner_user_id, "follower_inbox_url": inbox
        });
        let error = format!("the backfill failed: {cause}");
        Self::DeliveryFailed { inbox, activity, signing_actor_id: owner_user_id, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_variant_as_type_and_reads_back() {
        let actor = Uuid::from_u128(7);
        let inbox: Url = "https://a.example/inbox".parse().expect("a URL");
        let activity = serde_json::json!({ "id": "https://b.example/1", "type": "Like" });
        let events = [
            FederationEvent::DeliveryRequested {
                inbox: inbox.clone(),
                activity: activity.clone(),
                signing_actor_id: actor,
            },
            FederationEvent::DeliveryFailed { inbox, activity, signing_actor_id: actor, error: "gone".into() },
            FederationEvent::BackfillRequested {
                owner_user_id: actor,
                follower_inbox_url: "https://a.example/u/bob/inbox".into(),
            },
        ];
        for (event, kind) in events.into_iter().zip(["DeliveryRequested", "DeliveryFailed", "BackfillRequested"]) {
            let json = serde_json::to_value(&event).expect("it serialises");
            assert_eq!(json["type"], kind);
            assert_eq!(serde_json::from_value::<FederationEvent>(json).expect("it reads back"), event);
        }
    }

    #[test]
    fn a_backfill_that_was_given_up_tells_the_event_that_asks_for_it_again() {
        let (owner, inbox) = (Uuid::from_u128(7), "https://a.example/inbox");
        let failed = FederationEvent::backfill_failed(owner, inbox.parse().expect("a URL"), "no");
        let FederationEvent::DeliveryFailed { activity, .. } = failed else { panic!("{failed:?}") };
        let again: FederationEvent = serde_json::from_value(activity).expect("an event");
        let asked = FederationEvent::BackfillRequested { owner_user_id: owner, follower_inbox_url: inbox.to_owned() };
        assert_eq!(again, asked);
    }
}
