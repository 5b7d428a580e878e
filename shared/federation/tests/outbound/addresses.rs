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
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
async fn an_inbox_that_no_request_can_name_is_refused_and_nobody_is_asked() {
    let remote = remote().await;
    let long = inbox(&remote).join(&"x".repeat(70_000)).expect("a URL");
    let error = service().await.deliver_to_inbox(long, note(1), ALICE).await.expect_err("too long");
    assert!(
        matches!(&error, DeliveryError::Refused { status: None, cause } if cause.starts_with("no request can be written (")),
        "{error}"
    );
    assert_eq!(remote.arrivals(), 0);
}

#[tokio::test]
async fn an_answer_that_never_comes_or_never_ends_holds_nobody_up() {
    // Short for the answer that never comes only: every other one has all the time that it needs.
    let limits = Limits { request: Duration::from_millis(300), ..Limits::default() };
    let impatient = hurried(&Failures::default()).limits(limits).build().await.expect("a service");
    let (service, remote) = (service().await, remote().await);
    remote.behave(Behaviour::Hang);
    let error = impatient.deliver_to_inbox(inbox(&remote), note(1), ALICE).await.expect_err("no answer");
    assert!(matches!(&error, DeliveryError::Retry { cause, .. } if cause.starts_with("no ")), "{error}");
    remote.behave(Behaviour::rejects(400, &"x".repeat(1_000_000)));
    let error = service.deliver_to_inbox(inbox(&remote), note(1), ALICE).await.expect_err("refused");
    assert!(matches!(error, DeliveryError::Refused { status: Some(400), .. }), "{error}");
}

/// A server whose answer's head is whole and whose body is not: it breaks off, or stays away.
async fn cut_short(status: &'static str, breaks_off: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            // All of the request: a connection that is closed with something unread in it is reset, and the answer lost.
            let mut request = Vec::new();
            while !is_whole(&request) && stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {}
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 100\r\n\r\nthe beginning");
            if stream.write_all(answer.as_bytes()).await.is_ok() && !breaks_off {
                open.push(stream);
            }
        }
    });
    address
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_ascii_lowercase();
    let Some(head) = text.find("\r\n\r\n") else { return false };
    let length = text[..head].lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let length: usize = length.expect("a length");
    request.windows(4).position(|end| end == b"\r\n\r\n").is_some_and(|head| request.len() >= head + 4 + length)
}

#[tokio::test]
async fn an_answer_whose_body_does_not_end_is_an_answer() {
    let service = service().await;
    for breaks_off in [true, false] {
        let inbox = |address| format!("http://{address}/inbox").parse().expect("a URL");
        let took = cut_short("202 Accepted", breaks_off).await;
        assert_eq!(service.deliver_to_inbox(inbox(took), note(1), ALICE).await, Ok(()), "{breaks_off}");
        let refused = cut_short("410 Gone", breaks_off).await;
        let error = service.deliver_to_inbox(inbox(refused), note(1), ALICE).await.expect_err("refused");
        assert!(matches!(error, DeliveryError::Refused { status: Some(410), .. }), "{error}");
    }
}
