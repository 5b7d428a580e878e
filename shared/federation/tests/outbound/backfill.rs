//! A user's history for a new follower, from the application's own reader and from its outbox collection.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use federation::backfill::{Error, Unreadable};
use federation::{Backfilled, Cursor, History, OutboxCollection, OutboxSetup, Page};
use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::instance::Instance;
use serde_json::{Value, json};
use std::collections::HashMap;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::support::{ALICE, Failures, PATIENCE, hurried, inbox, note, remote};

/// Activities on a page.
const PAGE: usize = 4;

/// The application's own reader over so many notes.
struct Notes(usize);

#[async_trait]
impl History for Notes {
    async fn page(&self, owner: Uuid, at: Option<&Cursor>) -> Result<Page, Unreadable> {
        assert_eq!(owner, ALICE);
        let first: usize = at.map_or(Ok(0), |at| at.0.parse()).map_err(|_| Unreadable("no number".to_owned()))?;
        let end = (first + PAGE).min(self.0);
        let next = (end < self.0).then(|| Cursor(end.to_string()));
        Ok(Page { activities: (first..end).map(note).collect(), next })
    }
}

async fn with(history: impl History + 'static) -> federation::ActivityPubService {
    let builder = hurried(&Failures::default()).history(Arc::new(history)).backfill_pause(Duration::ZERO);
    builder.delivery_max_attempts(3).build().await.expect("a service")
}

fn numbers(remote: &Instance) -> Vec<usize> {
    let number = |id: &str| id.rsplit('/').next().and_then(|number| number.parse().ok()).expect("a number");
    remote.seen().iter().map(|seen| number(&seen.id)).collect()
}

#[tokio::test]
async fn a_new_follower_gets_the_history_from_the_oldest_on() {
    let (service, remote) = (with(Notes(10)).await, remote().await);
    let came_to = service.run_backfill_for_follower(ALICE, inbox(&remote).into()).await.expect("sent");
    assert_eq!(came_to, Backfilled { taken: 10, refused: 0, gone: None });
    assert_eq!(numbers(&remote), (0..10).collect::<Vec<_>>());
    service.request_backfill(ALICE, inbox(&remote).into()).await.expect("taken");
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    assert_eq!(remote.arrivals(), 20);
}

