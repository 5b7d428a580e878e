//! Where a delivery may go: the guard stands where the connection is made, redirects and names included.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::routing::post;
use federation::{ActivityPubService, DeliveryError, Guard, Limits, Names};
use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::sign::Kind;
use tokio::net::TcpListener;

use crate::support::{ALICE, Failures, hurried, inbox, keys, note, remote, service};

/// Lets this machine's usual address through, and none of its others.
fn one_address() -> Guard {
    Guard::public().and("127.0.0.1/32".parse().expect("a network")).and_plain_http()
}

async fn guarded(names: Option<Arc<dyn Names>>) -> ActivityPubService {
    let builder = hurried(&Failures::default()).guard(one_address());
    let builder = if let Some(names) = names { builder.names(names) } else { builder };
    builder.build().await.expect("a service")
}

/// A server that sends every POST on.
async fn redirecting(status: u16, to: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let status = StatusCode::from_u16(status).expect("a status");
    let router = Router::new().route("/inbox", post(move || async move { (status, [(LOCATION, to)]) }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn a_moved_inbox_is_followed_and_signed_anew_for_its_new_place() {
    let (service, remote) = (guarded(None).await, remote().await);
    for status in [307, 308] {
        let moved = redirecting(status, inbox(&remote).into()).await;
        let from = format!("http://{moved}/inbox").parse().expect("a URL");
        service.deliver_to_inbox(from, note(1), ALICE).await.expect("delivered");
    }
    let seen = remote.seen();
    assert!(seen.len() == 2 && seen.iter().all(|seen| seen.signature == Ok(Kind::Cavage)), "{seen:?}");
}

#[tokio::test]
async fn a_redirect_to_an_address_inside_is_not_followed() {
    let inside = TcpListener::bind("127.0.0.2:0").await.expect("a free port");
    let to = format!("http://{}/inbox", inside.local_addr().expect("it is bound"));
    let moved = redirecting(307, to).await;
    let from = format!("http://{moved}/inbox").parse().expect("a URL");
    let error = guarded(None).await.deliver_to_inbox(from, note(1), ALICE).await.expect_err("refused");
    assert_eq!(error.to_string(), "refused: 127.0.0.2 is not a public address: loopback");
    let knocked = tokio::time::timeout(Duration::from_millis(50), inside.accept()).await;
    assert!(knocked.is_err(), "somebody was there");
}

#[tokio::test]
async fn redirects_that_would_drop_the_body_or_go_in_circles_are_tried_later() {
    let remote = remote().await;
    let get = redirecting(302, inbox(&remote).into()).await;
    let circle = redirecting(307, "/inbox".to_owned()).await;
    let service = service().await;
    for (from, cause) in [(get, "the remote answered 302"), (circle, "moved more than 3 times")] {
        let from = format!("http://{from}/inbox").parse().expect("a URL");
        let error = service.deliver_to_inbox(from, note(1), ALICE).await.expect_err("not followed");
        assert!(matches!(&error, DeliveryError::Retry { cause: told, .. } if told == cause), "{error}");
    }
    assert_eq!(remote.arrivals(), 0);
}

/// Answers something else each time it is asked.
struct Rebinding(AtomicUsize, Vec<Vec<IpAddr>>);

#[async_trait]
impl Names for Rebinding {
    async fn resolve(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(self.1[self.0.fetch_add(1, Ordering::SeqCst) % self.1.len()].clone())
    }
}

#[tokio::test]
async fn the_address_that_is_checked_is_the_one_that_is_connected_to() {
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    let metadata = IpAddr::from([169, 254, 169, 254]);
    let remote = remote().await;
    let names = Arc::new(Rebinding(AtomicUsize::new(0), vec![vec![here], vec![metadata], vec![metadata, here]]));
    let inbox = format!("http://remote.example:{}/inbox", remote.addr().port()).parse::<url::Url>().expect("a URL");
    // Three services: a connection that is kept would not ask again.
    let mut came_to = Vec::new();
    for _ in 0..3 {
        let service = guarded(Some(names.clone())).await;
        came_to.push(service.deliver_to_inbox(inbox.clone(), note(1), ALICE).await);
    }
    assert_eq!(came_to[0], Ok(()));
    let error = came_to[1].clone().expect_err("inside").to_string();
    assert!(error.contains("remote.example resolves to 169.254.169.254, which is not a public address"), "{error}");
    assert_eq!(came_to[2], Ok(()), "what is left of the answer");
    assert_eq!(names.0.load(Ordering::SeqCst), 3, "one question a connection");
}

#[tokio::test]
async fn by_default_nothing_on_this_machine_is_asked() {
    let remote = remote().await;
    let service = ActivityPubService::builder("https://our.example").signing_keys(keys()).build().await.expect("one");
    for scheme in ["http", "https"] {
        let inbox = format!("{scheme}://{}/inbox", remote.addr()).parse().expect("a URL");
        let error = service.deliver_to_inbox(inbox, note(1), ALICE).await.expect_err("refused");
        assert!(matches!(error, DeliveryError::Refused { status: None, .. }), "{error}");
    }
    assert_eq!(remote.arrivals(), 0);
}

#[tokio::test]
async fn an_answer_that_never_comes_or_never_ends_holds_nobody_up() {
    let limits = Limits { request: Duration::from_millis(300), ..Limits::default() };
    let service = hurried(&Failures::default()).limits(limits).build().await.expect("a service");
    let remote = remote().await;
    remote.behave_next(1, Behaviour::Hang);
    let error = service.deliver_to_inbox(inbox(&remote), note(1), ALICE).await.expect_err("no answer");
    assert!(matches!(&error, DeliveryError::Retry { cause, .. } if cause == "no answer within 0.3 s"), "{error}");
    remote.behave_next(1, Behaviour::rejects(400, &"x".repeat(1_000_000)));
    let error = service.deliver_to_inbox(inbox(&remote), note(1), ALICE).await.expect_err("refused");
    assert!(matches!(error, DeliveryError::Refused { status: Some(400), .. }), "{error}");
}
