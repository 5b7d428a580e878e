//! Parked copies of what leads out: found by where they should have gone, and brought back into their lane.

use fedstream_jetstream::parked::{self, Filter, LIST_MAX, RedriveError};
use fedstream_jetstream::{Bounds, Broker, Publisher, Refused, StreamNeed, definitions, streams};
use fedstream_lane::{AnyLane, BackfillLane, InstanceName, LaneKind, LaneName, OutboxLane, ParkReason, Seq};
use uuid::Uuid;

use crate::server::{PATIENCE, Server, body, headers, lane};

const ALICE: Uuid = Uuid::from_u128(1);
const BOB: Uuid = Uuid::from_u128(2);

async fn start(server: &Server) -> Broker {
    let broker = server.connect().await;
    let bounds = Bounds { messages_per_lane: 2, bytes: 1 << 30 };
    let outbox = StreamNeed { bounds: Some(bounds), ..StreamNeed::plain(definitions::outbox()) };
    for need in [outbox, StreamNeed::plain(definitions::backfill()), StreamNeed::plain(definitions::parked())] {
        streams::ensure(&broker, &need).await.expect("a fit stream");
    }
    broker
}

fn outbox(remote: &str) -> OutboxLane {
    OutboxLane { remote: name(remote), partition: 3 }
}

fn name(text: &str) -> InstanceName {
    text.parse().expect("a name")
}

fn delivery(remote: &str, actor: Uuid) -> String {
    format!(
        r#"{{"type":"DeliveryRequested","inbox":"https://{remote}/inbox","activity":{{}},"signing_actor_id":"{actor}"}}"#
    )
}

/// What a worker or a publisher writes.
async fn park(broker: &Broker, left: &impl LaneName, id: &str, reason: ParkReason, event: &str) -> Seq {
    let headers = vec![
        ("Fed-Version", "1".to_owned()),
        ("Fed-Activity-Id", format!("https://our.example/{id}")),
        ("Fed-Requested-At", "2026-01-01T00:00:00Z".to_owned()),
        ("Fed-Redrive", "4711".to_owned()),
        ("Fed-Parked-Reason", reason.to_string()),
        ("Fed-Parked-Msg-Id", id.to_owned()),
    ];
    let copy = Publisher::new(broker).park(left, &format!("copy-of-{id}"), headers, body(event), PATIENCE).await;
    copy.expect("parked").sequence
}

async fn found(broker: &Broker, filter: &Filter) -> Vec<u64> {
    let page = parked::list(broker, filter, Seq(1), LIST_MAX).await.expect("an answer");
    page.copies.iter().map(|copy| copy.seq.0).collect()
}

