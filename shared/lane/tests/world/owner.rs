//! One owner of the lane: a process life with its window, and what it polled and has not done yet.

use std::collections::VecDeque;

use fedstream_lane::{Action, Backoff, Epoch, GateId, Moment, SendWindow, Seq, Start, WindowLimits};

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
