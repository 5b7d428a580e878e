//! One owner of the lane: a process life with its window, and what it wanted done and has not done yet.

use std::collections::VecDeque;

use fedstream_lane::{Action, Backoff, Epoch, GateId, Moment, ParkReason, SendWindow, Seq, Start, WindowLimits};

/// A copy on its way to FED_PARKED.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    /// The item.
    pub seq: Seq,
    /// Why.
    pub reason: ParkReason,
}

/// See the module.
#[derive(Debug)]
pub struct Owner {
    /// Its fencing token.
    pub epoch: Epoch,
    /// None before it read anything.
    pub window: Option<SendWindow>,
    /// The gate that it knows from another lane, at its start.
    pub gate: Option<GateId>,
    /// The limits that its window has.
    pub limits: WindowLimits,
    /// How it leaves a failing far side alone.
    backoff: Backoff,
    /// Until when it owns the lane, on its own clock.
    pub lease_until: Moment,
    /// What it polled and did not do yet.
    pub polled: VecDeque<Action>,
    /// Copies that are not acked.
    pub copies: VecDeque<Copy>,
    /// A purge that is not acked.
    pub purge: Option<Seq>,
    /// Its process is gone, or it is done with the lane.
    pub ended: bool,
}

impl Owner {
    /// One that takes the lane with this lease.
    pub fn new(start: Start, limits: WindowLimits, backoff: Backoff) -> Self {
        Self {
            epoch: start.epoch,
            window: None,
            gate: start.gate,
            limits,
            backoff,
            lease_until: start.lease_until,
            polled: VecDeque::new(),
            copies: VecDeque::new(),
            purge: None,
            ended: false,
        }
    }

    /// Its window; made when it reads its first message, whose sequence this is.
    pub fn window_from(&mut self, first: Seq) -> &mut SendWindow {
        let start =
            Start { epoch: self.epoch, floor: Seq(first.0 - 1), gate: self.gate, lease_until: self.lease_until };
        self.window.get_or_insert_with(|| SendWindow::new(start, self.limits, self.backoff.clone()))
    }

    /// The last sequence that it read, where there is room for the next one.
    pub fn reads_after(&self) -> Option<Seq> {
        match &self.window {
            Some(window) => window.has_room().then(|| window.last_read()),
            None => Some(Seq(0)),
        }
    }
}
