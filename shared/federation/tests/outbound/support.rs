//! What the integration tests share: actors with keys, remotes that verify, and a service that is in a hurry.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use federation::{ActivityPubService, ActorKeys, Builder, FederationEvent, Guard, KeysInMemory};
use fedstream_tests::directory::Directory;
use fedstream_tests::instance::Instance;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

/// Generous: these machines are small and busy. A passing test never waits this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const RSA: &str = include_str!("../keys/rsa-pkcs8.pem");
pub const RSA_PUBLIC: &str = include_str!("../keys/rsa.pub.pem");
/// Of a key that nobody has.
pub const OTHER_PUBLIC: &str = include_str!("../keys/other.pub.pem");
pub const ED25519: &str = include_str!("../keys/ed25519.pem");
pub const ED25519_PUBLIC: &str = include_str!("../keys/ed25519.pub.pem");

/// Has an RSA key.
pub const ALICE: Uuid = Uuid::from_u128(0xa11ce);
/// Has an RSA and an Ed25519 key.
pub const BOB: Uuid = Uuid::from_u128(0xb0b);

const BOB_ED25519: &str = "https://our.example/users/bob#ed25519-key";

pub fn key_id(actor: Uuid) -> String {
    format!("https://our.example/users/{actor}#main-key")
}

pub fn keys() -> Arc<KeysInMemory> {
    let alice = ActorKeys::from_pem(RSA, Some(&key_id(ALICE))).expect("a key");
    let bob = format!("Key-Id: {}\n{RSA}\nKey-Id: {BOB_ED25519}\n{ED25519}", key_id(BOB));
    let bob = ActorKeys::from_pem(&bob, None).expect("two keys");
    Arc::new(KeysInMemory::default().with(ALICE, alice).with(BOB, bob))
}

/// A remote that knows the actors' public keys and verifies every request with an independent library.
pub async fn remote() -> Instance {
    let known = Directory::default();
    for actor in [ALICE, BOB] {
        known.enter(&key_id(actor), RSA_PUBLIC).expect("a public key");
    }
    known.enter_ed25519(BOB_ED25519, ED25519_PUBLIC).expect("a public key");
    let remote = Instance::start(known).await.expect("a free port");
    remote.set_scheme("http");
    remote
}

pub fn inbox(remote: &Instance) -> Url {
    format!("http://{}/inbox", remote.addr()).parse().expect("a URL")
}

pub fn note(number: usize) -> Value {
    json!({
        "@context": "https://www.w3.org/ns/activitystreams",
        "id": format!("https://our.example/activities/{number}"),
        "type": "Create",
        "actor": "https://our.example/users/alice",
        "object": { "type": "Note", "content": format!("number {number}, \u{fc}n\u{ef}c\u{f6}de") }
    })
}

/// What was given up, in the order in which it was.
#[derive(Clone, Default)]
pub struct Failures(Arc<Mutex<Vec<(Url, String)>>>);

impl Failures {
    pub fn all(&self) -> Vec<(Url, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hear(&self, event: FederationEvent) {
        let FederationEvent::DeliveryFailed { inbox, error, .. } = event else { panic!("{event:?} is no failure") };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((inbox, error));
    }
}

/// In process, to places on this machine, with pauses of milliseconds.
pub fn hurried(failures: &Failures) -> Builder {
    let failures = failures.clone();
    ActivityPubService::builder("https://our.example")
        .signing_keys(keys())
        .guard(Guard::development())
        .delivery_initial_delay(Duration::from_millis(10))
        .delivery_max_delay(Duration::from_millis(40))
        .on_delivery_failed(move |event| failures.hear(event))
}

pub async fn service() -> ActivityPubService {
    hurried(&Failures::default()).build().await.expect("a service")
}
