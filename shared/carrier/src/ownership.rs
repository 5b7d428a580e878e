//! A lane's lease in this process: kept by a task of its own, so that a busy lane never renews too late.
//!
//! ```text
//!   take ─▶ renewed at a third of the TTL ─▶ .. ─▶ given back, and free at once
//!               └─ not renewed: `until` passes, the window stops; the entry expires a little later
//! ```
//!
//! It says until when the lane is ours, and nothing else: the window looks at that moment before each action.

use std::time::Duration;

use fedstream_jetstream::leases::Error;
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

/// Between two tries to renew while the broker doesn't answer: several fit into the time that is left.
const RENEW_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How sure this process is of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is ours until then, if it isn't renewed.
    Until(Instant),
    /// It isn't ours any more.
    Lost(String),
}

/// Why a lane is lost that nobody else is known to have.
pub const NOT_RENEWED: &str = "it could not be renewed in time";

/// A lane that this process owns.
#[derive(Debug)]
pub struct Ownership {
    epoch: Epoch,
    again: bool,
    held: watch::Receiver<Held>,
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
enum Command {
    Bump { at_least: Epoch, reply: oneshot::Sender<Result<Epoch, Error>> },
    Release { reply: oneshot::Sender<()> },
}

impl Ownership {
    /// Takes the lane as soon as nobody holds it; none when told to leave it before.
    pub(crate) async fn take<D: Direction>(
        shared: &Shared<D>,
        lane: &D::Lane,
        leave: &CancellationToken,
    ) -> Option<Self> {
        let (leases, registry, sender_id) = (&shared.leases, &shared.registry, &shared.sender_id);
        let mut trouble = Trouble::none(lane, registry);
        loop {
            match leases.take(&lane.key(), sender_id, Epoch(0)).await {
                Ok(Taken::Ours(lease)) => {
                    changed("taken");
                    trouble.over(lease.epoch.0);
                    registry.update(lane, |view| view.stands = None);
                    let again = shared.mine.taken(lane.to_string());
                    return Some(Self::keep(shared, lane.to_string(), lease, again));
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

    fn keep<D: Direction>(shared: &Shared<D>, lane: String, lease: Lease, again: bool) -> Self {
        let leases = shared.leases.clone();
        let (held, held_here) = watch::channel(Held::Until(lease.until));
        let (commands, received) = mpsc::channel(1);
        let epoch = lease.epoch;
        shared.keepers.spawn(Keeper { leases, lane, lease, held, commands: received }.run());
        Self { epoch, again, held: held_here, commands }
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

    /// Until when it is ours, as it changes.
    #[must_use]
    pub fn held(&self) -> watch::Receiver<Held> {
        self.held.clone()
    }

    /// Waits until it isn't ours any more, and says why.
    pub async fn lost(&self) -> String {
        let mut held = self.held();
        loop {
            let until = match &*held.borrow_and_update() {
                Held::Until(until) if *until > Instant::now() => *until,
                Held::Until(_) => return NOT_RENEWED.to_owned(),
                Held::Lost(why) => return why.clone(),
            };
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                changed = held.changed() => if changed.is_err() {
                    return "nobody renews it any more".to_owned();
                },
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
    held: watch::Sender<Held>,
    commands: mpsc::Receiver<Command>,
}

impl Keeper {
    async fn run(mut self) {
        let mut renew_at = Instant::now() + self.leases.renew_every();
        loop {
            let command = tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => command,
                    None => return self.release().await, // the lane's task is gone, and its epoch is fenced off by the next
                },
                () = tokio::time::sleep_until(renew_at) => {
                    match self.leases.renew(&mut self.lease).await {
                        Ok(()) => renew_at = Instant::now() + self.leases.renew_every(),
                        Err(error @ Error::Lost { .. }) => return self.lost(&error),
                        Err(error) => {
                            tracing::debug!(lane = %self.lane, epoch = %self.lease.epoch, %error, "the lease is not renewed");
                            renew_at = Instant::now() + RENEW_AGAIN_AFTER;
                        }
                    }
                    self.held.send_replace(Held::Until(self.lease.until));
                    continue;
                }
            };
            match command {
                Command::Bump { at_least, reply } => {
                    let bumped = self.leases.bump(&mut self.lease, at_least).await;
                    self.held.send_replace(Held::Until(self.lease.until));
                    let lost = matches!(bumped, Err(Error::Lost { .. }));
                    if bumped.is_ok() {
                        changed("renewed_epoch");
                    }
                    drop(reply.send(bumped.map(|()| self.lease.epoch)));
                    if lost {
                        return;
                    }
                }
                Command::Release { reply } => {
                    self.release().await;
                    reply.send(()).ok(); // nobody waits any more
                    return;
                }
            }
        }
    }

    async fn release(self) {
        match self.leases.release(self.lease).await {
            Ok(()) => changed("released"),
            Err(error) => {
                tracing::warn!(lane = %self.lane, %error, "the lease is not given back: it expires by itself");
            }
        }
    }

    fn lost(&self, error: &Error) {
        self.held.send_replace(Held::Lost(error.to_string()));
    }
}
