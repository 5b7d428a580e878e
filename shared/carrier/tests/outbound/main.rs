//! The carrier with a second direction, the least that one can be: outbound lanes, against a real nats-server. What comes
//! in is shown by batch-sender's own tests and by the whole pipeline's.

mod process;
mod remote;
mod stray;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use fedstream_jetstream::lane_settings::{self, LaneSettings};
use fedstream_jetstream::parked::header;
use fedstream_jetstream::publish::MSG_ID;
use fedstream_jetstream::{Broker, Headers, Members, Publisher, StreamNeed, definitions, lanes, streams};
use fedstream_lane::{Lane, LaneName, OutboxLane, ParkReason};
use fedstream_tests::broker::Broker as Server;
use fedstream_tests::eventually::eventually;

use process::{PATIENCE, Process, connect, within};
use remote::{DEADLINE, Remote, Told, Verdict};

fn lane(partition: u16) -> OutboxLane {
    OutboxLane { remote: "remote.example".parse().expect("a name"), partition }
}

fn texts(upto: usize) -> Vec<String> {
    (0..upto).map(|n| format!("letter {n}")).collect()
}

async fn start() -> (Server, Broker) {
    let server = Server::start().await.expect("a nats-server");
    let broker = connect(&server.url()).await;
    streams::ensure(&broker, &StreamNeed::plain(definitions::outbox())).await.expect("FED_OUTBOX");
    (server, broker)
}

