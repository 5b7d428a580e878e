//! The least that a direction can be: outbound lanes, one letter at a time, to a remote that a test plays.

use std::sync::Arc;

use fedstream_carrier::{Attempt, Copy, Direction, Ended, FarSide, Item, Loaded, Outcomes, Plan, Shared, Way};
use fedstream_jetstream::publish::MSG_ID;
use fedstream_jetstream::{Created, LaneSettings, StoredMessage};
use fedstream_lane::{Answer, Batch, End, Epoch, Final, GateId, OutboxLane, ParkReason, WindowLimits};
use fedstream_service::shutdown::CancellationToken;
use time::OffsetDateTime;
use tokio::sync::watch;
use tracing::Span;

/// Says when a letter is out of date, if it ever is: `now`.
pub const DEADLINE: &str = "Test-Deadline";

/// What the remote does with a letter.
pub enum Verdict {
    Takes,
    Refuses,
    IsBusy,
    NeverAnswers,
    /// It has heard of a later owner.
    KnowsALater,
}

/// One visit of a letter at the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    pub lane: OutboxLane,
    pub epoch: Epoch,
    pub text: String,
    /// Attempts of the same owner before.
    pub before: u32,
    pub is_taken: bool,
}

/// What was told when a copy was parked, and whether that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub lane: OutboxLane,
    pub reason: ParkReason,
    pub body: String,
}

/// The far side of all lanes, and of all processes of a test. Clones are the same one.
#[derive(Clone)]
pub struct Remote {
    verdict: Arc<dyn Fn(&Visit) -> Verdict + Send + Sync>,
    far_side: Arc<dyn Fn(&OutboxLane) -> FarSide + Send + Sync>,
    pub visits: watch::Sender<Vec<Visit>>,
    pub told: watch::Sender<Vec<Told>>,
}

impl Remote {
    pub fn new(verdict: impl Fn(&Visit) -> Verdict + Send + Sync + 'static) -> Self {
        let far_side = Arc::new(|_: &OutboxLane| FarSide::Well);
        Self { verdict: Arc::new(verdict), far_side, visits: watch::Sender::default(), told: watch::Sender::default() }
    }

    /// What its processes know of it, besides.
    pub fn known_as(self, far_side: impl Fn(&OutboxLane) -> FarSide + Send + Sync + 'static) -> Self {
        Self { far_side: Arc::new(far_side), ..self }
    }

    /// What it took of a lane, in order.
    pub fn taken(visits: &[Visit], lane: &OutboxLane) -> Vec<String> {
        visits.iter().filter(|visit| visit.is_taken && visit.lane == *lane).map(|visit| visit.text.clone()).collect()
    }

    fn visit(&self, mut visit: Visit) -> Verdict {
        let verdict = (self.verdict)(&visit);
        visit.is_taken = matches!(verdict, Verdict::Takes);
        self.visits.send_modify(|visits| visits.push(visit));
        verdict
    }
}

/// All lanes go to one remote.
pub struct Outbound(pub Remote);

pub struct ToRemote {
    remote: Remote,
    lane: OutboxLane,
    epoch: Epoch,
}

#[derive(Clone, Debug)]
pub struct Letter {
    text: String,
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl Item for Letter {
    fn activity_id(&self) -> &str {
        &self.text
    }

    fn trace(&mut self) -> (&mut Option<String>, &mut Option<String>) {
        (&mut self.traceparent, &mut self.tracestate)
    }
}

impl Direction for Outbound {
    type Lane = OutboxLane;
    type Item = Letter;
    type Way = ToRemote;

    const KEPT_HEADERS: &'static [&'static str] = &[MSG_ID, "Test-Kept"];

    fn way(
        shared: &Arc<Shared<Self>>,
        lane: &OutboxLane,
        _created: Created,
        epoch: Epoch,
        _settings: &LaneSettings,
    ) -> ToRemote {
        ToRemote { remote: shared.direction.0.clone(), lane: lane.clone(), epoch }
    }

    fn far_side(shared: &Shared<Self>, lane: &OutboxLane) -> FarSide {
        (shared.direction.0.far_side)(lane)
    }

    /// Fails the first time.
    async fn parked(shared: &Shared<Self>, copy: &Copy<OutboxLane>) -> Result<(), String> {
        let told = Told {
            lane: copy.lane.clone(),
            reason: copy.reason,
            body: String::from_utf8_lossy(&copy.body).into_owned(),
        };
        let mut is_first = false;
        shared.direction.0.told.send_modify(|all| {
            is_first = !all.contains(&told);
            all.push(told);
        });
        if is_first { Err("the postmaster is away".to_owned()) } else { Ok(()) }
    }
}

impl Way for ToRemote {
    type Item = Letter;

    fn plan(&self, settings: LaneSettings) -> Plan {
        let limits = WindowLimits {
            batch_items: 1,
            batch_bytes: 1 << 20,
            posts: 1,
            in_flight_items: 1,
            in_flight_bytes: 1 << 20,
            items: 8,
            bytes: 1 << 20,
            linger_ms: 0,
            rate_per_s: None,
            trim_interval_ms: 20,
            rejections_max: 0,
            poison_attempts: u32::MAX,
            poison_after_ms: u64::MAX,
        };
        Plan::new(settings, limits)
    }

    /// A remote has no lives to be told apart.
    fn gate(&self) -> Option<GateId> {
        Some(GateId(1))
    }

    fn read(&self, message: &StoredMessage) -> Result<Loaded<Letter>, String> {
        let text = String::from_utf8(message.payload.to_vec()).map_err(|_| "not a text".to_owned())?;
        let received_at = OffsetDateTime::now_utc();
        let deadline = message.headers.get(DEADLINE).map(|_| received_at);
        let bytes = text.len();
        Ok(Loaded { item: Letter { text, traceparent: None, tracestate: None }, bytes, received_at, deadline })
    }

    fn span(&self, _batch: &Batch, attempts: &[Attempt<Letter>]) -> Span {
        attempts.first().map_or_else(Span::none, |attempt| tracing::info_span!(parent: &attempt.span, "POST"))
    }

    fn post(
        &self,
        _plan: &Plan,
        _batch: &Batch,
        attempts: Vec<Attempt<Letter>>,
        called_off: CancellationToken,
        outcomes: Outcomes,
    ) -> impl Future<Output = Ended> + Send + use<> {
        let (remote, lane, epoch) = (self.remote.clone(), self.lane.clone(), self.epoch);
        async move {
            let [attempt] = attempts.try_into().expect("one letter at a time");
            let Attempt { seq, before, item, .. } = attempt;
            let visit = Visit { lane, epoch, text: item.text, before, is_taken: false };
            let (outcome, status) = match remote.visit(visit) {
                Verdict::Takes => (Final::Delivered, 202),
                Verdict::Refuses => (Final::Rejected, 410),
                Verdict::IsBusy => {
                    let end = End::Retry { seq, status: Some(503), alive: false, retry_after_ms: None };
                    return Ended::because(end, "busy");
                }
                Verdict::KnowsALater => {
                    return Ended::because(End::StaleEpoch(epoch), "a later one");
                }
                Verdict::NeverAnswers => {
                    called_off.cancelled().await;
                    return Ended::called_off();
                }
            };
            outcomes.tell(seq, Answer { outcome, status, body: Some("gone".into()) }).await;
            Ended::done()
        }
    }
}
