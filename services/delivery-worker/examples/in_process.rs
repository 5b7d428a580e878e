//! An application that needs no service beside it but the broker: it publishes, and a worker inside its process delivers and
//! backfills, with the application's own keys and its own history.
//!
//!     KEYS_DIR=/run/secrets/actors cargo run -p delivery-worker --example in_process -- https://remote.example/inbox
//!
//! The broker is one with `nats/server.conf`. It sends one activity and a history of two to that inbox, and goes on until it is
//! told to stop. What it has not delivered by then is in the stream, and goes out when it runs again; two of them share the
//! work. It links `federation` and `delivery-worker`, and nothing else of fedstream.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use delivery_worker::{Broker, CancellationToken, NatsSettings, Ports, READINESS, Readiness, Settings, Worker};
use federation::backfill::Unreadable;
use federation::{
    ActivityPubService, Attempts, Client, Cursor, FederationEvent, History, JetStreamOptions, JetStreamPublisher, Page,
    PemDirectory, Setup,
};
use serde_json::{Value, json};
use uuid::Uuid;

const ALICE: Uuid = Uuid::from_u128(1);

/// Time for what is under way when it is told to stop.
const GRACE: Duration = Duration::from_secs(20);

/// What the application has of its users: here they are two activities, in a real one a table.
struct Posts;

#[async_trait]
impl History for Posts {
    async fn page(&self, _owner: Uuid, _at: Option<&Cursor>) -> Result<Page, Unreadable> {
        Ok(Page { activities: vec![note("first"), note("second")], next: None })
    }
}

fn note(name: &str) -> Value {
    let actor = format!("https://our.example/users/{ALICE}");
    json!({
        "@context": "https://www.w3.org/ns/activitystreams",
        "id": format!("https://our.example/activities/{name}"),
        "type": "Create",
        "actor": actor,
        "object": { "type": "Note", "attributedTo": actor, "content": name },
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let inbox = std::env::args().nth(1).ok_or("which inbox?")?;
    let keys = std::env::var("KEYS_DIR")?; // <actor id>.pem, here 00000000-0000-0000-0000-000000000001.pem
    let keys = Arc::new(PemDirectory::open(keys, Some("https://our.example/users/{actor}#main-key".to_owned()))?);
    let url = std::env::var("NATS_URL").unwrap_or_else(|_| "nats://127.0.0.1:4222".to_owned());
    let broker = Broker::connect(NatsSettings { url, ..NatsSettings::default() }, "our.example").await?;

    // What goes out ..
    let queue = JetStreamPublisher::new(&broker, JetStreamOptions::default()).await?;
    let service = ActivityPubService::builder("https://our.example").event_publisher(Arc::new(queue)).build().await?;

    // .. and who brings it there.
    let attempts = Attempts::new(Client::new(Setup::default())?, keys);
    let ports = Ports { attempts, history: Some(Arc::new(Posts)) };
    let (readiness, shutdown) = (Readiness::new(&READINESS), CancellationToken::new());
    let worker = Worker::open(broker, Settings::default(), ports, readiness, shutdown.clone()).await?;
    let lanes = worker.pages(); // what `/lanes` of the service shows, for a page of the application's own
    let running = tokio::spawn(worker.run(GRACE));

    let (to, activity) = (inbox.parse()?, note("third"));
    service.publish(FederationEvent::DeliveryRequested { inbox: to, activity, signing_actor_id: ALICE }).await?;
    service.request_backfill(ALICE, inbox).await?;

    tokio::signal::ctrl_c().await?;
    shutdown.cancel();
    let all_answered = running.await?;
    println!("{}: {}", if all_answered { "all was answered" } else { "some of it will be repeated" }, lanes());
    Ok(())
}
