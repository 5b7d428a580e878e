//! The parts of a URL that are set one by one, as the existing batcher's variables do.

use std::fmt;
use std::str::FromStr;

use super::NotA;

/// How something is reached over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// As in a URI.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl FromStr for Scheme {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        match text.trim() {
            "http" => Ok(Self::Http),
            "https" => Ok(Self::Https),
            _ => Err(NotA("http or https")),
        }
    }
}

/// An absolute path, literal: no query, no pattern, compared as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPath(String);

impl UrlPath {
    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UrlPath {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        let literal = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '{' | '}' | '*');
        if text.starts_with('/') && text.chars().all(literal) { Ok(Self(text.to_owned())) } else { Err(NotA("a path")) }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for UrlPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_literal_and_a_scheme_is_one_of_two() {
        assert!("/batch".parse::<UrlPath>().is_ok() && "/a/b-c".parse::<UrlPath>().is_ok());
        for text in ["batch", "/a b", "/a?b", "/{x}", "/*", ""] {
            assert!(text.parse::<UrlPath>().is_err(), "{text}");
        }
        assert_eq!("https".parse::<Scheme>().unwrap().to_string(), "https");
        assert!("ftp".parse::<Scheme>().is_err());
    }
}
