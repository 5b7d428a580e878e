//! A user's history for a new follower, from the application's own reader and from its outbox collection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::{Path, Query, State};
use axum::routing::get;
use axum::{Json, Router};
use federation::backfill::{Error, Position, Unreadable};
use federation::{Backfilled, Cursor, History, OutboxCollection, OutboxSetup, Page};
use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::becomes_true;
use fedstream_tests::instance::Instance;
use serde_json::{Value, json};
use std::collections::HashMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::support::{ALICE, BOB, Failures, PATIENCE, hurried, inbox, note, remote};

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
    assert_eq!(came_to, Backfilled { taken: 10, ..Backfilled::default() });
    assert_eq!(numbers(&remote), (0..10).collect::<Vec<_>>());
    service.request_backfill(ALICE, inbox(&remote).into()).await.expect("taken");
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    assert_eq!(remote.arrivals(), 20);
}

/// Three notes: of an hour ago, of an hour from now, which is a clock that is ahead, and one that does not say.
struct Dated;

#[async_trait]
impl History for Dated {
    async fn page(&self, _: Uuid, _: Option<&Cursor>) -> Result<Page, Unreadable> {
        let dated = |(number, after): (usize, Option<i64>)| {
            let mut note = note(number);
            if let Some(after) = after {
                let published = OffsetDateTime::now_utc() + time::Duration::hours(after);
                note["published"] = published.format(&Rfc3339).expect("a time").into();
            }
            note
        };
        Ok(Page { activities: [(0, Some(-1)), (1, Some(1)), (2, None)].map(dated).to_vec(), next: None })
    }
}

#[tokio::test]
async fn what_was_published_after_a_backfill_was_asked_for_is_left_to_the_live_traffic() {
    let (service, remote) = (with(Dated).await, remote().await);
    service.run_backfill_for_follower(ALICE, inbox(&remote).into()).await.expect("sent");
    service.request_backfill(ALICE, inbox(&remote).into()).await.expect("taken");
    // One that was left over by a shutdown of two hours ago.
    let at = Position::asked_at(OffsetDateTime::now_utc() - time::Duration::hours(2));
    becomes_true("those of now are through", PATIENCE, || remote.arrivals() == 6).await.expect("in time");
    let came_to = service.resume_backfill(ALICE, inbox(&remote).into(), at).await.expect("sent");
    assert_eq!(came_to, Backfilled { taken: 2, passed_over: 1, ..Backfilled::default() });
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    assert_eq!(numbers(&remote), [0, 1, 2, 0, 1, 2, 1, 2]);
}

