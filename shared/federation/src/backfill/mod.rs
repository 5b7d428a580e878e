//! A user's own history for a new follower: oldest to newest, a page at a time, paced, and resumable.
//!
//! ```text
//!   History ── page (oldest first), next cursor ──▶ walk ── one by one ──▶ Recipient ── reached(position) ──▶ stored
//! ```
//!
//! The walk knows neither where the history comes from ([`History`]: the application's own reader, or [`OutboxCollection`]
//! over HTTP) nor where it goes ([`Recipient`]: an inbox, or an outbox lane). After each activity it says how far it is; a
//! walk that begins at such a [`Position`] begins with the activity after it.
//!
//! What is published after the backfill was asked for goes out live, to the new follower too, and is passed over: by the
//! instant in `published` (RFC 3339; a Create without one has its object's), with half a minute for clocks that differ.
//! Without a `published` that can be read, or with one that is still to come, an activity is handed on; what is passed over is
//! counted. It counts when it was asked for, and not when the walk
//! begins: what was there by then is handed on by a job that has waited for days, too.
//!
//! What its user deletes while a page is in hand has a Delete that goes out live, and an activity that was handed on after it
//! would stand for good at the follower. So nothing is handed on of a page that is older than [`FRESH`]: it is read again
//! first. What is left is a deletion in these seconds; only the application could rule it out, with a reader of its own
//! that knows what is deleted.

mod outbox;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use uuid::Uuid;

pub use outbox::{OutboxCollection, OutboxSetup};

/// Pages of one walk: a history that goes on for ever is a mistake of its reader (one whose pages form a ring, for instance).
const PAGES_MAX: u32 = 100_000;

/// A recipient may let a walk wait for days. A page that is older than this is read again before more of it goes: what was
/// deleted meanwhile must not follow its own Delete. A page then costs its reader six requests a minute at most.
pub const FRESH: Duration = Duration::from_secs(10);

/// Seconds. The clocks that stamp a request and an activity may be those of two machines; a repeat is better than a gap.
const CLOCKS_DIFFER: i64 = 30;

/// A recipient that was answered "gone" (404, 410) so often in a row is. One activity alone may be refused in these words too: a
/// reply to what is not there, for instance.
pub const GONE_AFTER: u8 = 3;

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
/// Public ones only, and only what a new follower is to see: what a page holds is sent as it is, but for what was
/// `published` after the backfill was asked for (see the module).
#[async_trait]
pub trait History: Send + Sync {
    /// The page at a cursor, or the oldest one.
    ///
    /// What is added while a walk is on its way comes at the end; a page that was handed out keeps its place. The same page may
    /// be asked for again, and is to be without what was deleted meanwhile.
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
    /// When it was asked for, in Unix seconds: what was published later went out live, to this follower too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
}

impl Position {
    /// The beginning of a walk that was asked for at this time.
    #[must_use]
    pub fn asked_at(at: OffsetDateTime) -> Self {
        Self::default().or_asked_at(at)
    }

    /// This one; as one that was asked for at this time, where it does not say when.
    #[must_use]
    pub fn or_asked_at(self, at: OffsetDateTime) -> Self {
        Self { until: self.until.or(Some(at.unix_timestamp())), ..self }
    }

