//! What is given up: parked with the answer, and the application is told.

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::eventually;
use fedstream_tests::outbound::{Outbound, partition, put};
use serde_json::{Value, json};

use crate::SOON;

struct Failed {
    subject: String,
    id: String,
    error: String,
}

/// What applications were told, by id: copies of what was refused are parked side by side, while the lane goes on.
async fn told(outbound: &Outbound) -> Vec<Failed> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let read = |message: &async_nats::jetstream::message::StreamMessage| {
        let event: Value = serde_json::from_slice(&message.payload).expect("JSON");
        assert_eq!(event["type"], "DeliveryFailed");
        Failed {
            subject: message.subject.to_string(),
            id: text(&event["activity"]["id"]),
            error: text(&event["error"]),
        }
    };
    let mut told: Vec<_> = outbound.messages("FED_EVENTS").await.expect("FED_EVENTS").iter().map(read).collect();
    told.sort_by(|one, other| one.id.cmp(&other.id));
    told
}

/// Reason, status and answer of each parked copy, sorted.
async fn parked(outbound: &Outbound) -> Vec<(String, String, String)> {
    let messages = outbound.messages("FED_PARKED").await.expect("FED_PARKED");
    let header = |message: &async_nats::jetstream::message::StreamMessage, name: &str| {
        message.headers.get(name).map(ToString::to_string).unwrap_or_default()
    };
    let read = |message| {
        ["Fed-Parked-Reason", "Fed-Parked-Status", "Fed-Parked-Answer"].map(|name| header(message, name)).into()
    };
    let mut parked: Vec<_> = messages.iter().map(read).collect();
    parked.sort();
    parked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_remote_refuses_for_good_is_parked_and_told_and_the_lane_goes_on() {
    let outbound = Outbound::with(1).start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    let remote = &outbound.remotes[0];
    remote.behave_where(None, Behaviour::rejects(410, "gone"), |seen| seen.id.ends_with("/1"));
    remote.behave_where(None, Behaviour::rejects(404, ""), |seen| seen.id.ends_with("/3"));
    outbound.publish_many(0, &actor, 6).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let verdict = outbound.verdict();
    verdict.assert_whole(6);
    assert_eq!((verdict.repeats, remote.accepted()), (0, 4));
    let text = |words: [&str; 3]| -> (String, String, String) { words.map(str::to_owned).into() };
    assert_eq!(
        parked(&outbound).await,
        [
            text(["rejected", "404", "the remote answered 404"]),
            text(["rejected", "410", "the remote answered 410: gone"]),
        ]
    );
    let told = told(&outbound).await;
    let subject = format!("fed.event.delivery_failed.127_0_0_1=3A{}", remote.addr().port());
    assert!(told.iter().all(|failed| failed.subject == subject), "{subject}");
    let errors: Vec<_> = told.iter().map(|failed| failed.error.as_str()).collect();
    assert_eq!(errors, ["the remote answered 410: gone", "the remote answered 404"]);
    assert!(told[0].id.ends_with("/1") && told[1].id.ends_with("/3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_and_refused_again_is_told_of_again() {
    let outbound = Outbound::with(1).start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    let remote = &outbound.remotes[0];
    remote.behave(Behaviour::rejects(410, "gone"));
    let jetstream = outbound.jetstream().await.unwrap();
    let subject = format!("fed.outbox.127_0_0_1=3A{}.{}", remote.addr().port(), partition(&actor));
    let event = json!({
        "type": "DeliveryRequested", "inbox": format!("http://{}/inbox", remote.addr()),
        "activity": { "id": "x", "type": "Like" }, "signing_actor_id": actor,
    });
    // As the crate's `store_again` names them; the repeat of the first is none.
    for id in ["first", "first.again.1", "first", "first.again.2"] {
        let mut headers = async_nats::HeaderMap::new();
        headers.append("Nats-Msg-Id", id);
        let stored = jetstream.publish_with_headers(subject.clone(), headers, event.to_string().into()).await.unwrap();
        stored.await.unwrap();
    }
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    assert_eq!(outbound.depth("FED_PARKED").await, Some(3));
    let told = told(&outbound).await;
    assert!(told.len() == 3 && told.iter().all(|failed| failed.id == "x"), "{}", told.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_attempt_brought_over_is_given_up_at_the_horizon() {
    let mut outbound = Outbound::with(1).env("FED_DELIVERY_HORIZON", "3s").start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    outbound.remotes[0].go_down().await;
    outbound.publish_many(0, &actor, 2).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let (parked, told) = (parked(&outbound).await, told(&outbound).await);
    assert_eq!(parked.iter().map(|(reason, _, _)| reason.as_str()).collect::<Vec<_>>(), ["expired", "expired"]);
    assert!(
        told[0].error.starts_with("given up after ") && told[0].error.contains("no connection"),
        "{}",
        told[0].error
    );
    // What comes later is tried anew.
    outbound.remotes[0].come_up().await.unwrap();
    outbound.publish_many(0, &actor, 2).await.unwrap();
    outbound.wait_accepted(0, 2, SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_address_gets_no_request_whatever_names_it() {
    let outbound = Outbound::with(1).env("FED_PRIVATE_TARGETS", "no").env("FED_DELIVERY_HORIZON", "3s");
    let outbound = outbound.start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    let port = outbound.remotes[0].addr().port();
    let jetstream = outbound.jetstream().await.unwrap();
    let inboxes = [
        format!("https://127.0.0.1:{port}/inbox"),
        "https://10.0.0.1/inbox".to_owned(),
        "https://169.254.169.254/latest".to_owned(),
        format!("http://127.0.0.1:{port}/inbox"),
        format!("https://localhost:{port}/inbox"), // known only when it is resolved: tried to the horizon
    ];
    for inbox in &inboxes {
        put(&jetstream, inbox, &actor, json!({ "id": inbox, "type": "Like" })).await.unwrap();
    }
    let all = async || (told(&outbound).await.len() == inboxes.len()).then_some(());
    eventually("each is given up", SOON, all).await.unwrap();
    for failed in told(&outbound).await {
        let expected = match failed.id.as_str() {
            id if id.starts_with("http:") => "http:// is no scheme that activities are sent over",
            _ => "not a public address",
        };
        assert!(failed.error.contains(expected), "{}: {}", failed.id, failed.error);
    }
    assert_eq!(outbound.remotes[0].arrivals(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_delivery_of_its_lane_is_parked_and_holds_nothing_up() {
    let outbound = Outbound::with(2).start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    let jetstream = outbound.jetstream().await.unwrap();
    let token = |remote: usize| format!("127_0_0_1=3A{}", outbound.remotes[remote].addr().port());
    let partition = "fed.outbox.{}.2"; // any
    let elsewhere = json!({
        "type": "DeliveryRequested", "inbox": format!("http://{}/inbox", outbound.remotes[1].addr()),
        "activity": { "id": "x" }, "signing_actor_id": actor,
    });
    for payload in ["{}".to_owned(), elsewhere.to_string()] {
        let subject = partition.replace("{}", &token(0));
        jetstream.publish(subject, payload.into()).await.unwrap().await.unwrap();
    }
    outbound.publish_many(0, &actor, 2).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    outbound.verdict().assert_whole(2);
    let reasons: Vec<_> = parked(&outbound).await.into_iter().map(|(reason, _, why)| (reason, why)).collect();
    assert_eq!(reasons.len(), 2);
    assert!(reasons.iter().all(|(reason, _)| reason == "unreadable"), "{reasons:?}");
    assert!(reasons.iter().any(|(_, why)| why.contains("is not at")), "{reasons:?}");
    assert_eq!(outbound.remotes[1].arrivals(), 0);
}
