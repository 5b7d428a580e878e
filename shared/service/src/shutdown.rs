//! How a service is told to stop: SIGTERM or SIGINT cancels a token, which everything that admits work watches.
//!
//! `run` functions take the token, so a test stops a service with `token.cancel()`. A second signal ends the process
//! at once with 130: an operator who presses Ctrl-C twice doesn't want to wait for the grace period.

use std::io;

use tokio::signal::unix::{SignalKind, signal as listen};
pub use tokio_util::sync::CancellationToken;

/// A token that the first SIGTERM or SIGINT cancels. Call it inside the runtime, once.
pub fn signal() -> io::Result<CancellationToken> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let name = tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" };
        tracing::info!(signal = name, "stopping; a second signal ends at once");
        stop.cancel();
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
    Ok(token)
}
