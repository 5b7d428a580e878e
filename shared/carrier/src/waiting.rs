//! Lanes that wait because FED_LANES_MAX lanes are carried already: whose turn is next, and who makes room.
//!
//! ```text
//!   found ─▶ waiting ─ there is room ─▶ carried ─ empty, or its far side is closed, and somebody waits ─┐
//!              ▲                                                                                       │
//!              └──────────────────────────── drained, given back ◀─────────────────────────────────────┘
//! ```
//!
//! A lane with a backlog is carried until it is empty, and where its far side is down that takes days. Were there as many of
//! them as may be carried, one whose far side is well would wait as long as they do. But a closed far side ([`FarSide`]) is
//! known without any of its lanes, so they may wait here as well as there: they make room, one after the other, and have their
//! turn again when it may be asked again.
//!
//! While nobody waits, nobody makes room. What is in a lane, and in which order, is not looked at.

use std::collections::HashMap;
use std::time::Duration;

use fedstream_lane::LaneName;
use tokio::time::Instant;

/// One of so many turns goes to the lane that waits longest, whatever its far side: what is overdue in it has to be told too.
const LONGEST_EVERY: u64 = 4;

/// A closed lane has its turn for so long before it makes room for another closed one: as long as a far side stays closed
/// between two questions, by default. Nothing is gained by more haste.
const CLOSED_TURN: Duration = Duration::from_secs(15 * 60);

/// How the far side of a lane is known to be. Who is worse goes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FarSide {
    /// Nothing is known against it.
    Well,
    /// It fails, and may be asked.
    Failing,
    /// It is not asked now, whichever lane would: this is known of it, and does not get lost with a lane.
    Closed,
}

/// The lanes that wait.
#[derive(Debug)]
pub struct Waiting<L> {
    since: HashMap<L, Instant>,
    /// Turns that were given while not everybody could have one.
    turns: u64,
}

/// A lane that is carried and could do without: it is empty, or its far side is closed.
#[derive(Clone, Debug)]
pub struct Carried<L> {
    /// Its name.
    pub lane: L,
    /// Since when it is carried.
    pub since: Instant,
    /// There is nothing in it.
    pub is_empty: bool,
}

impl<L> Default for Waiting<L> {
    fn default() -> Self {
        Self { since: HashMap::new(), turns: 0 }
    }
}

impl<L: LaneName> Waiting<L> {
    /// These wait, and no others; who waited before goes on.
    pub fn are(&mut self, now: Instant, lanes: Vec<L>) {
        let before = std::mem::take(&mut self.since);
        let since = |lane: &L| before.get(lane).copied().unwrap_or(now);
        self.since = lanes.into_iter().map(|lane| (since(&lane), lane)).map(|(since, lane)| (lane, since)).collect();
    }

    /// They.
    pub fn lanes(&self) -> impl Iterator<Item = &L> {
        self.since.keys()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.since.len()
    }

    /// So many of them have their turn now.
    pub fn admit(&mut self, room: usize, far_side: impl Fn(&L) -> FarSide) -> Vec<L> {
        if room >= self.len() {
            return self.since.drain().map(|(lane, _)| lane).collect();
        }
        if room == 0 {
            return Vec::new();
        }
        let mut by_far_side: Vec<(FarSide, Instant, L)> =
            self.since.iter().map(|(lane, since)| (far_side(lane), *since, lane.clone())).collect();
        let mut by_time: Vec<(Instant, L)> = self.since.iter().map(|(lane, since)| (*since, lane.clone())).collect();
        by_far_side.sort_unstable();
        by_time.sort_unstable();
        let mut by_far_side = by_far_side.into_iter().map(|(_, _, lane)| lane);
        let mut by_time = by_time.into_iter().map(|(_, lane)| lane);
        let mut admitted = Vec::with_capacity(room);
        while admitted.len() < room {
            let is_longest = (self.turns + 1).is_multiple_of(LONGEST_EVERY);
            let Some(next) = (if is_longest { by_time.next() } else { by_far_side.next() }) else { break };
            if self.since.remove(&next).is_some() {
                self.turns += 1;
                admitted.push(next);
            }
        }
        admitted
    }

