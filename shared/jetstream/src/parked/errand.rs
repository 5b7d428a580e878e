//! What an outbound copy says of itself: which activity, which inbox, and whose key.
//!
//! It stands in the event, whoever published that; the headers beside it are at will (`nats/README.md`), and count only
//! where the event can't be read: then they are all there is.

use fedstream_wire::stored::header;
use serde_json::Value;
use uuid::Uuid;

use crate::Headers;

/// What was to be done with an outbound copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errand {
    /// The inbox, as it was published; of a backfill job, the follower's.
    pub inbox: Option<String>,
    /// Whose key signs; of a backfill job, whose history it is.
    pub actor: Option<Uuid>,
    /// The activity's `id`; a backfill job has none.
    pub activity_id: Option<String>,
}

impl Errand {
    /// Of a copy with these headers and this event.
    pub(super) fn read(headers: &Headers, payload: &[u8]) -> Self {
        let event: Value = serde_json::from_slice(payload).unwrap_or_default();
        let first = |of_event: [&Value; 2], name| {
            of_event.into_iter().find_map(Value::as_str).or_else(|| headers.get(name)).map(str::to_owned)
        };
        Self {
            inbox: first([&event["inbox"], &event["follower_inbox_url"]], header::INBOX),
            actor: first([&event["signing_actor_id"], &event["owner_user_id"]], header::ACTOR)
                .and_then(|id| id.parse().ok()),
            activity_id: event["activity"]["id"].as_str().map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTOR: Uuid = Uuid::from_u128(0x7f9c_24e8_3b12_4fef_91e1_4c1d_2f1a_0b77);

    #[test]
    fn the_event_says_where_it_goes_and_the_headers_only_where_it_can_not_be_read() {
        let headers = format!("NATS/1.0\r\nFed-Inbox: https://h.example/inbox\r\nFed-Signing-Actor: {ACTOR}\r\n\r\n");
        let headers = Headers::from_block(headers.as_bytes());
        let errand = |inbox: &str, id: Option<&str>| {
            let text = |text: &str| text.to_owned();
            Errand { inbox: Some(text(inbox)), actor: Some(ACTOR), activity_id: id.map(text) }
        };
        for (event, inbox, id) in [
            (
                format!(
                    r#"{{"inbox":"https://a.example/inbox","activity":{{"id":"x"}},"signing_actor_id":"{ACTOR}"}}"#
                ),
                "https://a.example/inbox",
                Some("x"),
            ),
            (
                format!(r#"{{"owner_user_id":"{ACTOR}","follower_inbox_url":"https://b.example/inbox"}}"#),
                "https://b.example/inbox",
                None,
            ),
            ("no event".to_owned(), "https://h.example/inbox", None),
        ] {
            assert_eq!(Errand::read(&headers, event.as_bytes()), errand(inbox, id));
        }
        assert_eq!(Errand::read(&Headers::from_block(b""), b"{}"), Errand::default());
    }
}
