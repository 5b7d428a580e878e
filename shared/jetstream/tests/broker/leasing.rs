//! One owner a lane: among many takers, over restarts, and while the broker is away.

use std::time::Duration;

use async_nats::jetstream::kv::Store;
use fedstream_jetstream::{Broker, Definition, Lease, Leases, NatsSettings, StreamsMode, Taken, definitions, leases};
use fedstream_lane::Epoch;
use futures::future::join_all;

use crate::server::{Server, eventually, within};

pub const LANE: &str = "inbox.a_example.b_example";

/// Short enough to see a session expire, long enough for a slow machine to renew it.
pub const TTL: Duration = Duration::from_secs(2);

/// The bucket with a TTL of a test's own.
pub fn short() -> &'static Definition {
    Box::leak(Box::new(definitions::leases().with_ttl(TTL)))
}

pub async fn open(broker: &Broker) -> Leases {
    Leases::open_in(broker, short()).await.expect("the bucket")
}

pub async fn take(leases: &Leases, owner: &str) -> Taken {
    leases.take(LANE, owner, Epoch(0)).await.expect("an answer")
}

pub fn ours(taken: Taken) -> Lease {
    match taken {
        Taken::Ours(lease) => lease,
        held @ Taken::Held { .. } => panic!("{held:?}"),
    }
}

pub async fn taken(leases: &Leases, owner: &str) -> Lease {
    ours(take(leases, owner).await)
}

pub async fn bucket(broker: &Broker) -> Store {
    broker.context().get_key_value("fed_leases").await.expect("the bucket")
}

#[tokio::test]
async fn of_eight_takers_at_once_exactly_one_gets_the_lane_and_the_others_learn_who() {
    let server = Server::start().await;
    let brokers = join_all((0..8).map(|_| server.connect())).await;
    let leases = join_all(brokers.iter().map(open)).await;
    let names: Vec<_> = (0..8).map(|n| format!("sender-{n}")).collect();
    for _round in 0..5 {
        let taken = join_all(leases.iter().zip(&names).map(|(leases, name)| take(leases, name))).await;
        let won: Vec<_> = (0..8).filter(|n| matches!(taken[*n], Taken::Ours(_))).collect();
        assert_eq!(won.len(), 1, "{taken:?}");
        let winner = &names[won[0]];
        assert!(
            taken
                .iter()
                .all(|t| matches!(t, Taken::Ours(_)) || matches!(t, Taken::Held { owner, .. } if owner == winner))
        );
        for (n, taken) in taken.into_iter().enumerate() {
            if let Taken::Ours(mut lease) = taken {
                leases[n].release(&mut lease).await.expect("released");
            }
        }
    }
}

#[tokio::test]
async fn a_released_lane_is_taken_at_once_with_a_higher_epoch() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let (one, two) = (open(&broker).await, open(&broker).await);
    let mut first = taken(&one, "one").await;
    let epoch = first.epoch;
    assert!(matches!(take(&two, "two").await, Taken::Held { owner, epoch: held } if owner == "one" && held == epoch));
    one.release(&mut first).await.expect("released");
    let mut second = taken(&two, "two").await;
    assert!(second.epoch > epoch);
    two.confirm(&mut second).await.expect("it is ours");
    one.release(&mut first).await.expect("nothing to release");
    two.confirm(&mut second).await.expect("and it is still ours");
}

#[tokio::test]
async fn the_same_owner_name_in_another_process_does_not_get_the_lane() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let (one, twin) = (open(&broker).await, open(&broker).await);
    let _lease = taken(&one, "same").await;
    assert!(matches!(take(&twin, "same").await, Taken::Held { owner, .. } if owner == "same"));
}

#[tokio::test]
async fn a_write_whose_ack_was_lost_is_recognised_and_neither_lost_nor_anothers() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let leases = open(&broker).await;
    let mut lease = taken(&leases, "one").await;
    // What the broker stored and we never heard of: the same entry, one revision further.
    let bucket = bucket(&broker).await;
    let value = bucket.get(LANE).await.expect("an answer").expect("an entry");
    let further = bucket.put(LANE, value).await.expect("stored");
    leases.confirm(&mut lease).await.expect("it is ours");
    assert!(lease.revision > further);
    // A take whose ack was lost: the process takes its own entry over, with a higher epoch.
    let again = taken(&leases, "one").await;
    assert!(again.epoch > lease.epoch);
    assert!(matches!(leases.confirm(&mut lease).await, Err(leases::Error::Lost { .. })), "one owner a lane");
}

