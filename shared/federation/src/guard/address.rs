//! Which addresses are public, by the registries of special ones (IANA, RFC 6890 and its updates).
//!
//! IPv4: all but these. IPv6: only what is given out to the public (2000::/3), without its special parts. Addresses that
//! carry an IPv4 one inside (mapped, NAT64, 6to4, Teredo) lead wherever that one does, so they are all refused.

use std::fmt;
use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::IpNet;

/// What an address is instead of public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special(&'static str);

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

const SPECIAL: &[(&str, &str)] = &[
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"), // the metadata services of clouds are here
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "protocol assignments"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("::ffff:0:0/96", "IPv4-mapped"),
    ("64:ff9b::/96", "NAT64"),
    ("64:ff9b:1::/48", "NAT64"),
    ("fc00::/7", "unique-local"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
    ("2001::/23", "protocol assignments"), // Teredo is here
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4"),
    ("3fff::/20", "documentation"),
];

/// All of IPv6 that anybody is given.
const PUBLIC_V6: &str = "2000::/3";

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    // Not input: the texts above, and a test below reads them.
    let net = |text: &str| text.parse::<IpNet>().expect("a network");
    Table {
        special: SPECIAL.iter().map(|(text, what)| (net(text), Special(what))).collect(),
        public_v6: net(PUBLIC_V6),
    }
});

struct Table {
    special: Vec<(IpNet, Special)>,
    public_v6: IpNet,
}

/// What an address is, where it is not public.
#[must_use]
pub fn special(address: IpAddr) -> Option<Special> {
    let known = TABLE.special.iter().find(|(network, _)| network.contains(&address)).map(|(_, special)| *special);
    let elsewhere = address.is_ipv6() && !TABLE.public_v6.contains(&address);
    known.or(elsewhere.then_some(Special("not given out")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn what(text: &str) -> Option<String> {
        special(text.parse().expect(text)).map(|special| special.to_string())
    }

    #[test]
    fn special_addresses_are_named_and_public_ones_are_not() {
        for (address, expected) in [
            ("0.0.0.0", "unspecified"),
            ("10.255.255.255", "private"),
            ("100.64.0.1", "carrier-grade NAT"),
            ("100.127.255.255", "carrier-grade NAT"),
            ("127.8.8.8", "loopback"),
            ("169.254.169.254", "link-local"),
            ("172.31.255.255", "private"),
            ("192.168.1.1", "private"),
            ("192.0.2.1", "documentation"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::ffff:8.8.8.8", "IPv4-mapped"),
            ("::127.0.0.1", "not given out"),
            ("64:ff9b::7f00:1", "NAT64"),
            ("64:ff9b:1::a00:1", "NAT64"),
            ("fd12::1", "unique-local"),
            ("fe80::1", "link-local"),
            ("ff02::1", "multicast"),
            ("2001::1", "protocol assignments"),
            ("2001:db8::1", "documentation"),
            ("2002:7f00:1::1", "6to4"),
            ("3fff::1", "documentation"),
            ("4000::1", "not given out"),
        ] {
            assert_eq!(what(address).as_deref(), Some(expected), "{address}");
        }
        for public in
            ["1.1.1.1", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "2606:4700::1111", "2a00::1"]
        {
            assert_eq!(what(public), None, "{public}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_the_standard_library_calls_special_is_public(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            let odd = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified();
            if odd {
                prop_assert!(special(v4.into()).is_some(), "{}", v4);
            }
            prop_assert!(special(v4.to_ipv6_mapped().into()).is_some());
            prop_assert!(special(v4.to_ipv6_compatible().into()).is_some());
        }

        #[test]
        fn nothing_outside_of_what_is_given_out_is_public(bits: u128) {
            let v6 = Ipv6Addr::from(bits);
            let odd = v6.is_loopback() || v6.is_multicast() || v6.is_unspecified() || v6.is_unique_local()
                || v6.is_unicast_link_local() || v6.segments()[0] >> 13 != 1;
            if odd {
                prop_assert!(special(v6.into()).is_some(), "{}", v6);
            }
        }
    }
}
