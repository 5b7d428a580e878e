//! The name of an instance, and its form as one subject token.

use std::fmt;
use std::str::FromStr;

/// The longest host name that DNS allows, in bytes (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// An instance's host, and its port where it is not the scheme's own: `lemmy.world`, `alpha.localtest:18082`.
///
/// Lower case in IDNA form, no trailing dot, no `:443` or `:80`. Two spellings of one host are one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName(Box<str>);

/// A text that names no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a host name, with or without a port (for example lemmy.world)")]
pub struct InvalidName;

impl InstanceName {
    /// The name as a host, with its port if it has one.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as one token of a subject and of a KV key, reversibly: `.` becomes `_`, and every other byte outside
    /// `[a-z0-9-]` becomes `=XX` (DESIGN section 1). So no name can be a wildcard or a second token.
    #[must_use]
    pub fn token(&self) -> String {
        let mut token = String::with_capacity(self.0.len() + 2);
        for byte in self.0.bytes() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' => token.push(char::from(byte)),
                b'.' => token.push('_'),
                other => token.push_str(&format!("={other:02X}")),
            }
        }
        token
    }

    /// The name behind a token. Only what [`InstanceName::token`] writes is read.
    ///
    /// # Errors
    /// A token that no name has.
    pub fn from_token(token: &str) -> Result<Self, InvalidName> {
        let mut host = Vec::with_capacity(token.len());
        let mut bytes = token.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'_' => host.push(b'.'),
                b'=' => {
                    let digits = [bytes.next().ok_or(InvalidName)?, bytes.next().ok_or(InvalidName)?];
                    let digits = std::str::from_utf8(&digits).map_err(|_| InvalidName)?;
                    host.push(u8::from_str_radix(digits, 16).map_err(|_| InvalidName)?);
                }
                other => host.push(other),
            }
        }
        let host = String::from_utf8(host).map_err(|_| InvalidName)?;
        let name: Self = host.parse()?;
        if name.token() == token { Ok(name) } else { Err(InvalidName) }
    }
}

impl FromStr for InstanceName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (host, port) = split_port(text)?;
        let host = normal_host(host)?;
        match port {
            None | Some(80 | 443) => Ok(Self(host.into())),
            Some(port) => Ok(Self(format!("{host}:{port}").into())),
        }
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(text: &str) -> Result<(&str, Option<u16>), InvalidName> {
    let port_at = match text.rfind(':') {
        Some(at) if !text[at..].contains(']') => at,
        _ => return Ok((text, None)),
    };
    let digits = &text[port_at + 1..];
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(InvalidName);
    }
    let port = digits.parse().map_err(|_| InvalidName)?;
    if port == 0 { Err(InvalidName) } else { Ok((&text[..port_at], Some(port))) }
}

fn normal_host(host: &str) -> Result<String, InvalidName> {
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']').ok_or(InvalidName)?;
        let address: std::net::Ipv6Addr = address.parse().map_err(|_| InvalidName)?;
        return Ok(format!("[{address}]"));
    }
    let ascii = idna::domain_to_ascii(host).map_err(|_| InvalidName)?;
    let ascii = ascii.strip_suffix('.').unwrap_or(&ascii);
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if ascii.is_empty() || ascii.len() > HOST_BYTES_MAX || !ascii.split('.').all(label_ok) {
        return Err(InvalidName);
    }
    Ok(ascii.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> InstanceName {
        text.parse().expect(text)
    }

    #[test]
    fn spellings_of_one_host_are_one_name() {
        for spelling in ["lemmy.world", "LEMMY.World", "lemmy.world.", "lemmy.world:443", "lemmy.world:80"] {
            assert_eq!(name(spelling).as_str(), "lemmy.world", "{spelling}");
        }
        assert_eq!(name("bücher.example").as_str(), "xn--bcher-kva.example");
    }

    #[test]
    fn tokens_are_reversible_and_never_split_a_subject() {
        for text in [
            "lemmy.world",
            "alpha.localtest:18082",
            "a_b.example",
            "xn--bcher-kva.example",
            "[::1]:8080",
            "127.0.0.1:81",
        ] {
            let token = name(text).token();
            assert!(!token.contains(['.', '*', '>', ' ', ':']), "{token}");
            assert_eq!(InstanceName::from_token(&token), Ok(name(text)));
        }
        assert_eq!(name("aussie.zone").token(), "aussie_zone");
        assert_eq!(name("a_b.example:81").token(), "a=5Fb_example=3A81");
    }

    #[test]
    fn what_names_no_host_is_refused() {
        for text in [
            "",
            ".",
            "a..b",
            "*",
            ">",
            "a.*.b",
            "a b",
            "a/b",
            "a:0",
            "a:99999",
            "a:x",
            "a:",
            "[::1",
            "\u{0}",
            "user@host",
        ] {
            assert_eq!(text.parse::<InstanceName>(), Err(InvalidName), "{text:?}");
        }
    }

    #[test]
    fn a_token_that_no_name_has_is_refused() {
        for token in ["", "A", "=3a", "=3", "=zz", "a_", "=2A", "lemmy=2Eworld"] {
            assert!(InstanceName::from_token(token).is_err(), "{token:?}");
        }
    }
}
