//! Whose key signs: the port an application fills, and what it hands over.
//!
//! Keys are asked for at every attempt, never kept beyond it: a key that was rotated signs the very next one. Nothing here
//! prints a key, in `Debug` neither.

mod directory;
mod pem;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use uuid::Uuid;

pub use directory::{PemDirectory, Unreadable};
pub use pem::Error as PemError;
pub(crate) use pem::fault as pem_fault;

/// Why there is no key to sign with. Either is tried again: an operator may put it right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody has a key of this actor.
    #[error("there is no signing key of actor {0}")]
    Unknown(Uuid),
    /// The place where the keys are can't be read now.
    #[error("the signing key of actor {actor} can't be read: {cause}")]
    Unavailable {
        /// Whose.
        actor: Uuid,
        /// What went wrong; never anything of a key.
        cause: String,
    },
}

/// Where signing keys come from.
#[async_trait]
pub trait SigningKeys: Send + Sync {
    /// The keys of an actor.
    ///
    /// # Errors
    /// There is none, or it can't be had now.
    async fn keys(&self, actor: Uuid) -> Result<Arc<ActorKeys>, Error>;
}

/// The keys of one actor: an RSA one, that the whole network verifies, and an Ed25519 one where the actor shows one.
#[derive(Debug)]
pub struct ActorKeys {
    rsa: Option<Key<RsaKeyPair>>,
    ed25519: Option<Key<Ed25519KeyPair>>,
}

struct Key<P> {
    id: String,
    pair: P,
}

impl<P> fmt::Debug for Key<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

/// With which of its keys an actor signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 over SHA-256.
    Rsa,
    /// Ed25519.
    Ed25519,
}

impl ActorKeys {
    /// The keys in a PEM text: an RSA one (PKCS#8 or PKCS#1), an Ed25519 one (PKCS#8), or both.
    ///
    /// The id of a key is the URL at which remotes find its public half. It stands on a line before its block,
    /// `Key-Id: https://our.example/users/alice#main-key`; PEM allows for such lines (RFC 7468, section 2). `key_id` is used
    /// where there is none.
    ///
    /// # Errors
    /// No key, one of another kind, two of a kind, or one whose id is missing or can't stand in a header.
    pub fn from_pem(text: &str, key_id: Option<&str>) -> Result<Self, PemError> {
        pem::read(text, key_id)
    }

    /// The id of a key, where the actor has one of this kind.
    #[must_use]
    pub fn id(&self, algorithm: Algorithm) -> Option<&str> {
        match algorithm {
            Algorithm::Rsa => self.rsa.as_ref().map(|key| key.id.as_str()),
            Algorithm::Ed25519 => self.ed25519.as_ref().map(|key| key.id.as_str()),
        }
    }

    /// A signature over these bytes; none where the actor has no key of this kind.
    #[must_use]
    pub fn sign(&self, algorithm: Algorithm, bytes: &[u8]) -> Option<Vec<u8>> {
        match algorithm {
            Algorithm::Rsa => {
                let pair = &self.rsa.as_ref()?.pair;
                let mut signature = vec![0; pair.public().modulus_len()];
                // Fails only where the buffer has another length than the modulus.
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), bytes, &mut signature).ok()?;
                Some(signature)
            }
            Algorithm::Ed25519 => Some(self.ed25519.as_ref()?.pair.sign(bytes).as_ref().to_vec()),
        }
    }
}

/// Keys that the application holds in memory: for a few actors, and for tests.
#[derive(Debug, Default)]
pub struct KeysInMemory(HashMap<Uuid, Arc<ActorKeys>>);

impl KeysInMemory {
    /// With the keys of one more actor.
    #[must_use]
    pub fn with(mut self, actor: Uuid, keys: ActorKeys) -> Self {
        self.0.insert(actor, Arc::new(keys));
        self
    }
}

#[async_trait]
impl SigningKeys for KeysInMemory {
    async fn keys(&self, actor: Uuid) -> Result<Arc<ActorKeys>, Error> {
        self.0.get(&actor).cloned().ok_or(Error::Unknown(actor))
    }
}
