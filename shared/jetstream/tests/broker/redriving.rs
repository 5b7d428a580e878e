//! Parked copies: listed, and brought back into their lane without loss and without a second copy.

use fedstream_jetstream::parked::{self, Filter, LIST_MAX, RedriveError};
use fedstream_jetstream::{Broker, Publisher, Refused, StreamNeed, definitions, purge, streams};
use fedstream_lane::{ParkReason, Seq};

use crate::server::{PATIENCE, Server, body, headers, inbox_need, lane, make_inbox};

const AHEAD: &str = "2999-01-01T00:00:00Z";

async fn start(server: &Server) -> Broker {
    let broker = server.connect().await;
    streams::ensure(&broker, &StreamNeed::plain(definitions::parked())).await.expect("a fit stream");
    broker
}

/// What batch-sender writes.
async fn park(broker: &Broker, destination: &str, id: &str, reason: ParkReason) -> Seq {
    let headers = vec![
        ("Fed-Version", "1".to_owned()),
        ("Fed-Activity-Id", format!("https://sender.example/{id}")),
        ("Fed-Target", "/a/../inbox?x=1".to_owned()),
        ("Fed-Http", r#"[["host","a.example"],["x-odd","ÿ"]]"#.to_owned()),
        ("Fed-Deadline", AHEAD.to_owned()),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        ("Fed-Parked-Reason", reason.to_string()),
        ("Fed-Parked-Attempts", "5".to_owned()),
        ("Fed-Parked-Status", "500".to_owned()),
        ("Fed-Parked-Msg-Id", id.to_owned()),
    ];
    let stored = Publisher::new(broker)
        .park(&lane(destination), &format!("copy-of-{id}"), headers, body(&format!("{{\"{id}\":1}}")), PATIENCE)
        .await;
    stored.expect("parked").sequence
}

async fn seqs(broker: &Broker, filter: &Filter, from: u64, limit: usize) -> (Vec<u64>, Option<u64>) {
    let page = parked::list(broker, filter, Seq(from), limit).await.expect("an answer");
    (page.copies.iter().map(|copy| copy.seq.0).collect(), page.next.map(|seq| seq.0))
}

async fn all(broker: &Broker) -> Vec<u64> {
    seqs(broker, &Filter::default(), 0, LIST_MAX).await.0
}

/// The lane's messages: id, deadline, re-drive, target and HTTP headers, body.
async fn lane_of(broker: &Broker, destination: &str) -> Vec<[String; 6]> {
    let stream = broker.context().get_stream("FED_INBOX").await.expect("a stream");
    let mut found = Vec::new();
    let mut next = 1;
    let ask =
        |from: u64| stream.raw_message_builder().sequence(from).next_by_subject(lane(destination).subject()).send();
    while let Ok(message) = ask(next).await {
        next = message.sequence + 1;
        let header = |name: &str| message.headers.get(name).map(ToString::to_string).unwrap_or_default();
        found.push([
            header("Nats-Msg-Id"),
            header("Fed-Deadline"),
            header("Fed-Redrive"),
            header("Fed-Target"),
            header("Fed-Http"),
            String::from_utf8_lossy(&message.payload).into_owned(),
        ]);
    }
    found
}

#[tokio::test]
async fn copies_are_listed_by_lane_and_reason_page_by_page() {
    let server = Server::start().await;
    let broker = start(&server).await;
    for n in 0..6 {
        park(&broker, "a.example", &format!("a{n}"), ParkReason::Poison).await; // 1, 3, 5, ..
        park(&broker, "b.example", &format!("b{n}"), ParkReason::Expired).await; // 2, 4, 6, ..
    }
    let everything = Filter::default();
    assert_eq!(seqs(&broker, &everything, 0, 4).await, (vec![1, 2, 3, 4], Some(5)));
    assert_eq!(seqs(&broker, &everything, 5, LIST_MAX * 2).await, ((5..=12).collect(), None));
    let of_a = Filter { lane: Some(lane("a.example").into()), ..Filter::default() };
    assert_eq!(seqs(&broker, &of_a, 4, LIST_MAX).await, (vec![5, 7, 9, 11], None));
    let expired = Filter { reason: Some(ParkReason::Expired), ..Filter::default() };
    assert_eq!(seqs(&broker, &expired, 1, 2).await, (vec![2, 4], Some(5)));
    let neither = Filter { lane: Some(lane("a.example").into()), ..expired };
    assert_eq!(seqs(&broker, &neither, 1, 2).await, (vec![], None));

    let page = parked::list(&broker, &everything, Seq(2), 1).await.expect("an answer");
    let copy = &page.copies[0];
    assert_eq!((copy.lane.clone(), copy.reason), (lane("b.example").into(), Some(ParkReason::Expired)));
    assert_eq!((copy.attempts(), copy.status(), copy.activity_id()), (Some(5), Some(500), "https://sender.example/b0"));
}

#[tokio::test]
async fn a_foreign_message_among_the_copies_is_passed_over() {
    let server = Server::start().await;
    let broker = start(&server).await;
    for subject in ["fed.parked.inbox.A.b", "fed.parked.outbox.a.03", "fed.parked.elsewhere.x"] {
        broker.context().publish(subject, "{}".into()).await.expect("sent").await.expect("stored");
    }
    let seq = park(&broker, "a.example", "a", ParkReason::Poison).await;
    assert_eq!(all(&broker).await, [seq.0]);
    let error = parked::redrive(&broker, Seq(1)).await.expect_err("no copy");
    assert!(matches!(error, RedriveError::Unreadable { .. }), "{error}");
}

#[tokio::test]
async fn a_redriven_copy_stands_at_the_lanes_end_as_it_was_stored_and_leaves_the_archive() {
    let server = Server::start().await;
    let broker = start(&server).await;
    make_inbox(&broker).await;
    let poison = park(&broker, "a.example", "p", ParkReason::Poison).await;
    let expired = park(&broker, "a.example", "e", ParkReason::Expired).await;
    let first = Publisher::new(&broker).store(&lane("a.example"), headers("0"), body("0"), PATIENCE).await;
    let first = first.expect("stored").sequence;
    let driven = parked::redrive(&broker, poison).await.expect("back");
    assert_eq!((driven.lane.clone(), driven.waived), (lane("a.example").into(), false));
    assert!(driven.seq > first);
    assert!(parked::redrive(&broker, expired).await.expect("back").waived);
    let http = r#"[["host","a.example"],["x-odd","ÿ"]]"#;
    let expected = [
        ["p.redrive.1", AHEAD, "1", "/a/../inbox?x=1", http, r#"{"p":1}"#],
        ["e.redrive.2", "", "2", "/a/../inbox?x=1", http, r#"{"e":1}"#],
    ];
    assert_eq!(lane_of(&broker, "a.example").await[1..], expected.map(|message| message.map(str::to_owned)));
    assert_eq!(all(&broker).await, Vec::<u64>::new());
    let error = parked::redrive(&broker, poison).await.expect_err("it is gone");
    assert!(matches!(error, RedriveError::Missing { seq } if seq == poison), "{error}");
}

#[tokio::test]
async fn a_lane_that_takes_no_more_leaves_the_copy_where_it_is() {
    let server = Server::start().await;
    let broker = start(&server).await;
    let seq = park(&broker, "a.example", "p", ParkReason::Poison).await;
    let error = parked::redrive(&broker, seq).await.expect_err("no stream");
    assert!(matches!(error, RedriveError::Refused { refused: Refused::StreamMissing, .. }), "{error}");
    streams::ensure(&broker, &inbox_need(1, 1 << 30)).await.expect("a fit stream");
    Publisher::new(&broker).store(&lane("a.example"), headers("0"), body("0"), PATIENCE).await.expect("stored");
    let error = parked::redrive(&broker, seq).await.expect_err("full");
    assert!(matches!(error, RedriveError::Refused { refused: Refused::LaneFull, .. }), "{error}");
    assert_eq!(all(&broker).await, [seq.0]);
}

#[tokio::test]
async fn a_second_try_after_a_lost_ack_stores_nothing_twice_and_deletes_the_copy() {
    let server = Server::start().await;
    let broker = start(&server).await;
    make_inbox(&broker).await;
    let seq = park(&broker, "a.example", "p", ParkReason::Poison).await;
    // The first try: stored, and nobody heard of it.
    let first = Publisher::new(&broker).store(&lane("a.example"), headers("p.redrive.1"), body("{}"), PATIENCE).await;
    let driven = parked::redrive(&broker, seq).await.expect("recognised");
    assert_eq!(driven.seq, first.expect("stored").sequence);
    assert_eq!(lane_of(&broker, "a.example").await.len(), 1);
    assert_eq!(all(&broker).await, Vec::<u64>::new());
}

#[tokio::test]
async fn a_duplicate_that_is_not_there_any_more_proves_nothing_and_the_copy_stays() {
    let server = Server::start().await;
    let broker = start(&server).await;
    let created = make_inbox(&broker).await.created;
    let seq = park(&broker, "a.example", "p", ParkReason::Poison).await;
    let first = Publisher::new(&broker).store(&lane("a.example"), headers("p.redrive.1"), body("{}"), PATIENCE).await;
    let first = first.expect("stored").sequence;
    purge::trim(&broker, "FED_INBOX", &lane("a.example").subject(), first, created).await.expect("a purge");
    let error = parked::redrive(&broker, seq).await.expect_err("not ours to see");
    assert!(matches!(error, RedriveError::Duplicate { stored, .. } if stored == first), "{error}");
    assert_eq!(all(&broker).await, [seq.0]);
}

#[tokio::test]
async fn two_redrives_of_one_copy_at_once_store_it_once() {
    let server = Server::start().await;
    let broker = start(&server).await;
    make_inbox(&broker).await;
    let seq = park(&broker, "a.example", "p", ParkReason::Poison).await;
    let (one, two) = tokio::join!(parked::redrive(&broker, seq), parked::redrive(&broker, seq));
    assert!(one.is_ok() || two.is_ok(), "{one:?} {two:?}");
    assert!([one, two].iter().all(|result| matches!(result, Ok(_) | Err(RedriveError::Missing { .. }))));
    assert_eq!(lane_of(&broker, "a.example").await.len(), 1);
    assert_eq!(all(&broker).await, Vec::<u64>::new());
}
