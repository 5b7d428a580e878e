//! A worker inside an application: its own keys, its own history, no service beside it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delivery_worker::{Broker, CancellationToken, NatsSettings, Ports, READINESS, Readiness, Settings, Worker};
use federation::backfill::Unreadable;
use federation::{
    ActorKeys, Attempts, Client, Cursor, EventPublisher, FederationEvent, Guard, History, JetStreamOptions,
    JetStreamPublisher, KeysInMemory, Page, Setup,
};
use fedstream_tests::broker::Broker as Server;
use fedstream_tests::directory::Directory;
use fedstream_tests::eventually::eventually;
use fedstream_tests::instance::Instance;
use fedstream_tests::keys;
use serde_json::{Value, json};
use uuid::Uuid;

/// Generous: these machines are small and busy. A passing test never waits this long.
const PATIENCE: Duration = Duration::from_secs(30);

const ALICE: Uuid = Uuid::from_u128(0xa11ce);
const KEY_ID: &str = "http://our.test/users/alice#main-key";

fn note(name: &str) -> Value {
    json!({ "id": format!("http://our.test/activities/{name}"), "type": "Create", "actor": "http://our.test/users/alice" })
}

/// What the application keeps of its users: two activities to a page, three pages.
struct Table;

#[async_trait]
impl History for Table {
    async fn page(&self, owner: Uuid, at: Option<&Cursor>) -> Result<Page, Unreadable> {
        assert_eq!(owner, ALICE);
        let page: usize = at.map_or(Ok(0), |at| at.0.parse()).map_err(|_| Unreadable("no number".to_owned()))?;
        let activities = (2 * page..2 * page + 2).map(|number| note(&format!("old-{number}"))).collect();
        Ok(Page { activities, next: (page < 2).then(|| Cursor((page + 1).to_string())) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_delivers_and_backfills_in_its_own_process() {
    let server = Server::start().await.expect("a nats-server");
    let known = Directory::default();
    known.enter(KEY_ID, keys::of("alice").public_pem()).expect("a public key");
    let remote = Instance::start(known).await.expect("a free port");
    let settings = NatsSettings { url: server.url(), ..NatsSettings::default() };
    let broker = Broker::connect(settings, "application").await.expect("a broker");

    let alice = ActorKeys::from_pem(keys::of("alice").private_pem(), Some(KEY_ID)).expect("a key");
    let client = Client::new(Setup { guard: Guard::development(), ..Setup::default() }).expect("a client");
    let attempts = Attempts::new(client, Arc::new(KeysInMemory::default().with(ALICE, alice)));
    let ports = Ports { attempts, history: Some(Arc::new(Table)) };
    let settings = Settings { backfill_pause: Duration::from_millis(10), ..Settings::default() };
    let (readiness, shutdown) = (Readiness::new(&READINESS), CancellationToken::new());
    let worker = Worker::open(broker.clone(), settings, ports, readiness, shutdown.clone()).await.expect("a worker");
    let pages = worker.pages();
    let running = tokio::spawn(worker.run(PATIENCE));

    let publisher = JetStreamPublisher::new(&broker, JetStreamOptions::default()).await.expect("streams");
    let inbox = format!("http://{}/inbox", remote.addr());
    let requested = FederationEvent::DeliveryRequested {
        inbox: inbox.parse().expect("a URL"),
        activity: note("new"),
        signing_actor_id: ALICE,
    };
    publisher.publish(requested).await.expect("stored");
    remote.wait_accepted(1, PATIENCE).await.expect("delivered");
    let follow = FederationEvent::BackfillRequested { owner_user_id: ALICE, follower_inbox_url: inbox };
    publisher.publish(follow).await.expect("stored");
    remote.wait_accepted(7, PATIENCE).await.expect("the history too");

    let ids: Vec<_> = remote.seen().into_iter().map(|seen| seen.id.rsplit('/').next().map(str::to_owned)).collect();
    let expected = ["new", "old-0", "old-1", "old-2", "old-3", "old-4", "old-5"];
    assert_eq!(ids, expected.map(|name| Some(name.to_owned())));
    assert!(remote.seen().iter().all(|seen| seen.signature.is_ok()));
    let done = async || (pages()["backfills"].as_object()?.values().all(|lane| lane["held"] == 0)).then_some(());
    eventually("the job is done", PATIENCE, done).await.expect("it ends");
    shutdown.cancel();
    assert!(running.await.expect("it runs"), "everything was answered");
}
