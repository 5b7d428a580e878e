//! Refusals, counted and told: the first of its kind at once, its repeats as one line a minute. A sender that is refused tries
//! again for ever, and what it is refused for must not drown in its own repeats.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fedstream_lane::Lane;
use fedstream_service::metrics::KeyValue;
use fedstream_service::metrics::lanes::NAMES;
use fedstream_service::metrics::table::{FRONT_ACCEPTED, FRONT_REFUSED, REFUSALS};
use serde_json::{Value, json};

use crate::refusal::Refusal;

/// Between two lines about the same thing.
const QUIET: Duration = Duration::from_secs(60);

/// Different things that are told apart at once. Names come from outside, so there is a bound.
const SUBJECTS_MAX: usize = 1024;

/// Counts since start, of the whole and of each lane, and what was said about refusals.
#[derive(Debug)]
pub struct Tally {
    lanes_most: usize,
    /// Both lists name their entries, so no stranger chose a lane's name.
    by_name: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    all: Counts,
    lanes: HashMap<Lane, OfLane>,
    told: HashMap<(&'static str, String), Told>,
}

/// What happened to requests. What is refused before the lane is known is no lane's.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Counts {
    stored: u64,
    duplicates: u64,
    refused: BTreeMap<&'static str, u64>,
}

/// What happened to the requests for one lane.
#[derive(Debug, Default)]
struct OfLane {
    counts: Counts,
    /// Its label in metrics, once it has one.
    label: Option<KeyValue>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    since: u64,
}

impl Counts {
    fn stored(&mut self, duplicate: bool) {
        self.stored += u64::from(!duplicate);
        self.duplicates += u64::from(duplicate);
    }

    fn refused(&mut self, kind: &'static str) {
        *self.refused.entry(kind).or_default() += 1;
    }

    fn json(&self) -> Value {
        json!({ "stored": self.stored, "duplicates": self.duplicates, "refused": self.refused })
    }
}

impl State {
    /// Counts for the lane, unless as many are counted as there may be. Answers its label in metrics; `may_name`: it is
    /// known not to be a stranger's invention.
    fn count(&mut self, lane: &Lane, lanes_most: usize, may_name: bool, count: impl Fn(&mut Counts)) -> KeyValue {
        if !self.lanes.contains_key(lane) {
            if self.lanes.len() >= lanes_most && !(may_name && self.forget_a_stranger()) {
                return NAMES.other();
            }
            self.lanes.insert(lane.clone(), OfLane::default());
        }
        let Some(of_lane) = self.lanes.get_mut(lane) else { return NAMES.other() };
        count(&mut of_lane.counts);
        if may_name && of_lane.label.is_none() {
            of_lane.label = Some(NAMES.name(&lane.to_string()));
        }
        of_lane.label.clone().unwrap_or_else(|| NAMES.other())
    }
}

impl State {
    /// Makes room among lanes that nothing was ever stored in: anybody may invent those.
    fn forget_a_stranger(&mut self) -> bool {
        let stranger = self.lanes.iter().find(|(_, of_lane)| of_lane.label.is_none()).map(|(lane, _)| lane.clone());
        stranger.is_some_and(|lane| self.lanes.remove(&lane).is_some())
    }
}

impl Tally {
    /// Nothing has happened yet. `lanes_most` lanes are told apart: names come from outside, unless both lists name them.
    pub fn new(lanes_most: usize, by_name: bool) -> Self {
        Self { lanes_most, by_name, state: Mutex::default() }
    }

    /// Begins the counts of refusals at 0, so that the first of each is seen to be one: with the label of all lanes that have
    /// no name where a refusal is about a lane.
    pub fn begin_counting() {
        for reason in REFUSALS {
            let label = KeyValue::new("reason", *reason);
            if Refusal::is_about_a_lane(reason) {
                FRONT_REFUSED.add(0, &[label, NAMES.other()]);
            } else {
                FRONT_REFUSED.add(0, &[label]);
            }
        }
    }

    /// Counts a stored activity, or one that was stored before.
    pub fn stored(&self, lane: &Lane, duplicate: bool) {
        let label = {
            let mut state = self.state();
            state.all.stored(duplicate);
            state.count(lane, self.lanes_most, true, |counts| counts.stored(duplicate))
        };
        let result = if duplicate { "duplicate" } else { "stored" };
        FRONT_ACCEPTED.add(1, &[label, KeyValue::new("result", result)]);
    }

