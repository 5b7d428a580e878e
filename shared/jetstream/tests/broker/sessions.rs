//! One entry says that a process lives, for all its lanes: it stands still, dies, is ended by others, or leaves.

use std::time::Duration;

use async_nats::jetstream::kv::{Operation, Store};
use fedstream_jetstream::{Broker, Leases, Members, Taken, definitions, leases};
use fedstream_lane::{Epoch, Lane};
use futures::future::join_all;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::leasing::{LANE, bucket, ours, take, taken};
use crate::server::{Server, eventually, within};

/// Long enough that a machine which stands still for a second loses nothing, short enough to see a session expire.
const TTL: Duration = Duration::from_secs(3);

/// Beyond the TTL, by more than the broker's clock is late.
const LONGER: Duration = Duration::from_secs(4);

/// Enough that a renewal each would show.
const MANY: usize = 30;

async fn open(broker: &Broker) -> Leases {
    Leases::open_in(broker, Box::leak(Box::new(definitions::leases().with_ttl(TTL)))).await.expect("the bucket")
}

fn lanes() -> impl Iterator<Item = String> {
    (0..MANY).map(|n| format!("inbox.a_example.{n}_example"))
}

/// How many messages were ever written into the bucket, markers of what expired among them.
async fn written(broker: &Broker) -> u64 {
    let mut stream = broker.context().get_stream("KV_fed_leases").await.expect("the bucket");
    stream.info().await.expect("an answer").state.last_sequence
}

/// What stands under a key; none of a marker.
async fn value(bucket: &Store, key: &str) -> Option<serde_json::Value> {
    let value = bucket.get(key).await.expect("an answer")?;
    Some(serde_json::from_slice(&value).expect("JSON"))
}

/// The key of the session that holds the lane.
async fn session_of_the_lane(bucket: &Store) -> String {
    let entry = value(bucket, LANE).await.expect("it is held");
    assert_eq!(entry["session"], true);
    format!("session.{}", entry["nonce"].as_str().expect("a nonce"))
}

/// Waits until the lane is free for this process.
async fn taken_in_time(leases: &Leases, owner: &str) -> leases::Lease {
    eventually("the lane is free", async || match take(leases, owner).await {
        Taken::Ours(lease) => Some(lease),
        Taken::Held { .. } => None,
    })
    .await
}

/// A process that stands still whenever it isn't told to go on: its tasks, timers and connection are not driven meanwhile.
fn process() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[tokio::test]
async fn lanes_that_rest_outlive_the_ttl_and_cost_one_write_for_all_of_them() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let leases = open(&broker).await;
    let held =
        join_all(lanes().map(async |lane| ours(leases.take(&lane, "one", Epoch(0)).await.expect("taken")))).await;
    let (before, begun) = (written(&broker).await, Instant::now());
    let until = held[0].until();
    tokio::time::sleep(LONGER).await;
    let renewals = written(&broker).await - before;
    let most = u64::try_from(begun.elapsed().as_millis() / (TTL / 3).as_millis()).expect("few") + 1;
    assert!((1..=most).contains(&renewals), "{renewals} writes for {MANY} lanes, not {most}");
    assert!(held.iter().all(|lease| lease.holds() && lease.until() > until));
    let other = open(&broker).await;
    for (lane, lease) in lanes().zip(&held) {
        let epoch = lease.epoch;
        let taken = other.take(&lane, "two", Epoch(0)).await.expect("an answer");
        assert!(matches!(taken, Taken::Held { epoch: held, .. } if held == epoch), "{taken:?}");
    }
}

#[test]
fn a_process_that_stood_still_has_stopped_before_another_can_take_its_lane_and_never_gets_its_session_back() {
    let (here, paused) = (process(), process());
    let server = here.block_on(Server::start());
    let (one, mut lease) = paused.block_on(async {
        let one = open(&server.connect().await).await;
        let lease = taken(&one, "one").await;
        (one, lease)
    });
    let (two, bucket, session, next) = here.block_on(async {
        let broker = server.connect().await;
        let (two, bucket) = (open(&broker).await, bucket(&broker).await);
        let session = session_of_the_lane(&bucket).await;
        assert!(matches!(take(&two, "two").await, Taken::Held { owner, .. } if owner == "one"));
        let next = taken_in_time(&two, "two").await;
        (two, bucket, session, next)
    });
    assert!(Instant::now() >= lease.until() + TTL / 10, "only {:?} apart", Instant::now() - lease.until());
    assert!(!lease.holds() && next.epoch > lease.epoch);
    paused.block_on(async {
        assert!(!lease.holds(), "before anything else runs");
        within("told", lease.session().over()).await;
        assert!(matches!(one.bump(&mut lease, Epoch(0)).await, Err(leases::Error::Lost { .. })));
        one.release(&mut lease).await.expect("nothing to release");
        assert!(matches!(take(&one, "one").await, Taken::Held { owner, .. } if owner == "two"), "and it keeps it");
    });
    here.block_on(async {
        assert_eq!(value(&bucket, &session).await, None, "it is not written again");
        let mut next = next;
        two.confirm(&mut next).await.expect("it is ours");
        two.release(&mut next).await.expect("released");
    });
    let again = paused.block_on(taken(&one, "one"));
    assert!(again.holds() && again.epoch > next_epoch_of(&lease));
}