#[tokio::test]
async fn what_is_refused_is_passed_over_and_an_inbox_that_is_gone_ends_it() {
    let (service, remote) = (with(Notes(10)).await, remote().await);
    remote.behave_where(None, Behaviour::rejects(422, "no"), |seen| seen.id.ends_with("/3"));
    remote.behave_where(None, Behaviour::rejects(410, "gone"), |seen| seen.id.ends_with("/6"));
    let came_to = service.run_backfill_for_follower(ALICE, inbox(&remote).into()).await.expect("an end");
    assert_eq!(came_to, Backfilled { taken: 5, refused: 1, gone: Some("the remote answered 410: gone".to_owned()) });
    assert_eq!(numbers(&remote), (0..7).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_remote_that_fails_ends_it_with_the_place_to_go_on_from() {
    let (service, remote) = (with(Notes(10)).await, remote().await);
    remote.behave_where(None, Behaviour::busy(503, None), |seen| seen.id.ends_with("/5"));
    let error = service.run_backfill_for_follower(ALICE, inbox(&remote).into()).await.expect_err("not now");
    let Error::NotNow { at, .. } = error else { panic!("{error}") };
    assert_eq!((at.page, at.done), (Some(Cursor("4".to_owned())), 1));
}

#[tokio::test]
async fn without_a_history_there_is_nothing_to_send() {
    let service = hurried(&Failures::default()).build().await.expect("a service");
    let error = service.run_backfill_for_follower(ALICE, "http://127.0.0.1:9/inbox".to_owned()).await;
    assert!(matches!(error, Err(Error::NoHistory)));
    let error = service.run_backfill_for_follower(ALICE, "what?".to_owned()).await;
    assert!(matches!(error, Err(Error::InboxUrl(_))));
}

/// How an application shows its outbox.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Pages that know both neighbours, and the collection its last one: Mastodon.
    BothWays,
    /// Pages that know the older one only.
    Forward,
    /// The first page stands in the collection.
    Embedded,
    /// All in one.
    Whole,
}

async fn outbox(
    State((shape, notes)): State<(Shape, usize)>,
    Path(user): Path<Uuid>,
    Query(query): Query<HashMap<String, usize>>,
) -> Json<Value> {
    // Under its public name, as an application knows itself.
    let page_id = |page: usize| format!("https://our.example/users/{user}/outbox?page={page}");
    let pages = notes.div_ceil(PAGE);
    let newest_first: Vec<Value> = (0..notes).rev().map(note).collect();
    let page = |page: usize| {
        let items: Vec<_> = newest_first.iter().skip(page * PAGE).take(PAGE).collect();
        let mut json = json!({ "id": page_id(page), "type": "OrderedCollectionPage", "orderedItems": items });
        if page + 1 < pages {
            json["next"] = page_id(page + 1).into();
        }
        if page > 0 && matches!(shape, Shape::BothWays) {
            json["prev"] = page_id(page - 1).into();
        }
        json
    };
    Json(match (query.get("page"), shape) {
        (Some(number), _) => page(*number),
        (None, Shape::BothWays) => {
            json!({ "type": "OrderedCollection", "first": page_id(0), "last": page_id(pages - 1) })
        }
        (None, Shape::Forward) => json!({ "type": "OrderedCollection", "first": page_id(0) }),
        (None, Shape::Embedded) => json!({ "type": "OrderedCollection", "first": page(0) }),
        (None, Shape::Whole) => json!({ "type": "OrderedCollection", "orderedItems": newest_first }),
    })
}

async fn reader(shape: Shape, notes: usize) -> OutboxCollection {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let router = Router::new().route("/users/{user}/outbox", get(outbox)).with_state((shape, notes));
    tokio::spawn(async move { axum::serve(listener, router).await });
    reader_of(&address.to_string())
}

fn reader_of(address: &str) -> OutboxCollection {
    let template = format!("http://{address}/users/{{owner}}/outbox");
    OutboxCollection::new(OutboxSetup { template, ..OutboxSetup::default() }).expect("a template")
}

async fn read(history: &OutboxCollection, mut at: Option<Cursor>) -> (Vec<Value>, Vec<Cursor>) {
    let (mut activities, mut cursors) = (Vec::new(), Vec::new());
    loop {
        let page = history.page(ALICE, at.as_ref()).await.expect("a page");
        activities.extend(page.activities);
        let Some(next) = page.next else { return (activities, cursors) };
        cursors.push(next.clone());
        at = Some(next);
    }
}

#[tokio::test]
async fn an_outbox_of_any_shape_is_read_from_its_end() {
    for shape in [Shape::BothWays, Shape::Forward, Shape::Embedded, Shape::Whole] {
        let (activities, cursors) = read(&reader(shape, 10).await, None).await;
        assert_eq!(activities, (0..10).map(note).collect::<Vec<_>>(), "{shape:?}");
        assert_eq!(cursors.len(), if matches!(shape, Shape::Whole) { 0 } else { 2 }, "{shape:?}");
    }
}

#[tokio::test]
async fn an_outbox_is_read_on_from_a_cursor_by_a_reader_that_never_saw_it() {
    for shape in [Shape::BothWays, Shape::Forward, Shape::Embedded] {
        let first = reader(shape, 10).await;
        let (_, cursors) = read(&first, None).await;
        // Another life: the trail is gone, the addresses are not.
        let address = reader(shape, 10).await;
        let (activities, _) = read(&address, Some(cursors[0].clone())).await;
        let rest: Vec<_> = activities.iter().map(|activity| activity["id"].clone()).collect();
        let expected: Vec<_> = (2..10).map(|number| note(number)["id"].clone()).collect();
        assert_eq!(rest, expected, "{shape:?}");
    }
}

#[tokio::test]
async fn an_outbox_that_does_not_answer_says_so() {
    let error = reader_of("127.0.0.1:9").page(ALICE, None).await.expect_err("nobody there");
    assert!(error.to_string().starts_with("a page of the history can't be read: http://127.0.0.1:9/users/"), "{error}");
}
