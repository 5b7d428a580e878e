//! The smallest application: two users, alice and bob, on one axum server that federates with itself.
//!
//!     cargo run -p federation --example minimal -- try
//!
//! has each of them write the other a note, and ends well when both notes have arrived. Without `try` it runs until Ctrl-C, and
//! you write:
//!
//!     curl -X POST http://127.0.0.1:3000/users/alice/notes -d 'Hello, bob'
//!     curl http://127.0.0.1:3000/users/bob/received
//!
//! alice and bob follow each other. A note goes out as a signed POST to the other's inbox, in process. With `NATS_URL` it is
//! stored in JetStream first, and a delivery-worker that has the keys (written to `KEYS_DIR`) brings it there:
//!
//!     FED_NATS_PORT=4222 FED_NATS_MONITOR_PORT=8222 FED_NATS_STORE_DIR=/tmp/minimal-nats nats-server -c nats/server.conf &
//!     mkdir -p /tmp/minimal-keys
//!     FED_KEYS_DIR=/tmp/minimal-keys FED_PRIVATE_TARGETS=yes cargo run -p delivery-worker &
//!     NATS_URL=nats://127.0.0.1:4222 KEYS_DIR=/tmp/minimal-keys cargo run -p federation --example minimal -- try
//!
//! An example, not a model of an instance: it doesn't verify what comes in, and follows nobody else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use federation::{
    ActivityPubService, Guard, JetStreamOptions, JetStreamPublisher, NatsSettings, PemDirectory, Recipient, SendError,
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const HELP: &str = "\
Two users on one server that federates with itself.

  minimal        runs until Ctrl-C: POST /users/alice/notes, GET /users/bob/received
  minimal try    each writes the other a note; 0 when both have arrived

  LISTEN     where to listen (127.0.0.1:3000; with `try` any free port)
  KEYS_DIR   where the users' keys are written, as a delivery-worker reads them (a directory of its own)
  NATS_URL   store in JetStream, for a delivery-worker to deliver; without it, in process";

/// A user's signing key: of a real application every user has one of its own, made when the account is.
const KEY: &str = include_str!("../tests/keys/rsa-pkcs8.pem");
const PUBLIC_KEY: &str = include_str!("../tests/keys/rsa.pub.pem");

/// Time to deliver what is queued when the program is asked to leave.
const GRACE: Duration = Duration::from_secs(10);

/// So long `try` waits for a note: a worker finds a new lane within a second.
const PATIENCE: Duration = Duration::from_secs(30);

struct App {
    base: String,
    users: BTreeMap<&'static str, Uuid>,
    received: Mutex<Vec<(String, Value)>>,
    news: Notify,
    federation: ActivityPubService,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let trying = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("try") => true,
        Some(_) => {
            println!("{HELP}");
            return Ok(());
        }
    };
    let address = if trying { "127.0.0.1:0" } else { "127.0.0.1:3000" };
    let listen = std::env::var("LISTEN").unwrap_or_else(|_| address.to_owned());
    let listener = tokio::net::TcpListener::bind(&listen).await.with_context(|| listen.clone())?;
    let base = format!("http://{}", listener.local_addr()?);
    let users = BTreeMap::from([("alice", Uuid::from_u128(1)), ("bob", Uuid::from_u128(2))]);

    let keys = std::env::var_os("KEYS_DIR").map_or_else(|| std::env::temp_dir().join("minimal-keys"), PathBuf::from);
    std::fs::create_dir_all(&keys)?;
    for (name, id) in &users {
        std::fs::write(keys.join(format!("{id}.pem")), format!("Key-Id: {base}/users/{name}#main-key\n{KEY}"))?;
    }
    let mut builder = ActivityPubService::builder(&base)
        .signing_keys(Arc::new(PemDirectory::open(keys, None)?))
        .guard(Guard::development()) // the other side is on this machine
        .on_delivery_failed(|event| eprintln!("given up: {event:?}"));
    let mut way = "in process";
    if let Ok(url) = std::env::var("NATS_URL") {
        let settings = NatsSettings { url, ..NatsSettings::default() };
        let queue = JetStreamPublisher::connect(settings, JetStreamOptions::default()).await?;
        builder = builder.event_publisher(Arc::new(queue));
        way = "through JetStream and a delivery-worker";
    }
    let federation = builder.build().await?;
    let app = Arc::new(App { base, users, received: Mutex::default(), news: Notify::new(), federation });

    println!("{}", app.base);
    let router = Router::new()
        .route("/users/{name}", get(actor))
        .route("/users/{name}/inbox", post(inbox))
        .route("/users/{name}/notes", post(write))
        .route("/users/{name}/received", get(received))
        .with_state(app.clone());
    let done = CancellationToken::new();
    let server = axum::serve(listener, router).with_graceful_shutdown(done.clone().cancelled_owned());
    let server = tokio::spawn(async move { server.await });
    let result = if trying { app.try_it().await } else { tokio::signal::ctrl_c().await.context("Ctrl-C") };
    // The queue first: what it delivers comes in here.
    for event in app.federation.shut_down(GRACE).await.events {
        eprintln!("not delivered: {event:?}");
    }
    done.cancel();
    server.await??;
    if result.is_ok() && trying {
        println!("both notes arrived, {way}");
    }
    result
}

