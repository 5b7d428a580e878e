//! What an ack is worth: whether an acknowledged message survives a power failure, as far as that can be seen.
//!
//! By default a single server writes to disk every two minutes, after the ack. It is safe where each write is synced
//! (`sync_interval: always`, seen only on the server's monitoring port) or where three replicas hold it. Where neither
//! can be seen the service runs and says so: it is a promise that can't be checked, not one that is broken.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::{NatsSettings, StreamFacts, tls};

/// Replicas of which one may lose its power, disk and all.
const REPLICAS_SAFE: usize = 3;

/// The monitoring port is on the same machine or next to it.
const MONITOR_TIMEOUT: Duration = Duration::from_secs(2);

/// How an acknowledged message is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// On disk before the ack.
    Synced,
    /// By three servers or more.
    Replicated(usize),
    /// Neither can be seen; why.
    NotSeen(String),
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synced => f.write_str("on disk before it is acknowledged (sync_interval: always)"),
            Self::Replicated(replicas) => {
                write!(f, "on {replicas} replicas before it is acknowledged")
            }
            Self::NotSeen(why) => {
                write!(f, "a power failure may lose acknowledged activities of the last two minutes: {why}")
            }
        }
    }
}

/// Looks at the stream's replicas, then at the server's monitoring port.
pub async fn seen(settings: &NatsSettings, facts: &StreamFacts) -> Held {
    if facts.replicas >= REPLICAS_SAFE {
        return Held::Replicated(facts.replicas);
    }
    let Some(url) = &settings.monitor_url else {
        return Held::NotSeen(
            "NATS_MONITOR_URL is not set, so whether the broker syncs each write is not known".to_owned(),
        );
    };
    match ask(url).await {
        Ok(true) => Held::Synced,
        Ok(false) => {
            Held::NotSeen("the broker does not sync each write (jetstream { sync_interval: always })".to_owned())
        }
        Err(cause) => Held::NotSeen(format!("NATS_MONITOR_URL: {cause}")),
    }
}

/// Whether `/varz` says that each write is synced.
async fn ask(url: &str) -> Result<bool, String> {
    #[derive(Deserialize)]
    struct Varz {
        jetstream: JetStream,
    }
    #[derive(Deserialize)]
    struct JetStream {
        config: Config,
    }
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        sync_always: bool,
    }

    tls::install_provider();
    let client =
        reqwest::Client::builder().timeout(MONITOR_TIMEOUT).no_proxy().build().map_err(|error| error.to_string())?;
    let answer = client.get(format!("{}/varz", url.trim_end_matches('/'))).send().await;
    let body = answer.map_err(describe)?.error_for_status().map_err(describe)?.bytes().await.map_err(describe)?;
    let varz: Varz =
        serde_json::from_slice(&body).map_err(|error| format!("/varz tells nothing of JetStream: {error}"))?;
    Ok(varz.jetstream.config.sync_always)
}

/// Without the address: it may have credentials in it.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
