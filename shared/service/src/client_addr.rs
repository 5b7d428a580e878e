//! Who is talking to us, and are they allowed to: `HTTP_ALLOWED_IPS` and `HTTP_TRUSTED_PROXIES`, with the meaning they
//! have in the existing batcher.
//!
//! Behind a trusted proxy the client is in X-Forwarded-For. Only its right end was written by the proxy; everything
//! further left came from outside. So it is read right to left, for as long as the reader is a trusted proxy, and an
//! entry that is no address ends in "not known", never in somebody else's address.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::HeaderMap;
use ipnet::{IpNet, Ipv4Net};

use crate::config::{NotA, Variable};

/// An address or a network: `192.0.2.1`, `192.0.2.0/24`, `2001:db8::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl FromStr for Network {
    type Err = NotA;
    fn from_str(text: &str) -> Result<Self, NotA> {
        let text = text.trim();
        let network = match text.parse::<IpAddr>() {
            Ok(address) => Ok(IpNet::from(address)),
            Err(_) => text.parse::<IpNet>(),
        };
        network.map(|network| Self(canonical(network.trunc()))).map_err(|_| NotA("an address or a network"))
    }
}

/// `::ffff:192.0.2.0/120` as `192.0.2.0/24`: clients are compared in that form.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(v6) = network else { return network };
    let Some(v4) = v6.addr().to_ipv4_mapped() else { return network };
    let v4 = v6.prefix_len().checked_sub(MAPPED_BITS).and_then(|bits| Ipv4Net::new(v4, bits).ok());
    v4.map_or(network, IpNet::V4)
}

impl Network {
    /// Is it of this machine or of a private network (RFC 1918, RFC 4193)? Where a proxy has its address, and no sender.
    pub fn is_private(self) -> bool {
        match self.0.network() {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_private(),
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
        }
    }

    fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

/// The variables of [`ClientRules`].
pub const VARIABLES: [Variable; 2] = [
    Variable::new::<crate::config::List<Network>>(
        "HTTP_ALLOWED_IPS",
        "192.0.2.0/24,2001:db8::1",
        "addresses and networks that may send; unset: all",
    )
    .optional(),
    Variable::new::<crate::config::List<Network>>(
        "HTTP_TRUSTED_PROXIES",
        "10.0.0.1",
        "proxies whose X-Forwarded-For and X-Forwarded-Proto are believed",
    )
    .optional(),
];

/// Who may send, and whose word about the client counts.
#[derive(Debug, Clone, Default)]
pub struct ClientRules {
    /// `None`: everybody.
    pub allowed: Option<Vec<Network>>,
    /// Proxies in front of us.
    pub trusted: Vec<Network>,
}

impl ClientRules {
    /// The client's address, or `None` where a trusted proxy names something that is no address.
    pub fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = peer.ip().to_canonical();
        // Several header lines are one list, in order (RFC 9110, section 5.3).
        let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
        for line in lines.into_iter().rev() {
            for entry in line.as_bytes().rsplit(|byte| *byte == b',') {
                if !self.trusts(client) {
                    return Some(client);
                }
                client = address(std::str::from_utf8(entry).ok()?)?;
            }
        }
        Some(client)
    }

    /// May this client send? One that isn't known may only where everybody may.
    pub fn allows(&self, client: Option<IpAddr>) -> bool {
        match (&self.allowed, client) {
            (None, _) => true,
            (Some(allowed), Some(client)) => allowed.iter().any(|network| network.contains(client)),
            (Some(_), None) => false,
        }
    }

