//! A listener that can be closed with all its connections, and opened again on the same port.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::ports;

/// Where something listens, and the task that takes its connections; they belong to it and end with it.
#[derive(Debug)]
pub struct Door {
    listen: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

impl Door {
    /// Closed, with a port of its own.
    #[must_use]
    pub fn closed() -> Self {
        Self { listen: ports::free(), accepting: None }
    }

    /// Closed, in a place that something else had before, or will have.
    #[must_use]
    pub fn at(listen: SocketAddr) -> Self {
        Self { listen, accepting: None }
    }

    /// Where it is, open or not.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.listen
    }

    /// Listens, and lets `accept` take the connections. One that is open stays as it is.
    ///
    /// # Errors
    /// The listener can't be bound.
    pub async fn open<A>(&mut self, accept: impl FnOnce(TcpListener) -> A) -> std::io::Result<()>
    where
        A: Future<Output = ()> + Send + 'static,
    {
        if self.accepting.is_none() {
            let listener = TcpListener::bind(self.listen).await?;
            self.accepting = Some(tokio::spawn(accept(listener)));
        }
        Ok(())
    }

    /// Closes the listener and all connections, in the middle of what they do.
    pub async fn close(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // The error is the abort itself; the listener is closed when this returns.
            let _aborted = accepting.await;
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}
