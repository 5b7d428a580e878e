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
//! | later | retry, not before Retry-After; of a 500 also whether the remote takes others meanwhile |
//! | 500 again and again, while it does | (the window's own rule) poison: parked, `DeliveryFailed` |
//! | no key, 401 or a redirect for FED_KEY_WAIT, while others pass | rejected; see [`crate::patience`] |
//! | the breaker is open | refused by the link: no attempt was made, not before the next probe |
//! | the horizon passed | (the window's own deadline) expired: parked, `DeliveryFailed` |

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use federation::jetstream::Error as PublishError;
use federation::lanes::{partition_of, remote_of};
use federation::stored::{StoredDelivery, header};
use federation::{Attempts, Delivery, FederationEvent, JetStreamPublisher, Verdict};
use fedstream_carrier::{Attempt, Copy, Direction, Ended, FarSide, Item, Loaded, Outcomes, Plan, Way};
use fedstream_jetstream::lane_settings::LaneSettings;
use fedstream_jetstream::parked::header as parked;
use fedstream_jetstream::{Created, Refused, StoredMessage};
use fedstream_lane::{Answer, Batch, End, Epoch, Final, GateId, LaneName, OutboxLane, ParkReason};
use fedstream_service::readiness::Readiness;
use fedstream_service::shutdown::CancellationToken;
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::Span;

use crate::gone::Gone;
use crate::patience::{Patience, Waiting};
use crate::plan::{self, Settings};
use crate::remotes::{Entry, Remotes, millis};
use crate::series;
use crate::suspicion::{Evidence, Suspicion};

/// What all outbound lanes share.
pub type Shared = fedstream_carrier::Shared<Outbound>;

/// A remote has no lives to be told apart: what is posted to it counts when it answers.
pub(crate) const GATE: GateId = GateId(1);

/// On the readiness page: publishers that count partitions otherwise.
const PARTITIONS: &str = "partitions";

/// What all outbound lanes have in common.
pub struct Outbound {
    /// How they are carried.
    pub settings: Settings,
    /// Signs and posts.
    pub attempts: Attempts,
    /// Which remotes are down.
    pub remotes: Arc<Remotes>,
    /// Which of them take something, while they fail on something else.
    pub evidence: Arc<Evidence>,
    /// How long a key is waited for, and who has been already.
    pub patience: Arc<Patience>,
    /// Which inboxes are not there any more.
    pub gone: Arc<Gone>,
    /// For what applications are told.
    pub events: JetStreamPublisher,
    /// For what an operator should see.
    pub readiness: Readiness,
}

/// One lane's remote, during one epoch.
pub struct ToRemote {
    shared: Arc<Shared>,
    lane: OutboxLane,
    waiting: Arc<Waiting>,
    suspicion: Arc<Suspicion>,
    /// It has been said that a publisher counts partitions otherwise.
    misplaced: AtomicBool,
}

