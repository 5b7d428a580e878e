//! Verifies digest and HTTP signature of a request, both kinds, as a destination does.
//!
//! Independent of what signs: the signature base of RFC 9421 is put together by the `httpsig` crate, and both kinds
//! are checked by its key. Two things are done here because that crate does otherwise: the parameters go into the base
//! as they were received (it writes them in an order of its own, which no Fedify signature survives), and the clock is
//! an argument.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use httpsig::prelude::message_component::{
    DerivedComponentName, HttpMessageComponent, HttpMessageComponentId, HttpMessageComponentName,
};
use httpsig::prelude::{HttpSignatureHeaders, PublicKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::directory::Directory;
use crate::message::{Message, to_latin1};
use crate::sign::Kind;

/// Lemmy and Fedify accept one hour either way.
const WINDOW: Duration = Duration::from_secs(3600);

/// Why a destination refuses a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither kind of signature.
    #[error("no signature")]
    NoSignature,
    /// A signature nobody can read.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Signed, but this is not covered: it could have been changed.
    #[error("{0} is not covered by the signature")]
    NotCovered(&'static str),
    /// The body is not the one that was signed.
    #[error("the digest is not the body's")]
    Digest,
    /// Made more than an hour from now.
    #[error("signed at a time that is not within an hour of the clock")]
    Clock,
    /// Nobody knows the key.
    #[error("unknown key {0}")]
    UnknownKey(String),
    /// The signature is not one of this key over these parts.
    #[error("the signature does not verify")]
    Signature,
}

/// What a request proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// By which kind of signature.
    pub kind: Kind,
    /// By which key.
    pub key_id: String,
}

/// Verifies one request that was sent to a URL of this scheme, at this moment.
///
/// # Errors
/// The first fault found.
pub fn verify(message: &Message, scheme: &str, keys: &Directory, clock: SystemTime) -> Result<Verified, Error> {
    let signature = message.header("signature").ok_or(Error::NoSignature)?;
    match message.header("signature-input") {
        Some(input) => rfc9421(message, scheme, &signature, &input, keys, clock),
        None => cavage(message, &signature, keys, clock),
    }
}

/// The host in the key id of a request's signature, whether or not it verifies.
#[must_use]
pub fn source_of(message: &Message) -> Option<String> {
    let key_id = match message.header("signature-input") {
        Some(input) => input.split_once("keyid=\"")?.1.split('"').next()?.to_owned(),
        None => parameters(&message.header("signature")?).remove("keyId")?,
    };
    Some(key_id.split('/').nth(2)?.to_owned())
}

fn cavage(message: &Message, signature: &str, keys: &Directory, clock: SystemTime) -> Result<Verified, Error> {
    let params = parameters(signature);
    let param =
        |name: &'static str| params.get(name).ok_or_else(|| Error::Malformed(format!("no {name} in the signature")));
    let covered: Vec<&str> = param("headers")?.split(' ').collect();
    for needed in ["(request-target)", "host", "date", "digest"] {
        if !covered.contains(&needed) {
            return Err(Error::NotCovered(needed));
        }
    }
    let lines: Vec<String> = covered.iter().map(|name| cavage_line(message, name)).collect::<Result<_, _>>()?;

    let sent =
        message.header("digest").and_then(|d| d.strip_prefix("SHA-256=").map(str::to_owned)).ok_or(Error::Digest)?;
    same_digest(&sent, message)?;
    let date = message.header("date").unwrap_or_default();
    let date = httpdate::parse_http_date(&date).map_err(|_| Error::Malformed("date".into()))?;
    within_window(date, clock)?;
    let key_id = param("keyId")?.clone();
    let bytes = STANDARD.decode(param("signature")?).map_err(|_| Error::Malformed("signature is no base64".into()))?;
    check(&find(keys, &key_id)?, &to_latin1(&lines.join("\n")), &bytes)?;
    Ok(Verified { kind: Kind::Cavage, key_id })
}

fn cavage_line(message: &Message, name: &str) -> Result<String, Error> {
    if name == "(request-target)" {
        return Ok(format!("(request-target): {} {}", message.method.to_ascii_lowercase(), message.target));
    }
    let value = message.header(name).ok_or_else(|| Error::Malformed(format!("{name} is signed and not there")))?;
    Ok(format!("{name}: {value}"))
}