#[tokio::test]
async fn copies_are_found_by_kind_remote_actor_and_reason() {
    let server = Server::start().await;
    let broker = start(&server).await;
    let job = format!(r#"{{"owner_user_id":"{BOB}","follower_inbox_url":"https://a.example/inbox"}}"#);
    let jobs = BackfillLane { remote: name("a.example"), owner: BOB };
    park(&broker, &lane("our.example"), "1", ParkReason::Rejected, "{}").await;
    park(&broker, &outbox("a.example"), "2", ParkReason::Rejected, &delivery("a.example", ALICE)).await;
    park(&broker, &outbox("b.example"), "3", ParkReason::RemoteFull, &delivery("b.example", BOB)).await;
    park(&broker, &jobs, "4", ParkReason::Expired, &job).await;

    let all = Filter::default;
    let kind = |kind| Filter { kind: Some(kind), ..all() };
    for (filter, seqs) in [
        (all(), vec![1, 2, 3, 4]),
        (kind(LaneKind::Inbox), vec![1]),
        (kind(LaneKind::Outbox), vec![2, 3]),
        (kind(LaneKind::Backfill), vec![4]),
        (Filter { remote: Some(name("sender.example")), ..all() }, vec![1]),
        (Filter { remote: Some(name("sender.example")), ..kind(LaneKind::Inbox) }, vec![1]),
        (Filter { remote: Some(name("a.example")), ..all() }, vec![2, 4]),
        (Filter { remote: Some(name("a.example")), ..kind(LaneKind::Outbox) }, vec![2]),
        (Filter { remote: Some(name("our.example")), ..all() }, vec![]),
        (Filter { actor: Some(BOB), ..all() }, vec![3, 4]),
        (Filter { actor: Some(BOB), ..kind(LaneKind::Outbox) }, vec![3]),
        (Filter { reason: Some(ParkReason::RemoteFull), ..all() }, vec![3]),
        (Filter { lane: Some(outbox("a.example").into()), ..all() }, vec![2]),
        (Filter { lane: Some(outbox("a.example").into()), actor: Some(BOB), ..all() }, vec![]),
    ] {
        assert_eq!(found(&broker, &filter).await, seqs, "{filter:?}");
    }
    let copy = parked::read(&broker, Seq(3)).await.expect("an answer").expect("a copy").parked;
    assert_eq!(copy.lane, AnyLane::Outbox(outbox("b.example")));
    let errand = copy.errand.expect("it leads out");
    assert_eq!((errand.inbox.as_deref(), errand.actor), (Some("https://b.example/inbox"), Some(BOB)));
}

#[tokio::test]
async fn an_outbound_copy_goes_back_into_its_queue_with_its_own_sequence_for_the_worker_to_count_from() {
    let server = Server::start().await;
    let broker = start(&server).await;
    let event = delivery("a.example", ALICE);
    let seq = park(&broker, &outbox("a.example"), "x.redrive.4711", ParkReason::Expired, &event).await;
    let back = parked::redrive(&broker, seq).await.expect("back");
    assert_eq!((back.lane, back.waived), (outbox("a.example").into(), false));
    let queue = broker.context().get_stream("FED_OUTBOX").await.expect("a stream");
    let message = queue.get_raw_message(back.seq.0).await.expect("it is there");
    assert_eq!((message.subject.as_str(), message.payload.as_ref()), ("fed.outbox.a_example.3", event.as_bytes()));
    let headers: Vec<_> =
        message.headers.iter().map(|(name, values)| (name.to_string(), values[0].to_string())).collect();
    let header = |name: &str| {
        let of_name: Vec<_> = headers.iter().filter(|(known, _)| known == name).collect();
        assert!(of_name.len() < 2, "{headers:?}");
        of_name.first().map(|(_, value)| value.as_str())
    };
    assert_eq!(header("Nats-Msg-Id"), Some("x.redrive.1"));
    assert_eq!((header("Fed-Redrive"), header("Fed-Requested-At")), (Some("1"), Some("2026-01-01T00:00:00Z")));
    assert_eq!((header("Fed-Parked-Reason"), header("Fed-Activity-Id").is_some()), (None, true));
    let error = parked::redrive(&broker, seq).await.expect_err("it is gone");
    assert!(matches!(error, RedriveError::Missing { .. }), "{error}");
}

#[tokio::test]
async fn a_full_outbound_lane_keeps_the_copy_and_a_lost_ack_is_recognised_in_its_own_queue() {
    let server = Server::start().await;
    let broker = start(&server).await;
    let seq = park(&broker, &outbox("a.example"), "x", ParkReason::RemoteFull, &delivery("a.example", ALICE)).await;
    for number in ["0", "1"] {
        let stored = Publisher::new(&broker).store(&outbox("a.example"), headers(number), body("{}"), PATIENCE).await;
        stored.expect("stored");
    }
    let error = parked::redrive(&broker, seq).await.expect_err("full");
    assert!(matches!(error, RedriveError::Refused { refused: Refused::LaneFull, .. }), "{error}");
    assert_eq!(found(&broker, &Filter::default()).await, [seq.0]);

    let seq = park(&broker, &outbox("b.example"), "y", ParkReason::RemoteFull, &delivery("b.example", ALICE)).await;
    let id = format!("y.redrive.{seq}");
    let first = Publisher::new(&broker).store(&outbox("b.example"), headers(&id), body("{}"), PATIENCE).await;
    let back = parked::redrive(&broker, seq).await.expect("recognised");
    assert_eq!(back.seq, first.expect("stored").sequence);
}
