//! More lanes than may be carried: those that are of no use there make room, and nobody else does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fedstream_carrier::FarSide;
use fedstream_lane::{Epoch, OutboxLane};
use fedstream_tests::eventually::eventually;

use crate::process::{PATIENCE, Process, within};
use crate::remote::{Remote, Verdict, Visit};
use crate::{lane, start, store_all, texts, until_empty, until_taken};

const LANES_MAX: u32 = 2;

/// Two lanes whose remotes are down, until the flag is set.
fn dead() -> [OutboxLane; 2] {
    [lane(0), lane(1)]
}

fn until_back(is_back: &Arc<AtomicBool>) -> Remote {
    let is_back = Arc::clone(is_back);
    Remote::new(move |visit| match dead().contains(&visit.lane) && !is_back.load(Ordering::SeqCst) {
        true => Verdict::IsBusy,
        false => Verdict::Takes,
    })
}

/// Waits until the remote was asked so often by each of the dead lanes.
async fn until_asked(remote: &Remote, times: usize) {
    let often =
        |visits: &[Visit], lane: &OutboxLane| visits.iter().filter(|visit| visit.lane == *lane).count() >= times;
    let mut visits = remote.visits.subscribe();
    let all = visits.wait_for(|visits| dead().iter().all(|lane| often(visits, lane)));
    within("the dead ones are tried", all).await.expect("the remote lives");
}

fn epochs(remote: &Remote, lane: &OutboxLane) -> BTreeSet<Epoch> {
    remote.visits.borrow().iter().filter(|visit| visit.lane == *lane).map(|visit| visit.epoch).collect()
}

async fn until_waiting(process: &Process, lane: &OutboxLane) {
    let waits = async || process.view(lane)?.trouble?.starts_with("it waits: FED_LANES_MAX").then_some(());
    eventually("it waits", PATIENCE, waits).await.expect("there is no room for it");
}

#[tokio::test]
async fn lanes_whose_far_side_is_closed_make_room_for_one_that_waits_and_have_their_turn_again() {
    let (server, broker) = start().await;
    let is_back = Arc::new(AtomicBool::new(false));
    let back = Arc::clone(&is_back);
    let remote =
        until_back(&is_back).known_as(move |lane| match dead().contains(lane) && !back.load(Ordering::SeqCst) {
            true => FarSide::Closed,
            false => FarSide::Well,
        });
    let _process = Process::carrying(LANES_MAX, &server.url(), "one", &remote).await;
    let (well, letters) = (lane(2), texts(5));
    for lane in &dead() {
        store_all(&broker, lane, &letters).await;
    }
    until_asked(&remote, 3).await;
    assert!(dead().iter().all(|lane| epochs(&remote, lane).len() == 1), "nobody waits, so nobody makes room");

    store_all(&broker, &well, &letters).await;
    until_taken(&remote, &well, &letters).await;
    is_back.store(true, Ordering::SeqCst);
    for lane in &dead() {
        until_taken(&remote, lane, &letters).await;
    }
    until_empty(&broker).await;
    assert!(dead().iter().map(|lane| epochs(&remote, lane).len()).sum::<usize>() > 2, "one of them made room");
}

#[tokio::test]
async fn lanes_that_fail_keep_their_turn_where_nothing_is_known_of_their_far_side_and_empty_ones_do_not() {
    let (server, broker) = start().await;
    let is_back = Arc::new(AtomicBool::new(false));
    let remote = until_back(&is_back);
    let process = Process::carrying(LANES_MAX, &server.url(), "one", &remote).await;
    let (waits, letters) = (lane(2), texts(5));
    for lane in &dead() {
        store_all(&broker, lane, &letters).await;
    }
    until_asked(&remote, 1).await;
    store_all(&broker, &waits, &letters).await;
    until_waiting(&process, &waits).await;
    let asked = remote.visits.borrow().len();
    until_asked(&remote, asked + 5).await;
    assert!(dead().iter().all(|lane| epochs(&remote, lane).len() == 1));
    assert_eq!(Remote::taken(&remote.visits.borrow(), &waits), Vec::<String>::new());

    is_back.store(true, Ordering::SeqCst);
    until_taken(&remote, &waits, &letters).await; // long before an empty lane is given back of itself
    until_empty(&broker).await;
}

#[tokio::test]
async fn who_waits_keeps_its_place_while_it_is_not_known_who_lives() {
    let (server, broker) = start().await;
    let is_back = Arc::new(AtomicBool::new(false));
    let back = Arc::clone(&is_back);
    let [comes_back, stays_dead] = dead();
    let remote = Remote::new(move |visit| match visit.lane == stays_dead || visit.lane == comes_back {
        true if visit.lane == stays_dead || !back.load(Ordering::SeqCst) => Verdict::IsBusy,
        _ => Verdict::Takes,
    });
    let process = Process::carrying(LANES_MAX, &server.url(), "one", &remote).await;
    // By its name the first of those that wait is the last.
    let (first, second, letters) = (lane(3), lane(2), texts(1));
    for lane in &dead() {
        store_all(&broker, lane, &letters).await;
    }
    until_asked(&remote, 1).await;
    store_all(&broker, &first, &letters).await;
    until_waiting(&process, &first).await;

    // Another process of this id: who lives can't be told, until it is gone.
    let bucket = broker.context().get_key_value("fed_leases").await.expect("the bucket");
    let twin = r#"{"nonce":"another","joined_at":"now"}"#;
    bucket.put("member-outbox.one", twin.into()).await.expect("stored");
    let is_unknown = async || process.view(&first)?.trouble?.contains("who lives is not known").then_some(());
    eventually("it is seen", PATIENCE, is_unknown).await.expect("the bucket is followed");
    store_all(&broker, &second, &letters).await;
    bucket.delete("member-outbox.one").await.expect("deleted");
    until_waiting(&process, &first).await;
    until_waiting(&process, &second).await;

    is_back.store(true, Ordering::SeqCst);
    until_taken(&remote, &second, &letters).await;
    until_taken(&remote, &first, &letters).await;
    let visits = remote.visits.borrow().clone();
    let at = |lane: &OutboxLane| visits.iter().position(|visit| visit.lane == *lane);
    assert!(at(&first) < at(&second), "{visits:?}");
}