async fn store(broker: &Broker, lane: &OutboxLane, text: impl Into<Bytes>, more: &[(&'static str, &str)]) {
    let mut headers = vec![(MSG_ID, format!("{:016x}", fastrand::u64(..)))];
    headers.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    Publisher::new(broker).store(lane, headers, text.into(), PATIENCE).await.expect("stored");
}

async fn store_all(broker: &Broker, lane: &OutboxLane, texts: &[String]) {
    for text in texts {
        store(broker, lane, text.clone(), &[]).await;
    }
}

/// Waits until the remote took just these of a lane, and in this order.
async fn until_taken(remote: &Remote, lane: &OutboxLane, texts: &[String]) {
    let taken = |visits: &Vec<remote::Visit>| Remote::taken(visits, lane);
    let mut visits = remote.visits.subscribe();
    let all = visits.wait_for(|visits| taken(visits).len() >= texts.len());
    let seen = within("the remote takes all", all).await.expect("the remote lives").clone();
    assert_eq!(taken(&seen), texts);
}

async fn until_empty(broker: &Broker) {
    let empty = async || lanes::backlog_of::<OutboxLane>(broker).await.ok()?.is_empty().then_some(());
    eventually("every lane is empty", PATIENCE, empty).await.expect("what is settled leaves");
}

/// The copies in FED_PARKED that a lane left, in order: reason, headers, body.
async fn parked(broker: &Broker, lane: &OutboxLane) -> Vec<(String, Headers, Bytes)> {
    let stream = broker.context().get_stream("FED_PARKED").await.expect("FED_PARKED");
    let mut copies = Vec::new();
    for seq in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(seq).await.expect("a copy");
        if message.subject.as_str() == lane.parked_subject() {
            let headers = Headers::from(&message.headers);
            copies.push((headers.get(header::REASON).unwrap_or_default().to_owned(), headers, message.payload));
        }
    }
    copies
}

#[tokio::test]
async fn lanes_are_shared_carried_in_order_and_emptied() {
    let (server, broker) = start().await;
    let remote = Remote::new(|_| Verdict::Takes);
    let one = Process::start(&server.url(), "one", &remote).await;
    // One that carries inbound lanes counts for nothing here: else some of these lanes would be nobody's.
    let inbound = Members::join::<Lane>(&broker, "inbound").await.expect("a member");
    let mut two = Process::start(&server.url(), "two", &remote).await;
    let (lanes, letters) = ([0, 1, 2, 3].map(lane), texts(25));
    for lane in &lanes {
        store_all(&broker, lane, &letters).await;
    }
    for lane in &lanes {
        until_taken(&remote, lane, &letters).await;
    }
    until_empty(&broker).await;
    assert!(two.leave().await);
    drop((one, inbound));
}

#[tokio::test]
async fn a_letter_that_fails_is_tried_again_before_the_next_and_delays_no_other_lane() {
    let (server, broker) = start().await;
    let (failing, well) = (lane(0), lane(1));
    let is_back = Arc::new(AtomicBool::new(false));
    let (back, bad) = (Arc::clone(&is_back), failing.clone());
    let remote = Remote::new(move |visit| match visit.lane == bad && !back.load(Ordering::SeqCst) {
        true => Verdict::IsBusy,
        false => Verdict::Takes,
    });
    let _process = Process::start(&server.url(), "one", &remote).await;
    let letters = texts(10);
    store_all(&broker, &failing, &letters).await;
    store_all(&broker, &well, &letters).await;
    until_taken(&remote, &well, &letters).await;
    let again = |visits: &Vec<remote::Visit>| visits.iter().any(|visit| visit.lane == failing && visit.before >= 2);
    within("three attempts", remote.visits.subscribe().wait_for(again)).await.expect("the remote lives");
    is_back.store(true, Ordering::SeqCst);
    until_taken(&remote, &failing, &letters).await;
    let first_busy = remote
        .visits
        .borrow()
        .iter()
        .filter(|visit| visit.lane == failing && !visit.is_taken)
        .cloned()
        .collect::<Vec<_>>();
    assert!(first_busy.iter().all(|visit| visit.text == letters[0]), "only the head is tried: {first_busy:?}");
    until_empty(&broker).await;
}

#[tokio::test]
async fn what_cannot_be_delivered_is_parked_in_its_turn_and_told_of() {
    let (server, broker) = start().await;
    let lane = lane(3);
    let remote = Remote::new(|visit| match visit.text.as_str() {
        "refused" => Verdict::Refuses,
        _ => Verdict::Takes,
    });
    store(&broker, &lane, "first", &[]).await;
    store(&broker, &lane, "refused", &[("Test-Kept", "yes"), ("Test-Not-Kept", "no")]).await;
    store(&broker, &lane, "too late", &[(DEADLINE, "now")]).await;
    store(&broker, &lane, Bytes::from_static(b"\xff"), &[]).await;
    store(&broker, &lane, "last", &[]).await;
    let _process = Process::start(&server.url(), "one", &remote).await;
    until_taken(&remote, &lane, &["first".to_owned(), "last".to_owned()]).await;
    until_empty(&broker).await;

    let copies = parked(&broker, &lane).await;
    let reasons: Vec<_> = copies.iter().map(|(reason, _, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["rejected", "expired", "unreadable"]);
    let (_, headers, body) = &copies[0];
    assert_eq!(
        (headers.get("Test-Kept"), headers.get("Test-Not-Kept"), &body[..]),
        (Some("yes"), None, &b"refused"[..])
    );
    assert_eq!((headers.get(header::STATUS), headers.get(header::ANSWER)), (Some("410"), Some("gone")));
    // Each was told twice, for the first time failed: and was not settled before.
    let told = |reason, body: &str| Told { lane: lane.clone(), reason, body: body.to_owned() };
    let once = [
        told(ParkReason::Rejected, "refused"),
        told(ParkReason::Expired, "too late"),
        told(ParkReason::Unreadable, "\u{fffd}"),
    ];
    let twice: Vec<_> = once.iter().flat_map(|told| [told.clone(), told.clone()]).collect();
    assert_eq!(*remote.told.borrow(), twice);
}

#[tokio::test]
async fn a_killed_owners_lane_goes_on_where_it_stood_under_a_higher_epoch() {
    let (server, broker) = start().await;
    let lane = lane(0);
    let hangs = Arc::new(AtomicBool::new(true));
    let hanging = Arc::clone(&hangs);
    let remote = Remote::new(move |visit| match visit.text == "letter 5" && hanging.load(Ordering::SeqCst) {
        true => Verdict::NeverAnswers,
        false => Verdict::Takes,
    });
    let letters = texts(10);
    let killed = Process::start(&server.url(), "killed", &remote).await;
    store_all(&broker, &lane, &letters).await;
    let at_five = |visits: &Vec<remote::Visit>| visits.iter().any(|visit| visit.text == "letter 5");
    within("letter 5 is under way", remote.visits.subscribe().wait_for(at_five)).await.expect("the remote lives");
    // What it took is trimmed: the next owner begins where it stood, and not before.
    let only_five = async || (lanes::backlog_of::<OutboxLane>(&broker).await.ok()?[0].1 == 5).then_some(());
    eventually("what was taken is trimmed", PATIENCE, only_five).await.expect("trimmed");
    killed.kill();
    hangs.store(false, Ordering::SeqCst);
    let mut next = Process::start(&server.url(), "next", &remote).await;
    until_taken(&remote, &lane, &letters).await;
    until_empty(&broker).await;
    let visits = remote.visits.borrow().clone();
    let (before, after): (Vec<_>, Vec<_>) =
        visits.iter().map(|visit| visit.epoch).partition(|epoch| *epoch == visits[0].epoch);
    assert_eq!((before.len(), after.len()), (6, 5), "only the one under way was repeated: {visits:?}");
    assert!(after.iter().all(|epoch| *epoch > visits[0].epoch));
    assert!(next.leave().await);
}

#[tokio::test]
async fn an_owner_that_let_go_shows_nothing_of_what_it_held() {
    let (server, broker) = start().await;
    let remote = Remote::new(|_| Verdict::KnowsALater);
    let lane = lane(0);
    store_all(&broker, &lane, &texts(3)).await;
    let process = Process::start(&server.url(), "one", &remote).await;
    // It takes a higher epoch again and again, and waits longer each time.
    let shows_nothing = async || {
        let view = process.view(&lane)?;
        let waits = view.trouble.as_ref().is_some_and(|trouble| trouble.contains("the far side knows epoch"));
        (waits && (view.held, view.in_flight, view.oldest) == (0, 0, None)).then_some(())
    };
    eventually("it shows nothing", PATIENCE, shows_nothing).await.expect("all of it was the former epoch's");
}

#[tokio::test]
async fn the_settings_of_outbound_lanes_hold_for_them() {
    let (server, broker) = start().await;
    let remote = Remote::new(|_| Verdict::Takes);
    let (paused, goes_on) = (lane(0), lane(1));
    let set = async |lane: &OutboxLane, is_paused| {
        let settings = LaneSettings { paused: Some(is_paused), ..LaneSettings::default() };
        lane_settings::store(&broker, &lane.clone().into(), &settings).await.expect("stored");
    };
    let all_paused = LaneSettings { paused: Some(true), ..LaneSettings::default() };
    lane_settings::store(&broker, &lane_settings::Key::OutboxDefault, &all_paused).await.expect("stored");
    set(&goes_on, false).await;
    let _process = Process::start(&server.url(), "one", &remote).await;
    store(&broker, &paused, "letter 0", &[]).await;
    store_all(&broker, &goes_on, &texts(5)).await;
    until_taken(&remote, &goes_on, &texts(5)).await;
    assert_eq!(Remote::taken(&remote.visits.borrow(), &paused), Vec::<String>::new());
    set(&paused, false).await;
    until_taken(&remote, &paused, &texts(1)).await;
}