/// One delivery as it is posted.
#[derive(Clone, Debug)]
pub struct Outgoing {
    delivery: Delivery,
    tried_since: OffsetDateTime,
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
        shared.registry.update(lane, |view| {
            view.protocol = Some("ActivityPub".to_owned());
            view.note = None;
        });
        let waiting = Arc::new(Waiting::new(&shared.direction.patience, &lane.remote, Instant::now()));
        let suspicion = Arc::new(Suspicion::new(&shared.direction.evidence, lane));
        let misplaced = AtomicBool::new(false);
        ToRemote { shared: Arc::clone(shared), lane: lane.clone(), waiting, suspicion, misplaced }
    }

    fn far_side(shared: &Shared, lane: &OutboxLane) -> FarSide {
        shared.direction.remotes.far_side(&lane.remote)
    }

    /// The application hears of what was given up. Told again after a crash, it is one event: the broker knows its id.
    async fn parked(shared: &Shared, copy: &Copy<OutboxLane>) -> Result<(), String> {
        let Ok(delivery) = StoredDelivery::read(|name| header_of(copy, name), &copy.body) else {
            return Ok(()); // whose it was, nobody can say; the copy is there for people
        };
        let event = delivery.failed(in_words(copy));
        tell(&shared.direction.events, copy, event).await
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
        let belongs_to = partition_of(signing_actor_id, self.shared.direction.settings.partitions);
        if belongs_to != self.lane.partition {
            self.say_misplaced(belongs_to);
        }
        let (received_at, deadline) = self.shared.direction.settings.times(particulars.tried_since(message.stored_at));
        let trace = particulars.trace;
        let delivery = Delivery { inbox, activity, signing_actor_id };
        let tried_since = received_at;
        let item = Outgoing { delivery, tried_since, traceparent: trace.parent, tracestate: trace.state };
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
        let (shared, lane) = (Arc::clone(&self.shared), self.lane.clone());
        let (waiting, suspicion) = (Arc::clone(&self.waiting), Arc::clone(&self.suspicion));
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
            let mut turn = match entry {
                Entry::Turn(turn) => turn,
                Entry::Closed(left) => {
                    waiting.stands(Instant::now());
                    let end = End::Refused { retry_after_ms: Some(millis(left)) };
                    return Ended::because(
                        end,
                        "the remote does not answer: it is asked again by one request at a time",
                    );
                }
            };
            let (rule, inbox) = (&direction.settings.poison, &item.delivery.inbox);
            let request = async {
                let page = match suspicion.page_to_ask(Instant::now(), seq, rule) {
                    Some(path) => direction.attempts.answers(inbox, path).await,
                    None => false,
                };
                // What is heard of others while the attempt is under way says nothing of the remote that it asks.
                let alive = suspicion.others_are_taken(seq) || page;
                let (began, begun) = (suspicion.begins(), waiting.begins(Instant::now(), seq, age(item.tried_since)));
                (alive, began, begun, direction.attempts.attempt(&item.delivery).await)
            };
            let (alive, began, begun, attempted) = tokio::select! {
                made = turn.during(request) => made,
                () = called_off.cancelled() => return Ended::called_off(), // the lane is not ours any more
            };
            series::requested(&attempted);
            turn.heard(attempted.report(u64::from(lane.partition)));
            let is_fault = attempted.verdict.is_fault();
            let closed = direction.remotes.far_side(&lane.remote) == FarSide::Closed;
            let waited_long_enough = waiting.heard(Instant::now(), &begun, &item.delivery, &attempted, closed);
            let (outcome, status, body) = match attempted.verdict {
                Verdict::Delivered { status } => (Final::Delivered, Some(status), None),
                Verdict::Refused { status, cause } => (Final::Rejected, status, Some(cause.into())),
                Verdict::Retry { status, cause, .. } if waited_long_enough => {
                    (Final::Rejected, status, Some(cause.into()))
                }
                Verdict::Retry { status, after, cause } => {
                    let alive = suspicion.failed(Instant::now(), seq, is_fault, alive);
                    let retry_after_ms = after.map(millis);
                    return Ended::because(End::Retry { seq, status, alive, retry_after_ms }, cause);
                }
            };
            suspicion.settled(began, outcome == Final::Delivered);
            direction.gone.heard(Instant::now(), inbox, item.delivery.signing_actor_id, status);
            outcomes.tell(seq, Answer { outcome, status: status.unwrap_or(0), body }).await;
            Ended::done()
        }
    }
}

