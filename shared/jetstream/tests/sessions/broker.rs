//! The bucket: keys with a revision each, replicas that are behind, and what is on its way to it.

/// Sessions that there may be: two of the first process, and the other's.
pub const NONCES: usize = 3;

/// How long a session stands, in ticks, and how long its process counts on it: less, as a whole tick may pass between them.
pub const TTL: u8 = 2;
pub const UNTIL: u8 = 1;

/// What was stored under a key at a revision; 0 and nothing where there is neither entry nor marker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Found<V> {
    pub revision: u8,
    pub value: Option<V>,
}

/// A key, as the leader has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key<V> {
    pub now: Found<V>,
}

impl<V: Copy + PartialEq> Key<V> {
    pub fn set(&mut self, revision: u8, value: Option<V>) {
        self.now = Found { revision, value };
    }

    /// What a read may bring: what is, or nothing, of a replica that is behind. (What stood there in between has another
    /// revision than what is, as nothing has.)
    pub fn reads(&self) -> Vec<Found<V>> {
        let nothing = Found { revision: 0, value: None };
        if self.now == nothing { vec![nothing] } else { vec![self.now, nothing] }
    }
}

/// A session's entry: how long ago it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Alive {
    pub age: u8,
}

/// A lane's entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    pub nonce: u8,
    pub released: bool,
}

/// A write, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Write {
    /// A session's first entry, or its renewal.
    Live { nonce: u8 },
    /// A session's deletion.
    Fence { nonce: u8 },
    /// A lane's entry.
    Lane { nonce: u8, released: bool },
}

/// A write on its way. It may be stored at any time, or never; who sent it may wait no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sent {
    pub by: usize,
    pub write: Write,
    /// The revision that it is stored over; none: over any.
    pub expected: Option<u8>,
    /// For how long it is on its way, where that matters: an awaited renewal.
    pub age: u8,
    pub is_awaited: bool,
}

/// The bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Broker {
    pub last: u8,
    pub sessions: [Key<Alive>; NONCES],
    pub lane: Key<Entry>,
    pub sent: Vec<Sent>,
}

impl Broker {
    pub fn time_passes(&mut self) {
        for alive in self.sessions.iter_mut().take(NONCES - 1).filter_map(|key| key.now.value.as_mut()) {
            alive.age = (alive.age + 1).min(TTL);
        }
        for sent in self.sent.iter_mut().filter(|sent| sent.is_awaited && matches!(sent.write, Write::Live { .. })) {
            sent.age = (sent.age + 1).min(UNTIL);
        }
        self.sent.sort_unstable();
    }

    /// Nobody waits for it any more; it is on its way all the same.
    pub fn is_given_up(&mut self, at: usize) {
        (self.sent[at].is_awaited, self.sent[at].age) = (false, 0);
        self.sent.sort_unstable();
    }

    pub fn send(&mut self, sent: Sent) {
        self.sent.push(sent);
        self.sent.sort_unstable(); // in which order they were sent says nothing
    }

    /// The process has another session, or none.
    pub fn nobody_waits_for_sessions_of(&mut self, by: usize) {
        for sent in self.sent.iter_mut().filter(|sent| sent.by == by && matches!(sent.write, Write::Live { .. })) {
            (sent.is_awaited, sent.age) = (false, 0);
        }
        self.sent.sort_unstable();
    }

    /// Stores a write, or refuses it; the new revision.
    pub fn store(&mut self, sent: &Sent) -> Result<u8, ()> {
        let revision = match sent.write {
            Write::Live { nonce } | Write::Fence { nonce } => self.sessions[usize::from(nonce)].now.revision,
            Write::Lane { .. } => self.lane.now.revision,
        };
        if sent.expected.is_some_and(|expected| expected != revision) {
            return Err(());
        }
        self.last += 1;
        match sent.write {
            Write::Live { nonce } => self.sessions[usize::from(nonce)].set(self.last, Some(Alive { age: 0 })),
            Write::Fence { nonce } => self.sessions[usize::from(nonce)].set(self.last, None),
            Write::Lane { nonce, released } => self.lane.set(self.last, Some(Entry { nonce, released })),
        }
        Ok(self.last)
    }
}
