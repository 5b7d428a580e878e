//! One batch at its lane's gate, item by item: asks the gate, does what it says, and tells the sender line by line.
//!
//! It decides nothing: whether an item is begun, waits or is known already is the gate's word, what the instance's
//! answer means is the verdict's. It ends at the first item without a final outcome, and it begins nothing for a sender
//! that has gone, since nobody would hear the outcome; what was begun goes on without it (see [`Deliveries`]).

use std::sync::Arc;
use std::time::Duration;

use fedstream_lane::{Answer, Moment, Seq, Visit};
use fedstream_service::attributes;
use fedstream_wire::v2::{Closing, Line};
use tokio::sync::watch;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::clock::Clock;
use crate::delivery::{Deliveries, Ended};
use crate::lane_gate::{Adoption, LaneGate, Patience, Turn};
use crate::lines::{Gone, Lines};
use crate::parcel::Parcel;
use crate::verdict::Verdict;

/// When a sender whose batch was not finished because of a shutdown should come back: restarts are quick.
pub const COME_BACK: Duration = Duration::from_secs(1);

/// A batch that was let in.
#[derive(Debug)]
pub struct BatchVisit {
    /// Its lane's gate.
    pub gate: Arc<LaneGate>,
    /// How its items go to the instance.
    pub deliveries: Deliveries,
    /// The gate's time.
    pub clock: Clock,
    /// Cancelled at shutdown: no further item is begun.
    pub stopping: CancellationToken,
    /// The item that its owner put before the next one.
    pub prev: Seq,
    /// To the sender.
    pub lines: Lines,
}

/// Why a visit ends.
enum End {
    /// The sender has gone: nobody to tell.
    Gone,
    /// With this closing line.
    Closed(Closing),
}

impl BatchVisit {
    /// Takes the items in turn. Ends with a closing line, or when the sender has gone.
    pub async fn run(mut self, parcels: Vec<Parcel>) {
        let lane = self.deliveries.lane.clone();
        match self.all(parcels).await {
            End::Gone => tracing::debug!(%lane, "the sender has gone in the middle of a batch"),
            End::Closed(closing) => {
                tell(&lane, &closing);
                // A sender that goes now has its outcomes, or asks again.
                self.lines.send(Line::End(closing)).await.ok();
            }
        }
    }

    async fn all(&mut self, parcels: Vec<Parcel>) -> End {
        if parcels.is_empty() {
            return self.adopted().await.unwrap_or_else(|end| end);
        }
        for parcel in parcels {
            let seq = parcel.seq;
            let outcome = match self.item(parcel).await {
                Ok(answer) => self.lines.send(Line::Outcome(seq, answer)).await.map_err(End::from),
                Err(end) => Err(end),
            };
            if let Err(end) = outcome {
                return end;
            }
            self.prev = seq;
        }
        End::Closed(Closing::Done)
    }

    /// A batch of nothing closes the gate for older epochs, for a lane that goes on elsewhere: it is done when nothing of
    /// theirs is at the instance any more.
    async fn adopted(&mut self) -> Result<End, End> {
        let mut changes = self.gate.changes();
        loop {
            self.goes_on()?;
            changes.mark_unchanged();
            match self.gate.adoption(self.deliveries.epoch) {
                Adoption::InForce => return Ok(End::Closed(Closing::Done)),
                Adoption::Coming => self.wait(&mut changes, None).await?,
                Adoption::Stale(known) => return Err(End::Closed(Closing::StaleEpoch { known })),
            }
        }
    }

    /// Ends the visit at shutdown, and when nobody would hear the outcome.
    fn goes_on(&self) -> Result<(), End> {
        if self.stopping.is_cancelled() {
            return Err(End::Closed(Closing::Overloaded { retry_after_s: Some(COME_BACK.as_secs()) }));
        }
        if self.lines.has_gone() {
            return Err(End::Gone);
        }
        Ok(())
    }

    /// One item's final outcome.
    async fn item(&mut self, parcel: Parcel) -> Result<Answer, End> {
        let (epoch, since) = (self.deliveries.epoch, self.clock.now());
        let mut patience = Patience::from(since);
        let mut changes = self.gate.changes();
        loop {
            // All of it is asked again after every wait, with no await before the item is begun.
            self.goes_on()?;
            // Before the gate is asked: a change after that is heard.
            changes.mark_unchanged();
            let visit = Visit { epoch, prev: self.prev, seq: parcel.seq, msg_id: &parcel.msg_id, since };
            match self.gate.step(self.clock.now(), &mut patience, &visit) {
                Turn::Deliver(at_instance) => {
                    let seq = parcel.seq;
                    let delivery = self.deliveries.begin(parcel, at_instance);
                    let ended = self.lines.alive_while(delivery).await?.unwrap_or_else(|error| {
                        let lane = &self.deliveries.lane;
                        tracing::error!(%lane, seq = seq.0, %error, "a delivery ended without a verdict");
                        let verdict = Verdict::unanswered("the delivery failed inside the batch-receiver");
                        Ended { verdict, alive: false }
                    });
                    let alive = ended.alive;
                    return match ended.verdict {
                        Verdict::Final(answer) => Ok(answer),
                        Verdict::Retry { status, retry_after_s, cause } => {
                            Err(End::Closed(Closing::Retry { seq, status, retry_after_s, alive, cause }))
                        }
                    };
                }
                Turn::Answer(answer) => return Ok(answer),
                Turn::Wait(until) => self.wait(&mut changes, until).await?,
                Turn::Gap(last) => return Err(End::Closed(Closing::Gap { last })),
                Turn::Stale(known) => return Err(End::Closed(Closing::StaleEpoch { known })),
            }
        }
    }

    /// Until the gate changed, that moment has come, or the process is told to stop.
    async fn wait(&mut self, changes: &mut watch::Receiver<()>, until: Option<Moment>) -> Result<(), End> {
        let gate = self.gate.clone();
        let _waiting = gate.waiting();
        let due = until.map(|moment| self.clock.due(moment));
        let at_due = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let stopping = self.stopping.clone();
        let something = async {
            tokio::select! {
                () = stopping.cancelled() => {}
                // The gate is held here, so its signal doesn't end.
                _ = changes.changed() => {}
                () = at_due => {}
            }
        };
        Ok(self.lines.alive_while(something).await?)
    }
}

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// One line a batch that did not end well; a batch that did is no news.
fn tell(lane: &fedstream_lane::Lane, closing: &Closing) {
    Span::current().record(attributes::BATCH_END, name(closing));
    match closing {
        Closing::Done => tracing::debug!(%lane, "batch done"),
        Closing::Retry { seq, status, retry_after_s, alive, cause } => {
            tracing::warn!(%lane, seq = seq.0, status, retry_after_s, alive, cause, "an activity has to be tried again");
        }
        Closing::Gap { last } => tracing::warn!(%lane, last = last.0, "a batch came, an earlier one did not"),
        Closing::Overloaded { .. } => tracing::info!(%lane, "a batch is not finished: this receiver stops"),
        Closing::StaleEpoch { known } => {
            tracing::warn!(%lane, epoch = known.0, "a batch of an owner that was replaced meanwhile")
        }
    }
}

/// The closing's name in spans, the same as batch-sender's.
fn name(closing: &Closing) -> &'static str {
    match closing {
        Closing::Done => "done",
        Closing::Retry { .. } => "retry",
        Closing::Gap { .. } => "gap",
        Closing::Overloaded { .. } => "overloaded",
        Closing::StaleEpoch { .. } => "stale_epoch",
    }
}
