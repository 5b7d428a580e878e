//! A lane's lease in this process, and who looks after it.
//!
//! ```text
//!   take ─▶ ours while the session lives ─▶ .. ─▶ given back, and free at once
//!               ├─ the session is over: every lane of it is lost at once
//!               └─ another entry stands in the bucket: a write makes sure, and it is lost
//! ```
//!
//! Nothing is renewed here: one session is, for all lanes ([`fedstream_jetstream::leases`]). So a lane that rests costs
//! nothing, and its window looks at [`Claim::until`] before each action instead of being told of each renewal.

use std::time::Duration;

use fedstream_jetstream::leases::{Error, Session};
use fedstream_jetstream::members::Holder;
use fedstream_jetstream::{Lease, Leases, Taken};
use fedstream_lane::{Epoch, LaneName};
use fedstream_service::metrics::KeyValue;
use fedstream_service::metrics::table::{LEASE_CHANGE_WORDS, LEASE_CHANGES};
use fedstream_service::shutdown::CancellationToken;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::trouble::Trouble;
use crate::{Direction, Shared};

/// Between two tries to take a lane that another holds. A lane that is given back is free at once; this is how long
/// it may then stand.
const TAKE_EVERY: Duration = Duration::from_millis(500);

/// Between two tries to give a lane back, while the broker doesn't answer.
const RELEASE_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Between two tries to make sure whose a lane is, while the broker doesn't answer.
const CONFIRM_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Why a lane is lost that nobody else is known to have.
pub const NOT_RENEWED: &str = "it could not be renewed in time";

/// What the bucket last showed of a lane, from whoever follows it: whose it is, or that it is nobody's.
pub type Shown = Option<Holder>;

/// How sure this process is of a lane. Clones are of the same one.
#[derive(Clone, Debug)]
pub struct Claim {
    session: Session,
    lost: watch::Receiver<Option<String>>,
}

impl Claim {
    /// Until when it is ours, if its session isn't renewed meanwhile; past where it is lost.
    #[must_use]
    pub fn until(&self) -> Instant {
        let until = self.session.until();
        if self.lost.borrow().is_some() { until.min(Instant::now()) } else { until }
    }

    /// Why it isn't ours any more, where somebody knows.
    #[must_use]
    pub fn lost(&self) -> Option<String> {
        self.lost.borrow().clone()
    }

    /// Waits until somebody knows that it isn't ours any more. That its time passes may be known later.
    pub async fn is_lost(&self) -> String {
        match self.lost.clone().wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => "nobody looks after it any more".to_owned(),
        }
    }
}

/// A lane that this process owns.
#[derive(Debug)]
pub struct Ownership {
    epoch: Epoch,
    again: bool,
    claim: Claim,
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
enum Command {
    Bump { at_least: Epoch, reply: oneshot::Sender<Result<Epoch, Error>> },
    Release { reply: oneshot::Sender<()> },
}

impl Ownership {
    /// Takes the lane as soon as nobody holds it; none when told to leave it before. `shown` is what the bucket shows of
    /// the lane from then on.
    pub(crate) async fn take<D: Direction>(
        shared: &Shared<D>,
        lane: &D::Lane,
        mut shown: watch::Receiver<Shown>,
        leave: &CancellationToken,
    ) -> Option<Self> {
        let (leases, registry, sender_id) = (&shared.leases, &shared.registry, &shared.sender_id);
        let mut trouble = Trouble::none(lane, registry);
        loop {
            shown.mark_unchanged(); // that of another, before
            match leases.take(&lane.key(), sender_id, Epoch(0)).await {
                Ok(Taken::Ours(lease)) => {
                    changed("taken");
                    trouble.over(lease.epoch.0);
                    registry.update(lane, |view| view.stands = None);
                    let again = shared.mine.taken(lane.to_string());
                    return Some(Self::keep(shared, lane.to_string(), lease, shown, again));
                }
                Ok(Taken::Held { owner, epoch }) => {
                    shared.mine.is_anothers(&lane.to_string());
                    let until = format!("{owner} has it until it gives it back, or its lease ends");
                    registry.update(lane, |view| {
                        (view.owner, view.epoch, view.stands) = (Some(owner), epoch.0, Some(until));
                    });
                }
                Err(error) => trouble.failed(0, format!("no lease yet: {error}")),
            }
            tokio::select! {
                () = tokio::time::sleep(TAKE_EVERY) => {}
                () = leave.cancelled() => return None,
            }
        }
    }

    fn keep<D: Direction>(
        shared: &Shared<D>,
        lane: String,
        lease: Lease,
        shown: watch::Receiver<Shown>,
        again: bool,
    ) -> Self {
        let leases = shared.leases.clone();
        let (lost, seen_lost) = watch::channel(None);
        let claim = Claim { session: lease.session().clone(), lost: seen_lost };
        let (commands, received) = mpsc::channel(1);
        let epoch = lease.epoch;
        shared.keepers.spawn(Keeper { leases, lane, lease, lost, shown, commands: received }.run());
        Self { epoch, again, claim, commands }
    }

