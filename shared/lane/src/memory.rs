//! What the far side remembers of what it delivered.

use std::collections::{BTreeMap, VecDeque};

use crate::guard::{self, Guard};
use crate::{Answer, MsgId, Seq};

/// What an entry costs beside its texts: keys, lengths, the two indexes.
const ENTRY_OVERHEAD_BYTES: usize = 128;

/// Bounds of the memory of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryLimits {
    /// Entries.
    pub items: usize,
    /// Bytes of all entries, ids and answers included.
    pub bytes: usize,
}

/// Final outcomes by sequence and message id. The oldest are forgotten first; a forgotten entry costs a repeat,
/// never a loss.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Memory {
    limits: MemoryLimits,
    entries: BTreeMap<Seq, (MsgId, Answer)>,
    /// Sequences in the order in which they were remembered: a stream made anew starts with low ones again.
    order: VecDeque<Seq>,
    bytes: usize,
}

impl Memory {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new(limits: MemoryLimits) -> Self {
        Self { limits, entries: BTreeMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    /// The outcome of this very activity. A known sequence with another message id is another activity.
    #[must_use]
    pub fn recall(&self, seq: Seq, msg_id: &MsgId) -> Option<&Answer> {
        let same = |known: &MsgId| known == msg_id || !guard::holds(Guard::MemoryByMessageId);
        self.entries.get(&seq).filter(|(known, _)| same(known)).map(|(_, answer)| answer)
    }

    /// Keeps an outcome, and forgets the oldest ones beyond the limits.
    pub fn remember(&mut self, seq: Seq, msg_id: MsgId, answer: Answer) {
        self.forget(seq);
        self.bytes += cost(&msg_id, &answer);
        self.entries.insert(seq, (msg_id, answer));
        self.order.push_back(seq);
        while self.entries.len() > self.limits.items || self.bytes > self.limits.bytes {
            match self.order.front().copied() {
                Some(oldest) => self.forget(oldest),
                None => break,
            }
        }
    }

    /// How many outcomes are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is nothing known?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes held, never above the limit.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_within_limits(&self) -> bool {
        self.entries.len() <= self.limits.items
            && self.bytes <= self.limits.bytes
            && self.order.len() == self.entries.len()
    }

    fn forget(&mut self, seq: Seq) {
        let Some((msg_id, answer)) = self.entries.remove(&seq) else { return };
        self.bytes -= cost(&msg_id, &answer);
        if self.order.front() == Some(&seq) {
            self.order.pop_front();
        } else {
            self.order.retain(|known| *known != seq);
        }
    }
}

fn cost(msg_id: &MsgId, answer: &Answer) -> usize {
    ENTRY_OVERHEAD_BYTES + msg_id.as_str().len() + answer.body.as_deref().map_or(0, str::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Final;

    fn answer(body: &str) -> Answer {
        Answer { outcome: Final::Rejected, status: 400, body: Some(body.into()) }
    }

    #[test]
    fn the_oldest_is_forgotten_first_even_with_the_higher_sequence() {
        let mut memory = Memory::new(MemoryLimits { items: 2, bytes: 10_000 });
        for seq in [90, 1, 2] {
            memory.remember(Seq(seq), MsgId::new(format!("m{seq}")), answer(""));
        }
        assert_eq!(memory.recall(Seq(90), &MsgId::new("m90")), None);
        assert!(memory.recall(Seq(1), &MsgId::new("m1")).is_some());
        assert_eq!(memory.recall(Seq(1), &MsgId::new("other")), None, "another activity under a known sequence");
    }

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let mut memory = Memory::new(MemoryLimits { items: 100, bytes: 1000 });
        for seq in 1..=50 {
            memory.remember(Seq(seq), MsgId::new("m"), answer(&"x".repeat(100)));
            assert!(memory.is_within_limits());
        }
        memory.remember(Seq(50), MsgId::new("m"), answer(""));
        assert!(memory.recall(Seq(50), &MsgId::new("m")).is_some());
        memory.remember(Seq(51), MsgId::new("m"), answer(&"x".repeat(2000)));
        assert_eq!((memory.len(), memory.bytes()), (0, 0), "an entry over the limit is not kept");
    }
}
