//! A process: its session, what it knows of others, and the lane.

/// Where an attempt to take the lane is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Step {
    #[default]
    Rests,
    /// The lane's entry is another session's.
    Asks { revision: u8, nonce: u8 },
    /// That session was not found; its key is read as of `session`.
    Fences { revision: u8, nonce: u8, session: u8 },
    /// The lane may be written over this revision.
    Writes { revision: u8 },
    /// A write is on its way.
    Waits(Awaited),
}

/// What a process waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Awaited {
    Fence { revision: u8, nonce: u8 },
    Taken,
    Confirmed,
}

/// A session as its process sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    pub nonce: u8,
    pub revision: u8,
    /// Until it stops counting on it.
    pub left: u8,
    /// A renewal is on its way.
    pub is_renewing: bool,
}

/// The lane, taken under a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    pub nonce: u8,
    pub revision: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Process {
    /// Sessions that it began.
    pub begun: u8,
    /// Waits for the first write of a session.
    pub is_beginning: bool,
    pub session: Option<Session>,
    pub lease: Option<Lease>,
    pub step: Step,
    /// Sessions that it knows to be over.
    pub over: [bool; super::broker::NONCES],
}

impl Process {
    /// The session, if it lives by its own clock.
    pub fn living(&self) -> Option<Session> {
        self.session.filter(|session| session.left > 0)
    }

    /// Whether it would post now.
    pub fn holds(&self) -> bool {
        let living = self.living();
        self.lease.is_some_and(|lease| living.is_some_and(|session| session.nonce == lease.nonce))
    }
}
