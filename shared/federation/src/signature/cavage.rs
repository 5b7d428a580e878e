//! draft-cavage-http-signatures-12: what the fediverse signs with.
//!
//! The headers that are covered, and their order, are Mastodon's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{ACTIVITY_JSON, Post};
use crate::keys::{ActorKeys, Algorithm};

/// `Digest` and `Signature`; none where the actor has no RSA key.
pub(super) fn sign(post: &Post<'_>, keys: &ActorKeys) -> Option<Vec<(&'static str, String)>> {
    let digest = format!("SHA-256={}", STANDARD.encode(post.activity.digest()));
    let covered = format!(
        "(request-target): post {}\nhost: {}\ndate: {}\ndigest: {digest}\ncontent-type: {ACTIVITY_JSON}",
        post.target, post.host, post.date
    );
    let signature = STANDARD.encode(keys.sign(Algorithm::Rsa, covered.as_bytes())?);
    let signature = format!(
        "keyId=\"{}\",algorithm=\"rsa-sha256\",headers=\"(request-target) host date digest content-type\",signature=\"{signature}\"",
        post.key_id
    );
    Some(vec![("digest", digest), ("signature", signature)])
}
