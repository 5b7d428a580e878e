//! Keys out of a PEM text.

use ring::signature::{Ed25519KeyPair, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{self, PemObject};

use super::{ActorKeys, Key};

/// Stands before a block, names the key in it.
const KEY_ID: &str = "key-id:";

/// The last line of a block begins so.
const END: &str = "-----END ";

/// What an id is made of: it stands in a header, between quotes.
pub(super) const ID_RULE: &str = "visible ASCII characters, no space, no quotation mark and no backslash";

/// Why a PEM text gives no keys. Never with anything of the text in it but a key's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not one block that is a private key.
    #[error(
        "no private key in it (a block that begins with -----BEGIN PRIVATE KEY----- or -----BEGIN RSA PRIVATE KEY-----)"
    )]
    NoKey,
    /// A block that is damaged, or a key of another kind: elliptic curves but Ed25519, RSA below 2048 bits.
    #[error("a key in it can't be used: {0}")]
    Unfit(String),
    /// Nothing says under which id remotes find it.
    #[error("a key in it has no id: a line `Key-Id: https://..` before it, or a template for all")]
    NoId,
    /// It has one that can't be sent. Not shown: where the line ends were lost, the key itself stands on that line.
    #[error("the id of a key, on a `Key-Id:` line or from the template, is none: {ID_RULE}")]
    Id,
    /// Two of a kind: which one signs?
    #[error("two keys of one kind in it")]
    Two,
}

pub(super) fn read(text: &str, template: Option<&str>) -> Result<ActorKeys, Error> {
    let mut keys = ActorKeys { rsa: None, ed25519: None };
    for block in blocks(text) {
        // A line that is there and wrong is not passed over: the template would give the key an id that nobody knows it by.
        let id = block.lines().find_map(key_id).or(template).ok_or(Error::NoId)?;
        if !is_id(id) {
            return Err(Error::Id);
        }
        let der =
            PrivateKeyDer::from_pem_slice(block.as_bytes()).map_err(|error| Error::Unfit(fault(&error).to_owned()))?;
        let taken = match pair(&der)? {
            Pair::Rsa(pair) => keys.rsa.replace(Key { id: id.to_owned(), pair: *pair }).is_some(),
            Pair::Ed25519(pair) => keys.ed25519.replace(Key { id: id.to_owned(), pair }).is_some(),
        };
        if taken {
            return Err(Error::Two);
        }
    }
    if keys.rsa.is_none() && keys.ed25519.is_none() { Err(Error::NoKey) } else { Ok(keys) }
}

/// What is wrong with a PEM text, in fixed words: the library's own print the line that they stumble over, and where a secret
/// has lost its line ends that line is the whole key.
pub(crate) fn fault(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a block has no end line",
        pem::Error::IllegalSectionStart { .. } => "a block's first line is not one (have the line ends been lost?)",
        pem::Error::Base64Decode(_) => "a block is not base64",
        pem::Error::Io(_) => "it can't be read",
        pem::Error::NoItemsFound => "no block of the kind that is wanted",
        pem::Error::SectionTooLarge => "a block is too large",
        _ => "it is not PEM",
    }
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

fn pair(der: &PrivateKeyDer<'_>) -> Result<Pair, Error> {
    let unfit = |error: ring::error::KeyRejected| Error::Unfit(error.to_string());
    match der {
        PrivateKeyDer::Pkcs1(key) => {
            RsaKeyPair::from_der(key.secret_pkcs1_der()).map(|pair| Pair::Rsa(Box::new(pair))).map_err(unfit)
        }
        PrivateKeyDer::Pkcs8(key) => {
            let der = key.secret_pkcs8_der();
            // What `openssl genpkey` writes has no public half beside it, hence "maybe unchecked".
            if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
                return Ok(Pair::Ed25519(pair));
            }
            RsaKeyPair::from_pkcs8(der).map(|pair| Pair::Rsa(Box::new(pair))).map_err(unfit)
        }
        _ => Err(Error::Unfit("neither RSA nor Ed25519".to_owned())),
    }
}

