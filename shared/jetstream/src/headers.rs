//! Headers to and from the library's map, which panics on a bad name or value where this returns an error.
//!
//! The names are ours, the values may come from outside. No HTTP header ever becomes a NATS header of its own
//! (DESIGN section 3): `Nats-Rollup` or `Nats-Trace-Only` would be a command to the broker.

use std::str::FromStr;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue};

/// What may not become a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The name has a character that names may not have.
    #[error("{name:?} can not be the name of a header")]
    Name {
        /// The name.
        name: String,
    },
    /// The value has a line break or a NUL: it would end the header and begin another.
    #[error("the value of header {name} has a CR, LF or NUL in it")]
    Value {
        /// The header's name; never its value.
        name: String,
    },
}

/// The pairs as the library's map. Repeated names are kept, in their order.
///
/// # Errors
/// A name or a value that can't be written as a header.
pub fn to_map<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<HeaderMap, Error> {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        let (name, value) = (name.as_ref(), value.as_ref());
        let bad_value = || Error::Value { name: name.to_owned() };
        if value.contains('\0') {
            return Err(bad_value());
        }
        let bad_name = || Error::Name { name: name.to_owned() };
        if name.is_empty() {
            return Err(bad_name()); // which the library would write, and then not read
        }
        let parsed = HeaderName::from_str(name).map_err(|_| bad_name())?;
        map.append(parsed, HeaderValue::from_str(value).map_err(|_| bad_value())?);
    }
    Ok(map)
}

/// The headers of a stored message. Names are case-sensitive, as NATS has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of a name. Any text may be asked for.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Reads a header block as it travels (`NATS/1.0`, then `name: value` lines). What is no text in it is replaced, so that
    /// one odd value hides no other.
    pub(crate) fn from_block(block: &[u8]) -> Self {
        let text = String::from_utf8_lossy(block);
        let pairs = text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        let mut pairs: Vec<_> = pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        pairs.sort_by(|one, other| one.0.cmp(&other.0)); // as below
        Self(pairs)
    }

    /// All pairs, by name; repeated names in their order (the order across names is lost in the library).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl From<&HeaderMap> for Headers {
    fn from(map: &HeaderMap) -> Self {
        let mut pairs: Vec<_> = map
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |value| (name.to_string(), value.to_string())))
            .collect();
        pairs.sort_by(|one, other| one.0.cmp(&other.0)); // stable: values of one name stay in order
        Self(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_read_back_with_repeated_names_in_order() {
        let map = to_map([("Fed-Target", "/inbox?a=b"), ("X", "2"), ("X", "1"), ("Empty", "")]).expect("fine headers");
        let headers = Headers::from(&map);
        assert_eq!(headers.get("Fed-Target"), Some("/inbox?a=b"));
        assert_eq!(
            headers.iter().filter(|(name, _)| *name == "X").map(|(_, value)| value).collect::<Vec<_>>(),
            ["2", "1"]
        );
        assert_eq!(headers.get("fed-target"), None);
        assert_eq!(headers.get("no:t a name\n"), None);
    }

    #[test]
    fn a_block_is_read_past_a_value_that_is_no_text() {
        let headers = Headers::from_block(b"NATS/1.0\r\nX: \xff\r\nFed-Received-At: 2026-11-22T03:59:04Z\r\n\r\n");
        assert_eq!(headers.get("Fed-Received-At"), Some("2026-11-22T03:59:04Z"));
        assert_eq!(headers.get("X"), Some("\u{fffd}"));
        assert_eq!(Headers::from_block(b""), Headers::default());
    }

    #[test]
    fn what_would_make_the_library_panic_is_an_error() {
        for value in ["a\rb", "a\nNats-Rollup: all", "a\0b"] {
            assert_eq!(to_map([("Fed-Target", value)]), Err(Error::Value { name: "Fed-Target".into() }));
        }
        for name in ["a b", "a:b", "", "ä", "a\nb"] {
            assert_eq!(to_map([(name, "x")]), Err(Error::Name { name: name.into() }));
        }
    }
}
