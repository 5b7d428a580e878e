//! What the unit tests share: keys that sign nothing but tests.

/// An RSA key as `openssl genpkey` writes it.
pub const RSA_PKCS8_PEM: &str = include_str!("../tests/keys/rsa-pkcs8.pem");

/// The same key as older programs write it.
pub const RSA_PKCS1_PEM: &str = include_str!("../tests/keys/rsa-pkcs1.pem");

/// An Ed25519 key as `openssl genpkey` writes it.
pub const ED25519_PEM: &str = include_str!("../tests/keys/ed25519.pem");
