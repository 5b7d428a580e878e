//! An outbox whose user goes on writing and deleting while it is read: each activity is read once, the oldest first, and no page
//! more often than it takes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use federation::{History, OutboxCollection};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::backfill::reader_of;
use crate::support::{ALICE, note};

/// Activities on a page.
const PAGE: usize = 4;

/// No test has as many.
const PAGES_MAX: usize = 500;

/// So that a number is as long as a name has to be.
const FIRST: usize = 1_000_000;

/// How pages are addressed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Paging {
    /// By number, the newest is 0, with links in both directions.
    Numbers,
    /// By the activity at their bound, with links in both directions: Mastodon.
    Bounds,
    /// By the activity at their upper bound, and only to what is older: Pleroma.
    UpperBounds,
    /// The same with `prev`, which leads to the newest of what is above the bound and not to what follows it: `since_id`.
    Since,
}

const ALL: [Paging; 4] = [Paging::Numbers, Paging::Bounds, Paging::UpperBounds, Paging::Since];

/// An outbox that its user goes on writing in.
#[derive(Clone)]
struct Outbox {
    paging: Paging,
    notes: Arc<Mutex<Vec<usize>>>,
    pages_read: Arc<AtomicUsize>,
}

impl Outbox {
    fn new(paging: Paging, notes: usize) -> Self {
        let notes = Arc::new(Mutex::new((FIRST..FIRST + notes).collect()));
        Self { paging, notes, pages_read: Arc::default() }
    }

    fn post(&self, number: usize) {
        self.notes.lock().expect("nobody panicked").push(FIRST + number);
    }

    fn delete(&self, number: usize) {
        self.notes.lock().expect("nobody panicked").retain(|other| *other != FIRST + number);
    }

