//! RFC 9421 from the worker, verified by another library (`httpsig`) than the one that signs: with each kind of key.

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::instance::Seen;
use fedstream_tests::outbound::Outbound;
use fedstream_tests::sign::Kind;

use crate::SOON;

/// Which algorithm an RFC 9421 signature names.
fn algorithm(seen: &Seen) -> Option<&'static str> {
    let input = seen.message.header("signature-input")?;
    ["rsa-v1_5-sha256", "ed25519"].into_iter().find(|name| input.contains(&format!("alg=\"{name}\"")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rfc_9421_delivery_verifies_with_an_rsa_key_and_with_an_ed25519_key() {
    let outbound = Outbound::with(2).start().await.unwrap();
    let actor = outbound.actor(1).unwrap();
    outbound.add_ed25519(&actor).unwrap();
    let wanted = ["rsa-v1_5-sha256", "ed25519"];
    for (remote, only) in outbound.remotes.iter().zip(wanted) {
        remote.behave_where(None, Behaviour::rejects(401, "no"), move |seen| algorithm(seen) != Some(only));
    }
    for remote in 0..wanted.len() {
        outbound.publish_many(remote, &actor, 10).await.unwrap();
    }
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let verdict = outbound.verdict();
    verdict.assert_whole(20); // and with a signature that did not verify this would fail, whatever was taken
    for (number, (remote, only)) in outbound.remotes.iter().zip(wanted).enumerate() {
        let seen = remote.seen();
        let taken: Vec<_> = seen.iter().filter(|seen| seen.accepted()).collect();
        assert_eq!(taken.len(), 10);
        assert!(taken.iter().all(|seen| algorithm(seen) == Some(only) && seen.signature == Ok(Kind::Rfc9421)));
        // What is not wanted is tried once, before the wanted one is known.
        assert_eq!(seen.len(), 10 + 1 + number, "the forms before this one, of the first delivery");
    }
}
