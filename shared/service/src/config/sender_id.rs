//! The name by which a process that carries lanes is known to its fellows.

use std::str::FromStr;

use super::NotA;

/// The name of a process in leases and logs: letters, digits, `-` and `_`, at most 64. A part of a key in the bucket of leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderId(pub String);

impl FromStr for SenderId {
    type Err = NotA;

    fn from_str(text: &str) -> Result<Self, NotA> {
        let ok = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(ok);
        if fits { Ok(Self(text.to_owned())) } else { Err(NotA("a name of letters, digits, - and _, at most 64")) }
    }
}