impl App {
    fn knows(&self, name: &str) -> Result<Uuid, StatusCode> {
        self.users.get(name).copied().ok_or(StatusCode::NOT_FOUND)
    }

    /// A new note, to everybody else.
    async fn send(&self, name: &str, author: Uuid, content: &str) -> Result<(), SendError> {
        let actor = format!("{}/users/{name}", self.base);
        let activity = json!({
            "@context": "https://www.w3.org/ns/activitystreams",
            "id": format!("{actor}/activities/{}", time::OffsetDateTime::now_utc().unix_timestamp_nanos()),
            "type": "Create",
            "actor": actor,
            "object": { "type": "Note", "attributedTo": actor, "content": content },
        });
        let followers = self.users.keys().filter(|other| **other != name);
        let inboxes = followers.filter_map(|other| format!("{}/users/{other}/inbox", self.base).parse().ok());
        let inboxes = inboxes.map(|inbox: url::Url| Recipient::from(inbox));
        self.federation.send(&activity, author, inboxes).await.map(drop)
    }

    /// Both ways.
    async fn try_it(&self) -> anyhow::Result<()> {
        for (from, to) in [("alice", "bob"), ("bob", "alice")] {
            let content = format!("Hello, {to}");
            let author = self.users.get(from).copied().context("a user")?;
            self.send(from, author, &content).await?;
            let arrived = tokio::time::timeout(PATIENCE, self.arrived(to, &content)).await;
            if arrived.is_err() {
                bail!("{to} has not heard of {from} within {PATIENCE:?}");
            }
            println!("{from} to {to}: {content}");
        }
        Ok(())
    }

    /// Returns when a user has such a note.
    async fn arrived(&self, name: &str, content: &str) {
        loop {
            let news = self.news.notified();
            let is_it = |(user, activity): &(String, Value)| user == name && activity["object"]["content"] == content;
            if self.received.lock().unwrap_or_else(PoisonError::into_inner).iter().any(is_it) {
                return;
            }
            news.await;
        }
    }
}

/// What a remote reads to find the key.
async fn actor(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Value>, StatusCode> {
    app.knows(&name)?;
    let id = format!("{}/users/{name}", app.base);
    Ok(Json(json!({
        "@context": ["https://www.w3.org/ns/activitystreams", "https://w3id.org/security/v1"],
        "id": id,
        "type": "Person",
        "preferredUsername": name,
        "inbox": format!("{id}/inbox"),
        "publicKey": { "id": format!("{id}#main-key"), "owner": id, "publicKeyPem": PUBLIC_KEY },
    })))
}

async fn write(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    content: String,
) -> Result<StatusCode, (StatusCode, String)> {
    let author = app.knows(&name).map_err(|status| (status, String::new()))?;
    let sent = app.send(&name, author, &content).await;
    // The application's own request fails where its activity is not known to be safe: its user may press the button again.
    sent.map(|()| StatusCode::ACCEPTED).map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}

async fn inbox(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Json(activity): Json<Value>,
) -> Result<StatusCode, StatusCode> {
    app.knows(&name)?;
    app.received.lock().unwrap_or_else(PoisonError::into_inner).push((name, activity));
    app.news.notify_waiters();
    Ok(StatusCode::ACCEPTED)
}

async fn received(State(app): State<Arc<App>>, Path(name): Path<String>) -> Json<Vec<Value>> {
    let received = app.received.lock().unwrap_or_else(PoisonError::into_inner);
    Json(received.iter().filter(|(user, _)| *user == name).map(|(_, activity)| activity.clone()).collect())
}
