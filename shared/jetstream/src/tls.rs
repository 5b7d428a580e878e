//! One TLS implementation for the process: reqwest and the NATS library ask for it, and panic where there is none.

/// Installs ring as the process-wide provider. Whoever installed one before keeps it.
pub fn install_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        drop(rustls::crypto::ring::default_provider().install_default()); // lost a race: then there is one
    }
}