fn next_epoch_of(lease: &leases::Lease) -> Epoch {
    Epoch(lease.epoch.0 + 1)
}

#[tokio::test]
async fn a_session_that_somebody_ended_is_over_and_its_process_begins_another() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let leases = open(&broker).await;
    let lease = taken(&leases, "one").await;
    let bucket = bucket(&broker).await;
    let session = session_of_the_lane(&bucket).await;
    bucket.delete(&session).await.expect("deleted");
    let why = within("it is noticed", lease.session().over()).await;
    assert!(why.contains("ended by another"), "{why}");
    assert!(!lease.holds());
    let again = taken(&leases, "one").await;
    assert!(again.holds() && again.epoch > lease.epoch, "its own former lane needs no proof");
    assert_ne!(session_of_the_lane(&bucket).await, session);
    assert_eq!(value(&bucket, &session).await, None);
    assert!(!lease.holds(), "what was lost stays lost");
}

#[tokio::test]
async fn a_renewal_whose_ack_was_lost_is_recognised() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let leases = open(&broker).await;
    let lease = taken(&leases, "one").await;
    // What the broker stored and we never heard of: the same entry, one revision further.
    let bucket = bucket(&broker).await;
    let session = session_of_the_lane(&bucket).await;
    let entry = bucket.get(&session).await.expect("an answer").expect("it lives");
    bucket.put(&session, entry).await.expect("stored");
    tokio::time::sleep(LONGER).await;
    assert!(lease.holds());
}

#[tokio::test]
async fn who_read_what_is_no_longer_so_can_not_end_a_session() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let leases = open(&broker).await;
    let lease = taken(&leases, "one").await;
    let bucket = bucket(&broker).await;
    let session = session_of_the_lane(&bucket).await;
    let first = bucket.entry(&session).await.expect("an answer").expect("it lives").revision;
    eventually("it is renewed", async || {
        let entry = bucket.entry(&session).await.expect("an answer").expect("it lives");
        (entry.revision > first).then_some(())
    })
    .await;
    for revision in [0, first] {
        let deleted = bucket.delete_expect_revision(&session, Some(revision)).await;
        assert!(deleted.is_err(), "a replica that is behind says {revision}");
    }
    assert!(value(&bucket, &session).await.is_some() && lease.holds());
}

#[tokio::test]
async fn the_lanes_of_a_process_that_died_are_taken_after_one_proof_for_all_and_their_epochs_grow() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let (one, two) = (open(&broker).await, open(&broker).await);
    let held =
        join_all(lanes().map(async |lane| ours(one.take(&lane, "one", Epoch(9 << 50)).await.expect("taken")))).await;
    ours(two.take("inbox.b_example.b_example", "two", Epoch(0)).await.expect("taken")); // its session
    drop(one); // killed
    let bucket = bucket(&broker).await;
    let session = {
        let entry = value(&bucket, "inbox.a_example.0_example").await.expect("it stands, beyond its owner");
        format!("session.{}", entry["nonce"].as_str().expect("a nonce"))
    };
    eventually("the session expires", async || value(&bucket, &session).await.is_none().then_some(())).await;
    let before = written(&broker).await;
    let begun = Instant::now();
    let next = join_all(lanes().map(async |lane| two.take(&lane, "two", Epoch(0)).await.expect("an answer"))).await;
    for (before, next) in held.iter().zip(next) {
        assert!(ours(next).epoch > before.epoch, "no clock says so high an epoch: it was kept");
        assert!(!before.holds());
    }
    let renewals = u64::try_from(begun.elapsed().as_millis() / (TTL / 3).as_millis()).expect("few") + 1;
    let proofs = written(&broker).await - before - MANY as u64;
    assert!((1..=1 + renewals).contains(&proofs), "{proofs} writes more than lanes");
}

