//! Keeps looking at a stream: on each reconnect and every few seconds, for as long as the service runs.
//!
//! A stream can vanish, come back as another one, or be made dangerous by hand while the service runs. Whoever sends
//! and whoever accepts needs to know, with the creation time that tells one stream from the next. In create mode a
//! missing stream is made again, and said so: what was in it is gone.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::streams::{self, StreamFacts, StreamNeed};
use crate::{Broker, StreamsMode};

/// What is known of the stream now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// It is there, and fit.
    Present(StreamFacts),
    /// It is not there.
    Missing,
    /// It is there, and dangerous; one line says why.
    Unsafe(String),
    /// The broker can't be asked; one line says why.
    Unknown(String),
}

impl StreamState {
    /// The stream's facts, where it is there and fit.
    #[must_use]
    pub fn facts(&self) -> Option<&StreamFacts> {
        match self {
            Self::Present(facts) => Some(facts),
            _ => None,
        }
    }
}

/// The background task that looks. Dropping it ends it.
pub struct StreamWatch {
    state: watch::Receiver<StreamState>,
    task: JoinHandle<()>,
}

impl StreamWatch {
    /// Starts looking at a stream that [`streams::ensure`] found fit.
    #[must_use]
    pub fn start(broker: &Broker, need: StreamNeed, found: StreamFacts, every: Duration) -> Self {
        let (publish, state) = watch::channel(StreamState::Present(found));
        let task = tokio::spawn(look(broker.clone(), need, every, publish));
        Self { state, task }
    }

    /// What is known now, and from now on.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<StreamState> {
        self.state.clone()
    }
}

impl Drop for StreamWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(broker: Broker, need: StreamNeed, every: Duration, publish: watch::Sender<StreamState>) {
    let mut generation = broker.generation();
    loop {
        tokio::select! {
            changed = generation.changed() => if changed.is_err() { return }, // the connection is closed for good
            () = tokio::time::sleep(every) => {}
        }
        let state = observe(&broker, &need).await;
        publish.send_if_modified(|known| {
            let modified = *known != state;
            if modified {
                tell(&need.definition.name, known, &state);
                *known = state;
            }
            modified
        });
    }
}

async fn observe(broker: &Broker, need: &StreamNeed) -> StreamState {
    if !broker.connected() {
        return StreamState::Unknown("there is no connection to the broker".to_owned());
    }
    let mut found = streams::observe(broker, need).await;
    if matches!(found, Err(streams::Error::Missing { .. })) && broker.settings().streams == StreamsMode::Create {
        found = streams::ensure(broker, need).await;
    }
    match found {
        Ok(facts) => StreamState::Present(facts),
        Err(streams::Error::Missing { .. }) => StreamState::Missing,
        Err(error @ streams::Error::Unsafe { .. }) => StreamState::Unsafe(error.to_string()),
        Err(error) => StreamState::Unknown(error.to_string()),
    }
}

/// One log line for each change that an operator would want to know of.
fn tell(stream: &str, before: &StreamState, now: &StreamState) {
    match (before.facts(), now) {
        (Some(before), StreamState::Present(now)) if before.created != now.created => {
            tracing::error!(stream, created = %now.created, "the stream was made anew: what was in it is gone");
        }
        (Some(_), StreamState::Present(_)) => tracing::info!(stream, "the stream's bounds changed"),
        (None, StreamState::Present(facts)) => {
            tracing::info!(stream, created = %facts.created, "the stream is fit again")
        }
        (_, StreamState::Missing) => tracing::error!(stream, "the stream is missing"),
        (_, StreamState::Unsafe(reason)) => {
            tracing::error!(stream, %reason, "the stream became unsafe")
        }
        (_, StreamState::Unknown(reason)) => {
            tracing::warn!(stream, %reason, "the state of the stream is not known")
        }
    }
}