fn rfc9421(
    message: &Message,
    scheme: &str,
    signature: &str,
    input: &str,
    keys: &Directory,
    clock: SystemTime,
) -> Result<Verified, Error> {
    let malformed = |error: httpsig::prelude::HttpSigError| Error::Malformed(error.to_string());
    let found = HttpSignatureHeaders::try_parse(signature, input).map_err(malformed)?;
    // One signature: the senders that make more don't send them to us.
    let (name, headers) = found.first().ok_or(Error::NoSignature)?;
    let params = headers.signature_params();
    let as_received = input.trim().strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('='));
    let as_received = as_received.ok_or_else(|| Error::Malformed("signature-input".into()))?;

    let mut base = String::new();
    let mut covered = Vec::new();
    for id in &params.covered_components {
        let values = component_values(message, scheme, id)?;
        let component = HttpMessageComponent::try_from((id, values.as_slice())).map_err(malformed)?;
        base.push_str(&format!("{component}\n"));
        covered.push(id.to_string().replace('"', ""));
    }
    base.push_str(&format!("\"@signature-params\": {as_received}"));
    for needed in ["@method", "@target-uri", "content-digest"] {
        if !covered.iter().any(|name| name == needed) {
            return Err(Error::NotCovered(needed));
        }
    }

    let digest = message.header("content-digest").unwrap_or_default();
    let digest = digest.strip_prefix("sha-256=:").and_then(|rest| rest.strip_suffix(':')).ok_or(Error::Digest)?;
    same_digest(digest, message)?;
    let created = params.created.ok_or_else(|| Error::Malformed("no created".into()))?;
    within_window(UNIX_EPOCH + Duration::from_secs(created), clock)?;
    let key_id = params.keyid.clone().ok_or_else(|| Error::Malformed("no keyid".into()))?;
    let bytes = STANDARD.decode(headers.signature().to_string()).map_err(|_| Error::Malformed("signature".into()))?;
    check(&find(keys, &key_id)?, &to_latin1(&base), &bytes)?;
    Ok(Verified { kind: Kind::Rfc9421, key_id })
}

fn component_values(message: &Message, scheme: &str, id: &HttpMessageComponentId) -> Result<Vec<String>, Error> {
    let host = message.header("host").unwrap_or_default();
    match &id.name {
        HttpMessageComponentName::Derived(DerivedComponentName::Method) => Ok(vec![message.method.clone()]),
        HttpMessageComponentName::Derived(DerivedComponentName::TargetUri) => {
            Ok(vec![format!("{scheme}://{host}{}", message.target)])
        }
        HttpMessageComponentName::Derived(DerivedComponentName::Authority) => Ok(vec![host]),
        HttpMessageComponentName::Derived(other) => {
            Err(Error::Malformed(format!("component {other:?} is not expected here")))
        }
        HttpMessageComponentName::HttpField(name) => {
            let values: Vec<String> = message.values(name).map(str::to_owned).collect();
            if values.is_empty() {
                Err(Error::Malformed(format!("{name} is signed and not there")))
            } else {
                Ok(values)
            }
        }
    }
}

/// `a="b",c="d"` of draft-cavage section 4.1; a comma inside quotes is part of the value.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut quoted = false;
    text.split(|c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
    .filter_map(|part| part.trim().split_once('='))
    .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
    .collect()
}

fn same_digest(sent: &str, message: &Message) -> Result<(), Error> {
    if STANDARD.encode(Sha256::digest(&message.body)) == sent { Ok(()) } else { Err(Error::Digest) }
}

fn within_window(made: SystemTime, clock: SystemTime) -> Result<(), Error> {
    let apart = clock.duration_since(made).unwrap_or_else(|ahead| ahead.duration());
    if apart <= WINDOW { Ok(()) } else { Err(Error::Clock) }
}

fn find(keys: &Directory, key_id: &str) -> Result<PublicKey, Error> {
    keys.find(key_id).ok_or_else(|| Error::UnknownKey(key_id.to_owned()))
}