#[tokio::test]
async fn what_a_dead_process_left_is_cleared_and_expires_and_what_a_living_one_has_is_not() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let (one, two) = (open(&broker).await, open(&broker).await);
    let lease = taken(&one, "one").await;
    let bucket = bucket(&broker).await;
    two.clear(LANE).await.expect("nothing to do");
    two.clear("inbox.b_example.nobodys").await.expect("nothing to do");
    assert_eq!(value(&bucket, LANE).await.expect("it stands")["released"], false);
    drop(one); // killed
    eventually("it is cleared", async || {
        two.clear(LANE).await.expect("an answer");
        let entry = value(&bucket, LANE).await?;
        (entry["released"] == true && entry["epoch"] == lease.epoch.0).then_some(())
    })
    .await;
    eventually("it expires", async || value(&bucket, LANE).await.is_none().then_some(())).await;
    assert!(taken(&two, "two").await.holds());
}

#[tokio::test]
async fn a_process_that_leaves_frees_at_once_what_it_could_not_give_back() {
    let server = Server::start().await;
    let broker = server.connect().await;
    // 15 s: nothing expires here.
    let (one, two) = (Leases::open(&broker).await.expect("the bucket"), Leases::open(&broker).await.expect("it"));
    let lease = taken(&one, "one").await;
    let bucket = bucket(&broker).await;
    let session = session_of_the_lane(&bucket).await;
    one.close().await;
    assert!(!lease.holds());
    let marker = bucket.entry(&session).await.expect("an answer").expect("a marker");
    assert_eq!(marker.operation, Operation::Delete);
    assert!(taken(&two, "two").await.epoch > lease.epoch);
    one.close().await; // nothing to end
    assert!(matches!(take(&one, "one").await, Taken::Held { owner, .. } if owner == "two"));
}

#[tokio::test]
async fn a_lane_that_our_session_holds_and_nobody_knows_of_is_given_up_and_one_that_was_taken_meanwhile_is_not() {
    let server = Server::start().await;
    let broker = server.connect().await;
    // 15 s: nothing expires here.
    let (one, two) = (Leases::open(&broker).await.expect("the bucket"), Leases::open(&broker).await.expect("it"));
    let members = Members::join::<Lane>(&broker, "one").await.expect("a member");
    let unknown = taken(&one, "one").await; // as where the ack was lost
    let session = one.living_session().expect("it lives");
    let seen = eventually("it is seen", async || members.held_in(&session).pop()).await;
    assert_eq!(seen, (LANE.to_owned(), unknown.epoch));
    assert!(!two.give_up(LANE, unknown.epoch).await.expect("an answer"), "it is another's");

    let mut known = taken(&one, "one").await; // a task takes it, between what was seen and what is done about it
    assert!(!one.give_up(LANE, seen.1).await.expect("an answer"));
    one.confirm(&mut known).await.expect("it is ours");
    assert!(matches!(take(&two, "two").await, Taken::Held { .. }));

    assert!(one.give_up(LANE, known.epoch).await.expect("an answer"));
    assert!(!one.give_up(LANE, known.epoch).await.expect("an answer"), "there is nothing left to give up");
    assert!(taken(&two, "two").await.epoch > known.epoch);
    eventually("it is seen", async || members.held_in(&session).is_empty().then_some(())).await;
}

#[tokio::test]
async fn an_entry_of_an_older_version_is_waited_for_and_no_session_of_it_is_ended() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let leases = open(&broker).await;
    let bucket = bucket(&broker).await;
    let entry = r#"{"epoch":7,"owner":"old","nonce":"0123456789abcdef","taken_at":"then","released":false}"#;
    let begun = Instant::now();
    bucket.put(LANE, entry.into()).await.expect("stored");
    leases.clear(LANE).await.expect("nothing to do");
    assert!(matches!(take(&leases, "new").await, Taken::Held { owner, epoch: Epoch(7) } if owner == "old"));
    let lease = taken_in_time(&leases, "new").await;
    assert!(begun.elapsed() > TTL - Duration::from_millis(100) && lease.epoch > Epoch(7));
    let ended = bucket.entry("session.0123456789abcdef").await.expect("an answer");
    assert!(ended.is_none(), "{ended:?}");
}

#[tokio::test]
async fn what_is_held_outlasts_a_restart_of_the_broker_beyond_its_own_age() {
    let mut server = Server::start().await;
    let broker = server.connect().await;
    let leases = open(&broker).await;
    let mut lease = taken(&leases, "one").await;
    tokio::time::sleep(LONGER).await; // the entry is older than the bucket's max_age
    server.kill().await;
    server.start_again().await;
    let bucket = eventually("it is back", async || broker.context().get_key_value("fed_leases").await.ok()).await;
    let entry = eventually("an answer", async || bucket.entry(LANE).await.ok()).await.expect("it stands");
    assert_eq!((entry.operation, entry.revision), (Operation::Put, lease.revision));
    if lease.holds() {
        leases.confirm(&mut lease).await.expect("it is ours"); // a slow machine may have lost the session meanwhile
    }
}
