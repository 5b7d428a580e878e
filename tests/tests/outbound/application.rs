//! A real application on the `activitypub_federation` crate, behind the real worker: it fetches our actors, verifies digest and
//! draft-cavage signature of each delivery as Lemmy does, and handles what it took.

use fedstream_tests::eventually::eventually;
use fedstream_tests::keys;
use fedstream_tests::outbound::{Actors, Outbound, Peer, put};
use serde_json::{Value, json};

use crate::SOON;

/// Notes of each actor.
const NOTES: usize = 4;

/// What one actor does, in order: a follow that is undone, notes that are each changed, and every other one deleted.
fn life(base: &str, actor: &str, followed: &str) -> Vec<Value> {
    let id = format!("{base}/users/{actor}");
    let follow = json!({ "type": "Follow", "id": format!("{id}/follows/1"), "actor": id, "object": followed });
    let mut acts = vec![("Follow", json!(followed))];
    for number in 0..NOTES {
        let note = format!("{id}/notes/{number}");
        let is = |content: &str| json!({ "id": note, "type": "Note", "attributedTo": id, "content": content });
        acts.push(("Create", is("first \u{fc}n\u{ef}c\u{f6}de")));
        acts.push(("Announce", json!(note)));
        acts.push(("Update", is("second")));
        if number % 2 == 1 {
            acts.push(("Delete", json!({ "id": note, "type": "Tombstone" })));
        }
    }
    acts.push(("Undo", follow));
    let activity = |(number, (kind, object)): (usize, (&str, Value))| {
        json!({
            "@context": "https://www.w3.org/ns/activitystreams",
            "id": format!("{id}/activities/{number}"), "type": kind, "actor": id, "object": object,
        })
    };
    acts.into_iter().enumerate().map(activity).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_on_activitypub_federation_verifies_and_handles_every_delivery_in_order() {
    let peer = Peer::start().await.unwrap();
    let stranger = "00000000-0000-4000-8000-000000000009"; // whose document shows a key that is not the one that signs
    let shown = move |id: &str| keys::of(if id == stranger { "nobody" } else { id }).public_pem().to_owned();
    let actors = Actors::start(shown).await.unwrap();
    let base = actors.base();
    let outbound = Outbound::with(0)
        .env("FED_KEY_ID_TEMPLATE", format!("{base}/users/{{actor}}#main-key"))
        .env("FED_KEY_WAIT", "2s"); // for the stranger at the end
    let outbound = outbound.start().await.unwrap();
    let jetstream = outbound.jetstream().await.unwrap();
    let followed = format!("{}/users/bob", peer.inbox());

    let mut lives = Vec::new();
    for number in 1..=3 {
        let actor = outbound.actor(number).unwrap();
        lives.push((actor.clone(), life(&base, &actor, &followed)));
    }
    // All of them at a time, as users do.
    for step in 0..lives[0].1.len() {
        for (actor, life) in &lives {
            put(&jetstream, &peer.inbox(), actor, life[step].clone()).await.unwrap();
        }
    }
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();

    let state = peer.state().await.unwrap();
    let received: Vec<&str> = state["received"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for (actor, life) in &lives {
        let of_actor: Vec<&str> = received.iter().copied().filter(|id| id.contains(actor.as_str())).collect();
        let sent: Vec<&str> = life.iter().filter_map(|activity| activity["id"].as_str()).collect();
        assert_eq!(of_actor, sent, "each once, and in order");
    }
    assert_eq!(received.len(), lives.iter().map(|(_, life)| life.len()).sum::<usize>());
    assert_eq!((&state["odd"], &state["followers"]), (&json!([]), &json!([])), "{state}");
    let notes = state["notes"].as_object().unwrap();
    assert_eq!(notes.len(), lives.len() * NOTES / 2);
    assert!(notes.values().all(|content| content == "second"), "{state}");
    assert_eq!(outbound.depth("FED_PARKED").await, Some(0));

    // And it does verify: what another key signs it does not take.
    let stranger = outbound.actor(9).unwrap();
    put(&jetstream, &peer.inbox(), &stranger, life(&base, &stranger, &followed).swap_remove(0)).await.unwrap();
    let (mut later, (other, _)) = (0, &lives[0]);
    let given_up = async || {
        // That it is the stranger who is at fault is known where others are taken meanwhile.
        let mut activity = life(&base, other, &followed).swap_remove(0);
        activity["id"] = format!("{base}/users/{other}/later/{later}").into();
        put(&jetstream, &peer.inbox(), other, activity).await.ok()?;
        later += 1;
        (outbound.depth("FED_PARKED").await? == 1).then_some(())
    };
    eventually("the stranger's is given up", SOON, given_up).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let copies = outbound.messages("FED_PARKED").await.unwrap();
    let said = copies[0].headers.get("Fed-Parked-Answer").map(ToString::to_string).unwrap_or_default();
    assert!(copies.len() == 1 && said.contains("401") && said.contains("invalid signature"), "{said}");
    assert_eq!(peer.state().await.unwrap()["received"].as_array().map(Vec::len), Some(received.len() + later));
}
