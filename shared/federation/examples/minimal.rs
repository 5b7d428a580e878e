//! The smallest application: two users, alice and bob, on one axum server that federates with itself.
//!
//!     cargo run -p federation --example minimal
//!     curl -X POST http://127.0.0.1:3000/users/alice/notes -d 'Hello, bob'
//!     curl http://127.0.0.1:3000/users/bob/received
//!
//! alice and bob follow each other. A note goes out as a signed POST to the other's inbox, in process; with `NATS_URL` it is
//! stored in JetStream first, and a delivery-worker that has the keys (written to `KEYS_DIR`) brings it there.
//!
//! An example, not a model of an instance: it doesn't verify what comes in, and follows nobody else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use federation::{
    ActivityPubService, Guard, JetStreamOptions, JetStreamPublisher, NatsSettings, PemDirectory, Recipient,
};
use serde_json::{Value, json};
use uuid::Uuid;

/// A user's signing key: of a real application every user has one of its own, made when the account is.
const KEY: &str = include_str!("../tests/keys/rsa-pkcs8.pem");
const PUBLIC_KEY: &str = include_str!("../tests/keys/rsa.pub.pem");

/// Time to deliver what is queued when the program is asked to leave.
const GRACE: Duration = Duration::from_secs(10);

struct App {
    base: String,
    users: BTreeMap<&'static str, Uuid>,
    received: Mutex<Vec<(String, Value)>>,
    federation: ActivityPubService,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listen = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
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
    if let Ok(url) = std::env::var("NATS_URL") {
        let settings = NatsSettings { url, ..NatsSettings::default() };
        builder = builder
            .event_publisher(Arc::new(JetStreamPublisher::connect(settings, JetStreamOptions::default()).await?));
    }
    let app = Arc::new(App { base, users, received: Mutex::default(), federation: builder.build().await? });

    println!("{}", app.base);
    let router = Router::new()
        .route("/users/{name}", get(actor))
        .route("/users/{name}/inbox", post(inbox))
        .route("/users/{name}/notes", post(write))
        .route("/users/{name}/received", get(received))
        .with_state(app.clone());
    axum::serve(listener, router).with_graceful_shutdown(asked_to_leave()).await?;
    for event in app.federation.shut_down(GRACE).await.events {
        eprintln!("not delivered: {event:?}");
    }
    Ok(())
}

async fn asked_to_leave() {
    drop(tokio::signal::ctrl_c().await);
}

impl App {
    fn knows(&self, name: &str) -> Result<Uuid, StatusCode> {
        self.users.get(name).copied().ok_or(StatusCode::NOT_FOUND)
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

/// A new note, to everybody else.
async fn write(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    content: String,
) -> Result<StatusCode, (StatusCode, String)> {
    let author = app.knows(&name).map_err(|status| (status, String::new()))?;
    let actor = format!("{}/users/{name}", app.base);
    let activity = json!({
        "@context": "https://www.w3.org/ns/activitystreams",
        "id": format!("{actor}/activities/{}", time::OffsetDateTime::now_utc().unix_timestamp_nanos()),
        "type": "Create",
        "actor": actor,
        "object": { "type": "Note", "attributedTo": actor, "content": content },
    });
    let followers = app.users.keys().filter(|other| **other != name);
    let inboxes = followers.filter_map(|other| format!("{}/users/{other}/inbox", app.base).parse().ok());
    let sent = app.federation.send(&activity, author, inboxes.map(|inbox: url::Url| Recipient::from(inbox))).await;
    // The application's own request fails where its activity is not known to be safe: its user may press the button again.
    sent.map(|_| StatusCode::ACCEPTED).map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}

async fn inbox(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Json(activity): Json<Value>,
) -> Result<StatusCode, StatusCode> {
    app.knows(&name)?;
    app.received.lock().unwrap_or_else(PoisonError::into_inner).push((name, activity));
    Ok(StatusCode::ACCEPTED)
}

async fn received(State(app): State<Arc<App>>, Path(name): Path<String>) -> Json<Vec<Value>> {
    let received = app.received.lock().unwrap_or_else(PoisonError::into_inner);
    Json(received.iter().filter(|(user, _)| *user == name).map(|(_, activity)| activity.clone()).collect())
}
