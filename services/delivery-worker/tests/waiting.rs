//! More lanes than a worker carries at a time: those of remotes that are down are no reason for the others to wait.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use delivery_worker::{Broker, CancellationToken, NatsSettings, Ports, READINESS, Readiness, Settings, Worker};
use federation::breaker::Limits;
use federation::{
    ActorKeys, Attempts, Client, EventPublisher, FederationEvent, Guard, JetStreamOptions, JetStreamPublisher,
    KeysInMemory, Setup,
};
use fedstream_tests::broker::Broker as Server;
use fedstream_tests::directory::Directory;
use fedstream_tests::eventually::eventually;
use fedstream_tests::instance::Instance;
use fedstream_tests::keys;
use serde_json::json;
use uuid::Uuid;

/// Generous: these machines are small and busy. A passing test never waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

const ALICE: Uuid = Uuid::from_u128(0xa11ce);
const KEY_ID: &str = "http://our.test/users/alice#main-key";

fn note(name: &str, to: SocketAddr) -> FederationEvent {
    let activity = json!({ "id": format!("http://our.test/activities/{name}"), "type": "Create", "actor": "http://our.test/users/alice" });
    let inbox = format!("http://{to}/inbox").parse().expect("a URL");
    FederationEvent::DeliveryRequested { inbox, activity, signing_actor_id: ALICE }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_remotes_that_are_down_hold_up_no_third_one_and_get_theirs_when_they_are_back() {
    let server = Server::start().await.expect("a nats-server");
    let known = Directory::default();
    known.enter(KEY_ID, keys::of("alice").public_pem()).expect("a public key");
    let mut dead =
        [Instance::start(known.clone()).await, Instance::start(known.clone()).await].map(|one| one.expect("a port"));
    for remote in &mut dead {
        remote.go_down().await;
    }
    let well = Instance::start(known).await.expect("a free port");
    let settings = NatsSettings { url: server.url(), ..NatsSettings::default() };
    let broker = Broker::connect(settings, "application").await.expect("a broker");

    let alice = ActorKeys::from_pem(keys::of("alice").private_pem(), Some(KEY_ID)).expect("a key");
    let client = Client::new(Setup { guard: Guard::development(), ..Setup::default() }).expect("a client");
    let attempts = Attempts::new(client, Arc::new(KeysInMemory::default().with(ALICE, alice)));
    let settings = Settings {
        lanes_max: 2,
        backoff_min: Duration::from_millis(50),
        breaker: Limits { failures: 2, open_min_ms: 1_000, open_max_ms: 1_000, ..Limits::default() },
        ..Settings::default()
    };
    let (readiness, shutdown) = (Readiness::new(&READINESS), CancellationToken::new());
    let ports = Ports { attempts, history: None };
    let worker = Worker::open(broker.clone(), settings, ports, readiness, shutdown.clone()).await.expect("a worker");
    let pages = worker.pages();
    let running = tokio::spawn(worker.run(PATIENCE));

    let publisher = JetStreamPublisher::new(&broker, JetStreamOptions::default()).await.expect("streams");
    for remote in &dead {
        publisher.publish(note("first", remote.addr())).await.expect("stored");
        publisher.publish(note("second", remote.addr())).await.expect("stored");
    }
    let carried = async || {
        let lanes = pages()["lanes"].as_object()?.clone();
        (lanes.values().filter(|lane| lane["held"] == 2).count() == 2).then_some(())
    };
    eventually("both lanes are carried", PATIENCE, carried).await.expect("there is room for two");
    publisher.publish(note("first", well.addr())).await.expect("stored");
    well.wait_accepted(1, PATIENCE).await.expect("delivered while the two are down");

    for remote in &mut dead {
        remote.come_up().await.expect("its port");
    }
    for remote in &dead {
        remote.wait_accepted(2, PATIENCE).await.expect("delivered now");
        let ids: Vec<_> = remote.seen().iter().map(|seen| seen.id.clone()).collect();
        assert_eq!(ids, ["first", "second"].map(|name| format!("http://our.test/activities/{name}")));
    }
    shutdown.cancel();
    assert!(running.await.expect("it runs"), "everything was answered");
}