    /// Where it is shown.
    async fn shown(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new().route("/users/{user}/outbox", get(show)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        address.to_string()
    }

    /// Reads all of it; `before` each page but the first the user does something. Answers the numbers.
    async fn read(&self, mut before: impl FnMut(usize)) -> Vec<usize> {
        self.read_with(reader_of(&self.shown().await), async |page, history| {
            before(page);
            history
        })
        .await
    }

    /// The same; `before` each page says who reads on.
    async fn read_with(
        &self,
        mut history: OutboxCollection,
        mut before: impl AsyncFnMut(usize, OutboxCollection) -> OutboxCollection,
    ) -> Vec<usize> {
        let (mut read, mut at) = (Vec::new(), None);
        for page in 0.. {
            if page > 0 {
                history = before(page, history).await;
            }
            assert!(page < PAGES_MAX, "it does not end: {read:?}");
            let found = history.page(ALICE, at.as_ref()).await.expect("a page");
            read.extend(found.activities.iter().map(number_of));
            at = found.next;
            if at.is_none() {
                break;
            }
        }
        read
    }
}

fn number_of(activity: &Value) -> usize {
    let id = activity["id"].as_str().expect("an id");
    id.rsplit('/').next().and_then(|number| number.parse::<usize>().ok()).expect("a number") - FIRST
}

async fn show(State(outbox): State<Outbox>, Query(query): Query<HashMap<String, usize>>) -> Json<Value> {
    let mut notes = outbox.notes.lock().expect("nobody panicked").clone();
    notes.reverse();
    if !query.is_empty() {
        outbox.pages_read.fetch_add(1, Ordering::Relaxed);
    }
    Json(match outbox.paging {
        Paging::Numbers => numbered(&notes, &query),
        Paging::Bounds => bounded(&notes, &query, Some("min_id")),
        Paging::UpperBounds => bounded(&notes, &query, None),
        Paging::Since => bounded(&notes, &query, Some("since_id")),
    })
}

fn items(notes: &[usize]) -> Vec<Value> {
    notes.iter().map(|number| note(*number)).collect()
}

fn numbered(notes: &[usize], query: &HashMap<String, usize>) -> Value {
    let pages = notes.len().div_ceil(PAGE);
    let Some(page) = query.get("page") else {
        return json!({ "first": "?page=0", "last": format!("?page={}", pages - 1) });
    };
    let on_it: Vec<_> = notes.iter().copied().skip(page * PAGE).take(PAGE).collect();
    let link = |to: Option<usize>| to.filter(|to| *to < pages).map(|to| format!("?page={to}"));
    json!({ "orderedItems": items(&on_it), "next": link(Some(page + 1)), "prev": link(page.checked_sub(1)) })
}

fn bounded(notes: &[usize], query: &HashMap<String, usize>, prev: Option<&str>) -> Value {
    if query.is_empty() {
        let last = (prev == Some("min_id")).then_some("?page=1&min_id=0");
        return json!({ "first": "?page=1", "last": last });
    }
    let below = query.get("max_id").copied().unwrap_or(usize::MAX);
    let since = query.get("since_id").copied().unwrap_or_default();
    let is_asked_for = |number: &usize| *number < below && *number > since;
    let mut on_it: Vec<_> = notes.iter().copied().filter(is_asked_for).take(PAGE).collect();
    if let Some(above) = query.get("min_id") {
        on_it = notes.iter().rev().copied().filter(|number| number > above).take(PAGE).collect();
        on_it.reverse();
    }
    let prev = on_it.first().zip(prev).map(|(newest, name)| format!("?page=1&{name}={newest}"));
    let older = |oldest: &usize| notes.iter().any(|number| number < oldest);
    let next = on_it.last().filter(|oldest| older(oldest)).map(|oldest| format!("?page=1&max_id={oldest}"));
    json!({ "orderedItems": items(&on_it), "next": next, "prev": prev })
}

#[tokio::test]
async fn what_is_posted_while_an_outbox_is_read_pushes_nothing_out_of_it() {
    for (paging, posts) in ALL.into_iter().flat_map(|paging| [1, 3, 9].map(|posts| (paging, posts))) {
        let outbox = Outbox::new(paging, 10);
        let mut next = 10;
        let read = outbox.read(|page| {
            for _ in 0..if page < 3 { posts } else { 0 } {
                outbox.post(next);
                next += 1;
            }
        });
        assert_eq!(read.await, (0..10 + 2 * posts).collect::<Vec<_>>(), "{paging:?}, {posts}");
    }
}

#[tokio::test]
async fn what_is_deleted_while_an_outbox_is_read_takes_nothing_with_it() {
    // What was read last itself, what was read before, and what was not read yet.
    let deletions = [vec![1], vec![0], vec![0, 1], vec![4], vec![1, 5, 9]];
    for (paging, deleted) in ALL.into_iter().flat_map(|paging| deletions.clone().map(|deleted| (paging, deleted))) {
        let outbox = Outbox::new(paging, 10);
        let read = outbox.read(|page| {
            if page == 1 {
                deleted.iter().for_each(|number| outbox.delete(*number));
            }
        });
        let of_first_page = |number: usize| number < if paging == Paging::Bounds { PAGE } else { 10 % PAGE };
        let expected: Vec<_> = (0..10).filter(|number| of_first_page(*number) || !deleted.contains(number)).collect();
        assert_eq!(read.await, expected, "{paging:?}, {deleted:?}");
    }
}

#[tokio::test]
async fn a_reader_that_never_saw_the_outbox_goes_on_in_it_after_posts_and_deletions() {
    // More pages than are read back over at once, and all addresses move by one.
    const NOTES: usize = 30 * PAGE + 1;
    for (paging, at) in ALL.into_iter().flat_map(|paging| [1, 2, 15, 29].map(|at| (paging, at))) {
        for deletes in [false, true] {
            let outbox = Outbox::new(paging, NOTES);
            let address = outbox.shown().await;
            let read = outbox.read_with(reader_of(&address), async |page, history| {
                if page != at {
                    return history;
                }
                // One of those that were handed out already; else all of a page's addresses lead where they led.
                if deletes {
                    outbox.delete(1)
                } else {
                    outbox.post(NOTES)
                }
                reader_of(&address)
            });
            let read = read.await;
            let expected: Vec<_> = (0..NOTES + usize::from(!deletes)).collect();
            let missing: Vec<_> = expected.iter().filter(|number| !read.contains(number)).collect();
            // The first page of some begins with it.
            assert!(missing.is_empty() || deletes && missing == [&1], "{paging:?}, {at}, {deletes}: {missing:?}");
            assert!(read.is_sorted_by(|one, other| one < other), "{paging:?}, {at}, {deletes}: {read:?}");
        }
    }
}

#[tokio::test]
async fn two_walks_through_one_outbox_do_not_lead_each_other_astray() {
    const NOTES: usize = 10 * PAGE;
    for paging in ALL {
        let outbox = Outbox::new(paging, NOTES);
        let address = outbox.shown().await;
        let read = outbox.read_with(reader_of(&address), async |page, history| {
            if page == 3 {
                outbox.post(NOTES);
                let mut at = None;
                loop {
                    at = history.page(ALICE, at.as_ref()).await.expect("a page").next;
                    if at.is_none() {
                        break;
                    }
                }
            }
            history
        });
        assert_eq!(read.await, (0..=NOTES).collect::<Vec<_>>(), "{paging:?}");
        let pages_read = outbox.pages_read.load(Ordering::Relaxed);
        // There and back, twice; and a second look where the newest page has moved. The way is not looked for once more.
        assert!(paging != Paging::UpperBounds || pages_read <= 10 + 9 + 11 + 10 + 1, "{pages_read}");
    }
}

#[tokio::test]
async fn a_place_of_which_nothing_is_left_is_no_end() {
    let outbox = Outbox::new(Paging::UpperBounds, 3 * PAGE);
    let address = outbox.shown().await;
    let first = reader_of(&address).page(ALICE, None).await.expect("a page");
    let second = reader_of(&address).page(ALICE, first.next.as_ref()).await.expect("a page");
    (0..2 * PAGE).for_each(|number| outbox.delete(number));
    let error = reader_of(&address).page(ALICE, first.next.as_ref()).await.expect_err("nobody knows what follows");
    assert!(error.to_string().contains("nothing is left in "), "{error}");
    // Its address says where it begins.
    let third = reader_of(&address).page(ALICE, second.next.as_ref()).await.expect("a page");
    assert_eq!(third.activities.iter().map(number_of).collect::<Vec<_>>(), (2 * PAGE..3 * PAGE).collect::<Vec<_>>());
    assert_eq!(third.next, None);
}

#[tokio::test]
async fn a_page_is_read_once_where_its_address_says_what_it_adjoins() {
    let reads = async |paging| {
        let outbox = Outbox::new(paging, 10 * PAGE);
        assert_eq!(outbox.read(|_| {}).await, (0..10 * PAGE).collect::<Vec<_>>(), "{paging:?}");
        outbox.pages_read.load(Ordering::Relaxed)
    };
    assert_eq!(reads(Paging::Bounds).await, 10 + 1, "and one that is empty, behind the newest");
    // There to find the oldest, which is in hand then, and back.
    assert_eq!(reads(Paging::UpperBounds).await, 10 + 9);
    assert_eq!(reads(Paging::Since).await, 10 + 9 + 1, "by the way that led there, and one that is empty");
    assert_eq!(reads(Paging::Numbers).await, 10 + 9, "each but the oldest with a look at the one before");
}
