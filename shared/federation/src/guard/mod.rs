//! Which addresses may be connected to: an inbox is a stranger's text, and must not lead into our own network (SSRF).
//!
//! The check stands where the connection is made. A name is resolved once, what is not allowed is dropped from the answer,
//! and the connection goes to what is left: a name that answers something else the second time (DNS rebinding) gains
//! nothing, for there is no second time. Redirects go the same way. `http://` is for development only.

mod address;
mod connector;
mod names;

use std::net::IpAddr;

use ipnet::IpNet;
use url::{Host, Url};

pub use address::Special;
pub use connector::GuardedConnector;
pub use names::{Names, SystemNames};

/// Why a place is not asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Only `https://`.
    #[error("{0}:// is no scheme that activities are sent over")]
    Scheme(String),
    /// A URL with a user or a password in it.
    #[error("a URL with credentials in it is no inbox")]
    Credentials,
    /// No host at all.
    #[error("the URL has no host")]
    NoHost,
    /// The URL's own address.
    #[error("{address} is not a public address: {special}")]
    Address {
        /// The address.
        address: IpAddr,
        /// What it is instead.
        special: Special,
    },
    /// A name behind which there is nothing else.
    #[error("{name} resolves to {address}, which is not a public address: {special}")]
    Resolved {
        /// The name.
        name: String,
        /// The first of its addresses.
        address: IpAddr,
        /// What it is instead.
        special: Special,
    },
}

/// What may be connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    also: Vec<IpNet>,
    everywhere: bool,
    plain_http: bool,
}

impl Guard {
    /// Public addresses over `https://`, and nothing else.
    #[must_use]
    pub fn public() -> Self {
        Self::default()
    }

    /// Every address, and `http://` too: for development and for tests, where the other instance is on this machine.
    #[must_use]
    pub fn development() -> Self {
        Self { also: Vec::new(), everywhere: true, plain_http: true }
    }

    /// These addresses too: an instance of one's own in a private network.
    #[must_use]
    pub fn and(mut self, network: IpNet) -> Self {
        self.also.push(network);
        self
    }

    /// `http://` too.
    #[must_use]
    pub fn and_plain_http(mut self) -> Self {
        self.plain_http = true;
        self
    }

    /// Whether plain HTTP is let through.
    #[must_use]
    pub fn allows_plain_http(&self) -> bool {
        self.plain_http
    }

    /// Whether this address may be connected to.
    ///
    /// # Errors
    /// What it is instead of public.
    pub fn address(&self, address: IpAddr) -> Result<(), Special> {
        if self.everywhere || self.also.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        address::special(address).map_or(Ok(()), Err)
    }

    /// Whether this URL may be asked, as far as it can be said before its name is resolved.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn url(&self, url: &Url) -> Result<(), Refused> {
        match url.scheme() {
            "https" => {}
            "http" if self.plain_http => {}
            other => return Err(Refused::Scheme(other.to_owned())),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refused::Credentials);
        }
        let literal = |address: IpAddr| self.address(address).map_err(|special| Refused::Address { address, special });
        match url.host() {
            None => Err(Refused::NoHost),
            Some(Host::Ipv4(address)) => literal(address.into()),
            Some(Host::Ipv6(address)) => literal(address.into()),
            Some(Host::Domain(_)) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect(text)
    }

    #[test]
    fn only_https_to_public_places_is_let_through() {
        let guard = Guard::public();
        for fine in ["https://mastodon.social/inbox", "https://1.1.1.1/inbox", "https://[2606:4700::1]:8443/inbox"] {
            assert_eq!(guard.url(&url(fine)), Ok(()), "{fine}");
        }
        for refused in [
            "http://mastodon.social/inbox",
            "ftp://mastodon.social/inbox",
            "https://127.0.0.1/inbox",
            "https://2130706433/inbox", // all four are 127.0.0.1 in other writing
            "https://0x7f.1/inbox",
            "https://0177.0.0.1/inbox",
            "https://127.1/inbox",
            "https://[::1]/inbox",
            "https://[::ffff:10.0.0.1]/inbox",
            "https://me:secret@mastodon.social/inbox",
        ] {
            assert!(guard.url(&url(refused)).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_network_of_ones_own_is_let_through_and_its_neighbour_is_not() {
        let guard = Guard::public().and("10.1.0.0/16".parse().expect("a network")).and_plain_http();
        assert_eq!(guard.url(&url("http://10.1.2.3/inbox")), Ok(()));
        assert!(guard.url(&url("http://10.2.0.1/inbox")).is_err());
        assert_eq!(Guard::development().url(&url("http://127.0.0.1:8080/inbox")), Ok(()));
    }
}
