//! What an instance said, as the existing batcher passes it on: text, or what Python makes of bytes that are none.
//!
//! Python reads such a byte of a header as half of a surrogate pair and writes it so. No outcome depends on it, so it
//! becomes a replacement character here: one odd header must not make a whole answer unreadable.

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A text of which nothing depends on every byte.
#[derive(Debug)]
pub(super) struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As bytes, for halves of a pair are no text.
        deserializer.deserialize_bytes(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<Text, E> {
        Ok(Text(String::from_utf8_lossy(text).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_pair_is_a_replacement_and_the_rest_stays() {
        let text: Text = serde_json::from_str(r#""a\udcffb \u00e9 \ud83d\ude00""#).expect("read");
        assert_eq!(text.0.replace('\u{fffd}', ""), "ab \u{e9} \u{1f600}");
        assert!(text.0.contains('\u{fffd}'));
        assert!(serde_json::from_str::<Text>("7").is_err());
    }
}
