//! One owner a lane: among many takers, over restarts, and while the broker is away.

use std::time::Duration;

use async_nats::jetstream::kv::Store;
use fedstream_jetstream::{Broker, Definition, Lease, Leases, NatsSettings, StreamsMode, Taken, definitions, leases};
use fedstream_lane::Epoch;
use futures::future::join_all;
use tokio::time::Instant;

use crate::server::{Server, eventually, within};

const LANE: &str = "inbox.a_example.b_example";

/// Short enough to see an entry expire, long enough for a slow machine to renew it.
pub const TTL: Duration = Duration::from_secs(2);

/// The bucket with a TTL of a test's own.
pub fn short() -> &'static Definition {
    Box::leak(Box::new(definitions::leases().with_ttl(TTL)))
}

pub async fn open(broker: &Broker) -> Leases {
    Leases::open_in(broker, short()).await.expect("the bucket")
}

async fn take(leases: &Leases, owner: &str) -> Taken {
    leases.take(LANE, owner, Epoch(0)).await.expect("an answer")
}

pub fn ours(taken: Taken) -> Lease {
    match taken {
        Taken::Ours(lease) => lease,
        held @ Taken::Held { .. } => panic!("{held:?}"),
    }
}

async fn taken(leases: &Leases, owner: &str) -> Lease {
    ours(take(leases, owner).await)
}

async fn bucket(broker: &Broker) -> Store {
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
            if let Taken::Ours(lease) = taken {
                leases[n].release(lease).await.expect("released");
            }
        }
    }
}

#[tokio::test]
async fn a_released_lane_is_taken_at_once_with_a_higher_epoch() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let (one, two) = (open(&broker).await, open(&broker).await);
    let first = taken(&one, "one").await;
    let epoch = first.epoch;
    assert!(matches!(take(&two, "two").await, Taken::Held { owner, epoch: held } if owner == "one" && held == epoch));
    one.release(first).await.expect("released");
    let mut second = taken(&two, "two").await;
    assert!(second.epoch > epoch);
    two.renew(&mut second).await.expect("renewed");
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
async fn an_owner_that_does_not_renew_has_stopped_before_another_can_take_the_lane() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let (one, two) = (open(&broker).await, open(&broker).await);
    let mut lease = taken(&one, "one").await;
    assert!(lease.holds());
    let next = eventually("the entry expires", async || match take(&two, "two").await {
        Taken::Ours(lease) => Some(lease),
        Taken::Held { .. } => None,
    })
    .await;
    assert!(Instant::now() >= lease.until + TTL / 10, "only {:?} apart", Instant::now() - lease.until);
    assert!(!lease.holds() && next.epoch > lease.epoch);
    let lost = one.renew(&mut lease).await.expect_err("it has another owner");
    assert!(matches!(&lost, leases::Error::Lost { holder: Some(holder), .. } if holder == "two"), "{lost}");
    assert!(matches!(one.bump(&mut lease, Epoch(0)).await, Err(leases::Error::Lost { .. })));
    one.release(lease).await.expect("nothing to release"); // and two keeps it
    assert!(matches!(take(&one, "one").await, Taken::Held { owner, .. } if owner == "two"));
}

#[tokio::test]
async fn a_renewed_lease_outlives_the_ttl_and_an_expired_one_is_lost_though_nobody_took_it() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let leases = open(&broker).await;
    let mut lease = taken(&leases, "one").await;
    let begun = Instant::now();
    while begun.elapsed() < TTL * 2 {
        let until = lease.until;
        tokio::time::sleep(leases.renew_every()).await;
        leases.renew(&mut lease).await.expect("renewed");
        assert!(lease.until > until && lease.holds());
    }
    let entry = bucket(&broker).await;
    eventually("the entry expires", async || {
        let found = entry.entry(LANE).await.expect("an answer");
        (!found.is_some_and(|entry| entry.operation == async_nats::jetstream::kv::Operation::Put)).then_some(())
    })
    .await;
    let lost = leases.renew(&mut lease).await.expect_err("it expired");
    assert!(matches!(lost, leases::Error::Lost { holder: None, .. }), "{lost}");
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
    leases.renew(&mut lease).await.expect("renewed");
    assert!(lease.revision > further);
    // A take whose ack was lost: the process takes its own entry over, with a higher epoch.
    let again = taken(&leases, "one").await;
    assert!(again.epoch > lease.epoch);
    assert!(matches!(leases.renew(&mut lease).await, Err(leases::Error::Lost { .. })), "one owner a lane");
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
    leases.renew(&mut lease).await.expect("renewed");
    leases.release(lease).await.expect("released");
    assert_eq!(taken(&open(&broker).await, "two").await.epoch, Epoch(far.0 + 1));
}

#[tokio::test]
async fn epochs_grow_after_the_entry_expired_and_after_the_whole_bucket_is_deleted() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let leases = open(&broker).await;
    let mut first = taken(&leases, "one").await;
    bucket(&broker).await.delete(LANE).await.expect("deleted");
    assert!(matches!(leases.renew(&mut first).await, Err(leases::Error::Lost { holder: None, .. })));
    let mut second = taken(&leases, "one").await;
    assert!(second.epoch > first.epoch);
    broker.context().delete_key_value("fed_leases").await.expect("deleted");
    assert!(matches!(leases.renew(&mut second).await, Err(leases::Error::Unavailable { .. })));
    let third = eventually("the bucket is made again", async || leases.take(LANE, "one", Epoch(0)).await.ok()).await;
    assert!(ours(third).epoch > second.epoch);
}

#[tokio::test]
async fn while_the_broker_is_away_a_renewal_is_unavailable_at_once_and_works_again_after() {
    let mut server = Server::start().await;
    let broker = server.connect().await;
    let leases = Leases::open(&broker).await.expect("the bucket"); // 15 s: a restart fits into it
    let mut lease = taken(&leases, "one").await;
    let until = lease.until;
    server.kill().await;
    let error = within("an answer", leases.renew(&mut lease)).await.expect_err("no broker");
    assert!(matches!(error, leases::Error::Unavailable { .. }), "{error}");
    assert_eq!(lease.until, until);
    server.start_again().await;
    eventually("renewed", async || leases.renew(&mut lease).await.ok()).await;
    assert!(lease.until > until);
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