    /// Whether anything is done with.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.page.is_some() || self.done > 0
    }

    /// Whether an activity was published after this walk was asked for.
    fn is_live(&self, activity: &Value, now: OffsetDateTime) -> bool {
        let of_note = || (activity["type"] == "Create").then(|| activity["object"]["published"].as_str()).flatten();
        let published = activity["published"].as_str().or_else(of_note);
        let published = published.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        let after = |published: OffsetDateTime, moment| published.unix_timestamp() - CLOCKS_DIFFER > moment;
        // One that is still to come says nothing of when it went out.
        let published = published.filter(|published| !after(*published, now.unix_timestamp()));
        published.zip(self.until).is_some_and(|(published, until)| after(published, until))
    }

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
        let Self { page, done, last, mut before, until } = self;
        let Some(id) = id else {
            return Self { page, done: done + 1, last: None, before: Vec::new(), until }; // the number is all there is
        };
        before.splice(0..0, last);
        before.truncate(BEFORE_MAX);
        Self { page, done: done + 1, last: Some(id), before, until }
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
    /// Waits until it takes one more at once: asked before each, so that what is handed on was read after the waiting.
    ///
    /// # Errors
    /// See [`Refusal`]; none of them is about an activity.
    async fn ready(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

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
    /// Activities that were published after the backfill was asked for, and so went out live.
    pub passed_over: u64,
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
    let (mut pages, mut read_again_at) = (0, None);
    'page: while pages < PAGES_MAX {
        let page = match history.page(owner, at.page.as_ref()).await {
            Ok(page) => page,
            Err(cause) => return Err(Error::History { at, cause }),
        };
        let read_at = Instant::now();
        let first = at.index_in(&page.activities);
        for (index, activity) in page.activities.into_iter().enumerate().skip(first) {
            let id = activity["id"].as_str().map(str::to_owned);
            if at.is_live(&activity, OffsetDateTime::now_utc()) {
                came_to.passed_over += 1;
                at = Position { done: index, ..at }.after(id);
                continue;
            }
            let mut asked = to.ready().await;
            // Once at a place: a recipient that lets each one wait is to get them all the same.
            if asked.is_ok() && read_at.elapsed() > FRESH && read_again_at.as_ref() != Some(&at) {
                read_again_at = Some(at.clone());
                continue 'page;
            }
            if asked.is_ok() {
                asked = to.take(activity).await;
            }
            match asked {
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
        pages += 1;
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
    fn what_was_published_after_the_request_is_live() {
        let at = Position::asked_at(OffsetDateTime::from_unix_timestamp(1_700_000_000).expect("a time")); // 22:13:20 UTC
        let now = OffsetDateTime::from_unix_timestamp(1_700_000_000 + 3 * 3_600).expect("a time");
        let note = |published: &str| serde_json::json!({ "type": "Create", "published": published });
        for (published, is_live) in [
            ("2023-11-14T22:13:19Z", false),
            ("2023-11-14T22:13:40.5Z", false), // its clock may be ahead
            ("2023-11-14T22:14:00Z", true),
            ("2023-11-15T00:14:00+02:00", true),
            ("2023-11-15T01:13:40Z", true),
            ("2023-11-15T01:14:00Z", false), // not yet
            ("yesterday", false),
        ] {
            assert_eq!(at.is_live(&note(published), now), is_live, "{published}");
        }
        let inside = serde_json::json!({ "type": "Create", "object": note("2023-11-14T22:14:00Z") });
        let boosted = serde_json::json!({ "type": "Announce", "object": note("2023-11-14T22:14:00Z") });
        assert_eq!((at.is_live(&inside, now), at.is_live(&boosted, now)), (true, false));
        assert!(!Position::default().is_live(&inside, now), "asked for nobody knows when");
        assert_eq!(at.clone().or_asked_at(OffsetDateTime::now_utc()), at);
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

    /// One page, of which its user deletes "b" once it was read.
    #[derive(Default)]
    struct Deleting(std::sync::atomic::AtomicUsize);

    #[async_trait]
    impl History for Deleting {
        async fn page(&self, _: Uuid, _: Option<&Cursor>) -> Result<Page, Unreadable> {
            let reads = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let there: &[&str] = if reads == 0 { &["a", "b", "c"] } else { &["a", "c"] };
            let activities = there.iter().map(|id| serde_json::json!({ "id": id })).collect();
            Ok(Page { activities, next: None })
        }
    }

    /// Lets each activity wait for so long.
    struct Slow(Duration, Vec<String>);

    #[async_trait]
    impl Recipient for Slow {
        async fn ready(&mut self) -> Result<(), Refusal> {
            if !self.1.is_empty() {
                tokio::time::sleep(self.0).await;
            }
            Ok(())
        }

        async fn take(&mut self, activity: Value) -> Result<(), Refusal> {
            self.1.push(activity["id"].as_str().unwrap_or_default().to_owned());
            Ok(())
        }
    }

    #[test]
    fn a_walk_passes_over_what_is_live() {
        struct Dated;
        #[async_trait]
        impl History for Dated {
            async fn page(&self, _: Uuid, _: Option<&Cursor>) -> Result<Page, Unreadable> {
                let note = |(id, published)| serde_json::json!({ "id": id, "published": published });
                let all = [("a", "2023-11-14T22:00:00Z"), ("b", "2023-11-14T23:00:00Z"), ("c", "2023-11-14T21:00:00Z")];
                Ok(Page { activities: all.into_iter().map(note).collect(), next: None })
            }
        }
        let from = Position::asked_at(OffsetDateTime::from_unix_timestamp(1_700_000_000).expect("a time"));
        let mut to = Fragile { calls_left: usize::MAX, ..Fragile::default() };
        let came_to = run(walk(&Dated, Uuid::nil(), Some(from), &at_once(), &mut to)).expect("an end");
        assert_eq!((to.taken, came_to.taken, came_to.passed_over), (vec!["a".to_owned(), "c".to_owned()], 2, 1));
        assert_eq!((to.kept.done, to.kept.last.as_deref()), (3, Some("c")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_deleted_while_the_recipient_lets_it_wait_is_not_handed_on() {
        for (waits, taken) in [(FRESH * 360, &["a", "c"][..]), (FRESH / 4, &["a", "b", "c"])] {
            let mut slow = Slow(waits, Vec::new());
            let came_to = walk(&Deleting::default(), Uuid::nil(), None, &at_once(), &mut slow).await.expect("an end");
            assert_eq!(slow.1, taken, "{waits:?}");
            assert_eq!(came_to.taken, taken.len() as u64);
        }
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