    /// Counts a refusal and, if it is news, logs it with what would help.
    pub fn refused(&self, refusal: &Refusal) {
        let (status, kind) = refusal.status_and_kind();
        self.count_refusal(kind, refusal.lane());
        let lane = refusal.lane().map(tracing::field::display);
        let Some(repeats) = self.untold(kind, refusal.subject(), Instant::now()) else {
            tracing::debug!(lane, status = status.as_u16(), kind, reason = refusal.detail(), "refused");
            return;
        };
        let remedy = refusal.remedy().unwrap_or_default();
        tracing::warn!(lane, status = status.as_u16(), kind, reason = refusal.detail(), remedy, repeats, "refused");
    }

    fn count_refusal(&self, kind: &'static str, lane: Option<&Lane>) {
        let label = {
            let mut state = self.state();
            state.all.refused(kind);
            lane.map(|lane| state.count(lane, self.lanes_most, self.by_name, |counts| counts.refused(kind)))
        };
        let reason = KeyValue::new("reason", kind);
        match label {
            Some(lane) => FRONT_REFUSED.add(1, &[reason, lane]),
            None => FRONT_REFUSED.add(1, &[reason]),
        }
    }

    /// What has happened since start.
    pub fn counts(&self) -> Value {
        self.state().all.json()
    }

    /// What has happened to this lane since start.
    pub fn lane_counts(&self, lane: &Lane) -> Value {
        self.state().lanes.get(lane).map(|of_lane| of_lane.counts.clone()).unwrap_or_default().json()
    }

    /// The lanes that something has happened to.
    pub fn lanes(&self) -> Vec<Lane> {
        self.state().lanes.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The untold repeats, if it is time to tell.
    fn untold(&self, kind: &'static str, subject: String, now: Instant) -> Option<u64> {
        let mut state = self.state();
        let key = (kind, subject);
        if let Some(told) = state.told.get_mut(&key) {
            if now.duration_since(told.at) < QUIET {
                told.since += 1;
                return None;
            }
            told.at = now;
            return Some(std::mem::take(&mut told.since));
        }
        if state.told.len() >= SUBJECTS_MAX {
            state.told.retain(|_, told| now.duration_since(told.at) < QUIET);
        }
        if state.told.len() >= SUBJECTS_MAX {
            return None;
        }
        state.told.insert(key, Told { at: now, since: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_repeats_are_summed_up() {
        let (tally, start) = (Tally::new(2, true), Instant::now());
        assert_eq!(tally.untold("source", "a".into(), start), Some(0));
        assert_eq!(tally.untold("source", "a".into(), start), None);
        assert_eq!(tally.untold("source", "b".into(), start), Some(0));
        assert_eq!(tally.untold("source", "a".into(), start + QUIET), Some(1));
    }

    #[test]
    fn a_lane_has_counts_of_its_own_as_long_as_there_is_room_for_it() {
        let tally = Tally::new(2, true);
        let lane = |source: &str| Lane { destination: "a.example".parse().unwrap(), source: source.parse().unwrap() };
        tally.stored(&lane("b.example"), false);
        tally.stored(&lane("b.example"), true);
        tally.refused(&Refusal::LanePaused(lane("c.example")));
        tally.refused(&Refusal::LanePaused(lane("d.example")));
        tally.refused(&Refusal::MediaType);
        let counted = tally.lane_counts(&lane("b.example"));
        assert_eq!(counted, json!({ "stored": 1, "duplicates": 1, "refused": {} }));
        assert_eq!(tally.lane_counts(&lane("c.example"))["refused"]["lane-paused"], 1);
        assert_eq!(tally.lanes().len(), 2);
        assert_eq!(tally.counts()["refused"], json!({ "lane-paused": 2, "unsupported-media-type": 1 }));
    }

    #[test]
    fn what_was_only_refused_makes_room_for_what_is_stored() {
        let tally = Tally::new(1, false);
        let lane = |source: &str| Lane { destination: "a.example".parse().unwrap(), source: source.parse().unwrap() };
        tally.refused(&Refusal::LanePaused(lane("stranger.example")));
        tally.stored(&lane("b.example"), false);
        assert_eq!(tally.lanes(), [lane("b.example")]);
        tally.stored(&lane("c.example"), false);
        assert_eq!(tally.lanes(), [lane("b.example")], "what is stored stays");
    }

    #[test]
    fn names_from_outside_are_bounded() {
        let (tally, start) = (Tally::new(2, true), Instant::now());
        for n in 0..SUBJECTS_MAX {
            assert_eq!(tally.untold("source", n.to_string(), start), Some(0));
        }
        assert_eq!(tally.untold("source", "one more".into(), start), None);
        assert_eq!(tally.untold("source", "one more".into(), start + QUIET), Some(0), "old ones made room");
    }
}
