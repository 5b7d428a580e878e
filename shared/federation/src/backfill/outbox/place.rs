//! Where in an outbox a walk is, and whether the page there begins right after what was handed out last.
//!
//! ```text
//!   newest ── .. ── [ page: to be read ] ── [ older: was read, its ids are `last` ] ── .. ── oldest
//!                                        ▲ has anything moved over this bound meanwhile?
//! ```

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::form_urlencoded;

use super::address;
use crate::backfill::{Cursor, Unreadable};

/// A value in a page's address that is shorter names no activity: it may be the page's number.
const NAME_MIN: usize = 7;

/// What a cursor of this history says.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Place {
    /// Its address.
    pub(super) page: String,
    /// Ids of what was handed out last, the newest first.
    pub(super) last: Vec<String>,
    /// The page that was read last, one older than `page`.
    #[serde(default)]
    pub(super) older: Option<String>,
    /// Whether that page's own `prev` leads to this one.
    #[serde(default)]
    pub(super) by_prev: bool,
}

impl Place {
    /// Where in these items, the newest first, stands what was handed out.
    pub(super) fn position_in(&self, items: &[Value]) -> Option<usize> {
        items.iter().position(|item| address(item).is_some_and(|id| self.last.iter().any(|last| last == id)))
    }

    /// Whether a page that has nothing of what was handed out begins right after it: its address names what was handed out
    /// last (`min_id`), or the address of the page that was read last names what stands lowest here (`max_id`).
    pub(super) fn adjoins(&self, page: &str, items: &[Value]) -> bool {
        let ids: Vec<&str> = items.iter().filter_map(address).collect();
        let last: Vec<&str> = self.last.iter().map(String::as_str).collect();
        let after = || last.split_first().is_some_and(|(newest, others)| names(page, "min_id", newest, others));
        let before = || match (&self.older, ids.split_last()) {
            (Some(older), Some((lowest, others))) => names(older, "max_id", lowest, others),
            _ => false,
        };
        after() || before()
    }

    pub(super) fn read(cursor: &Cursor) -> Result<Self, Unreadable> {
        serde_json::from_str(&cursor.0).map_err(|_| Unreadable(format!("{:?} is no place in an outbox", cursor.0)))
    }

    pub(super) fn cursor(&self) -> Result<Cursor, Unreadable> {
        serde_json::to_string(self).map(Cursor).map_err(|error| Unreadable(error.to_string()))
    }
}

/// Whether an address names this activity and none of the others by this parameter: it has the last part of its id, or all of it. At
/// least one other is needed: what all ids have in common, a user's for instance, names none of them.
fn names(address: &str, parameter: &str, id: &str, others: &[&str]) -> bool {
    let query = address.split_once('?').map_or("", |(_, query)| query);
    let has = |id: &str, value: &str| id == value || id.split(['/', '#', '?', '&', '=']).any(|part| part == value);
    !others.is_empty()
        && form_urlencoded::parse(query.as_bytes()).any(|(name, value)| {
            name == parameter
                && value.len() >= NAME_MIN
                && has(id, &value)
                && !others.iter().any(|other| has(other, &value))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_an_activity_by_what_no_other_has() {
        let page = |query: &str| format!("http://app.internal/users/7f9c24e8/outbox?{query}");
        let id = |number: u64| format!("https://our.example/users/7f9c24e8/statuses/{number}/activity");
        let (one, other) = (id(110_238_465_123), id(110_238_465_999));
        for (query, is_named) in [
            ("page=true&min_id=110238465123", true),
            ("since_id=110238465123", false),
            ("max_id=110238465123", false),
            ("min_id=https%3A%2F%2Four.example%2Fusers%2F7f9c24e8%2Fstatuses%2F110238465123%2Factivity", true),
            ("page=3", false),
            ("min_id=110238465999", false),
            ("user=7f9c24e8&page=3", false),
        ] {
            assert_eq!(names(&page(query), "min_id", &one, &[&other]), is_named, "{query}");
        }
        assert!(!names(&page("min_id=110238465123"), "min_id", &one, &[]), "nothing to tell it from");
        assert!(!names(&page("min_id=12"), "min_id", &id(12), &[&id(13)]), "a page's number, rather");
    }

    #[test]
    fn a_cursor_of_before_is_a_place_still() {
        let place = Place::read(&Cursor(r#"{"page":"http://a/?page=1","last":["x"]}"#.into())).expect("a place");
        assert_eq!((place.older, place.by_prev), (None, false));
    }
}