#[tokio::test]
async fn a_bump_raises_the_epoch_of_the_same_owner() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let leases = open(&broker).await;
    let mut lease = taken(&leases, "one").await;
    let before = lease.epoch;
    leases.bump(&mut lease, Epoch(0)).await.expect("bumped");
    assert!(lease.epoch > before);
    let far = Epoch(lease.epoch.0 + 1_000_000_000);
    leases.bump(&mut lease, far).await.expect("bumped");
    assert_eq!(lease.epoch, far);
    leases.confirm(&mut lease).await.expect("it is ours");
    leases.release(&mut lease).await.expect("released");
    assert_eq!(taken(&open(&broker).await, "two").await.epoch, Epoch(far.0 + 1));
}

#[tokio::test]
async fn a_lane_that_somebody_else_wrote_is_lost_and_names_who() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let leases = open(&broker).await;
    let mut lease = taken(&leases, "one").await;
    let entry = r#"{"epoch":1,"owner":"sender-z","nonce":"0123456789abcdef","taken_at":"then"}"#;
    bucket(&broker).await.put(LANE, entry.into()).await.expect("stored");
    for _ in 0..2 {
        let lost = leases.confirm(&mut lease).await.expect_err("it has another owner");
        assert!(matches!(&lost, leases::Error::Lost { holder: Some(holder), .. } if holder == "sender-z"), "{lost}");
    }
    assert!(matches!(leases.bump(&mut lease, Epoch(0)).await, Err(leases::Error::Lost { .. })));
    leases.release(&mut lease).await.expect("nothing to release");
    assert!(matches!(take(&leases, "one").await, Taken::Held { owner, .. } if owner == "sender-z"), "and it keeps it");
}

#[tokio::test]
async fn epochs_grow_after_the_entry_was_deleted_and_after_the_whole_bucket_was() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let leases = open(&broker).await;
    let mut first = taken(&leases, "one").await;
    bucket(&broker).await.delete(LANE).await.expect("deleted");
    assert!(matches!(leases.confirm(&mut first).await, Err(leases::Error::Lost { holder: None, .. })));
    let mut second = taken(&leases, "one").await;
    assert!(second.epoch > first.epoch);
    broker.context().delete_key_value("fed_leases").await.expect("deleted");
    assert!(matches!(leases.confirm(&mut second).await, Err(leases::Error::Unavailable { .. })));
    let third = eventually("the bucket is made again", async || leases.take(LANE, "one", Epoch(0)).await.ok()).await;
    let third = ours(third);
    assert!(third.epoch > second.epoch);
    assert!(third.holds() && !second.holds(), "what the old bucket said counts no more");
}

#[tokio::test]
async fn while_the_broker_is_away_nothing_can_be_confirmed_and_the_session_goes_on_after() {
    let mut server = Server::start().await;
    let broker = server.connect().await;
    let leases = Leases::open(&broker).await.expect("the bucket"); // 15 s: a restart fits into it
    let mut lease = taken(&leases, "one").await;
    let until = lease.until();
    server.kill().await;
    let error = within("an answer", leases.confirm(&mut lease)).await.expect_err("no broker");
    assert!(matches!(error, leases::Error::Unavailable { .. }), "{error}");
    assert!(lease.holds() && lease.until() == until);
    server.start_again().await;
    eventually("it is ours", async || leases.confirm(&mut lease).await.ok()).await;
    eventually("the session is renewed", async || (lease.until() > until).then_some(())).await;
}

#[tokio::test]
async fn a_bucket_without_a_ttl_is_refused() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let mut endless = definitions::leases().clone();
    endless.config["max_age"] = 0.into();
    let error = Leases::open_in(&broker, Box::leak(Box::new(endless))).await.err().expect("refused");
    assert!(error.to_string().contains("max_age is 0"), "{error}");
}

#[tokio::test]
async fn a_bucket_whose_entries_can_not_outlast_their_ttl_is_refused() {
    let server = Server::start().await;
    let broker = server.connect().await;
    // The broker itself has markers only where messages may have a TTL, `never` among them.
    let mut bare = definitions::leases().clone();
    bare.config.as_object_mut().expect("an object").remove("subject_delete_marker_ttl");
    let error = Leases::open_in(&broker, Box::leak(Box::new(bare))).await.err().expect("refused");
    assert!(error.to_string().contains("subject_delete_marker_ttl is 0"), "{error}");
    assert_eq!(error.exit_code(), 78);
}

#[tokio::test]
async fn in_bind_mode_a_missing_bucket_is_an_error_that_names_it() {
    let server = Server::start().await;
    let settings = NatsSettings { streams: StreamsMode::Bind, ..server.settings() };
    let broker = Broker::connect(settings, "test").await.expect("a broker");
    let error = Leases::open(&broker).await.err().expect("no bucket");
    assert_eq!(
        error.to_string(),
        "stream KV_fed_leases is missing, and FED_STREAMS=bind leaves it to others to make it"
    );
}
