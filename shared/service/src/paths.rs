//! Which request paths are inboxes (`FED_INBOX_PATHS`): at the front door, and at the far side where a batch from
//! somebody else must not reach the rest of the instance.

use std::str::FromStr;

/// A pattern over the raw path: `*` stands for any characters, slashes too; everything else is literal.
///
/// The path is compared as received, not decoded and not normalised: the signature covers it that way, and the
/// destination decides what `/a/../inbox` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern(String);

/// A text that can't be a path pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not a path pattern (it begins with / or *, and has no query)")]
pub struct InvalidPattern;

impl FromStr for PathPattern {
    type Err = InvalidPattern;
    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let begins_well = text.starts_with('/') || text.starts_with('*');
        if !begins_well || text.contains(['?', '#', ' ']) {
            return Err(InvalidPattern);
        }
        Ok(Self(text.to_owned()))
    }
}

impl PathPattern {
    /// Does the pattern cover the whole path?
    pub fn matches(&self, path: &str) -> bool {
        let mut parts = self.0.split('*');
        // `split` gives at least one part.
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = path.strip_prefix(first) else {
            return false;
        };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

/// Is this target (path and query as received) one of these inboxes? What is no path (`*`, a query alone) is none,
/// whatever the patterns: the far side could not send it.
pub fn is_inbox(patterns: &[PathPattern], target: &str) -> bool {
    let path = target.split_once('?').map_or(target, |(path, _query)| path);
    path.starts_with('/') && patterns.iter().any(|pattern| pattern.matches(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        pattern.parse::<PathPattern>().unwrap().matches(path)
    }

    #[test]
    fn the_default_pattern_takes_shared_and_personal_inboxes_as_received() {
        let patterns = ["*/inbox".parse().unwrap()];
        for inbox in ["/inbox", "/inbox?shared=1", "/users/%40bob/inbox", "/a/../inbox", "/u/bob/inbox?x=/other"] {
            assert!(is_inbox(&patterns, inbox), "{inbox}");
        }
        for other in ["/", "/inbox/", "/inboxes", "/api/v3/post?next=/inbox", "/inbo%78", "*"] {
            assert!(!is_inbox(&patterns, other), "{other}");
        }
    }

    #[test]
    fn a_star_stands_for_anything_and_the_rest_is_literal() {
        assert!(matches("/inbox", "/inbox"));
        assert!(!matches("/inbox", "/inbox2"));
        assert!(matches("/users/*/inbox", "/users/a/b/inbox"));
        assert!(matches("/*/a/*/inbox", "/x/a/y/a/inbox"));
        assert!(!matches("/a*a", "/a"));
        assert!(matches("*", "/anything"));
    }

    #[test]
    fn what_is_no_path_is_no_inbox_even_where_everything_is() {
        let patterns = ["*".parse().unwrap()];
        for target in ["*", "", "?x", "?x=/inbox", "inbox"] {
            assert!(!is_inbox(&patterns, target), "{target}");
        }
        assert!(is_inbox(&patterns, "/") && is_inbox(&patterns, "/?x"));
    }

    #[test]
    fn a_pattern_with_a_query_is_refused() {
        assert!("inbox".parse::<PathPattern>().is_err());
        assert!("/inbox?x".parse::<PathPattern>().is_err());
    }
}