    /// The fencing token.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// It was this process' before, and nobody else's in between, as far as is known.
    #[must_use]
    pub fn is_again(&self) -> bool {
        self.again
    }

    /// Until when it is ours.
    #[must_use]
    pub fn claim(&self) -> Claim {
        self.claim.clone()
    }

    /// Waits until it isn't ours any more, and says why.
    pub async fn lost(&self) -> String {
        loop {
            let until = self.claim.until();
            if until <= Instant::now() {
                return self.claim.lost().unwrap_or_else(|| NOT_RENEWED.to_owned());
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => {} // or later: it may have been renewed meanwhile
                why = self.claim.is_lost() => return why,
            }
        }
    }

    /// A new epoch for the same owner.
    ///
    /// # Errors
    /// It is lost, or the broker does not answer.
    pub async fn bump(&mut self, at_least: Epoch) -> Result<Epoch, Error> {
        let (reply, answer) = oneshot::channel();
        let lost = || Error::Lost { lane: String::new(), holder: None };
        self.commands.send(Command::Bump { at_least, reply }).await.map_err(|_| lost())?;
        self.epoch = answer.await.map_err(|_| lost())??;
        Ok(self.epoch)
    }

    /// Gives it back: the next owner takes it at once.
    pub async fn release(self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Release { reply }).await.is_ok() {
            drop(answer.await); // refused only where it is lost
        }
    }
}

/// Begins all counts at 0: the first of each is seen to be one.
pub fn begin_counting() {
    for change in LEASE_CHANGE_WORDS {
        LEASE_CHANGES.add(0, &[KeyValue::new("change", *change)]);
    }
}

/// Counts what happened to a lease.
pub fn changed(change: &'static str) {
    LEASE_CHANGES.add(1, &[KeyValue::new("change", change)]);
}

struct Keeper {
    leases: Leases,
    lane: String,
    lease: Lease,
    lost: watch::Sender<Option<String>>,
    shown: watch::Receiver<Shown>,
    commands: mpsc::Receiver<Command>,
}

impl Keeper {
    async fn run(mut self) {
        let session = self.lease.session().clone();
        let (mut is_followed, mut confirm_at) = (true, None);
        loop {
            let command = tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => command,
                    None => return self.release(None).await, // the lane's task is gone, and its epoch is fenced off by the next
                },
                why = session.over() => return self.is_lost(why),
                changed = self.shown.changed(), if is_followed => {
                    is_followed = changed.is_ok();
                    confirm_at = (is_followed && !self.is_as_shown()).then(Instant::now);
                    continue;
                }
                () = sleep_until(confirm_at) => {
                    match self.leases.confirm(&mut self.lease).await {
                        Ok(()) => confirm_at = None,
                        Err(error @ Error::Lost { .. }) => return self.is_lost(error.to_string()),
                        Err(error) => {
                            tracing::debug!(lane = %self.lane, epoch = %self.lease.epoch, %error, "whose the lane is, is not known");
                            confirm_at = Some(Instant::now() + CONFIRM_AGAIN_AFTER);
                        }
                    }
                    continue;
                }
            };
            match command {
                Command::Bump { at_least, reply } => {
                    let bumped = self.leases.bump(&mut self.lease, at_least).await;
                    let lost = matches!(bumped, Err(Error::Lost { .. }));
                    if bumped.is_ok() {
                        changed("renewed_epoch");
                    }
                    drop(reply.send(bumped.map(|()| self.lease.epoch)));
                    if lost {
                        return;
                    }
                }
                Command::Release { reply } => return self.release(Some(reply)).await,
            }
        }
    }

    /// Whether the bucket shows what it should. It may also show what was before, and we make sure in vain.
    fn is_as_shown(&mut self) -> bool {
        self.shown.borrow_and_update().as_ref().is_some_and(|shown| !shown.released && shown.epoch == self.lease.epoch)
    }

    /// Whoever asked for it waits for the first try; after that it goes on for as long as the session would keep the lane.
    async fn release(mut self, mut reply: Option<oneshot::Sender<()>>) {
        let session = self.lease.session().clone();
        let mut is_told = false;
        loop {
            let released = self.leases.release(&mut self.lease).await;
            reply.take().map(|reply| reply.send(()));
            match released {
                Ok(()) => return changed("released"),
                Err(error) if !is_told => {
                    is_told = true;
                    tracing::warn!(lane = %self.lane, %error, "the lease is not given back yet: the lane stands until it is, or this process ends");
                }
                Err(error) => tracing::debug!(lane = %self.lane, %error, "the lease is not given back yet"),
            }
            tokio::select! {
                _ = session.over() => return,
                () = tokio::time::sleep(RELEASE_AGAIN_AFTER) => {}
            }
        }
    }

    fn is_lost(&self, why: String) {
        self.lost.send_replace(Some(why));
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
