//! Members see each other come, go and die, and know when they don't know.

use std::time::Duration;

use fedstream_jetstream::members::{Error, Members};
use fedstream_jetstream::{Broker, Definition, Living, definitions};
use fedstream_lane::{Epoch, Lane};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::leasing::{TTL, open, ours, short};
use crate::server::{Server, eventually, within};

const LANE: &str = "inbox.a_example.b_example";

async fn join(broker: &Broker, id: &str) -> Members {
    Members::join_in::<Lane>(broker, id, short()).await.expect("a member")
}

async fn until(living: &mut watch::Receiver<Living>, ids: &[&str]) {
    let wanted = Living::Known(ids.iter().map(|id| (*id).to_owned()).collect());
    within("the members", living.wait_for(|now| *now == wanted)).await.expect("the view is kept");
}

#[tokio::test]
async fn members_see_each_other_come_and_go_at_once_and_agree_on_every_lane() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let one = join(&broker, "one").await;
    assert_eq!(one.owner_of(LANE).as_deref(), Some("one"));
    let two = join(&broker, "two").await;
    until(&mut one.living(), &["one", "two"]).await;
    until(&mut two.living(), &["one", "two"]).await;
    let lanes: Vec<_> = (0..200).map(|n| format!("inbox.a_example.{n}_example")).collect();
    assert!(lanes.iter().all(|lane| one.owner_of(lane) == two.owner_of(lane)));
    let share = lanes.iter().filter(|lane| one.owner_of(lane).as_deref() == Some("one")).count();
    assert!((60..=140).contains(&share), "{share}");
    let left = Instant::now();
    two.leave().await;
    until(&mut one.living(), &["one"]).await;
    assert!(left.elapsed() < TTL / 2, "not by the TTL");
    assert!(lanes.iter().all(|lane| one.owner_of(lane).as_deref() == Some("one")));
}

#[tokio::test]
async fn a_member_that_dies_is_gone_after_the_ttl_and_one_that_lives_stays() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let one = join(&broker, "one").await;
    let two = join(&broker, "two").await;
    until(&mut one.living(), &["one", "two"]).await;
    drop(two); // killed: nothing is deleted
    let died = Instant::now();
    until(&mut one.living(), &["one"]).await;
    assert!(died.elapsed() > TTL / 2, "not at once");
    tokio::time::sleep(TTL * 2).await; // it goes on renewing
    assert_eq!(*one.living().borrow(), Living::Known(vec!["one".to_owned()]));
}

#[tokio::test]
async fn an_expiry_without_a_marker_is_seen_by_the_look_at_the_list() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let mut bare = definitions::leases().with_ttl(TTL);
    bare.config.as_object_mut().expect("an object").remove("subject_delete_marker_ttl");
    let bare = Box::leak(Box::new(bare));
    let one = Members::join_in::<Lane>(&broker, "one", bare).await.expect("a member");
    let two = Members::join_in::<Lane>(&broker, "two", bare).await.expect("a member");
    until(&mut one.living(), &["one", "two"]).await;
    drop(two);
    until(&mut one.living(), &["one"]).await;
}

#[tokio::test]
async fn a_second_process_of_the_same_id_is_refused_and_one_that_was_killed_may_come_back() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let first = join(&broker, "same").await;
    let error = within("an answer", Members::join_in::<Lane>(&broker, "same", short())).await.err().expect("refused");
    assert!(matches!(&error, Error::Twin { id, .. } if id == "same"), "{error}");
    assert!(error.to_string().starts_with("FED_SENDER_ID: another process runs under the id same since 20"), "{error}");
    drop(first); // killed
    let again = within("the old entry expires", join(&broker, "same")).await;
    until(&mut again.living(), &["same"]).await;
}

#[tokio::test]
async fn an_id_that_can_be_no_key_is_refused() {
    let server = Server::start().await;
    let broker = server.connect().await;
    for id in ["", "a.b", "a b", "*", ">", "ä", &"x".repeat(65)] {
        let error = Members::join_in::<Lane>(&broker, id, short()).await.err().expect("refused");
        assert!(matches!(error, Error::BadId { .. }), "{error}");
    }
}

