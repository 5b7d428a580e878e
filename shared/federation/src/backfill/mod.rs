//! A user's own history for a new follower: oldest to newest, a page at a time, paced, and resumable.
//!
//! ```text
//!   History ── page (oldest first), next cursor ──▶ walk ── one by one ──▶ Recipient ── reached(position) ──▶ stored
//! ```
//!
//! The walk knows neither where the history comes from ([`History`]: the application's own reader, or [`OutboxCollection`]
//! over HTTP) nor where it goes ([`Recipient`]: an inbox, or an outbox lane). After each activity it says how far it is; a
//! walk that begins at such a [`Position`] begins with the activity after it.

mod outbox;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

pub use outbox::{OutboxCollection, OutboxSetup};

/// Pages of one walk: a history that goes on for ever is a mistake of its reader (one whose pages form a ring, for instance).
const PAGES_MAX: u32 = 100_000;

/// Ids that a position carries beside the last one: it is stored at each step.
const BEFORE_MAX: usize = 7;

/// Where a page is, in the words of its [`History`]. Kept as long as the job: a page must be found by it after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub String);

/// A part of a history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Activities as they are to be sent, the oldest first.
    pub activities: Vec<Value>,
    /// The page of what came after; none at the end.
    pub next: Option<Cursor>,
}

/// A page can't be read now. Tried again, from where the walk is.
#[derive(Debug, thiserror::Error)]
#[error("a page of the history can't be read: {0}")]
pub struct Unreadable(pub String);

/// Where a user's own activities are read: the port that an application fills.
///
/// Public ones only, and only what a new follower is to see: what a page holds is sent as it is.
#[async_trait]
pub trait History: Send + Sync {
    /// The page at a cursor, or the oldest one.
    ///
    /// What is added while a walk is on its way comes at the end; a page that was handed out keeps its place.
    ///
    /// # Errors
    /// It can't be read now.
    async fn page(&self, owner: Uuid, at: Option<&Cursor>) -> Result<Page, Unreadable>;
}

/// How far a walk is: kept somewhere, it can go on from here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The page; none is the oldest.
    pub page: Option<Cursor>,
    /// Activities of it that are done with.
    pub done: usize,
    /// The `id` of the last activity, by which the place is found in a page that has gained or lost one meanwhile.
    pub last: Option<String>,
    /// Those before it, the newest first, for where that one is gone itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
}

impl Position {
    /// Where in a page to go on.
    fn index_in(&self, activities: &[Value]) -> usize {
        let known = || self.last.iter().chain(&self.before);
        let is_known = |activity: &Value| activity["id"].as_str().is_some_and(|id| known().any(|known| known == id));
        if let Some(at) = activities.iter().rposition(is_known) {
            return at + 1;
        }
        // Of those that were done on this page none is there any more: what follows them has moved up.
        let missing = self.done.min(known().count());
        (self.done - missing).min(activities.len())
    }

    /// One more is done with.
    fn after(self, id: Option<String>) -> Self {
        let Self { page, done, last, mut before } = self;
        let Some(id) = id else {
            return Self { page, done: done + 1, last: None, before: Vec::new() }; // the number is all there is
        };
        before.splice(0..0, last);
        before.truncate(BEFORE_MAX);
        Self { page, done: done + 1, last: Some(id), before }
    }
}

/// Why a recipient takes no more.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// This one it does not take; the next it may.
    #[error("{0}")]
    ThisOne(String),
    /// It is gone: the walk is over.
    #[error("{0}")]
    Gone(String),
    /// Not now: the walk ends here, and can go on from here.
    #[error("{0}")]
    NotNow(String),
}

/// Where the activities of a walk go.
#[async_trait]
pub trait Recipient: Send {
    /// Takes one. Returns when it is safe there.
    ///
    /// # Errors
    /// See [`Refusal`].
    async fn take(&mut self, activity: Value) -> Result<(), Refusal>;

    /// The walk is here. Kept before the next activity is taken, it makes the repeats after a crash one at most.
    ///
    /// # Errors
    /// It can't be kept now, which ends the walk.
    async fn reached(&mut self, position: &Position) -> Result<(), Refusal> {
        let _ = position;
        Ok(())
    }
}

/// How fast a walk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two pages.
    pub pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { pause: Duration::from_millis(500) } // some 40 activities a second of pages of 20: a small instance's pace
    }
}

/// What a walk came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backfilled {
    /// Activities that were taken.
    pub taken: u64,
    /// Activities that were not, each for good.
    pub refused: u64,
    /// The recipient is gone, so there was an end before the end of the history.
    pub gone: Option<String>,
}

/// Why a walk ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The application has given no reader.
    #[error("there is no history to send: give `history(..)` to the builder")]
    NoHistory,
    /// Not a URL.
    #[error("{0:?} is no URL of an inbox")]
    InboxUrl(String),
    /// A page can't be read.
    #[error("{cause}")]
    History {
        /// Where it can go on.
        at: Position,
        /// What went wrong.
        cause: Unreadable,
    },
    /// The recipient takes no more for now.
    #[error("the recipient takes no more for now: {cause}")]
    NotNow {
        /// Where it can go on.
        at: Position,
        /// What it said.
        cause: String,
    },
    /// A page that leads to itself, or more pages than any history has.
    #[error("the history does not end: its pages lead in a circle, or are more than {PAGES_MAX}")]
    Endless,
}

