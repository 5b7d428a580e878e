//! What an ack is worth, followed: in metrics, on `/readyz` and, whenever it changes, in the log.
//!
//! It changes without this process: another server of the cluster syncs otherwise, an operator changes the stream's
//! replicas, a monitoring port comes up after the service. So it is asked again with each connection, with each state of the
//! stream, and once a minute.

use std::future::Future;
use std::time::Duration;

use fedstream_jetstream::{Broker, Held, StreamFacts, StreamState, durability};
use fedstream_service::readiness::Readiness;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::metrics;

/// A question is one small GET. What it may find is rare, and no activity waits for it.
const EVERY: Duration = Duration::from_secs(60);

/// The note's name on `/readyz`.
const NOTE: &str = "durability";

/// The task that asks. Dropping it ends it.
pub struct DurabilityWatch {
    task: JoinHandle<()>,
}

impl DurabilityWatch {
    /// Asks at once, and then for as long as it lives.
    pub async fn start(broker: &Broker, mut state: watch::Receiver<StreamState>, readiness: &Readiness) -> Self {
        let generation = broker.generation();
        let mut shown = Shown { readiness: readiness.clone(), last: None };
        let broker = broker.clone();
        let ask = move |facts: StreamFacts| {
            let broker = broker.clone();
            async move { durability::seen(broker.settings(), &facts).await }
        };
        let facts = state.borrow_and_update().facts().cloned();
        if let Some(facts) = facts {
            shown.show(ask(facts).await);
        }
        Self { task: tokio::spawn(follow(generation, state, shown, ask)) }
    }
}

impl Drop for DurabilityWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Until the connection or the stream's watch is closed for good.
async fn follow<Asking: Future<Output = Held>>(
    mut generation: watch::Receiver<u64>,
    mut state: watch::Receiver<StreamState>,
    mut shown: Shown,
    ask: impl Fn(StreamFacts) -> Asking,
) {
    loop {
        let goes_on = tokio::select! {
            changed = generation.changed() => changed.is_ok(),
            changed = state.changed() => changed.is_ok(),
            () = tokio::time::sleep(EVERY) => true,
        };
        if !goes_on {
            return;
        }
        // A stream that is away holds nothing new; what was seen of it last stays.
        let facts = state.borrow_and_update().facts().cloned();
        if let Some(facts) = facts {
            shown.show(ask(facts).await);
        }
    }
}

/// What everybody was shown last.
struct Shown {
    readiness: Readiness,
    last: Option<Held>,
}

impl Shown {
    fn show(&mut self, held: Held) {
        metrics::held(&held);
        if self.last.as_ref() == Some(&held) {
            return;
        }
        match &held {
            Held::NotSeen(_) => {
                tracing::warn!(%held, "what an ack promises can't be seen to hold");
                self.readiness.note(NOTE, Some(held.to_string()));
            }
            Held::Synced | Held::Replicated(_) => {
                tracing::info!(%held, "an acknowledged activity is held");
                self.readiness.note(NOTE, None);
            }
        }
        self.last = Some(held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_jetstream::Created;
    use std::sync::{Arc, Mutex};
    use time::OffsetDateTime;

    fn present(replicas: usize) -> StreamState {
        StreamState::Present(StreamFacts {
            name: "FED_INBOX".to_owned(),
            created: Created::new(OffsetDateTime::UNIX_EPOCH),
            messages_per_lane: None,
            bytes_max: None,
            replicas,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_asked_again_with_each_connection_each_state_of_the_stream_and_each_minute() {
        let readiness = Readiness::new(&[]);
        let shown = Shown { readiness: readiness.clone(), last: None };
        let (connected, generation) = watch::channel(0);
        let (stream, state) = watch::channel(present(1));
        let monitor = Arc::new(Mutex::new(Held::NotSeen("it is not up yet".to_owned())));
        let (asked, mut questions) = tokio::sync::mpsc::unbounded_channel();
        let answers = monitor.clone();
        let ask = move |facts: StreamFacts| {
            let seen =
                if facts.replicas > 1 { Held::Replicated(facts.replicas) } else { answers.lock().unwrap().clone() };
            asked.send(facts.replicas).unwrap();
            std::future::ready(seen)
        };
        let following = tokio::spawn(follow(generation, state, shown, ask));
        let note = || readiness.report()["notes"][0]["note"].as_str().unwrap_or_default().to_owned();

        connected.send_replace(1);
        assert_eq!(questions.recv().await, Some(1));
        tokio::task::yield_now().await;
        assert!(note().ends_with("it is not up yet"), "{}", note());

        *monitor.lock().unwrap() = Held::Synced;
        let before = tokio::time::Instant::now();
        assert_eq!(questions.recv().await, Some(1), "by itself");
        assert_eq!(before.elapsed(), EVERY);
        tokio::task::yield_now().await;
        assert_eq!(note(), "");

        *monitor.lock().unwrap() = Held::NotSeen("it went".to_owned());
        stream.send_replace(present(3));
        assert_eq!(questions.recv().await, Some(3), "the replicas count");
        tokio::task::yield_now().await;
        assert_eq!(note(), "");
        stream.send_replace(StreamState::Missing);
        stream.send_replace(present(1));
        assert_eq!(questions.recv().await, Some(1));
        tokio::task::yield_now().await;
        assert!(note().ends_with("it went"), "{}", note());

        drop(connected);
        following.await.unwrap();
    }
}