    /// Who of the carried makes room for those that wait, `most` at a time, where `leaving` do already. The empty ones first,
    /// then who is carried longest.
    pub fn make_room(
        &self,
        now: Instant,
        mut carried: Vec<Carried<L>>,
        leaving: usize,
        most: usize,
        far_side: impl Fn(&L) -> FarSide,
    ) -> Vec<L> {
        let wanted = self.len().saturating_sub(leaving).min(most);
        let to_be_asked = self.lanes().filter(|lane| far_side(lane) != FarSide::Closed).count().saturating_sub(leaving);
        carried.sort_unstable_by(|one, other| {
            (!one.is_empty, one.since, &one.lane).cmp(&(!other.is_empty, other.since, &other.lane))
        });
        let mut makes_room = Vec::new();
        for Carried { lane, since, is_empty } in carried {
            let had_its_turn = now.saturating_duration_since(since) >= CLOSED_TURN;
            if makes_room.len() < wanted && (is_empty || had_its_turn || makes_room.len() < to_be_asked) {
                makes_room.push(lane);
            }
        }
        makes_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_lane::OutboxLane;

    const SECOND: Duration = Duration::from_secs(1);

    fn lane(remote: &str) -> OutboxLane {
        OutboxLane { remote: format!("{remote}.example").parse().expect("a name"), partition: 0 }
    }

    fn lanes(remotes: &[&str]) -> Vec<OutboxLane> {
        remotes.iter().map(|remote| lane(remote)).collect()
    }

    /// By the first letter of the name: `c`losed, `f`ailing, or well.
    fn far_side(lane: &OutboxLane) -> FarSide {
        match lane.remote.as_str().chars().next() {
            Some('c') => FarSide::Closed,
            Some('f') => FarSide::Failing,
            _ => FarSide::Well,
        }
    }

    fn carried(remote: &str, since: Instant) -> Carried<OutboxLane> {
        Carried { lane: lane(remote), since, is_empty: false }
    }

    #[test]
    fn where_there_is_room_for_all_nobody_waits() {
        let mut waiting = Waiting::default();
        waiting.are(Instant::now(), lanes(&["a", "c", "f"]));
        let mut admitted = waiting.admit(3, far_side);
        admitted.sort_unstable();
        assert_eq!((admitted, waiting.len()), (lanes(&["a", "c", "f"]), 0));
    }

    #[test]
    fn who_may_be_well_goes_before_who_is_not_and_each_in_the_order_of_their_waiting() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.are(now, lanes(&["c1"]));
        waiting.are(now + SECOND, lanes(&["c1", "f1", "b"]));
        waiting.are(now + 2 * SECOND, lanes(&["c1", "f1", "b", "a"]));
        assert_eq!(waiting.admit(3, far_side), lanes(&["b", "a", "f1"]));
    }

    #[test]
    fn one_turn_of_four_is_that_of_who_waits_longest() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.are(now, lanes(&["c1", "c2"]));
        let names: Vec<String> = (0..20).map(|number| format!("a{number:02}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).chain(["c1", "c2"]).collect();
        waiting.are(now + SECOND, lanes(&all));
        assert_eq!(waiting.admit(8, far_side), lanes(&["a00", "a01", "a02", "c1", "a03", "a04", "a05", "c2"]));
    }

    #[test]
    fn a_lane_that_had_its_turn_waits_behind_the_others() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.are(now, lanes(&["f1", "f2", "f3"]));
        assert_eq!(waiting.admit(1, far_side), lanes(&["f1"]));
        waiting.are(now + SECOND, lanes(&["f1", "f2", "f3"])); // it made room
        assert_eq!(waiting.admit(2, far_side), lanes(&["f2", "f3"]));
    }

    #[test]
    fn nobody_makes_room_while_nobody_waits() {
        let (waiting, now) = (Waiting::<OutboxLane>::default(), Instant::now());
        assert_eq!(waiting.make_room(now, vec![carried("c1", now)], 0, 9, far_side), []);
    }

    #[test]
    fn as_many_make_room_as_wait_and_as_may_at_a_time_and_the_first_come_goes_first() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.are(now, lanes(&["a", "f"]));
        let all = || vec![carried("c3", now), carried("c1", now - SECOND), carried("c2", now - 2 * SECOND)];
        assert_eq!(waiting.make_room(now, all(), 0, 9, far_side), lanes(&["c2", "c1"]));
        assert_eq!(waiting.make_room(now, all(), 0, 1, far_side), lanes(&["c2"]));
        assert_eq!(waiting.make_room(now, all(), 1, 9, far_side), lanes(&["c2"]), "one leaves already");
        assert_eq!(waiting.make_room(now, all(), 2, 9, far_side), []);
    }

    #[test]
    fn an_empty_lane_makes_room_before_all_others() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.are(now, lanes(&["c9"]));
        let empty = Carried { is_empty: true, ..carried("a", now) };
        assert_eq!(waiting.make_room(now, vec![carried("c1", now), empty], 0, 9, far_side), lanes(&["a"]));
    }

    #[test]
    fn a_closed_lane_makes_room_for_another_closed_one_after_a_while_only() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.are(now, lanes(&["c9"]));
        let room_at = |at| waiting.make_room(at, vec![carried("c1", now)], 0, 9, far_side);
        assert_eq!((room_at(now + CLOSED_TURN - SECOND), room_at(now + CLOSED_TURN)), (vec![], lanes(&["c1"])));
    }
}