/// Hands a history on, oldest to newest, from a position or from the beginning.
///
/// # Errors
/// It can go on later where the error says so.
pub async fn walk(
    history: &dyn History,
    owner: Uuid,
    from: Option<Position>,
    pace: &Pace,
    to: &mut dyn Recipient,
) -> Result<Backfilled, Error> {
    let mut at = from.unwrap_or_default();
    let mut came_to = Backfilled::default();
    for _ in 0..PAGES_MAX {
        let page = match history.page(owner, at.page.as_ref()).await {
            Ok(page) => page,
            Err(cause) => return Err(Error::History { at, cause }),
        };
        let first = at.index_in(&page.activities);
        for (index, activity) in page.activities.into_iter().enumerate().skip(first) {
            let id = activity["id"].as_str().map(str::to_owned);
            match to.take(activity).await {
                Ok(()) => came_to.taken += 1,
                Err(Refusal::ThisOne(cause)) => {
                    tracing::debug!(%owner, %cause, "an activity of a backfill was not taken");
                    came_to.refused += 1;
                }
                Err(Refusal::Gone(cause)) => return Ok(Backfilled { gone: Some(cause), ..came_to }),
                Err(Refusal::NotNow(cause)) => return Err(Error::NotNow { at, cause }),
            }
            at = Position { done: index, ..at }.after(id);
            keep(to, &at).await?;
        }
        let Some(next) = page.next else { return Ok(came_to) };
        if at.page.as_ref() == Some(&next) {
            return Err(Error::Endless);
        }
        at = Position { page: Some(next), done: 0, ..at };
        keep(to, &at).await?;
        tokio::time::sleep(pace.pause).await;
    }
    Err(Error::Endless)
}

async fn keep(to: &mut dyn Recipient, at: &Position) -> Result<(), Error> {
    to.reached(at).await.map_err(|cause| Error::NotNow { at: at.clone(), cause: cause.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pages of numbers, three on each.
    struct Numbers(usize);

    #[async_trait]
    impl History for Numbers {
        async fn page(&self, _: Uuid, at: Option<&Cursor>) -> Result<Page, Unreadable> {
            let first: usize = at.map_or(Ok(0), |at| at.0.parse()).map_err(|_| Unreadable("no number".into()))?;
            let end = (first + 3).min(self.0);
            let activities = (first..end).map(|number| serde_json::json!({ "id": number.to_string() })).collect();
            Ok(Page { activities, next: (end < self.0).then(|| Cursor(end.to_string())) })
        }
    }

    /// Crashes after so many calls, and remembers what was kept.
    #[derive(Default)]
    struct Fragile {
        calls_left: usize,
        taken: Vec<String>,
        kept: Position,
    }

    impl Fragile {
        fn call(&mut self) -> Result<(), Refusal> {
            self.calls_left = self.calls_left.checked_sub(1).ok_or_else(|| Refusal::NotNow("crashed".into()))?;
            Ok(())
        }
    }

    #[async_trait]
    impl Recipient for Fragile {
        async fn take(&mut self, activity: Value) -> Result<(), Refusal> {
            self.call()?;
            self.taken.push(activity["id"].as_str().unwrap_or_default().to_owned());
            Ok(())
        }

        async fn reached(&mut self, position: &Position) -> Result<(), Refusal> {
            self.call()?;
            self.kept = position.clone();
            Ok(())
        }
    }

    fn at_once() -> Pace {
        Pace { pause: Duration::ZERO }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
    }

    proptest! {
        /// However often it is killed: everything arrives in order, and a kill repeats one activity at most.
        #[test]
        fn a_walk_that_is_killed_goes_on_where_it_was(length in 0usize..20, kills in prop::collection::vec(1usize..12, 0..12)) {
            let mut fragile = Fragile::default();
            let mut ended = false;
            for calls in kills.iter().copied().chain([usize::MAX]) {
                fragile.calls_left = calls;
                let from = Some(fragile.kept.clone());
                ended = run(walk(&Numbers(length), Uuid::nil(), from, &at_once(), &mut fragile)).is_ok();
                if ended { break }
            }
            prop_assert!(ended);
            let mut once = fragile.taken.clone();
            once.dedup();
            prop_assert_eq!(once, (0..length).map(|number| number.to_string()).collect::<Vec<_>>());
            prop_assert!(fragile.taken.len() <= length + kills.len());
        }
    }

    #[test]
    fn a_place_is_found_by_id_where_the_page_has_lost_an_activity() {
        let page = ["a", "c", "d"].map(|id| serde_json::json!({ "id": id }));
        let at = |done, last: Option<&str>| Position { done, last: last.map(str::to_owned), ..Position::default() };
        assert_eq!(at(3, Some("c")).index_in(&page), 2);
        assert_eq!(
            at(1, Some("gone")).index_in(&page),
            0,
            "the first of all is gone, so nothing of this page was sent"
        );
        let two = Position { before: vec!["a".into()], ..at(2, Some("gone")) };
        assert_eq!(two.index_in(&page), 1, "after the one before");
        let all = Position { before: vec!["gone".into()], ..at(4, Some("gone too")) };
        assert_eq!(all.index_in(&page), 2);
        assert_eq!(at(9, None).index_in(&page), 3);
        assert_eq!(at(0, None).index_in(&page), 0);
    }

    #[test]
    fn pages_in_a_circle_are_an_error() {
        struct Ring;
        #[async_trait]
        impl History for Ring {
            async fn page(&self, _: Uuid, _: Option<&Cursor>) -> Result<Page, Unreadable> {
                Ok(Page { activities: vec![], next: Some(Cursor("again".into())) })
            }
        }
        let mut to = Fragile { calls_left: usize::MAX, ..Fragile::default() };
        assert!(matches!(run(walk(&Ring, Uuid::nil(), None, &at_once(), &mut to)), Err(Error::Endless)));
    }
}
