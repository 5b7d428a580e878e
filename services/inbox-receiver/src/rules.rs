//! What applies to one lane: the front door's settings, with those of the bucket `fed_lanes` over them, as they change.
//!
//! The door does not need the bucket: where it can't be followed the settings last seen stay in force, at a start without it
//! the front door's own, and the readiness page says so. An activity that a pause would have refused is stored, and waits.

use std::sync::Arc;
use std::time::Duration;

use fedstream_jetstream::lane_settings::{LaneSettings, LaneSettingsWatch, Snapshot};
use fedstream_jetstream::{Broker, streams};
use fedstream_lane::Lane;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::config::Config;

/// How long a start waits for the settings of the lanes, so that no paused lane is open for a moment.
const START_PATIENCE: Duration = Duration::from_secs(3);

/// Between two tries to open a bucket that was not there at the start.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// What applies to a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneRules {
    /// How long after its date the destination accepts a signature; `None`: it checks no dates.
    pub signature_window: Option<Duration>,
    /// What must be left of it.
    pub signature_margin: Duration,
    /// How long the lane's oldest activity may have waited; `None`: as long as it takes.
    pub age_max: Option<Duration>,
    /// An operator has closed the lane.
    pub paused: bool,
}

impl LaneRules {
    fn of(config: &Config) -> Self {
        Self {
            signature_window: nonzero(config.signature_window.get()),
            signature_margin: config.signature_margin.get(),
            age_max: nonzero(config.lane_age_max.get()),
            paused: false,
        }
    }

    fn with(self, own: &LaneSettings) -> Self {
        let rules = match own.signature_window_s {
            Some(seconds) => self.with_window(Duration::from_secs(seconds)),
            None => self,
        };
        Self { paused: own.paused.unwrap_or(rules.paused), ..rules }
    }

    /// The same with another window. A short one (Misskey's is 5 min) must not make the rest senseless: half of it is left as
    /// margin at most, and no lane may be older than a fresh signature can wait.
    fn with_window(self, window: Duration) -> Self {
        let margin = self.signature_margin.min(window / 2);
        let age_max = self.age_max.map(|max| max.min(window - margin));
        Self { signature_window: Some(window), signature_margin: margin, age_max, ..self }
    }
}

/// What is known of the bucket.
#[derive(Debug, Clone, Default)]
struct Seen {
    settings: Arc<Snapshot>,
    /// Why it was never opened.
    never: Option<String>,
}

/// The rules of all lanes. Dropping them ends the task that follows the bucket.
pub struct Rules {
    all: LaneRules,
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Rules {
    /// Begins to follow the lanes' settings, and gives the first look at them a moment.
    pub async fn follow(config: &Config, broker: &Broker) -> Self {
        let (publish, mut seen) = watch::channel(Seen::default());
        let task = tokio::spawn(follow(broker.clone(), publish));
        if timeout(START_PATIENCE, seen.changed()).await.is_err() {
            tracing::warn!("the settings of lanes (bucket fed_lanes) are not there yet: starting without them");
        }
        Self { all: LaneRules::of(config), seen, task }
    }

    /// What applies to this lane now.
    pub fn of(&self, lane: &Lane) -> LaneRules {
        self.all.with(&self.seen.borrow().settings.for_lane(lane))
    }

    /// What keeps the lanes' settings from being applied, for the readiness page.
    pub fn trouble(&self) -> Option<String> {
        let seen = self.seen.borrow();
        if let Some(cause) = seen.never.as_deref() {
            return Some(format!("lanes have no settings of their own, the bucket fed_lanes can't be read: {cause}"));
        }
        if let Some(cause) = seen.settings.unknown() {
            return Some(format!("the settings last seen are in force, the bucket fed_lanes can't be read: {cause}"));
        }
        let refusals = seen.settings.refusals();
        let first = refusals.first()?;
        Some(format!(
            "settings in fed_lanes are refused, the last valid ones stay in force: {} {}: {} ({} in all)",
            first.key,
            first.field,
            first.reason,
            refusals.len()
        ))
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(broker: Broker, publish: watch::Sender<Seen>) {
    let opened = loop {
        match LaneSettingsWatch::start(&broker).await {
            Ok(opened) => break opened,
            Err(error) => not_opened(&publish, &error),
        }
        tokio::time::sleep(TRY_AGAIN).await;
    };
    let mut snapshot = opened.snapshot();
    loop {
        let settings = snapshot.borrow_and_update().clone();
        publish.send_replace(Seen { settings, never: None });
        if snapshot.changed().await.is_err() {
            return; // the connection is closed for good
        }
    }
}

fn not_opened(publish: &watch::Sender<Seen>, error: &streams::Error) {
    let cause = error.to_string();
    if publish.borrow().never.as_ref() != Some(&cause) {
        tracing::warn!(cause, "the settings of lanes can't be read: every lane runs on the front door's own");
    }
    publish.send_replace(Seen { never: Some(cause), ..Seen::default() });
}

fn nonzero(span: Duration) -> Option<Duration> {
    Some(span).filter(|span| !span.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn all() -> LaneRules {
        LaneRules {
            signature_window: Some(55 * MINUTE),
            signature_margin: 5 * MINUTE,
            age_max: Some(10 * MINUTE),
            paused: false,
        }
    }

    #[test]
    fn what_a_lane_does_not_set_is_the_front_doors() {
        assert_eq!(all().with(&LaneSettings::default()), all());
        let paused = LaneSettings { paused: Some(true), ..LaneSettings::default() };
        assert_eq!(all().with(&paused), LaneRules { paused: true, ..all() });
    }

    #[test]
    fn a_short_window_shortens_margin_and_age_with_it() {
        let window = |minutes: u64| {
            let own = LaneSettings { signature_window_s: Some(minutes * 60), ..LaneSettings::default() };
            let rules = all().with(&own);
            (rules.signature_margin, rules.age_max)
        };
        assert_eq!(window(65), (5 * MINUTE, Some(10 * MINUTE)));
        assert_eq!(window(12), (5 * MINUTE, Some(7 * MINUTE)));
        assert_eq!(window(4), (2 * MINUTE, Some(2 * MINUTE)));
    }

    #[test]
    fn an_age_that_is_switched_off_stays_off() {
        let off = LaneRules { age_max: None, ..all() };
        assert_eq!(off.with_window(MINUTE).age_max, None);
    }
}
