//! The last step of admission: the publish, and what the broker's refusal means to the sender.

use std::sync::Arc;
use std::time::Duration;

use fedstream_jetstream::{Broker, Publisher, Refused, StreamState, lanes};
use fedstream_lane::Lane;
use fedstream_service::metrics::table::PUBLISH_DURATION;
use fedstream_service::spans::KeyValue;
use fedstream_service::{attributes, spans};
use fedstream_wire::stored::StoredActivity;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};
use tracing::Span;

use crate::refusal::{Refusal, broker_kind};

/// How long the name of the largest lane is good for: refusals come in thousands, the question costs the broker milliseconds.
const LARGEST_FRESH: Duration = Duration::from_secs(2);

/// A refusal waits no longer than this for the name.
const LARGEST_PATIENCE: Duration = Duration::from_millis(500);

/// The stream, as the front door sees it.
#[derive(Clone)]
pub struct Store {
    broker: Broker,
    publisher: Publisher,
    state: watch::Receiver<StreamState>,
    largest: Arc<Mutex<Option<(Instant, String)>>>,
}

impl Store {
    /// A store over the broker's connection; `state` is what is known of the stream.
    pub fn new(broker: &Broker, state: watch::Receiver<StreamState>) -> Self {
        let publisher = Publisher::new(broker);
        Self { broker: broker.clone(), publisher, state, largest: Arc::default() }
    }

    /// Stores the activity before `answer_by`; true if it had been stored before.
    pub async fn store(&self, lane: &Lane, activity: StoredActivity, answer_by: Instant) -> Result<bool, Refusal> {
        // What a stream with, say, discard old acknowledges it may drop: better not to ask.
        if let StreamState::Unsafe(reason) = &*self.state.borrow() {
            return Err(Refusal::StreamUnsafe(reason.clone()));
        }
        let headers = activity.to_headers();
        let began = Instant::now();
        let left = answer_by.saturating_duration_since(began);
        let stored = self.publisher.store(lane, headers, activity.body, left).await;
        published(stored.as_ref().err().map(broker_kind), began.elapsed());
        match stored {
            Ok(stored) => {
                Span::current().record(attributes::SEQ, attributes::number(stored.sequence.0));
                spans::set(&Span::current(), KeyValue::new(attributes::DUPLICATE, stored.duplicate));
                Ok(stored.duplicate)
            }
            Err(refused) => {
                spans::failed(&Span::current(), broker_kind(&refused), refused.to_string());
                let more = self.more(&refused, answer_by).await;
                Err(Refusal::Broker { refused, lane: lane.clone(), more })
            }
        }
    }

    /// What helps beside the refusal itself: the lane's limit, or who fills the stream.
    async fn more(&self, refused: &Refused, answer_by: Instant) -> Option<String> {
        match refused {
            Refused::LaneFull => {
                let limit = self.state.borrow().facts()?.messages_per_lane?;
                Some(format!("its limit is {limit}"))
            }
            Refused::StreamFull(_) | Refused::StorageFull(_) => self.largest_lane(answer_by).await,
            _ => None,
        }
    }

    async fn largest_lane(&self, answer_by: Instant) -> Option<String> {
        let patience = LARGEST_PATIENCE.min(answer_by.saturating_duration_since(Instant::now()));
        timeout(patience, self.ask_for_largest_lane()).await.ok()?
    }

    /// One question at a time: whoever waits for the lock finds the answer there.
    async fn ask_for_largest_lane(&self) -> Option<String> {
        let mut known = self.largest.lock().await;
        if let Some((at, sentence)) = &*known
            && at.elapsed() < LARGEST_FRESH
        {
            return Some(sentence.clone());
        }
        let (subject, messages) = lanes::largest(&self.broker).await.ok()??;
        let name = Lane::from_subject(&subject).map_or(subject, |lane| lane.to_string());
        let sentence = format!("the largest lane is {name} with {messages} activities");
        *known = Some((Instant::now(), sentence.clone()));
        Some(sentence)
    }
}

/// How long the broker took to ack, or until it was clear why it does not.
fn published(error: Option<&'static str>, took: Duration) {
    let system = KeyValue::new(attributes::MESSAGING_SYSTEM, attributes::NATS);
    let operation = KeyValue::new(attributes::MESSAGING_OPERATION, "publish");
    let took = took.as_secs_f64();
    match error {
        None => PUBLISH_DURATION.record(took, &[system, operation]),
        Some(kind) => PUBLISH_DURATION.record(took, &[system, operation, KeyValue::new(attributes::ERROR_TYPE, kind)]),
    }
}
