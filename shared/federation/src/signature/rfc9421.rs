//! RFC 9421: HTTP message signatures, with the `Content-Digest` of RFC 9530.
//!
//! `@target-uri` covers the scheme and the host too. The parameters stand in the order in which the independent
//! implementations write them again (created, alg, keyid): one that puts the base together from what it parsed, instead of
//! from what it received, verifies it all the same.

use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{ACTIVITY_JSON, Post};
use crate::keys::{ActorKeys, Algorithm};

/// `Content-Digest`, `Signature-Input` and `Signature`; none where the actor has no key of this kind.
pub(super) fn sign(post: &Post<'_>, algorithm: Algorithm, keys: &ActorKeys) -> Option<Vec<(&'static str, String)>> {
    let digest = format!("sha-256=:{}:", STANDARD.encode(post.activity.digest()));
    let created = post.at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let name = match algorithm {
        Algorithm::Rsa => "rsa-v1_5-sha256",
        Algorithm::Ed25519 => "ed25519",
    };
    let params = format!(
        "(\"@method\" \"@target-uri\" \"content-digest\" \"content-type\" \"date\");created={created};alg=\"{name}\";keyid=\"{}\"",
        post.key_id
    );
    let base = format!(
        "\"@method\": POST\n\"@target-uri\": {}://{}{}\n\"content-digest\": {digest}\n\"content-type\": {ACTIVITY_JSON}\n\
         \"date\": {}\n\"@signature-params\": {params}",
        post.url.scheme(),
        post.host,
        post.target,
        post.date,
    );
    let signature = STANDARD.encode(keys.sign(algorithm, base.as_bytes())?);
    Some(vec![
        ("content-digest", digest),
        ("signature-input", format!("sig1={params}")),
        ("signature", format!("sig1=:{signature}:")),
    ])
}
