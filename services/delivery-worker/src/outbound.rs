//! Where outbound lanes go: to a remote's inbox, one signed POST at a time.
//!
//! ```text
//!   window ─Post(one)─▶ remotes: may it go now? ─▶ Attempts: signed anew, POST ─▶ verdict ─▶ outcome, or again
//!   FED_PARKED ◀─ given up ─▶ DeliveryFailed ─▶ FED_EVENTS
//! ```
//!
//! | verdict | the window hears |
//! |---|---|
//! | delivered | delivered |
//! | refused for good | rejected: parked with the answer, `DeliveryFailed` |
//! | later | retry, not before Retry-After |
//! | no key for FED_KEY_WAIT | rejected |
//! | the breaker is open | refused by the link: no attempt was made, not before the next probe |
//! | the horizon passed | (the window's own deadline) expired: parked, `DeliveryFailed` |

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use federation::jetstream::Error as PublishError;
use federation::lanes::remote_of;
use federation::stored::{StoredDelivery, header};
use federation::{Attempts, Delivery, JetStreamPublisher, Verdict};
use fedstream_carrier::{Attempt, Copy, Direction, Ended, Item, Loaded, Outcomes, Plan, Way};
use fedstream_jetstream::lane_settings::LaneSettings;
use fedstream_jetstream::parked::header as parked;
use fedstream_jetstream::{Created, Refused, StoredMessage};
use fedstream_lane::{Answer, Batch, End, Epoch, Final, GateId, OutboxLane, ParkReason, Seq};
use fedstream_service::shutdown::CancellationToken;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::Span;

use crate::plan::{self, Settings};
use crate::remotes::{Entry, Remotes, millis};

/// What all outbound lanes share.
pub type Shared = fedstream_carrier::Shared<Outbound>;

/// A remote has no lives to be told apart: what is posted to it counts when it answers.
pub(crate) const GATE: GateId = GateId(1);

/// What all outbound lanes have in common.
pub struct Outbound {
    /// How they are carried.
    pub settings: Settings,
    /// Signs and posts.
    pub attempts: Attempts,
    /// Which remotes are down.
    pub remotes: Arc<Remotes>,
    /// For what applications are told.
    pub events: JetStreamPublisher,
}

/// One lane's remote, during one epoch.
pub struct ToRemote {
    shared: Arc<Shared>,
    lane: OutboxLane,
    keyless: Arc<Keyless>,
}

/// One delivery as it is posted.
#[derive(Clone, Debug)]
pub struct Outgoing {
    delivery: Delivery,
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl Item for Outgoing {
    fn activity_id(&self) -> &str {
        self.delivery.activity.id()
    }

    fn trace(&mut self) -> (&mut Option<String>, &mut Option<String>) {
        (&mut self.traceparent, &mut self.tracestate)
    }
}

impl Direction for Outbound {
    type Lane = OutboxLane;
    type Item = Outgoing;
    type Way = ToRemote;

    const KEPT_HEADERS: &'static [&'static str] = KEPT_HEADERS;

    fn way(shared: &Arc<Shared>, lane: &OutboxLane, _: Created, _: Epoch, _: &LaneSettings) -> ToRemote {
        shared.registry.update(lane, |view| view.protocol = Some("ActivityPub".to_owned()));
        ToRemote { shared: Arc::clone(shared), lane: lane.clone(), keyless: Arc::default() }
    }

    /// The application hears of what was given up. Told again after a crash, it is one event: the broker knows its id.
    async fn parked(shared: &Shared, copy: &Copy<OutboxLane>) -> Result<(), String> {
        let get = |name| copy.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
        let Ok(delivery) = StoredDelivery::read(get, &copy.body) else {
            return Ok(()); // whose it was, nobody can say; the copy is there for people
        };
        let attempts = get(parked::ATTEMPTS).unwrap_or("0");
        let error = in_words(copy.reason, attempts, get(parked::ANSWER));
        match shared.direction.events.store(delivery.failed(error)).await {
            Ok(()) => Ok(()),
            Err(PublishError::NotStored { refused, .. }) if refused != Refused::TooLarge => {
                Err(format!("DeliveryFailed can't be published: {refused}"))
            }
            // It never could be, and the lane must not wait for it.
            Err(error) => {
                let (lane, seq) = (&copy.lane, copy.seq.0);
                tracing::error!(%lane, seq, %error, "the application can't be told of a delivery that was given up: the copy in FED_PARKED is all there is");
                Ok(())
            }
        }
    }
}

impl Way for ToRemote {
    type Item = Outgoing;

    fn plan(&self, settings: LaneSettings) -> Plan {
        plan::one_at_a_time(&self.shared.direction.settings, settings)
    }

    fn gate(&self) -> Option<GateId> {
        Some(GATE)
    }

    fn read(&self, message: &StoredMessage) -> Result<Loaded<Outgoing>, String> {
        let stored = StoredDelivery::read(|name| message.headers.get(name), &message.payload);
        let stored = stored.map_err(|error| error.to_string())?;
        // What is in the wrong lane would fail at another remote than the lane's, and hold that one's deliveries up.
        if remote_of(&stored.inbox).ok().as_ref() != Some(&self.lane.remote) {
            return Err(format!("its inbox {} is not at {}", stored.inbox, self.lane.remote));
        }
        let StoredDelivery { inbox, activity, signing_actor_id, particulars } = stored;
        let (received_at, deadline) = self.shared.direction.settings.times(particulars.requested_at);
        let trace = particulars.trace;
        let delivery = Delivery { inbox, activity, signing_actor_id };
        let item = Outgoing { delivery, traceparent: trace.parent, tracestate: trace.state };
        Ok(Loaded { item, bytes: message.payload.len(), received_at, deadline: Some(deadline) })
    }