#[tokio::test]
async fn while_the_broker_is_away_nothing_is_known_and_afterwards_everything_is() {
    let mut server = Server::start().await;
    let broker = server.connect().await;
    let one = join(&broker, "one").await;
    let leases = open(&broker).await;
    let lease = ours(leases.take(LANE, "one", Epoch(0)).await.expect("taken"));
    eventually("the holder", async || one.held(LANE)).await;
    server.kill().await;
    let mut living = one.living();
    within("unknown", living.wait_for(|now| matches!(now, Living::Unknown(_)))).await.expect("the view is kept");
    assert_eq!((one.owner_of(LANE), one.held(LANE)), (None, None));
    server.start_again().await;
    until(&mut living, &["one"]).await; // renewed, or made again where it expired meanwhile
    drop(lease);
}

#[tokio::test]
async fn who_holds_a_lane_is_seen_when_it_is_taken_released_and_expired() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let members = join(&broker, "one").await;
    let leases = open(&broker).await;
    let mut changes = members.changes();
    assert_eq!(members.held(LANE), None);
    changes.mark_unchanged();
    let mut lease = ours(leases.take(LANE, "one", Epoch(0)).await.expect("taken"));
    within("a change", changes.changed()).await.expect("the view is kept");
    assert_eq!(members.changed_lanes().into_iter().collect::<Vec<_>>(), [LANE]);
    let holder = members.held(LANE).expect("a holder");
    assert_eq!((holder.owner.as_str(), holder.epoch, holder.released), ("one", lease.epoch, false));
    leases.release(&mut lease).await.expect("released");
    within("a change", changes.changed()).await.expect("the view is kept");
    assert!(members.held(LANE).expect("it stands, released").released);
    within("a change", changes.changed()).await.expect("the view is kept");
    assert_eq!(members.held(LANE), None);
}

#[tokio::test]
async fn the_lanes_of_a_process_that_died_are_nobodys_and_left_to_the_member_that_they_belong_to() {
    let server = Server::start().await;
    let broker = server.connect().await;
    // A machine that stands still for a second loses nobody.
    let ttl = Duration::from_secs(3);
    let bucket: &'static Definition = Box::leak(Box::new(definitions::leases().with_ttl(ttl)));
    let join = async |id: &str| Members::join_in::<Lane>(&broker, id, bucket).await.expect("a member");
    let (one, two) = (join("one").await, join("two").await);
    until(&mut one.living(), &["one", "two"]).await;
    until(&mut two.living(), &["one", "two"]).await;
    let leases = open(&broker).await;
    let lanes: Vec<_> = (0..10).map(|n| format!("inbox.a_example.{n}_example")).collect();
    for lane in &lanes {
        ours(leases.take(lane, "three", Epoch(0)).await.expect("taken"));
    }
    let held = |members: &Members| lanes.iter().filter(|lane| members.held(lane).is_some()).count();
    eventually("they are seen", async || (held(&one) == 10 && held(&two) == 10).then_some(())).await;
    tokio::time::sleep(ttl + ttl / 3).await; // it lives: what it holds does not expire
    assert_eq!((held(&one), one.left_to_us(10, |_| true)), (10, vec![]));
    let mut changes = one.changes();
    changes.mark_unchanged();
    drop(leases); // killed
    within("a change", changes.changed()).await.expect("the view is kept");
    assert_eq!(held(&one), 0);
    eventually("the other sees it", async || (held(&two) == 0).then_some(())).await;
    let mut left: Vec<_> = one.left_to_us(100, |_| true).into_iter().chain(two.left_to_us(100, |_| true)).collect();
    left.sort();
    assert_eq!(left, lanes, "each is left to one of them");
    assert!(one.left_to_us(100, |_| true).iter().all(|lane| one.owner_of(lane).as_deref() == Some("one")));
    assert!(one.left_to_us(1, |_| true).len() <= 1);
    let last = one.left_to_us(100, |_| true).pop().expect("some of ten");
    assert_eq!(one.left_to_us(1, |lane| lane == last).pop(), Some(last.clone()), "the others don't hide it");
}

#[tokio::test]
async fn members_find_each_other_again_in_a_bucket_that_was_deleted() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let (one, two) = (join(&broker, "one").await, join(&broker, "two").await);
    until(&mut one.living(), &["one", "two"]).await;
    broker.context().delete_key_value("fed_leases").await.expect("deleted");
    let mut living = one.living();
    within("noticed", living.wait_for(|now| *now != Living::Known(vec!["one".into(), "two".into()])))
        .await
        .expect("kept");
    until(&mut living, &["one", "two"]).await;
    until(&mut two.living(), &["one", "two"]).await;
}
