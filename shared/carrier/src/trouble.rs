//! Why a lane does not move, where people look: on `/lanes` at once; in the log at once, then now and then, and when it
//! moves again.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;

use crate::registry::Registry;

/// A lane that stands is said so again after this long.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The trouble of one lane.
#[derive(Debug)]
pub struct Trouble {
    lane: String,
    registry: Registry,
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Trouble {
    /// No trouble yet.
    #[must_use]
    pub fn none(lane: &impl Display, registry: &Registry) -> Self {
        Self { lane: lane.to_string(), registry: registry.clone(), since: None, said: None }
    }

    /// Something that the lane needs failed.
    pub fn failed(&mut self, epoch: u64, cause: impl Into<String>) {
        let cause = cause.into();
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if self.said.is_none_or(|said| now - said >= SAY_AGAIN_AFTER) {
            self.said = Some(now);
            let stands_s = (now - since).as_secs();
            tracing::warn!(lane = %self.lane, epoch, stands_s, cause, "the lane does not move");
        }
        self.registry.update(&self.lane, |view| view.trouble = Some(cause));
    }

    /// For how long it has been so; zero where there is none.
    #[must_use]
    pub fn lasts(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// What failed works again.
    pub fn over(&mut self, epoch: u64) {
        if let Some(since) = self.since.take() {
            self.said = None;
            let stood_s = since.elapsed().as_secs();
            tracing::info!(lane = %self.lane, epoch, stood_s, "the lane moves again");
            self.registry.update(&self.lane, |view| view.trouble = None);
        }
    }
}