    /// The scheme that the sender used, where a trusted proxy says so: `http` or `https`.
    pub fn scheme(&self, peer: SocketAddr, headers: &HeaderMap) -> Option<&'static str> {
        if !self.trusts(peer.ip().to_canonical()) {
            return None;
        }
        // With several proxies the last entry is the one that the proxy before us wrote.
        let line = headers.get_all("x-forwarded-proto").iter().next_back()?.to_str().ok()?;
        match line.rsplit(',').next()?.trim().to_ascii_lowercase().as_str() {
            "https" => Some("https"),
            "http" => Some("http"),
            _ => None,
        }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

/// One X-Forwarded-For entry; some proxies add the port, some put IPv6 in brackets.
fn address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    bare.parse::<IpAddr>()
        .or_else(|_| entry.parse::<SocketAddr>().map(|socket| socket.ip()))
        .ok()
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allowed: &[&str], trusted: &[&str]) -> ClientRules {
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        ClientRules { allowed: (!allowed.is_empty()).then(|| networks(allowed)), trusted: networks(trusted) }
    }

    fn forwarded(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        headers
    }

    fn client(rules: &ClientRules, peer: &str, lines: &[&str]) -> Option<String> {
        let peer = SocketAddr::new(peer.parse().unwrap(), 1);
        rules.client(peer, &forwarded(lines)).map(|address| address.to_string())
    }

    #[test]
    fn without_a_trusted_proxy_the_header_is_not_believed() {
        assert_eq!(client(&rules(&[], &[]), "192.0.2.9", &["198.51.100.1"]).unwrap(), "192.0.2.9");
    }

    #[test]
    fn the_header_is_read_right_to_left_for_as_long_as_the_reader_is_trusted() {
        let rules = rules(&[], &["10.0.0.0/8"]);
        let read = |lines: &[&str]| client(&rules, "10.0.0.1", lines);
        assert_eq!(read(&["198.51.100.1"]).unwrap(), "198.51.100.1");
        assert_eq!(
            read(&["203.0.113.66, 198.51.100.1"]).unwrap(),
            "198.51.100.1",
            "the left entry is the client's word"
        );
        assert_eq!(read(&["198.51.100.1, 10.0.0.2"]).unwrap(), "198.51.100.1");
        assert_eq!(read(&["203.0.113.66", "198.51.100.1"]).unwrap(), "198.51.100.1", "two lines are one list");
        assert_eq!(read(&["10.0.0.3"]).unwrap(), "10.0.0.3", "only proxies: the leftmost");
        assert_eq!(read(&[]).unwrap(), "10.0.0.1");
    }

    #[test]
    fn an_entry_that_is_no_address_leaves_the_client_unknown() {
        let rules = rules(&["198.51.100.1"], &["10.0.0.1"]);
        assert_eq!(client(&rules, "10.0.0.1", &["198.51.100.1, unknown"]), None);
        assert!(!rules.allows(None));
    }

    #[test]
    fn ports_brackets_and_mapped_addresses_are_understood() {
        let rules = rules(&["198.51.100.0/24"], &["127.0.0.1"]);
        let read = |line: &str| client(&rules, "::ffff:127.0.0.1", &[line]).unwrap();
        assert_eq!(read("198.51.100.1:4711"), "198.51.100.1");
        assert_eq!(read("[2001:db8::1]:4711"), "2001:db8::1");
        assert_eq!(read("[2001:db8::1]"), "2001:db8::1");
        assert_eq!(read("::ffff:198.51.100.7"), "198.51.100.7");
        assert!(rules.allows("198.51.100.7".parse().ok()));
        assert!(!rules.allows("203.0.113.1".parse().ok()));
    }

    #[test]
    fn the_scheme_comes_from_a_trusted_proxy_only() {
        let rules = rules(&[], &["10.0.0.1"]);
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-proto", "HTTP".parse().unwrap());
        assert_eq!(rules.scheme("10.0.0.1:1".parse().unwrap(), &headers), Some("http"));
        assert_eq!(rules.scheme("10.0.0.2:1".parse().unwrap(), &headers), None);
    }

    #[test]
    fn a_network_may_be_given_with_host_bits() {
        assert!("192.0.2.7/24".parse::<Network>().unwrap().contains("192.0.2.200".parse().unwrap()));
        assert!("192.0.2.0/33".parse::<Network>().is_err());
    }

    #[test]
    fn a_mapped_network_means_the_clients_of_the_one_that_it_maps() {
        let network = |text: &str| text.parse::<Network>().unwrap();
        assert_eq!(network("::ffff:192.0.2.7"), network("192.0.2.7"));
        assert_eq!(network("::ffff:192.0.2.7/120"), network("192.0.2.0/24"));
        assert_eq!(network("::ffff:0:0/96"), network("0.0.0.0/0"));
        assert!(rules(&["::ffff:192.0.2.0/120"], &[]).allows("192.0.2.200".parse().ok()));
        assert!(!rules(&["::ffff:192.0.2.0/120"], &[]).allows("192.0.3.1".parse().ok()));
    }

    #[test]
    fn private_networks_are_told_from_public_ones() {
        for private in ["127.0.0.1", "::1", "10.0.0.0/8", "172.16.3.0/24", "192.168.0.1", "fd00::/8", "::ffff:10.0.0.1"]
        {
            assert!(private.parse::<Network>().unwrap().is_private(), "{private}");
        }
        for public in ["192.0.2.1", "172.32.0.1", "2001:db8::/32", "0.0.0.0/0"] {
            assert!(!public.parse::<Network>().unwrap().is_private(), "{public}");
        }
    }
}
