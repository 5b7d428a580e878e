//! A real application on the `activitypub_federation` crate takes what we send: it fetches our actor, reads its key, and
//! verifies digest and signature as Lemmy does.

use std::process::Stdio;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use federation::{ActivityPubService, ActorKeys, Guard, KeysInMemory};
use fedstream_tests::http1;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use url::Url;

use crate::support::{ALICE, OTHER_PUBLIC, PATIENCE, RSA, RSA_PUBLIC, note};

/// The other side. Gone on drop.
struct Application {
    _process: Child,
    url: Url,
}

impl Application {
    async fn start() -> Self {
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/application.sh");
        let built = Command::new("sh").arg(script).stderr(Stdio::inherit()).output().await.expect("sh");
        assert!(built.status.success(), "tests/application.sh says why");
        let program = String::from_utf8(built.stdout).expect("a path");
        let mut process =
            Command::new(program.trim()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("it starts");
        let stdout = process.stdout.take().expect("it is piped");
        let line = tokio::time::timeout(PATIENCE, BufReader::new(stdout).lines().next_line()).await;
        let url = line.expect("in time").expect("it writes").expect("a line").parse().expect("a URL");
        Self { _process: process, url }
    }

    async fn received(&self) -> Value {
        let address = format!("127.0.0.1:{}", self.url.port().expect("a port")).parse().expect("an address");
        http1::get(address, "/received").await.expect("an answer").json()
    }
}

/// The document of alice, whose key signs, or of mallory, under whose name the same key signs too.
async fn actor(State(base): State<String>, Path(name): Path<String>) -> ([(HeaderName, &'static str); 1], String) {
    let id = format!("{base}/users/{name}");
    let public_key = if name == "alice" { RSA_PUBLIC } else { OTHER_PUBLIC };
    let document = json!({
        "@context": "https://www.w3.org/ns/activitystreams",
        "id": id,
        "type": "Person",
        "inbox": format!("{id}/inbox"),
        "publicKey": { "id": format!("{id}#main-key"), "owner": id, "publicKeyPem": public_key },
    });
    ([(CONTENT_TYPE, "application/activity+json")], document.to_string())
}

/// Our side: it serves the actors' documents.
async fn our_side() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let base = format!("http://localhost:{port}"); // that crate takes no addresses
    let router = Router::new().route("/users/{name}", get(actor)).with_state(base.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

fn activity(base: &str, name: &str, number: usize) -> Value {
    let mut activity = note(number);
    activity["actor"] = format!("{base}/users/{name}").into();
    activity["id"] = format!("{base}/activities/{number}").into();
    activity
}

#[tokio::test]
async fn an_application_on_activitypub_federation_verifies_and_takes_every_delivery() {
    let application = Application::start().await;
    let base = our_side().await;
    let keys = ActorKeys::from_pem(RSA, Some(&format!("{base}/users/alice#main-key"))).expect("a key");
    let service = ActivityPubService::builder("http://our.example")
        .signing_keys(Arc::new(KeysInMemory::default().with(ALICE, keys)))
        .guard(Guard::development())
        .on_delivery_failed(|event| eprintln!("{event:?}"))
        .build()
        .await
        .expect("a service");
    let mut inbox = application.url.join("/inbox").expect("a URL");
    inbox.set_host(Some("localhost")).expect("a host");
    let mut ids = Vec::new();
    for number in 0..25 {
        let activity = activity(&base, "alice", number);
        ids.push(activity["id"].clone());
        service.send(&activity, ALICE, [inbox.clone().into()]).await.expect("taken");
    }
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    assert_eq!(application.received().await, Value::Array(ids));

    // And it does verify: under another's name the signature is not taken.
    let error = service.deliver_to_inbox(inbox, activity(&base, "mallory", 99), ALICE).await.expect_err("not hers");
    let told = "not now: the remote answered 401 to every form of signature: Incoming activity has invalid signature";
    assert!(error.to_string().starts_with(told), "{error}");
}