#[tokio::test]
async fn what_is_refused_is_passed_over_and_an_inbox_that_says_again_and_again_that_it_is_gone_ends_it() {
    let (service, remote) = (with(Notes(20)).await, remote().await);
    remote.behave_where(None, Behaviour::rejects(422, "no"), |seen| seen.id.ends_with("/3"));
    remote.behave_where(None, Behaviour::rejects(410, "gone"), |seen| {
        ["/1", "/5", "/6", "/8", "/9", "/10"].iter().any(|number| seen.id.ends_with(number))
    });
    let came_to = service.run_backfill_for_follower(ALICE, inbox(&remote).into()).await.expect("an end");
    let gone = Some("the remote answered 410: gone".to_owned());
    assert_eq!(came_to, Backfilled { taken: 4, refused: 6, gone, ..Backfilled::default() });
    assert_eq!(numbers(&remote), (0..11).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_backfill_whose_inbox_is_gone_is_told_as_one_that_was_given_up() {
    let failures = Failures::default();
    let builder = hurried(&failures).history(Arc::new(Notes(6))).backfill_pause(Duration::ZERO);
    let (service, remote) = (builder.build().await.expect("a service"), remote().await);
    remote.behave(Behaviour::rejects(410, "gone"));
    service.request_backfill(ALICE, inbox(&remote).into()).await.expect("taken");
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    let told: Vec<_> = failures.all().into_iter().map(|(_, cause)| cause).collect();
    let (one, whole) = ("the remote answered 410: gone", "the backfill failed: the remote answered 410: gone");
    assert_eq!(told, [one, one, one, whole]);
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
    let error = service.request_backfill(ALICE, "http://127.0.0.1:9/inbox".to_owned()).await.expect_err("at once");
    assert!(error.to_string().contains("there is no history to send"), "{error}");
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

pub fn reader_of(address: &str) -> OutboxCollection {
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
async fn activities_go_out_in_the_context_of_the_page_or_the_collection_that_they_stand_in() {
    let context = json!(["https://www.w3.org/ns/activitystreams", { "Emoji": "toot:Emoji" }]);
    let bare = json!({ "id": "https://our.example/activities/1", "type": "Create" });
    let page = json!({ "id": "?page=0", "orderedItems": [bare] });
    let mut whole = page.clone();
    whole["@context"] = context.clone();
    for collection in [json!({ "@context": context, "first": page }), whole] {
        let show = move || async move { Json(collection) };
        let router = Router::new().route("/users/{user}/outbox", get(show));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let history = reader_of(&listener.local_addr().expect("it is bound").to_string());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let read = history.page(ALICE, None).await.expect("a page").activities;
        assert_eq!((&read[0]["@context"], &read[0]["id"], read.len()), (&context, &bare["id"], 1));
    }
}

#[tokio::test]
async fn an_activity_has_the_same_context_from_whichever_side_its_page_is_reached() {
    let (own, of_collection, usual) = ("own", "of the collection", "https://www.w3.org/ns/activitystreams");
    let bare = json!({ "id": "https://our.example/activities/1", "type": "Create" });
    let with_own = json!({ "@context": own, "id": "https://our.example/activities/2", "type": "Create" });
    let page = json!({ "id": "/page", "orderedItems": [with_own, bare, "/bare"] });
    for (collection, inherited) in [
        (json!({ "@context": of_collection, "first": "/page" }), of_collection),
        (json!({ "@context": of_collection, "first": page }), of_collection),
        (json!({ "first": page }), usual),
        (json!({ "@context": null, "first": "/page" }), usual),
    ] {
        let (shown, page, bare) = (collection.clone(), page.clone(), bare.clone());
        let router = Router::new()
            .route("/users/{user}/outbox", get(move || async move { Json(shown) }))
            .route("/page", get(move || async move { Json(page) }))
            .route("/bare", get(move || async move { Json(bare) }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move { axum::serve(listener, router).await });
        let history = reader_of(&address.to_string());
        // From the collection, and by the page's own address, as after a restart.
        let by_address = json!({ "page": format!("http://{address}/page"), "last": [] }).to_string();
        for at in [None, Some(Cursor(by_address))] {
            let read = history.page(ALICE, at.as_ref()).await.expect("a page").activities;
            let contexts: Vec<_> = read.iter().map(|activity| activity["@context"].clone()).collect();
            assert_eq!(contexts, [usual, inherited, own], "{collection}, {at:?}");
        }
    }
}

#[tokio::test]
async fn an_activity_that_is_gone_from_its_own_address_is_passed_over() {
    let page = json!({ "orderedItems": [note(2), "/gone", "/missing", "/there", note(0)] });
    let router = Router::new()
        .route("/users/{user}/outbox", get(move || async move { Json(page) }))
        .route("/there", get(|| async { Json(note(1)) }))
        .route("/gone", get(|| async { axum::http::StatusCode::GONE }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let history = reader_of(&listener.local_addr().expect("it is bound").to_string());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let page = history.page(ALICE, None).await.expect("a page");
    assert_eq!(page.activities, [note(0), note(1), note(2)]);
}

/// A history of a few, which can't be read at first.
struct Flaky(AtomicUsize);

#[async_trait]
impl History for Flaky {
    async fn page(&self, owner: Uuid, at: Option<&Cursor>) -> Result<Page, Unreadable> {
        // Before the first page, and before the second: the count is of calls.
        if matches!(self.0.fetch_add(1, Ordering::SeqCst), 0 | 1 | 3) {
            return Err(Unreadable("not now".to_owned()));
        }
        Notes(6).page(owner, at).await
    }
}

#[tokio::test]
async fn a_page_that_can_not_be_read_is_tried_again_from_where_it_was() {
    let (service, remote) = (with(Flaky(AtomicUsize::new(0))).await, remote().await);
    service.request_backfill(ALICE, inbox(&remote).into()).await.expect("taken");
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    assert_eq!(numbers(&remote), (0..6).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_follower_that_fails_for_long_gets_the_rest_when_it_is_back() {
    let (service, remote) = (with(Notes(6)).await, remote().await);
    // Longer than one delivery is tried for: three attempts each.
    remote.behave_where(Some(5), Behaviour::busy(503, None), |seen| seen.id.ends_with("/2"));
    service.request_backfill(ALICE, inbox(&remote).into()).await.expect("taken");
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    assert_eq!(numbers(&remote), [0, 1, 2, 2, 2, 2, 2, 2, 3, 4, 5]);
}

#[tokio::test]
async fn what_a_follower_refuses_or_never_takes_is_told() {
    let failures = Failures::default();
    let builder = hurried(&failures).history(Arc::new(Notes(6))).backfill_pause(Duration::ZERO);
    let (service, remote) = (builder.delivery_max_attempts(2).build().await.expect("a service"), remote().await);
    remote.behave_where(None, Behaviour::rejects(422, "no"), |seen| seen.id.ends_with("/1"));
    remote.behave_where(None, Behaviour::busy(503, None), |seen| seen.id.ends_with("/3"));
    service.request_backfill(ALICE, inbox(&remote).into()).await.expect("taken");
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    let told: Vec<_> = failures.all().into_iter().map(|(_, cause)| cause).collect();
    let whole = "the backfill failed: the recipient takes no more for now: the remote answered 503";
    assert_eq!(told, ["the remote answered 422: no", "the remote answered 503", whole]);
}

#[tokio::test]
async fn nothing_of_the_same_user_overtakes_what_a_backfill_is_sending() {
    let (service, remote) = (with(Notes(3)).await, remote().await);
    remote.behave_next(1, Behaviour::Hang);
    service.request_backfill(ALICE, inbox(&remote).into()).await.expect("taken");
    becomes_true("the first is on its way", PATIENCE, || remote.arrivals() == 1).await.expect("in time");
    service.send(&note(99), ALICE, [inbox(&remote).into()]).await.expect("taken");
    service.send(&note(100), BOB, [inbox(&remote).into()]).await.expect("taken");
    becomes_true("another user's goes", PATIENCE, || remote.accepted() == 1).await.expect("in time");
    assert_eq!(numbers(&remote), [0, 100]);
    remote.behave_well();
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    // What hung may break off and go again, or be answered after all.
    let order: Vec<_> = numbers(&remote).into_iter().filter(|number| ![0, 100].contains(number)).collect();
    let last = |number| numbers(&remote).iter().rposition(|seen| *seen == number);
    assert!(last(0) < last(99), "{:?}", numbers(&remote));
    assert_eq!(order, [99, 1, 2], "what came meanwhile goes behind the one that was being sent");
}

#[tokio::test]
async fn a_shutdown_hands_back_how_far_a_backfill_is_and_it_goes_on_from_there() {
    let (service, remote) = (with(Notes(6)).await, remote().await);
    remote.behave_where(None, Behaviour::Hang, |seen| seen.id.ends_with("/5"));
    service.request_backfill(ALICE, inbox(&remote).into()).await.expect("taken");
    let (waiting, to) = (service.clone(), inbox(&remote));
    let attended = tokio::spawn(async move { waiting.run_backfill_for_follower(ALICE, to.into()).await });
    becomes_true("both hang at the last", PATIENCE, || {
        numbers(&remote).iter().filter(|number| **number == 5).count() == 1 && remote.arrivals() >= 10
    })
    .await
    .expect("in time");
    let left = service.shut_down(Duration::ZERO).await;
    assert_eq!((left.events.len(), left.backfills.len()), (1, 1), "{left:?}");
    let error = attended.await.expect("no panic").expect_err("it did not end");
    assert!(matches!(error, Error::NotNow { .. }), "{error}");

    let (again, after) = (with(Notes(6)).await, crate::support::remote().await);
    let left = left.backfills.into_iter().next().expect("one");
    let came_to = again.resume_backfill(left.owner_user_id, inbox(&after).into(), left.at).await.expect("sent");
    assert_eq!((came_to.taken, numbers(&after)), (1, vec![5]));
}

#[tokio::test]
async fn an_outbox_that_does_not_answer_says_so() {
    let error = reader_of("127.0.0.1:9").page(ALICE, None).await.expect_err("nobody there");
    assert!(error.to_string().starts_with("a page of the history can't be read: http://127.0.0.1:9/users/"), "{error}");
}
