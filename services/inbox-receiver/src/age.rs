//! How long a lane's oldest activity has waited (DESIGN section 4): a lane that stands still must not take activities whose
//! signatures will have run out when it moves again.
//!
//! The broker is asked for the oldest activity, and the answer is kept. A lane's oldest only ever gets younger, by trims, so
//! "young" holds until that activity itself would be too old: a healthy lane costs one question in FED_LANE_AGE_MAX, a lane
//! that is too old one a second, whatever is posted to it. One question per lane is under way; the others wait for its answer.
//!
//! A question without an answer refuses nobody and holds nobody for long: the publish decides. But not for ever, or a
//! permission that is missing would switch the rule off: after FED_LANE_AGE_MAX of failed questions the lane is refused.
//! While nothing is connected nothing can be stored, and the publish says so better.
//!
//! Fed-Received-At is when a request began, so neighbours in a lane may be out of order by the time that a body and a
//! publish take (15 s): by that much the limit is inexact.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fedstream_jetstream::Broker;
use fedstream_jetstream::oldest::{self, Oldest};
use fedstream_lane::Lane;
use fedstream_wire::stored::header;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, timeout};

/// How long "too old" is good for, and a question that failed: a drained lane is open again within this.
const FRESH: Duration = Duration::from_secs(1);

/// A question takes less than a millisecond; nobody waits longer than this for one.
const PATIENCE: Duration = Duration::from_millis(500);

/// A re-driven activity keeps its Fed-Received-At and its waived deadline under this header: its wait began when it came back.
const REDRIVE: &str = "Fed-Redrive";

/// Why the lane takes nothing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// Its oldest activity has waited this long.
    Waited(Duration),
    /// The broker has not told for this long.
    Unknown(Duration),
}

/// What is known of the lanes' oldest activities.
pub struct Ages {
    broker: Broker,
    lanes: Mutex<HashMap<Lane, Arc<LaneAge>>>,
    /// Lanes known at once; above it those that held nothing when last asked are forgotten.
    most: usize,
    trouble: Mutex<Option<String>>,
}

#[derive(Default)]
struct LaneAge {
    known: Mutex<Known>,
    asking: tokio::sync::Mutex<()>,
}

/// One lane, without a clock or a broker of its own.
#[derive(Debug, Clone, Default)]
struct Known {
    answer: Option<Answer>,
    failing: Option<Failing>,
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    /// Nothing in the lane was received before this.
    since: OffsetDateTime,
    /// How long the oldest had waited when the broker told.
    waited: Duration,
    /// Something was in the lane.
    holds: bool,
    asked: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    first: Instant,
    last: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Open,
    Refused(Stale),
    Ask,
}

/// Now, on both clocks: activities carry the one, the age of an answer is measured on the other.
#[derive(Debug, Clone, Copy)]
struct Now {
    wall: OffsetDateTime,
    monotonic: Instant,
}

impl Now {
    fn read() -> Self {
        Self { wall: OffsetDateTime::now_utc(), monotonic: Instant::now() }
    }
}

impl Known {
    fn verdict(&self, now: Now, max: Duration) -> Verdict {
        if let Some(answer) = self.answer {
            let (age, asked) = (answer.age(now), now.monotonic.duration_since(answer.asked));
            // Not by the wall clock alone: it may be set back.
            if age < max && asked < max {
                return Verdict::Open;
            }
            if answer.holds && asked < FRESH {
                return Verdict::Refused(Stale::Waited(age));
            }
        }
        match self.failing {
            Some(failing) if now.monotonic.duration_since(failing.last) < FRESH => self.in_doubt(now, max),
            _ => Verdict::Ask,
        }
    }

    /// The verdict when the question brought no answer.
    fn in_doubt(&self, now: Now, max: Duration) -> Verdict {
        // What was too old when the broker last told stays so: no failed question opens or closes a lane.
        if let Some(answer) = self.answer.filter(|answer| answer.holds && answer.waited >= max) {
            return Verdict::Refused(Stale::Waited(answer.age(now)));
        }
        let doubt = self.failing.map_or(Duration::ZERO, |failing| now.monotonic.duration_since(failing.first));
        if doubt < max { Verdict::Open } else { Verdict::Refused(Stale::Unknown(doubt)) }
    }

