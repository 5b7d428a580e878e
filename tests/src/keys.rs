//! RSA keys of the sending actors.
//!
//! Making one takes a tenth of a second and more, so a process makes a few and deals them out to the actors that ask.
//! They are made by `rsa` and sign by `ring`: five times as fast in a debug build, and a test signs thousands.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use rsa::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};
use rsa::{RsaPrivateKey, RsaPublicKey, rand_core::OsRng};

/// Enough that the first actors of a test don't share one: a signature under a neighbour's name must not verify.
const KEYS_MAX: usize = 3;

/// A key that signs, and its public half.
pub struct KeyPair {
    signer: RsaKeyPair,
    private_pem: String,
    public_pem: String,
}

impl KeyPair {
    fn make() -> Self {
        // 2048 bits: what Lemmy, Mastodon and Fedify make.
        let private = RsaPrivateKey::new(&mut OsRng, 2048).expect("2048 bits are allowed");
        let public_pem =
            RsaPublicKey::from(&private).to_public_key_pem(LineEnding::LF).expect("an RSA key has a PEM form");
        let der = private.to_pkcs8_der().expect("an RSA key has a DER form");
        let signer = RsaKeyPair::from_pkcs8(der.as_bytes()).expect("2048 bits are allowed");
        let private_pem = private.to_pkcs8_pem(LineEnding::LF).expect("an RSA key has a PEM form").to_string();
        Self { signer, private_pem, public_pem }
    }

    /// RSASSA-PKCS1-v1_5 over SHA-256.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.signer.public().modulus_len()];
        self.signer
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), bytes, &mut signature)
            .expect("the length is the modulus's");
        signature
    }

    /// The key itself, as an application keeps it.
    #[must_use]
    pub fn private_pem(&self) -> &str {
        &self.private_pem
    }

    /// The public half, as an actor document shows it.
    #[must_use]
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }
}

/// A new Ed25519 key, private and public half as PEM.
///
/// # Errors
/// No randomness.
pub fn ed25519() -> anyhow::Result<(String, String)> {
    /// What stands before the 32 bytes of a key, private (RFC 8410 section 7) and public (section 4).
    const PRIVATE: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    const PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| anyhow::anyhow!("no randomness"))?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|error| anyhow::anyhow!("{error}"))?;
    let pem = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label} KEY-----\n{}\n-----END {label} KEY-----\n", STANDARD.encode(der))
    };
    let private = pem("PRIVATE", &[&PRIVATE[..], &seed].concat());
    let public = pem("PUBLIC", &[&PUBLIC[..], pair.public_key().as_ref()].concat());
    Ok((private, public))
}

#[derive(Default)]
struct Dealt {
    made: Vec<Arc<KeyPair>>,
    by_actor: HashMap<String, usize>,
}

static DEALT: Mutex<Option<Dealt>> = Mutex::new(None);

/// The key of this actor: the same one for as long as the process lives.
#[must_use]
pub fn of(actor: &str) -> Arc<KeyPair> {
    let mut dealt = DEALT.lock().unwrap_or_else(PoisonError::into_inner);
    let dealt = dealt.get_or_insert_default();
    let next = dealt.by_actor.len() % KEYS_MAX;
    let index = *dealt.by_actor.entry(actor.to_owned()).or_insert(next);
    if dealt.made.len() <= index {
        dealt.made.push(Arc::new(KeyPair::make()));
    }
    dealt.made[index].clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_keeps_its_key_and_a_neighbour_has_another() {
        assert_eq!(of("a").public_pem(), of("a").public_pem());
        assert_ne!(of("a").public_pem(), of("b").public_pem());
    }
}
