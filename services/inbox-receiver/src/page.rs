//! `/lanes` of the front door: what waits in each lane and for how long, what the lane takes, and what became of the requests
//! for it since start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fedstream_jetstream::{Broker, StreamState, lanes};
use fedstream_lane::Lane;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::admit::Admission;
use crate::tally::Tally;

/// Questions about single lanes at once: a thousand lanes take a tenth of a second (BROKER.md), and nobody is kept waiting.
const QUESTIONS: usize = 16;

/// A lane whose age is not told by then is shown without it.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the page is made of.
#[derive(Clone)]
pub struct LanesPage {
    pub broker: Broker,
    pub admission: Arc<Admission>,
    pub tally: Arc<Tally>,
    pub state: watch::Receiver<StreamState>,
}

impl LanesPage {
    /// The page.
    pub async fn json(self) -> Value {
        let limit = self.state.borrow().facts().and_then(|facts| facts.messages_per_lane);
        let lanes = match lanes::backlog(&self.broker).await {
            Ok(backlog) => self.rows(backlog, limit).await,
            Err(error) => json!({ "error": error.to_string() }),
        };
        json!({ "lanes": lanes, "since_start": self.tally.counts() })
    }

    /// The lanes that hold something, and those that something has happened to.
    async fn rows(&self, backlog: Vec<(String, u64)>, limit: Option<u64>) -> Value {
        let known = self.tally.lanes().into_iter().map(|lane| (lane.subject(), 0));
        // In the order of their subjects, so that two looks can be compared.
        let subjects: BTreeMap<String, u64> = known.chain(backlog).collect();
        let rows: Vec<Value> = stream::iter(subjects)
            .map(|(subject, waiting)| async move {
                match Lane::from_subject(&subject) {
                    Ok(lane) => self.row(&lane, waiting, limit).await,
                    Err(_) => json!({ "lane": subject, "waiting": waiting, "limit": limit }), // a foreign message
                }
            })
            .buffered(QUESTIONS)
            .collect()
            .await;
        rows.into()
    }

    async fn row(&self, lane: &Lane, waiting: u64, limit: Option<u64>) -> Value {
        let rules = self.admission.rules().of(lane);
        let oldest = if waiting == 0 { None } else { self.oldest(lane).await };
        json!({
            "lane": lane.to_string(),
            "waiting": waiting,
            "limit": limit,
            "oldest_s": oldest.map(|age| age.as_secs()),
            "too_old": oldest.is_some_and(|age| rules.age_max.is_some_and(|max| age >= max)),
            "paused": rules.paused,
            "since_start": self.tally.lane_counts(lane),
        })
    }

    async fn oldest(&self, lane: &Lane) -> Option<Duration> {
        timeout(PATIENCE, self.admission.ages().look(lane)).await.ok()?
    }
}
