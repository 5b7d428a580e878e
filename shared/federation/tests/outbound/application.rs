//! A real application on the `activitypub_federation` crate takes what we send: it fetches our actor, reads its key, and
//! verifies digest and signature as Lemmy does.

use std::sync::Arc;

use federation::{ActivityPubService, ActorKeys, Guard, KeysInMemory};
use fedstream_tests::outbound::{Actors, Peer};
use serde_json::Value;
use url::Url;

use crate::support::{ALICE, OTHER_PUBLIC, PATIENCE, RSA, RSA_PUBLIC, note};

fn activity(base: &str, name: &str, number: usize) -> Value {
    let mut activity = note(number);
    activity["actor"] = format!("{base}/users/{name}").into();
    activity["id"] = format!("{base}/activities/{number}").into();
    activity
}

#[tokio::test]
async fn an_application_on_activitypub_federation_verifies_and_takes_every_delivery() {
    let application = Peer::start().await.expect("it is built");
    // alice's key signs; under mallory's name the same key signs too.
    let shown = |name: &str| if name == "alice" { RSA_PUBLIC.to_owned() } else { OTHER_PUBLIC.to_owned() };
    let actors = Actors::start(shown).await.expect("a free port");
    let base = actors.base();
    let keys = ActorKeys::from_pem(RSA, Some(&format!("{base}/users/alice#main-key"))).expect("a key");
    let service = ActivityPubService::builder("http://our.example")
        .signing_keys(Arc::new(KeysInMemory::default().with(ALICE, keys)))
        .guard(Guard::development())
        .on_delivery_failed(|event| eprintln!("{event:?}"))
        .build()
        .await
        .expect("a service");
    let inbox: Url = application.inbox().parse().expect("a URL");
    let mut ids = Vec::new();
    for number in 0..25 {
        let activity = activity(&base, "alice", number);
        ids.push(activity["id"].clone());
        service.send(&activity, ALICE, [inbox.clone().into()]).await.expect("taken");
    }
    assert_eq!(service.shut_down(PATIENCE).await.events, []);
    assert_eq!(application.state().await.expect("an answer")["received"], Value::Array(ids));

    // And it does verify: under another's name the signature is not taken.
    let error = service.deliver_to_inbox(inbox, activity(&base, "mallory", 99), ALICE).await.expect_err("not hers");
    let told = "not now: the remote answered 401 to every form of signature: Incoming activity has invalid signature";
    assert!(error.to_string().starts_with(told), "{error}");
}
