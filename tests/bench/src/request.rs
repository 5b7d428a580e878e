//! Requests made and signed before the clock runs: an RSA signature takes longer than all that a sender does with it.

use std::num::NonZero;
use std::thread;
use std::time::SystemTime;

use bytes::Bytes;
use fedstream_tests::directory::Directory;
use fedstream_tests::message::Message;
use fedstream_tests::sign::{self, Identity, Kind, Post};

use crate::activity::{Composer, Mix};

/// The one destination of the bench.
pub const DESTINATION: &str = "home.test";

/// One request, ready for the wire.
#[derive(Clone)]
pub struct Request {
    /// The activity's id.
    pub id: String,
    /// Head and body.
    pub wire: Bytes,
    /// What the checker compares.
    pub fingerprint: String,
    /// The body alone, for a signature made anew.
    pub body: Bytes,
}

/// What one source sends, in order.
#[derive(Clone)]
pub struct Load {
    /// Who signs.
    pub identity: Identity,
    /// Its requests.
    pub requests: Vec<Request>,
}

impl Load {
    /// `<destination>/<source>`.
    #[must_use]
    pub fn lane(&self) -> String {
        format!("{DESTINATION}/{}", self.identity.host)
    }

    /// Bytes of all requests as they go on the wire.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        self.requests.iter().map(|request| request.wire.len() as u64).sum()
    }
}

/// Name of the source of this number.
#[must_use]
pub fn source(number: usize) -> String {
    format!("s{number}.bench.test")
}

/// `each` requests of each of `sources` sources, signed now, on all cores. No id is ever made twice, so that the broker
/// takes none for a repeat.
///
/// # Errors
/// A key that is none.
pub fn prepare(keys: &Directory, sources: usize, each: usize, mix: Mix) -> anyhow::Result<Vec<Load>> {
    let mut identities = Vec::new();
    for number in 0..sources {
        let identity = Identity::of(&source(number));
        keys.enter(&identity.key_id, identity.key.public_pem())?;
        identities.push(identity);
    }
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    // One source is worked on by all cores as well: the pieces are of requests, not of sources.
    let pieces = workers.div_ceil(sources.max(1)).max(1);
    let mut loads = Vec::new();
    for chunk in identities.chunks(workers) {
        thread::scope(|scope| {
            let running: Vec<Vec<_>> = chunk
                .iter()
                .map(|identity| {
                    (0..pieces)
                        .map(|piece| scope.spawn(move || make(identity, share(each, pieces, piece), mix)))
                        .collect()
                })
                .collect();
            for (identity, pieces) in chunk.iter().zip(running) {
                let requests =
                    pieces.into_iter().flat_map(|piece| piece.join().expect("signing never panics")).collect();
                loads.push(Load { identity: identity.clone(), requests });
            }
        });
    }
    Ok(loads)
}

fn share(of: usize, pieces: usize, piece: usize) -> usize {
    of / pieces + usize::from(piece < of % pieces)
}

fn make(identity: &Identity, count: usize, mix: Mix) -> Vec<Request> {
    let mut composer = Composer::new(&identity.host, mix, fastrand::u64(..));
    let made = (0..count).map(|_| {
        let (id, body) = composer.next();
        let body = Bytes::from(body);
        let message = signed(identity, &body);
        Request { id, wire: message.to_bytes().into(), fingerprint: message.fingerprint(), body }
    });
    made.collect()
}

/// As Lemmy signs it, now.
#[must_use]
pub fn signed(identity: &Identity, body: &Bytes) -> Message {
    let post = Post { host: DESTINATION, target: "/inbox", scheme: "https", body };
    sign::sign(Kind::Cavage, identity, &post, SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_gets_its_share_and_each_request_verifies() {
        let keys = Directory::default();
        let loads = prepare(&keys, 3, 5, Mix::Usual).unwrap();
        assert_eq!(loads.len(), 3);
        for load in &loads {
            assert_eq!(load.requests.len(), 5);
            let message = signed(&load.identity, &load.requests[0].body);
            fedstream_tests::verify::verify(&message, "https", &keys, SystemTime::now()).unwrap();
        }
    }
}