/// Each block with the lines before it.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.find(END)?;
        let line = rest[end..].find('\n').map_or(rest.len(), |at| end + at + 1);
        let (block, after) = rest.split_at(line);
        rest = after;
        Some(block)
    })
}

fn key_id(line: &str) -> Option<&str> {
    let (name, id) = line.trim_start().split_at_checked(KEY_ID.len())?;
    name.eq_ignore_ascii_case(KEY_ID).then_some(id.trim())
}

/// See [`ID_RULE`].
pub(super) fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Algorithm;
    use crate::testing::{ED25519_PEM, RSA_PKCS1_PEM, RSA_PKCS8_PEM};

    const ID: &str = "https://our.example/users/alice#main-key";

    #[test]
    fn both_forms_of_an_rsa_key_and_an_ed25519_one_sign() {
        for (pem, algorithm, length) in [
            (RSA_PKCS8_PEM, Algorithm::Rsa, 256),
            (RSA_PKCS1_PEM, Algorithm::Rsa, 256),
            (ED25519_PEM, Algorithm::Ed25519, 64),
        ] {
            let keys = ActorKeys::from_pem(pem, Some(ID)).expect("a key");
            assert_eq!(keys.id(algorithm), Some(ID));
            assert_eq!(keys.sign(algorithm, b"x").expect("a signature").len(), length);
        }
    }

    #[test]
    fn each_block_has_the_id_on_a_line_before_it() {
        let text = format!("some words\nKey-Id: {ID}\n{RSA_PKCS8_PEM}\nkey-id: {ID}-2\n{ED25519_PEM}");
        let keys = ActorKeys::from_pem(&text, None).expect("two keys");
        assert_eq!(keys.id(Algorithm::Rsa), Some(ID));
        assert_eq!(keys.id(Algorithm::Ed25519), Some("https://our.example/users/alice#main-key-2"));
    }

    #[test]
    fn what_gives_no_keys_says_why_and_shows_nothing() {
        let read = |text: &str, id: Option<&str>| ActorKeys::from_pem(text, id).expect_err("no keys");
        assert_eq!(read("", Some(ID)), Error::NoKey);
        assert_eq!(read("no key here", Some(ID)), Error::NoKey);
        assert_eq!(read(RSA_PKCS8_PEM, None), Error::NoId);
        for wrong in ["a\"b", "a b", "a\\b", "\u{fc}", ""] {
            // The template is for files that name none.
            assert_eq!(read(&format!("Key-Id: {wrong}\n{RSA_PKCS8_PEM}"), Some(ID)), Error::Id, "{wrong:?}");
            assert_eq!(read(RSA_PKCS8_PEM, Some(wrong)), Error::Id, "{wrong:?}");
        }
        assert_eq!(read(&format!("{RSA_PKCS8_PEM}\n{RSA_PKCS1_PEM}"), Some(ID)), Error::Two);
        let cut = RSA_PKCS8_PEM.replacen("MII", "AII", 1);
        assert!(matches!(read(&cut, Some(ID)), Error::Unfit(_)));
        // What becomes of a secret on its way through an environment or a template: the whole key is one line then.
        for lost in [" ", "\\n", ""] {
            for (pem, before) in [RSA_PKCS8_PEM, RSA_PKCS1_PEM, ED25519_PEM].into_iter().zip(["", "", "Key-Id: x\n"]) {
                let said = read(&format!("{before}{pem}").replace('\n', lost), Some(ID));
                let key = pem.lines().nth(1).expect("a line of the key");
                let part = &key[..key.len().min(24)];
                let bytes = format!("{:?}", part.as_bytes());
                let shown = format!("{said} {said:?}");
                let numbers = bytes.trim_matches(['[', ']']);
                assert!(!shown.contains(part) && !shown.contains(numbers), "shows the key: {said}");
            }
        }
        let keys = ActorKeys::from_pem(RSA_PKCS8_PEM, Some(ID)).expect("a key");
        assert!(format!("{keys:?}").contains("main-key") && format!("{keys:?}").len() < 200, "{keys:?}");
    }
}