fn check(key: &PublicKey, base: &[u8], signature: &[u8]) -> Result<(), Error> {
    key.verify(base, signature).map_err(|_| Error::Signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, Fixture};
    use crate::sign::{Identity, Post, sign};
    use bytes::Bytes;

    fn known(fixtures: &[Fixture]) -> Directory {
        let directory = Directory::default();
        fixtures::enter_keys(fixtures, &directory).unwrap();
        directory
    }

    fn all() -> Vec<Fixture> {
        [fixtures::lemmy().unwrap(), fixtures::fedify().unwrap()].concat()
    }

    fn check_fixture(fixture: &Fixture, message: &Message, keys: &Directory) -> Result<Verified, Error> {
        verify(message, &fixture.scheme, keys, fixture.captured_at.into())
    }

    #[test]
    fn every_captured_request_verifies_at_its_time() {
        let fixtures = all();
        let keys = known(&fixtures);
        let mut kinds = HashMap::new();
        for (n, fixture) in fixtures.iter().enumerate() {
            let verified =
                check_fixture(fixture, &fixture.message, &keys).unwrap_or_else(|error| panic!("{n}: {error}"));
            assert_eq!(verified.key_id, fixture.key_id);
            assert_eq!(source_of(&fixture.message).as_deref(), Some(fixture.source().as_str()));
            *kinds.entry(format!("{:?}", verified.kind)).or_insert(0) += 1;
        }
        assert_eq!(kinds, HashMap::from([("Cavage".to_owned(), 85), ("Rfc9421".to_owned(), 10)]));
    }

    #[test]
    fn a_changed_byte_of_the_body_is_noticed() {
        let fixtures = all();
        let keys = known(&fixtures);
        for fixture in &fixtures {
            let mut message = fixture.message.clone();
            let mut body = message.body.to_vec();
            let middle = body.len() / 2;
            body[middle] ^= 1;
            message.body = Bytes::from(body);
            assert_eq!(check_fixture(fixture, &message, &keys), Err(Error::Digest));
        }
    }

    #[test]
    fn a_changed_target_method_or_scheme_is_noticed() {
        let fixtures = all();
        let keys = known(&fixtures);
        for fixture in &fixtures {
            for target in ["/inbox?", "/./inbox", "/INBOX", "/%69nbox"] {
                let message = Message { target: target.into(), ..fixture.message.clone() };
                assert_eq!(check_fixture(fixture, &message, &keys), Err(Error::Signature), "{target}");
            }
            let message = Message { method: "PUT".into(), ..fixture.message.clone() };
            assert_eq!(check_fixture(fixture, &message, &keys), Err(Error::Signature));
            if fixture.message.header("signature-input").is_some() {
                let other = Fixture { scheme: "https".into(), ..fixture.clone() };
                assert_eq!(check_fixture(&other, &other.message, &keys), Err(Error::Signature));
            }
        }
    }

    #[test]
    fn a_changed_signed_header_is_noticed_and_an_unsigned_one_is_not() {
        let fixtures = all();
        let keys = known(&fixtures);
        let change = |message: &Message, name: &str, to: &dyn Fn(&str) -> String| {
            let mut message = message.clone();
            for (n, value) in &mut message.headers {
                if n.eq_ignore_ascii_case(name) {
                    *value = to(value);
                }
            }
            message
        };
        for fixture in &fixtures {
            let refused = |name: &str, to: &dyn Fn(&str) -> String| {
                if fixture.message.header(name).is_none() {
                    return; // each kind has a digest header of its own
                }
                assert!(check_fixture(fixture, &change(&fixture.message, name, to), &keys).is_err(), "{name}");
            };
            refused("host", &|host| format!("{host}1"));
            refused("date", &|date| date.replace("22 Nov", "22  Nov"));
            refused("digest", &|digest| digest.to_ascii_lowercase());
            refused("content-digest", &|digest| digest.to_ascii_lowercase());
            let changed = change(&fixture.message, "user-agent", &|_| "other".into());
            check_fixture(fixture, &changed, &keys).unwrap();
        }
    }

    #[test]
    fn a_signature_is_good_for_an_hour_around_its_date() {
        for fixture in all() {
            let keys = known(std::slice::from_ref(&fixture));
            let made: SystemTime = fixture.captured_at.into();
            let at = |clock| verify(&fixture.message, &fixture.scheme, &keys, clock);
            at(made + WINDOW - Duration::from_secs(5)).unwrap();
            at(made - WINDOW + Duration::from_secs(5)).unwrap();
            assert_eq!(at(made + WINDOW + Duration::from_secs(5)), Err(Error::Clock));
            assert_eq!(at(made - WINDOW - Duration::from_secs(5)), Err(Error::Clock));
        }
    }

    #[test]
    fn what_is_signed_here_verifies_for_both_kinds_and_odd_targets() {
        let identity = Identity::of("verify.test");
        let keys = Directory::default();
        let body = Bytes::from_static(b"{}");
        let now = SystemTime::now();
        for kind in [Kind::Cavage, Kind::Rfc9421] {
            for target in ["/inbox?shared=1", "/users/%40bob/inbox", "/a/../inbox"] {
                let post = Post { host: "beta.test:8080", target, scheme: "http", body: &body };
                let message = sign(kind, &identity, &post, now);
                let before = verify(&message, "http", &Directory::default(), now);
                assert_eq!(before, Err(Error::UnknownKey(identity.key_id.clone())));
                keys.enter(&identity.key_id, identity.key.public_pem()).unwrap();
                assert_eq!(verify(&message, "http", &keys, now).unwrap().kind, kind);
                keys.enter(&identity.key_id, Identity::of("other.test").key.public_pem()).unwrap();
                assert_eq!(verify(&message, "http", &keys, now), Err(Error::Signature));
            }
        }
    }

    #[test]
    fn the_lemmy_headers_are_those_of_a_real_lemmy_in_its_order() {
        let fixture = fixtures::lemmy().unwrap().remove(0);
        let post = Post { host: "b.test", target: "/inbox", scheme: "http", body: &fixture.message.body };
        let ours = sign(Kind::Cavage, &Identity::of("verify.test"), &post, SystemTime::now());
        let names = |message: &Message| message.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&fixture.message));
    }

    #[test]
    fn an_unsigned_request_is_refused() {
        let message = Message { method: "POST".into(), target: "/".into(), headers: vec![], body: Bytes::new() };
        assert_eq!(verify(&message, "http", &Directory::default(), SystemTime::now()), Err(Error::NoSignature));
    }
}
