//! How a name becomes addresses: the system's way, or another's.

use std::io;
use std::net::IpAddr;

use async_trait::async_trait;

/// Resolves the names of remotes. Asked once a connection; what it answers is checked, and then connected to.
#[async_trait]
pub trait Names: Send + Sync {
    /// The addresses behind a name.
    ///
    /// # Errors
    /// There are none, or nobody answers.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// As every other program of this machine does it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNames;

#[async_trait]
impl Names for SystemNames {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
    }
}
