//! How full streams are, looked at now and then: for people and their alarms. Nothing decides by it; the broker's limits do.

use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::{Broker, Definition, api};

/// One stream, as it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its name.
    pub stream: &'static str,
    /// Bytes that it holds.
    pub bytes: u64,
    /// Bytes that it may hold; none when unlimited.
    pub bytes_max: Option<u64>,
}

/// The background task that looks. Dropping it ends it.
pub struct UsageWatch {
    now: watch::Receiver<Vec<Usage>>,
    task: JoinHandle<()>,
}

impl UsageWatch {
    /// Looks at these streams at once, and then again after each `every`.
    #[must_use]
    pub fn start(broker: &Broker, streams: Vec<&'static Definition>, every: Duration) -> Self {
        let (publish, now) = watch::channel(Vec::new());
        let broker = broker.clone();
        let task = tokio::spawn(async move {
            loop {
                let looks = streams.iter().map(|definition| look(&broker, definition));
                // One that can't be asked is left out: an old number would look like a new one.
                publish.send_replace(join_all(looks).await.into_iter().flatten().collect());
                tokio::time::sleep(every).await;
            }
        });
        Self { now, task }
    }

    /// The streams that could be asked last time.
    #[must_use]
    pub fn now(&self) -> watch::Receiver<Vec<Usage>> {
        self.now.clone()
    }
}

impl Drop for UsageWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(broker: &Broker, definition: &'static Definition) -> Option<Usage> {
    if !broker.connected() {
        return None;
    }
    let found = api::stream_info(broker, &definition.name).await.ok()?.info;
    let bytes_max = u64::try_from(found.config.max_bytes).ok().filter(|most| *most > 0); // -1 and 0: no limit
    Some(Usage { stream: &definition.name, bytes: found.state.bytes, bytes_max })
}
