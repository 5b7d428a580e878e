//! The files of `deploy/nginx` and `deploy/caddy`, run by the real programs, TLS on, around the whole pipeline:
//!
//!   Sender ══tls══▶ front proxy ─▶ inbox-receiver ─▶ broker ─▶ batch-sender ══tls══▶ back proxy ─▶ batch-receiver ─▶ Instance
//!                        └══tls══▶ the real instance: whatever fedstream is not meant for
//!
//! Only addresses, ports, the back's name and the paths of certificates are put in; everything else is what an operator
//! copies. And proxies that nobody set up for this: they work, or batch-sender's log says why not.

mod between;
mod front;
mod proxy;
mod site;
mod through;
mod tls;
mod v1;

use std::time::Duration;

/// For anything that happens of itself: generous, since two cores may be shared with a build.
const SOON: Duration = Duration::from_secs(30);