    fn answered(&mut self, oldest: Option<OffsetDateTime>, now: Now) {
        let since = oldest.unwrap_or(now.wall); // what comes into an empty lane comes later
        self.answer = Some(Answer { since, waited: waited(since, now), holds: oldest.is_some(), asked: now.monotonic });
        self.failing = None;
    }

    fn failed(&mut self, now: Now) {
        let first = self.failing.map_or(now.monotonic, |failing| failing.first);
        self.failing = Some(Failing { first, last: now.monotonic });
    }
}

impl Answer {
    fn age(&self, now: Now) -> Duration {
        waited(self.since, now)
    }
}

fn waited(since: OffsetDateTime, now: Now) -> Duration {
    Duration::try_from(now.wall - since).unwrap_or_default() // received in the future: by another clock
}

impl LaneAge {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ages {
    /// Nothing is known yet; `most` lanes are expected.
    pub fn new(broker: &Broker, most: usize) -> Self {
        Self { broker: broker.clone(), lanes: Mutex::default(), most, trouble: Mutex::default() }
    }

    /// May the lane take another activity, if none in it may have waited longer than `max`? Asks the broker where what is
    /// known does not tell, for at most a quarter of what is `left` of the request's time.
    pub async fn check(&self, lane: &Lane, max: Duration, left: Duration) -> Result<(), Stale> {
        let age = self.of(lane);
        let mut verdict = age.known().verdict(Now::read(), max);
        if verdict == Verdict::Ask {
            let asked = timeout(PATIENCE.min(left / 4), self.ask(lane, &age, max)).await;
            verdict = asked.unwrap_or_else(|_| self.failed(&age, max, "no answer in time".to_owned()));
        }
        match verdict {
            Verdict::Refused(stale) => Err(stale),
            Verdict::Open | Verdict::Ask => Ok(()),
        }
    }

    /// The age of the lane's oldest activity, as `/lanes` shows it: not older than [`FRESH`]; `None` if it is empty or if the
    /// broker does not tell.
    pub async fn look(&self, lane: &Lane) -> Option<Duration> {
        let age = self.of(lane);
        let known = age.known().answer.filter(|answer| answer.asked.elapsed() < FRESH);
        if known.is_none() {
            let _turn = age.asking.lock().await;
            let oldest = oldest::of(&self.broker, lane).await.ok()?;
            age.known().answered(oldest.as_ref().map(received_at), Now::read());
        }
        let answer = age.known().answer.filter(|answer| answer.holds)?;
        Some(answer.age(Now::read()))
    }

    /// What keeps the rule from being applied, for the readiness page.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One question at a time: whoever waited for the turn finds the answer there.
    async fn ask(&self, lane: &Lane, age: &LaneAge, max: Duration) -> Verdict {
        let _turn = age.asking.lock().await;
        let verdict = age.known().verdict(Now::read(), max);
        if verdict != Verdict::Ask {
            return verdict;
        }
        match oldest::of(&self.broker, lane).await {
            Ok(oldest) => {
                self.note(None);
                let mut known = age.known();
                known.answered(oldest.as_ref().map(received_at), Now::read());
                known.verdict(Now::read(), max)
            }
            Err(oldest::Error::Away) => Verdict::Open, // nothing can be stored: the publish says so
            Err(oldest::Error::Unknown(cause)) => self.failed(age, max, cause),
        }
    }

    fn failed(&self, age: &LaneAge, max: Duration, cause: String) -> Verdict {
        self.note(Some(cause));
        let mut known = age.known();
        let now = Now::read();
        known.failed(now);
        known.in_doubt(now, max)
    }

    fn note(&self, cause: Option<String>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.is_some() == cause.is_some() {
            return;
        }
        match &cause {
            Some(cause) => tracing::warn!(
                cause,
                "the broker does not tell how old lanes are: they are taken from as if young, for FED_LANE_AGE_MAX at most \
                 (the permission $JS.API.STREAM.MSG.GET.FED_INBOX is needed)"
            ),
            None => tracing::info!("the broker tells how old lanes are again"),
        }
        *trouble = cause.map(|cause| format!("the broker does not tell how old lanes are: {cause}"));
    }

