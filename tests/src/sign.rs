//! Signing a POST as the two kinds of sender out there do.
//!
//! Lemmy's header set and order are those of the fixtures, taken from the wire of a real one; Fedify's RFC 9421
//! components, parameters and their order likewise. By hand, with another library than `verify` uses.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::keys::{self, KeyPair};
use crate::message::{Message, to_latin1};

/// Which signature a sender makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// draft-cavage-http-signatures with `hs2019`, as Lemmy 0.19 sends it.
    Cavage,
    /// RFC 9421 with `rsa-v1_5-sha256`, as Fedify 2.3 sends it.
    Rfc9421,
}

/// Who signs.
#[derive(Clone)]
pub struct Identity {
    /// The sending instance, for example `lemmy-alpha.test`.
    pub host: String,
    /// The signing actor's key id, a URL on that host.
    pub key_id: String,
    /// Its key.
    pub key: Arc<KeyPair>,
}

impl Identity {
    /// The actor that signs for an instance; none of the captured ones has its name.
    #[must_use]
    pub fn of(host: &str) -> Self {
        let key_id = format!("http://{host}/u/tester#main-key");
        Self { host: host.to_owned(), key: keys::of(&key_id), key_id }
    }
}

/// What is to be signed.
#[derive(Clone, Debug)]
pub struct Post<'a> {
    /// `Host` of the destination.
    pub host: &'a str,
    /// Path and query as they go on the wire.
    pub target: &'a str,
    /// Scheme of the destination's URL; an RFC 9421 signature covers it.
    pub scheme: &'a str,
    /// The body.
    pub body: &'a Bytes,
}

/// A signed request, made at `now`.
#[must_use]
pub fn sign(kind: Kind, identity: &Identity, post: &Post<'_>, now: SystemTime) -> Message {
    let headers = match kind {
        Kind::Cavage => cavage(identity, post, now),
        Kind::Rfc9421 => rfc9421(identity, post, now),
    };
    let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Message { method: "POST".into(), target: post.target.into(), headers, body: post.body.clone() }
}

fn cavage(identity: &Identity, post: &Post<'_>, now: SystemTime) -> Vec<(&'static str, String)> {
    let content_type = "application/activity+json".to_owned();
    let date = httpdate::fmt_http_date(now);
    let digest = format!("SHA-256={}", STANDARD.encode(Sha256::digest(post.body)));
    let covered = format!(
        "(request-target): post {}\ncontent-type: {content_type}\ndate: {date}\ndigest: {digest}\nhost: {}",
        post.target, post.host
    );
    let signature = STANDARD.encode(identity.key.sign(&to_latin1(&covered)));
    let signature = format!(
        "keyId=\"{}\",algorithm=\"hs2019\",headers=\"(request-target) content-type date digest host\",signature=\"{signature}\"",
        identity.key_id
    );
    vec![
        ("content-type", content_type),
        ("host", post.host.to_owned()),
        ("date", date),
        ("digest", digest),
        ("signature", signature),
        ("accept", "*/*".to_owned()),
        ("user-agent", format!("Lemmy/0.19.20; +https://{}", identity.host)),
        ("accept-encoding", "gzip".to_owned()),
        ("content-length", post.body.len().to_string()),
    ]
}

fn rfc9421(identity: &Identity, post: &Post<'_>, now: SystemTime) -> Vec<(&'static str, String)> {
    let date = httpdate::fmt_http_date(now);
    let digest = format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(post.body)));
    let created = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let params = format!(
        "(\"@method\" \"@target-uri\" \"@authority\" \"host\" \"date\" \"content-digest\");alg=\"rsa-v1_5-sha256\";keyid=\"{}\";created={created}",
        identity.key_id
    );
    let base = format!(
        "\"@method\": POST\n\"@target-uri\": {}://{host}{}\n\"@authority\": {host}\n\"host\": {host}\n\"date\": {date}\n\
         \"content-digest\": {digest}\n\"@signature-params\": {params}",
        post.scheme,
        post.target,
        host = post.host,
    );
    let signature = STANDARD.encode(identity.key.sign(&to_latin1(&base)));
    vec![
        ("host", post.host.to_owned()),
        ("connection", "keep-alive".to_owned()),
        ("Content-Type", "application/activity+json".to_owned()),
        ("Content-Digest", digest),
        ("Date", date),
        ("Signature-Input", format!("sig1={params}")),
        ("Signature", format!("sig1=:{signature}:")),
        ("accept", "*/*".to_owned()),
        ("accept-language", "*".to_owned()),
        ("sec-fetch-mode", "cors".to_owned()),
        ("user-agent", "node".to_owned()),
        ("accept-encoding", "gzip, deflate".to_owned()),
        ("content-length", post.body.len().to_string()),
    ]
}
