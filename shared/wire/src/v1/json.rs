//! Reading an array of objects one at a time, with a bound on how many, and an error that says which field of which
//! object it was: a batch of megabytes with "expected a string at column 1048576" helps nobody.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use time::OffsetDateTime;

use crate::timestamp::parse_rfc3339;

/// Where a reader is.
#[derive(Debug, Default)]
pub(super) struct At {
    /// 1 is the first object, 0 is before it.
    item: Cell<usize>,
    field: Cell<&'static str>,
    too_many: Cell<bool>,
}

/// Why an array was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// 1 is the first object; 0: the array itself.
    pub item: usize,
    /// Which field of it; empty: the object itself.
    pub field: &'static str,
    /// What is wrong.
    pub cause: String,
    /// More objects than allowed; the rest was not looked at.
    pub too_many: bool,
}

/// An object that is read field by field.
pub(super) trait Fields: Sized {
    /// What is read before it is known to be whole.
    type Partial: Default;

    /// Reads the value of a known key; false leaves it to be skipped.
    fn read<'de, A: MapAccess<'de>>(
        partial: &mut Self::Partial,
        key: &str,
        map: &mut A,
        at: &At,
    ) -> Result<bool, A::Error>;

    /// The whole; names the field that is missing or that can't be.
    fn whole(partial: Self::Partial) -> Result<Self, (&'static str, String)>;
}

/// Reads `[{..}, ..]`, at most `most` objects.
pub(super) fn read_array<T: Fields>(json: &[u8], most: usize) -> Result<Vec<T>, Fault> {
    let at = At::default();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = Array::<T> { at: &at, most, of: std::marker::PhantomData }.deserialize(&mut reader).and_then(|items| {
        // What follows the array is nobody's field.
        at.item.set(0);
        at.field.set("");
        reader.end().map(|()| items)
    });
    read.map_err(|error| Fault {
        item: at.item.get(),
        field: at.field.get(),
        cause: error.to_string(),
        too_many: at.too_many.get(),
    })
}

impl At {
    /// The next value, which is of this field.
    pub fn value<'de, V: serde::Deserialize<'de>, A: MapAccess<'de>>(
        &self,
        field: &'static str,
        map: &mut A,
    ) -> Result<V, A::Error> {
        self.field.set(field);
        let value = map.next_value()?;
        self.field.set("");
        Ok(value)
    }
}

struct Array<'a, T> {
    at: &'a At,
    most: usize,
    of: std::marker::PhantomData<T>,
}

impl<'de, T: Fields> DeserializeSeed<'de> for Array<'_, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Fields> Visitor<'de> for Array<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        loop {
            self.at.item.set(items.len() + 1);
            if items.len() == self.most {
                // Another one is one too many, whatever it holds.
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(items);
                }
                self.at.too_many.set(true);
                return Err(A::Error::custom("more objects than are taken"));
            }
            match seq.next_element_seed(Object::<T> { at: self.at, of: std::marker::PhantomData })? {
                Some(item) => items.push(item),
                None => return Ok(items),
            }
        }
    }
}

struct Object<'a, T> {
    at: &'a At,
    of: std::marker::PhantomData<T>,
}

impl<'de, T: Fields> DeserializeSeed<'de> for Object<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Fields> Visitor<'de> for Object<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut partial = T::Partial::default();
        while let Some(key) = map.next_key::<String>()? {
            if !T::read(&mut partial, &key, &mut map, self.at)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        T::whole(partial).map_err(|(field, cause)| {
            self.at.field.set(field);
            A::Error::custom(cause)
        })
    }
}

/// A time with its offset, as Python writes it (`isoformat`: no fraction where it is zero, and some put a space for the T).
pub(super) fn time(text: &str) -> Option<OffsetDateTime> {
    match text.split_once(' ') {
        Some((date, time)) => parse_rfc3339(&format!("{date}T{time}")),
        None => parse_rfc3339(text),
    }
}

/// A time as Python writes it: older readers of its kind know `+00:00` and no `Z`.
pub(super) fn time_text(at: OffsetDateTime) -> String {
    let mut text = crate::rfc3339(at);
    text.truncate(text.len() - 1); // the Z
    text.push_str("+00:00");
    text
}