impl ToRemote {
    /// It is delivered all the same: what its actor has in the other lane may overtake it, and nothing else is wrong with it.
    fn say_misplaced(&self, belongs_to: u16) {
        if self.misplaced.swap(true, Ordering::Relaxed) {
            return;
        }
        let (lane, of) = (&self.lane, self.shared.direction.settings.partitions);
        tracing::warn!(%lane, belongs_to, of, "a delivery is in another partition than its actor's: a publisher counts otherwise than FED_PARTITIONS, and what it sends may be overtaken");
        let note =
            format!("it has deliveries of actors of partition {belongs_to} of {of}: they may overtake themselves");
        self.shared.direction.readiness.note(PARTITIONS, Some(format!("{lane}: {note}")));
        self.shared.registry.update(lane, |view| view.note = Some(note));
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
    header::REDRIVE,
    header::TRACEPARENT,
    header::TRACESTATE,
];

/// Tells the application that this was given up. Of an equal one that was sent again it is told as well: ids of events are
/// made of what stands in the stream, the copy of a message there is the same after a crash.
pub(crate) async fn tell<L: LaneName>(
    events: &JetStreamPublisher,
    copy: &Copy<L>,
    event: FederationEvent,
) -> Result<(), String> {
    let delivery = format!("{}.{}", copy.seq, header_of(copy, parked::MSG_ID).unwrap_or_default());
    match events.store_of(event, &delivery).await {
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

/// A header of the copy.
pub(crate) fn header_of<'c, L>(copy: &'c Copy<L>, name: &str) -> Option<&'c str> {
    copy.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
}

/// Why it was given up, for the application.
pub(crate) fn in_words<L>(copy: &Copy<L>) -> String {
    let said = header_of(copy, parked::ANSWER);
    words(copy.reason, header_of(copy, parked::ATTEMPTS).unwrap_or("0"), said)
}

fn words(reason: ParkReason, attempts: &str, said: Option<&str>) -> String {
    let said = said.unwrap_or("nothing was heard of the remote");
    match reason {
        ParkReason::Rejected => said.to_owned(),
        // Of its own worker's, in the last of its lane's turns: a remote that is known to be down is not asked for each of them.
        ParkReason::Expired if attempts == "0" => format!("given up when its time was over: {said}"),
        ParkReason::Expired => format!("given up after {attempts} attempts, the last of which met: {said}"),
        ParkReason::Operator => "taken out of its lane by an operator".to_owned(),
        ParkReason::Poison => {
            format!(
                "given up after {attempts} attempts, while the remote answered others; the last of them met: {said}"
            )
        }
        ParkReason::Unprocessed | ParkReason::Unreadable | ParkReason::RemoteFull => {
            format!("{reason}: {said}")
        }
    }
}

/// For how long an activity waits that is tried since then.
fn age(since: OffsetDateTime) -> Duration {
    Duration::try_from(OffsetDateTime::now_utc() - since).unwrap_or_default() // a clock that was set back: it has just come
}

/// Until when an activity is tried that is tried since then, and since when it waits.
///
/// What is overdue when it is read has a minute: workers that were away for days must not throw away what they could
/// deliver now.
pub(crate) fn times(since: OffsetDateTime, horizon: Duration) -> (OffsetDateTime, OffsetDateTime) {
    const AT_LEAST: Duration = Duration::from_secs(60);
    let now = OffsetDateTime::now_utc();
    let since = since.min(now); // a clock that is ahead makes no horizon longer
    (since, (since + horizon).max(now + AT_LEAST.min(horizon)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_horizon_counts_from_the_request_and_leaves_a_minute_at_least() {
        let (now, day) = (OffsetDateTime::now_utc(), Duration::from_secs(86_400));
        let near = |one: OffsetDateTime, other: OffsetDateTime| (one - other).abs() < Duration::from_secs(10);
        let (since, until) = times(now - day / 2, day);
        assert!(near(since, now - day / 2) && near(until, now + day / 2));
        let (_, until) = times(now - 3 * day, day);
        assert!(near(until, now + Duration::from_secs(60)));
        let (since, until) = times(now + day, day);
        assert!(near(since, now) && near(until, now + day));
    }

    #[test]
    fn an_application_reads_why() {
        assert_eq!(words(ParkReason::Rejected, "1", Some("the remote answered 410")), "the remote answered 410");
        let expired = words(ParkReason::Expired, "9", Some("no connection"));
        assert_eq!(expired, "given up after 9 attempts, the last of which met: no connection");
        let unasked = words(ParkReason::Expired, "0", None);
        assert_eq!(unasked, "given up when its time was over: nothing was heard of the remote");
        let poison = words(ParkReason::Poison, "12", Some("the remote answered 500"));
        assert!(poison.starts_with("given up after 12 attempts, while the remote answered others"), "{poison}");
    }
}
