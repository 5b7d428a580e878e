//! The shared secret of senders and receiver: `Authorization: Bearer <secret>` (RFC 6750, section 2.1).

use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq;

/// What a request has to bring along.
#[derive(Clone)]
pub struct Credential {
    /// None: it runs open.
    secret: Option<Vec<u8>>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.secret.is_some() { "Credential(***)" } else { "Credential(none)" })
    }
}

impl Credential {
    /// The secret as configured, with or without `Bearer ` in front: the existing batcher takes both.
    #[must_use]
    pub fn new(configured: Option<&str>) -> Self {
        Self { secret: configured.map(|text| secret(text).to_vec()) }
    }

    /// Does the request bring it along? How long the comparison takes says nothing about where two secrets differ;
    /// only that their lengths do.
    #[must_use]
    pub fn allows(&self, headers: &HeaderMap) -> bool {
        let Some(secret) = &self.secret else { return true };
        let mut given = headers.get_all(AUTHORIZATION).iter();
        match (given.next().and_then(|value| bearer(value.as_bytes())), given.next()) {
            (Some(token), None) => token.ct_eq(secret).into(),
            _ => false,
        }
    }
}

/// Is it a secret at all? `Bearer ${UNSET}` is none, and everybody would know it.
#[must_use]
pub fn is_secret(configured: &str) -> bool {
    let secret = secret(configured);
    !secret.is_empty() && !secret.eq_ignore_ascii_case(b"Bearer")
}

/// The configured text without its scheme.
fn secret(configured: &str) -> &[u8] {
    bearer(configured.as_bytes()).unwrap_or(configured.as_bytes().trim_ascii())
}

/// What follows `Bearer `; the scheme's name in any case (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(configured: Option<&str>, given: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in given {
            headers.append(AUTHORIZATION, value.parse().expect("value"));
        }
        Credential::new(configured).allows(&headers)
    }

    #[test]
    fn the_configured_secret_may_have_its_scheme_in_front() {
        for configured in ["s3cret", "Bearer s3cret"] {
            assert!(allows(Some(configured), &["Bearer s3cret"]));
            assert!(allows(Some(configured), &["bearer s3cret"]));
            for wrong in [
                "Bearer s3cre",
                "Bearer s3crett",
                "Bearer",
                "Bearer ",
                "Basic s3cret",
                "s3cret",
                "Bearer Bearer s3cret",
            ] {
                assert!(!allows(Some(configured), &[wrong]), "{wrong}");
            }
            assert!(!allows(Some(configured), &[]));
            assert!(!allows(Some(configured), &["Bearer s3cret", "Bearer s3cret"]), "two are none");
        }
    }

    #[test]
    fn a_scheme_alone_is_no_secret() {
        for text in ["", " ", "Bearer", "Bearer ", " bearer\t", "Bearer  Bearer"] {
            assert!(!is_secret(text), "{text:?}");
        }
        for text in ["s3cret", "Bearer s3cret", "Bearers"] {
            assert!(is_secret(text), "{text:?}");
        }
    }

    #[test]
    fn without_a_secret_everybody_is_allowed() {
        assert!(allows(None, &[]));
    }
}
