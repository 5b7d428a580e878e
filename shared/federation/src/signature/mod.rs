//! The signature of a POST, made anew for each attempt, in one of three forms.
//!
//! | form | who takes it |
//! |---|---|
//! | draft-cavage, `rsa-sha256`, `Digest` | everybody so far: it goes first |
//! | RFC 9421, `rsa-v1_5-sha256`, `Content-Digest` | Mastodon 4.5, Fedify and newer programs |
//! | RFC 9421, `ed25519` | who knows the actor's Ed25519 key; only where it has one |
//!
//! Which one a remote takes is found out by its 401 or 403 and remembered ([`crate::forms`]). Only signing is here; nothing
//! reads a clock or sends.

mod cavage;
mod rfc9421;

use std::time::SystemTime;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, DATE, HOST, HeaderName, HeaderValue};
use url::Url;

use crate::activity::Activity;
use crate::keys::{ActorKeys, Algorithm};
use crate::lanes::authority_of;

/// What every ActivityPub server takes (ActivityPub, section 7).
const ACTIVITY_JSON: &str = "application/activity+json";

/// A form of signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// draft-cavage-http-signatures-12 with `rsa-sha256`.
    Cavage,
    /// RFC 9421 with `rsa-v1_5-sha256`.
    Rfc9421Rsa,
    /// RFC 9421 with `ed25519`.
    Rfc9421Ed25519,
}

impl Form {
    /// In the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Cavage, Self::Rfc9421Rsa, Self::Rfc9421Ed25519];

    /// The key it needs.
    #[must_use]
    pub fn algorithm(self) -> Algorithm {
        match self {
            Self::Cavage | Self::Rfc9421Rsa => Algorithm::Rsa,
            Self::Rfc9421Ed25519 => Algorithm::Ed25519,
        }
    }

    /// The word in logs and spans.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cavage => "cavage",
            Self::Rfc9421Rsa => "rfc9421-rsa",
            Self::Rfc9421Ed25519 => "rfc9421-ed25519",
        }
    }
}

/// It can't be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The actor has no key for this form.
    #[error("the actor has no key for a signature of the form {}", .0.as_str())]
    NoKey(Form),
    /// A part of the request can't stand in a header.
    #[error("{0} can't stand in a header")]
    Header(&'static str),
}

/// The headers of a POST of this activity to this URL, signed at this moment.
///
/// # Errors
/// The actor has no key for the form, or a part can't stand in a header.
pub fn sign(
    form: Form,
    keys: &ActorKeys,
    inbox: &Url,
    activity: &Activity,
    at: SystemTime,
) -> Result<HeaderMap, Error> {
    let key_id = keys.id(form.algorithm()).ok_or(Error::NoKey(form))?;
    let post = Post {
        host: authority_of(inbox).ok_or(Error::Header("the inbox's host"))?,
        target: target(inbox),
        date: httpdate::fmt_http_date(at),
        url: inbox,
        activity,
        key_id,
        at,
    };
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(HOST, value("the inbox's host", &post.host)?);
    headers.insert(DATE, value("the date", &post.date)?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(ACTIVITY_JSON));
    let signed = match form {
        Form::Cavage => cavage::sign(&post, keys).ok_or(Error::NoKey(form))?,
        Form::Rfc9421Rsa | Form::Rfc9421Ed25519 => {
            rfc9421::sign(&post, form.algorithm(), keys).ok_or(Error::NoKey(form))?
        }
    };
    for (name, text) in signed {
        headers.insert(HeaderName::from_static(name), value("the key's id", &text)?);
    }
    Ok(headers)
}

/// What is signed.
struct Post<'a> {
    host: String,
    target: String,
    date: String,
    url: &'a Url,
    activity: &'a Activity,
    key_id: &'a str,
    at: SystemTime,
}

/// Path and query, as they go on the wire.
fn target(url: &Url) -> String {
    url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()))
}

fn value(what: &'static str, text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text).map_err(|_| Error::Header(what))
}