    /// The attempt's own: its POST is one delivery, and has a span of its own inside.
    fn span(&self, _: &Batch, attempts: &[Attempt<Outgoing>]) -> Span {
        attempts.first().map_or_else(Span::none, |attempt| attempt.span.clone())
    }

    fn post(
        &self,
        _: &Plan,
        _: &Batch,
        attempts: Vec<Attempt<Outgoing>>,
        called_off: CancellationToken,
        outcomes: Outcomes,
    ) -> impl Future<Output = Ended> + Send + use<> {
        let (shared, lane, keyless) = (Arc::clone(&self.shared), self.lane.clone(), Arc::clone(&self.keyless));
        async move {
            let Some(Attempt { seq, item, .. }) = attempts.into_iter().next() else {
                return Ended::done(); // nothing to post: a window with a gate makes no empty batch
            };
            let direction = &shared.direction;
            let entry = tokio::select! {
                entry = direction.remotes.enter(&lane.remote) => entry,
                () = shared.drain.cancelled() => return Ended::called_off(),
                () = called_off.cancelled() => return Ended::called_off(),
            };
            let turn = match entry {
                Entry::Turn(turn) => turn,
                Entry::Closed(left) => {
                    let end = End::Refused { retry_after_ms: Some(millis(left)) };
                    return Ended::because(
                        end,
                        "the remote does not answer: it is asked again by one request at a time",
                    );
                }
            };
            let attempted = tokio::select! {
                attempted = direction.attempts.attempt(&item.delivery) => attempted,
                () = called_off.cancelled() => return Ended::called_off(), // the lane is not ours any more
            };
            turn.heard(attempted.report());
            let (outcome, status, body) = match attempted.verdict {
                Verdict::Delivered { status } => (Final::Delivered, Some(status), None),
                Verdict::Refused { status, cause } => (Final::Rejected, status, Some(cause.into())),
                Verdict::Retry { cause, .. }
                    if attempted.requests == 0 && keyless.for_how_long(seq) >= direction.settings.key_wait =>
                {
                    (Final::Rejected, None, Some(cause.into()))
                }
                Verdict::Retry { status, after, cause } => {
                    let retry_after_ms = after.map(millis);
                    return Ended::because(End::Retry { seq, status, alive: false, retry_after_ms }, cause);
                }
            };
            outcomes.tell(seq, Answer { outcome, status: status.unwrap_or(0), body }).await;
            Ended::done()
        }
    }
}

/// Since when the head of a lane is not sent for want of a key. It would hold up every other actor of its partition; a key
/// that is mounted late is waited for all the same, and so is a directory that is away for a while.
#[derive(Debug, Default)]
struct Keyless(Mutex<Option<(Seq, Instant)>>);

impl Keyless {
    /// One more attempt that found none.
    fn for_how_long(&self, seq: Seq) -> Duration {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *since {
            Some((known, since)) if known == seq => since.elapsed(),
            _ => {
                *since = Some((seq, Instant::now()));
                Duration::ZERO
            }
        }
    }
}

/// Headers that a parked copy keeps.
pub(crate) const KEPT_HEADERS: &[&str] = &[
    header::MSG_ID,
    header::VERSION,
    header::ACTIVITY_ID,
    header::ACTIVITY_TYPE,
    header::INBOX,
    header::ACTOR,
    header::REQUESTED_AT,
    header::TRACEPARENT,
    header::TRACESTATE,
];

/// Why it was given up, for the application.
fn in_words(reason: ParkReason, attempts: &str, said: Option<&str>) -> String {
    let said = said.unwrap_or("nothing was heard of the remote");
    match reason {
        ParkReason::Rejected => said.to_owned(),
        ParkReason::Expired => format!("given up after {attempts} attempts, the last of which met: {said}"),
        ParkReason::Operator => "taken out of its lane by an operator".to_owned(),
        ParkReason::Poison | ParkReason::Unprocessed | ParkReason::Unreadable => format!("{reason}: {said}"),
    }
}

/// Until when an activity is tried, and since when it waits. A message without a time counts from when it is read.
///
/// What is overdue when it is read has a minute: workers that were away for days must not throw away what they could
/// deliver now.
pub(crate) fn times(requested_at: Option<OffsetDateTime>, horizon: Duration) -> (OffsetDateTime, OffsetDateTime) {
    const AT_LEAST: Duration = Duration::from_secs(60);
    let now = OffsetDateTime::now_utc();
    let requested_at = requested_at.unwrap_or(now).min(now); // a clock that is ahead makes no horizon longer
    (requested_at, (requested_at + horizon).max(now + AT_LEAST.min(horizon)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_horizon_counts_from_the_request_and_leaves_a_minute_at_least() {
        let (now, day) = (OffsetDateTime::now_utc(), Duration::from_secs(86_400));
        let near = |one: OffsetDateTime, other: OffsetDateTime| (one - other).abs() < Duration::from_secs(10);
        let (since, until) = times(Some(now - day / 2), day);
        assert!(near(since, now - day / 2) && near(until, now + day / 2));
        let (_, until) = times(Some(now - 3 * day), day);
        assert!(near(until, now + Duration::from_secs(60)));
        let (since, until) = times(Some(now + day), day);
        assert!(near(since, now) && near(until, now + day));
        assert!(near(times(None, day).1, now + day));
    }

    #[test]
    fn an_application_reads_why() {
        assert_eq!(in_words(ParkReason::Rejected, "1", Some("the remote answered 410")), "the remote answered 410");
        let expired = in_words(ParkReason::Expired, "9", Some("no connection"));
        assert_eq!(expired, "given up after 9 attempts, the last of which met: no connection");
    }
}
