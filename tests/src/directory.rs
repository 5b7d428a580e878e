//! The public keys an instance knows, by key id. It stands for fetching actor documents, which no test needs.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use httpsig::prelude::{AlgorithmName, HttpSigError, PublicKey};

/// Shared by the senders, which enter their keys, and the instances, which look them up.
#[derive(Clone, Default)]
pub struct Directory(Arc<RwLock<HashMap<String, PublicKey>>>);

impl Directory {
    /// Enters a key.
    ///
    /// # Errors
    /// A PEM that holds no RSA key.
    pub fn enter(&self, key_id: &str, public_pem: &str) -> Result<(), HttpSigError> {
        let key = PublicKey::from_pem(&AlgorithmName::RsaV1_5Sha256, public_pem)?;
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key_id.to_owned(), key);
        Ok(())
    }

    /// Enters an Ed25519 key.
    ///
    /// # Errors
    /// A PEM that holds none.
    pub fn enter_ed25519(&self, key_id: &str, public_pem: &str) -> Result<(), HttpSigError> {
        let key = PublicKey::from_pem(&AlgorithmName::Ed25519, public_pem)?;
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key_id.to_owned(), key);
        Ok(())
    }

    /// The key of this id.
    #[must_use]
    pub fn find(&self, key_id: &str) -> Option<PublicKey> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key_id).cloned()
    }
}
