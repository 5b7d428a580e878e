//! The instance, and the activities that it meets.

use std::collections::BTreeSet;

use fedstream_lane::{End, Final, Seq};

use super::rng::Rng;
use super::weather::{MINUTE, Mood};

/// Lemmy takes a signature for an hour; the front door counts with less (DESIGN section 4).
const SIGNATURE_ACCEPTED_MS: u64 = 60 * MINUTE;
/// What the front door counts with.
pub const SIGNATURE_WINDOW_MS: u64 = 55 * MINUTE;
/// The receiver waits so long for one answer.
const ANSWER_WITHIN_MS: u64 = 60_000;

/// What an activity meets at an instance that is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is taken.
    Taken,
    /// It is refused for good.
    Refused(Final),
    /// The instance fails on it, and on it alone.
    Poison,
    /// It was written by another version: no reader can read it.
    Unreadable,
}

/// One activity, from the front door on.
#[derive(Clone, Copy, Debug)]
pub struct Activity {
    /// Its size.
    pub bytes: usize,
    /// When the front door took it.
    pub received: u64,
    /// What it meets.
    pub fate: Fate,
}

impl Activity {
    /// One of many.
    pub fn draw(rng: &mut Rng, received: u64) -> Self {
        let fate = match rng.between(0, 99) {
            0..=2 => Fate::Refused(Final::Rejected),
            3 => Fate::Refused(Final::Unprocessed),
            4 => Fate::Poison,
            5 => Fate::Unreadable,
            _ => Fate::Taken,
        };
        Self { bytes: usize::try_from(rng.spread(500, 60_000)).unwrap_or(0), received, fate }
    }

    /// Until when it may be posted.
    pub fn deadline(&self) -> u64 {
        self.received + SIGNATURE_WINDOW_MS
    }
}

/// How one attempt goes.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// How long it takes.
    pub ms: u64,
    /// What became of the activity at the instance.
    pub outcome: Option<Final>,
    /// What the receiver learns.
    pub result: Result<(Final, u16), End>,
}

/// See the module.
#[derive(Debug)]
pub struct Instance {
    mood: Mood,
    until: u64,
    /// Ids that it stored.
    known: BTreeSet<Seq>,
    tried: Option<Seq>,
    answer_ms: u64,
}

impl Instance {
    /// One that answers about so quickly.
    pub fn new(answer_ms: u64) -> Self {
        Self { mood: Mood::Well, until: 0, known: BTreeSet::new(), tried: None, answer_ms }
    }

    /// It is in this mood until then.
    pub fn becomes(&mut self, mood: Mood, until: u64) {
        (self.mood, self.until) = (mood, until);
    }

    /// An activity arrives.
    pub fn attempt(&mut self, rng: &mut Rng, now: u64, seq: Seq, activity: &Activity) -> Attempt {
        let tried_before = self.tried.replace(seq) == Some(seq);
        let mood = if now < self.until { self.mood } else { Mood::Well };
        let ms = rng.spread(1, self.answer_ms);
        let retry = |status, alive, retry_after_ms| Err(End::Retry { seq, status, alive, retry_after_ms });
        match mood {
            Mood::Failing(status, after) => Attempt { ms, outcome: None, result: retry(Some(status), false, after) },
            Mood::Hanging => Attempt { ms: ANSWER_WITHIN_MS, outcome: None, result: retry(None, false, None) },
            Mood::Refusing => {
                let outcome = Final::Rejected;
                Attempt { ms, outcome: Some(outcome), result: Ok((outcome, 403)) }
            }
            Mood::Well | Mood::Slow => {
                let ms = if mood == Mood::Slow { (ms * 100).min(ANSWER_WITHIN_MS - 1) } else { ms };
                let Some((outcome, status)) = self.answers(now + ms, seq, activity) else {
                    // The receiver probes it between two attempts, and it answers the probe.
                    return Attempt { ms, outcome: None, result: retry(Some(500), tried_before, None) };
                };
                let lost = rng.chance(5);
                let result = if lost { retry(None, false, None) } else { Ok((outcome, status)) };
                Attempt { ms, outcome: Some(outcome), result }
            }
        }
    }

    /// Like Lemmy: an id is stored first, and a known one is called a duplicate whatever became of it.
    fn answers(&mut self, now: u64, seq: Seq, activity: &Activity) -> Option<(Final, u16)> {
        if self.known.contains(&seq) {
            return Some((Final::Duplicate, 400));
        }
        if now > activity.received + SIGNATURE_ACCEPTED_MS {
            return Some((Final::Expired, 400));
        }
        match activity.fate {
            Fate::Taken => {
                self.known.insert(seq);
                Some((Final::Delivered, 200))
            }
            Fate::Refused(Final::Unprocessed) => {
                self.known.insert(seq);
                Some((Final::Unprocessed, 400))
            }
            Fate::Refused(outcome) => Some((outcome, 400)),
            Fate::Poison => None,
            Fate::Unreadable => panic!("no-loss: {seq} can't be read, and was posted"),
        }
    }
}
