//! The outbound lanes and their names: (remote instance, partition of the signing actor).
//!
//! The partition is a hash of the actor's id, so an actor is always in one lane of a remote, and its activities stay in
//! order there. **The number of partitions is part of that**: with another number an actor moves to another lane, and what is
//! in its old one may be overtaken until that is empty. Every publisher of one broker uses the same number.

use std::num::NonZeroU16;

use fedstream_lane::{InstanceName, OutboxLane};
use sha2::{Digest, Sha256};
use url::Url;
use uuid::Uuid;

pub use fedstream_lane::BackfillLane;

/// Lanes that a remote's traffic is spread over, where nothing else is said: a slow remote takes as many activities at a
/// time. Each lane costs a consumer while it has a backlog, and remotes number in the thousands.
pub const PARTITIONS: NonZeroU16 = NonZeroU16::new(4).unwrap();

/// An inbox that names no lane.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An inbox without a host, or with one that is no instance's name.
    #[error("the inbox {0} names no instance")]
    Inbox(String),
}

/// The instance that an inbox belongs to: host, and port where it is neither 80 nor 443, whatever the scheme.
///
/// # Errors
/// The URL has no host that could be an instance's.
pub fn remote_of(inbox: &Url) -> Result<InstanceName, Error> {
    authority_of(inbox).and_then(|authority| authority.parse().ok()).ok_or_else(|| Error::Inbox(inbox.to_string()))
}

/// `host` or `host:port`, as `Host` has it.
pub(crate) fn authority_of(url: &Url) -> Option<String> {
    let host = url.host_str().filter(|host| !host.is_empty())?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// The partition of an actor: the first eight bytes of the SHA-256 of its id's 16 bytes, as a big-endian number, modulo
/// the number of partitions. Never anything of the language's own: other programs compute it too.
#[must_use]
pub fn partition_of(actor: Uuid, partitions: NonZeroU16) -> u16 {
    let hash = Sha256::digest(actor.as_bytes());
    let number = hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    u16::try_from(number % u64::from(partitions.get())).unwrap_or_default() // below a u16, so it always fits
}

/// The lane of what this actor sends to this inbox.
///
/// # Errors
/// The inbox names no instance.
pub fn lane_of(inbox: &Url, actor: Uuid, partitions: NonZeroU16) -> Result<OutboxLane, Error> {
    Ok(OutboxLane { remote: remote_of(inbox)?, partition: partition_of(actor, partitions) })
}

/// `fed.event.delivery_failed.<remote>`: where an application hears of what was given up.
#[must_use]
pub fn failed_subject(remote: &InstanceName) -> String {
    format!("fed.event.delivery_failed.{}", remote.token())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect(text)
    }

    #[test]
    fn an_inbox_belongs_to_its_host_and_port() {
        for (inbox, remote) in [
            ("https://Mastodon.Social/users/a/inbox", "mastodon.social"),
            ("https://a.example:443/inbox", "a.example"),
            ("http://127.0.0.1:8080/inbox", "127.0.0.1:8080"),
            ("https://[2001:db8::1]:444/inbox", "[2001:db8::1]:444"),
            ("https://bücher.example/inbox", "xn--bcher-kva.example"),
        ] {
            assert_eq!(remote_of(&url(inbox)).expect(inbox).as_str(), remote);
        }
        for odd in ["data:text/plain,x", "mailto:a@b.example", "https://a_b..example/inbox"] {
            assert!(remote_of(&url(odd)).is_err(), "{odd}");
        }
    }

    #[test]
    fn the_partition_of_an_actor_never_changes_with_the_program() {
        // Computed by another program: int.from_bytes(sha256(uuid.bytes).digest()[:8], "big") % partitions
        let actor = "7f9c24e8-3b12-4fef-91e1-4c1d2f1a0b77".parse().expect("an id");
        let of = |partitions: u16| partition_of(actor, NonZeroU16::new(partitions).expect("not zero"));
        assert_eq!([of(1), of(4), of(16), of(1000)], [0, 0, 4, 700]);
    }

    #[test]
    fn actors_spread_over_all_partitions() {
        let mut seen = [0; 4];
        for number in 0..400 {
            seen[usize::from(partition_of(Uuid::from_u128(number), PARTITIONS))] += 1;
        }
        assert!(seen.iter().all(|count| (60..140).contains(count)), "{seen:?}");
    }
}
