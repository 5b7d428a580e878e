//! What the format can't carry. The existing batch-receiver hands `path` to a URL library and `headers` to an HTTP
//! client, which change what they don't like; the signature covers both, so the instance would refuse the activity.
//! Such an activity never goes to a v1 receiver: it stays in its lane, and the lane says why.
//!
//! Which library it is depends on the receiver's version, so the rules keep to what every library leaves alone.

use crate::v2::BatchItem;

/// Beside letters and digits: the unreserved characters of a URL, and those reserved ones that no URL library escapes in
/// a path (RFC 3986, section 3.3, without the apostrophe: some do escape it).
const PATH_CHARACTERS: &[u8] = b"-._~/@:!$&()*+,;=";

/// Why an activity can't go to a v1 receiver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// There is no field for it.
    #[error("its target has a query, which a v1 batch can't carry")]
    Query,
    /// Escapes, `..`, `//`, or a character that would be escaped.
    #[error("its path {0:?} would be changed on the way: a v1 batch carries plain paths only")]
    Path(String),
    /// No text, or text that clients encode in different ways.
    #[error("its header {0:?} is not plain ASCII, which is all that a v1 batch can carry")]
    Header(String),
    /// The field `host` is one name.
    #[error("it has {0} Host headers, a v1 batch carries one")]
    Host(usize),
    /// No time that can be written.
    #[error("its time can't be written")]
    Time,
    /// Alone it would be over the receiver's limit.
    #[error("it has {found} bytes in a v1 batch, a v1 receiver takes {most}")]
    TooLarge {
        /// In a batch of its own.
        found: usize,
        /// The limit.
        most: usize,
    },
}

/// What of the request's head can't be carried; the size is looked at when it is encoded.
pub(super) fn of(item: &BatchItem) -> Option<Unfit> {
    if item.target.contains('?') {
        return Some(Unfit::Query);
    }
    if !is_plain(&item.target) {
        return Some(Unfit::Path(item.target.chars().take(200).collect()));
    }
    let plain = |value: &[u8]| value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    if let Some((name, _)) = item.http.iter().find(|(name, value)| !plain(value) || !plain(name.as_bytes())) {
        return Some(Unfit::Header(name.clone()));
    }
    let hosts = item.http.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host")).count();
    (hosts != 1).then_some(Unfit::Host(hosts))
}

fn is_plain(path: &str) -> bool {
    let Some(segments) = path.strip_prefix('/') else { return false };
    let characters = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || PATH_CHARACTERS.contains(&byte));
    // Dot segments are resolved, empty ones merged; the last one may be empty (`/inbox/`).
    let (inner, last) = segments.rsplit_once('/').map_or((None, segments), |(inner, last)| (Some(inner), last));
    let changed = |segment: &str| matches!(segment, "." | "..");
    characters
        && !changed(last)
        && inner.is_none_or(|inner| inner.split('/').all(|segment| !segment.is_empty() && !changed(segment)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_are_carried_and_what_a_url_library_would_change_is_not() {
        for path in ["/inbox", "/", "/u/bob/inbox", "/users/@bob:x/inbox", "/u/b.o~b/inbox/", "/a..b/inbox"] {
            assert!(is_plain(path), "{path}");
        }
        for path in [
            "",
            "inbox",
            "*",
            "//inbox",
            "/a//inbox",
            "/a/../inbox",
            "/./inbox",
            "/inbox/..",
            "/users/%40bob/inbox",
            "/o'b/inbox",
            "/u/\u{fc}/inbox",
            "/in box",
            "/inbox#x",
            "/{x}/inbox",
            "/a\\b",
            "/inbox|",
        ] {
            assert!(!is_plain(path), "{path}");
        }
    }
}
