//! The three things the front door wants of an activity: `id`, `type` and `actor`. The rest is passed over unread, and the
//! bytes are stored as they came.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// An activity, as far as it concerns us.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Activity {
    /// Its id, if it is a text that isn't empty.
    pub id: Option<String>,
    /// Its type; of several the first.
    pub kind: Option<String>,
    /// Who did it.
    pub actor: Reference,
}

/// A property that is a URL, or an object that has one as its `id`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reference {
    /// The property isn't there, or is null.
    #[default]
    Absent,
    /// The URL.
    Url(String),
    /// Anything else.
    Odd,
}

impl Activity {
    /// Reads a body; the error says what it is instead, in words.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        // The JSON reader passes over what it doesn't keep, bytes that aren't UTF-8 too; JSON has none (RFC 8259, section 8.1).
        let text = std::str::from_utf8(body).map_err(|_| "the body is not JSON: it is not UTF-8".to_owned())?;
        serde_json::from_str::<TopLevel>(text)
            .map_err(|error| format!("the body is not JSON: {error}"))?
            .0
            .ok_or_else(|| "the body is JSON, but not an object".to_owned())
    }
}

/// An object's activity, or `None` for a value that is no object: which is told apart from a syntax error.
struct TopLevel(Option<Activity>);

impl<'de> Deserialize<'de> for TopLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TopLevelVisitor)
    }
}

struct TopLevelVisitor;

impl<'de> Visitor<'de> for TopLevelVisitor {
    type Value = TopLevel;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    /// A repeated key counts as its last one, as in most readers; the destination reads the same bytes.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TopLevel, A::Error> {
        let mut activity = Activity::default();
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Id => activity.id = map.next_value::<Value>()?.text().filter(|id| !id.trim().is_empty()),
                Key::Type => activity.kind = map.next_value::<Value>()?.first_text(),
                Key::Actor => activity.actor = map.next_value::<Value>()?.reference(),
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(TopLevel(Some(activity)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<TopLevel, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(TopLevel(None))
    }
    fn visit_str<E>(self, _: &str) -> Result<TopLevel, E> {
        Ok(TopLevel(None))
    }
    fn visit_bool<E>(self, _: bool) -> Result<TopLevel, E> {
        Ok(TopLevel(None))
    }
    fn visit_i64<E>(self, _: i64) -> Result<TopLevel, E> {
        Ok(TopLevel(None))
    }
    fn visit_u64<E>(self, _: u64) -> Result<TopLevel, E> {
        Ok(TopLevel(None))
    }
    fn visit_f64<E>(self, _: f64) -> Result<TopLevel, E> {
        Ok(TopLevel(None))
    }
    fn visit_unit<E>(self) -> Result<TopLevel, E> {
        Ok(TopLevel(None))
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Id,
    Type,
    Actor,
    #[serde(other)]
    Other,
}

/// A property's value, kept only as far as [`Reference`] and a text need it, however deep it is.
enum Value {
    Null,
    Text(String),
    /// The first text of an array.
    Texts(Option<String>),
    /// The `id` of an object.
    Object(Option<String>),
    Other,
}

impl Value {
    fn text(self) -> Option<String> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    fn first_text(self) -> Option<String> {
        match self {
            Self::Text(text) | Self::Texts(Some(text)) => Some(text),
            _ => None,
        }
    }

    fn reference(self) -> Reference {
        match self {
            Self::Null => Reference::Absent,
            Self::Text(url) | Self::Object(Some(url)) => Reference::Url(url),
            _ => Reference::Odd,
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor { nested: false })
    }
}

struct ValueVisitor {
    /// Inside an array or an object only texts are of interest.
    nested: bool,
}

impl<'de> serde::de::DeserializeSeed<'de> for ValueVisitor {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }
    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Other)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let first = if self.nested { None } else { seq.next_element_seed(ValueVisitor { nested: true })? };
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Texts(first.and_then(Value::text)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut id = None;
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Id if !self.nested => id = map.next_value_seed(ValueVisitor { nested: true })?.text(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Activity {
        Activity::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn id_type_and_actor_are_found_among_anything() {
        let activity = parse(
            r#" {"@context":["x",{"id":"y"}],"actor":{"id":"https://a/u","inbox":{"id":"z"}},"object":{"id":"o"},"type":["Like","X"],"id":"https://a/1"} "#,
        );
        assert_eq!(activity.id.as_deref(), Some("https://a/1"));
        assert_eq!(activity.kind.as_deref(), Some("Like"));
        assert_eq!(activity.actor, Reference::Url("https://a/u".into()));
    }

    #[test]
    fn a_repeated_key_counts_as_its_last() {
        assert_eq!(parse(r#"{"id":"a","id":"b"}"#).id.as_deref(), Some("b"));
    }

    #[test]
    fn an_id_that_is_no_text_is_no_id() {
        for json in
            [r#"{}"#, r#"{"id":null}"#, r#"{"id":7}"#, r#"{"id":""}"#, r#"{"id":{"id":"x"}}"#, r#"{"id":["x"]}"#]
        {
            assert_eq!(parse(json).id, None, "{json}");
        }
    }

    #[test]
    fn what_is_no_object_is_told_from_what_is_no_json() {
        for other in ["[]", "[1,{}]", "\"x\"", "5", "-5", "1.5", "true", "null"] {
            assert_eq!(
                Activity::parse(other.as_bytes()).unwrap_err(),
                "the body is JSON, but not an object",
                "{other}"
            );
        }
        for broken in ["", "{", "{} {}", "{\"id\":}", "<html>"] {
            assert!(Activity::parse(broken.as_bytes()).unwrap_err().starts_with("the body is not JSON: "), "{broken}");
        }
        assert!(Activity::parse(b"{\"x\":\"\xff\"}").unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn depth_is_no_reason_to_refuse_and_none_to_overflow() {
        let deep = format!("{{\"id\":\"x\",\"object\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(parse(&deep).id.as_deref(), Some("x"));
        let deep_actor = format!("{{\"actor\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(parse(&deep_actor).actor, Reference::Odd);
    }
}
