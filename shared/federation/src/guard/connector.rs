//! The connector that goes nowhere else: hyper-util's, over a resolver that hands on allowed addresses only.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::{Guard, Names, Refused};

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, Box<dyn std::error::Error + Send + Sync>>> + Send>>;

/// Connects to what its [`Guard`] allows.
#[derive(Clone)]
pub struct GuardedConnector {
    guard: Arc<Guard>,
    inner: HttpConnector<GuardedNames>,
}

impl GuardedConnector {
    /// With this guard, and these names.
    #[must_use]
    pub fn new(guard: Guard, names: Arc<dyn Names>, connect_timeout: Duration) -> Self {
        let guard = Arc::new(guard);
        let mut inner = HttpConnector::new_with_resolver(GuardedNames { guard: guard.clone(), names });
        inner.enforce_http(false); // it connects for TLS too
        inner.set_nodelay(true);
        inner.set_connect_timeout(Some(connect_timeout));
        Self { guard, inner }
    }
}

impl Service<Uri> for GuardedConnector {
    type Response = TokioIo<TcpStream>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Boxed<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        // The connector resolves names only: an address in the URL goes past the resolver, so it is looked at here.
        if let Some(address) = to.host().and_then(literal)
            && let Err(special) = self.guard.address(address)
        {
            return Box::pin(std::future::ready(Err(Refused::Address { address, special }.into())));
        }
        let connecting = self.inner.call(to);
        Box::pin(async move { connecting.await.map_err(Into::into) })
    }
}

/// The address that a host is, where it is one.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[derive(Clone)]
struct GuardedNames {
    guard: Arc<Guard>,
    names: Arc<dyn Names>,
}

impl Service<Name> for GuardedNames {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Boxed<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { guard, names } = self.clone();
        Box::pin(async move {
            let found = names.resolve(name.as_str()).await?;
            let mut refused = None;
            let mut allowed = Vec::with_capacity(found.len());
            for address in found {
                match guard.address(address) {
                    Ok(()) => allowed.push(SocketAddr::new(address, 0)), // the port is the URL's
                    Err(special) => {
                        refused.get_or_insert(Refused::Resolved { name: name.as_str().to_owned(), address, special });
                    }
                }
            }
            match (allowed.is_empty(), refused) {
                (true, Some(refused)) => Err(refused.into()),
                (true, None) => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address").into()),
                (false, _) => Ok(allowed.into_iter()),
            }
        })
    }
}