    fn of(&self, lane: &Lane) -> Arc<LaneAge> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lanes.get(lane) {
            return known.clone();
        }
        if lanes.len() >= self.most {
            // Lanes that `*` let somebody try, and that were not made. Those that hold something are bounded by the rule for `*`.
            lanes.retain(|_, age| age.known().answer.is_some_and(|answer| answer.holds));
        }
        lanes.entry(lane.clone()).or_default().clone()
    }
}

/// When its wait began. A message that no front door wrote has only the broker's time.
fn received_at(oldest: &Oldest) -> OffsetDateTime {
    if oldest.headers.get(REDRIVE).is_some() {
        return oldest.stored_at;
    }
    let received = oldest.headers.get(header::RECEIVED_AT);
    received.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok()).unwrap_or(oldest.stored_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(600);

    fn start() -> Now {
        Now { wall: OffsetDateTime::UNIX_EPOCH, monotonic: Instant::now() }
    }

    fn after(now: Now, seconds: u64) -> Now {
        let passed = Duration::from_secs(seconds);
        Now { wall: now.wall + passed, monotonic: now.monotonic + passed }
    }

    #[test]
    fn young_holds_without_another_question_until_the_oldest_itself_is_too_old() {
        let (mut known, start) = (Known::default(), start());
        assert_eq!(known.verdict(start, MAX), Verdict::Ask);
        known.answered(Some(start.wall - Duration::from_secs(100)), start);
        assert_eq!(known.verdict(after(start, 499), MAX), Verdict::Open);
        assert_eq!(known.verdict(after(start, 500), MAX), Verdict::Ask, "it may have been trimmed long ago");
    }

    #[test]
    fn an_empty_lane_is_young_for_as_long_as_anything_that_came_since_would_be() {
        let (mut known, start) = (Known::default(), start());
        known.answered(None, start);
        assert_eq!(known.verdict(after(start, 599), MAX), Verdict::Open);
        assert_eq!(known.verdict(after(start, 600), MAX), Verdict::Ask);
        assert_eq!(known.verdict(start, Duration::ZERO), Verdict::Ask, "an empty lane is never too old");
    }

    #[test]
    fn too_old_is_asked_again_once_a_second() {
        let (mut known, start) = (Known::default(), start());
        known.answered(Some(start.wall - MAX), start);
        assert_eq!(known.verdict(start, MAX), Verdict::Refused(Stale::Waited(MAX)));
        assert_eq!(known.verdict(after(start, 1), MAX), Verdict::Ask);
        known.answered(Some(start.wall), after(start, 1));
        assert_eq!(known.verdict(after(start, 1), MAX), Verdict::Open, "trimmed");
    }

    #[test]
    fn a_question_that_fails_opens_no_lane_that_was_too_old_and_closes_none_that_was_young() {
        let (mut old, mut young, start) = (Known::default(), Known::default(), start());
        old.answered(Some(start.wall - MAX), start);
        young.answered(Some(start.wall), start);
        let later = after(start, 700);
        for known in [&mut old, &mut young] {
            assert_eq!(known.verdict(later, MAX), Verdict::Ask);
            known.failed(later);
        }
        assert_eq!(old.verdict(later, MAX), Verdict::Refused(Stale::Waited(Duration::from_secs(1300))));
        assert_eq!(young.verdict(later, MAX), Verdict::Open);
    }

    #[test]
    fn questions_that_go_on_failing_admit_for_the_limit_and_no_longer() {
        let (mut known, start) = (Known::default(), start());
        known.failed(start);
        assert_eq!(known.verdict(start, MAX), Verdict::Open);
        assert_eq!(known.verdict(after(start, 1), MAX), Verdict::Ask);
        known.failed(after(start, 599));
        assert_eq!(known.verdict(after(start, 599), MAX), Verdict::Open);
        known.failed(after(start, 600));
        assert_eq!(known.verdict(after(start, 600), MAX), Verdict::Refused(Stale::Unknown(MAX)));
        known.answered(None, after(start, 601));
        assert_eq!(known.verdict(after(start, 601), MAX), Verdict::Open);
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_no_answer_for_ever() {
        let (mut known, start) = (Known::default(), start());
        known.answered(Some(start.wall), start);
        let back = Now { wall: start.wall - MAX, ..after(start, 600) };
        assert_eq!(known.verdict(back, MAX), Verdict::Ask);
    }
}
