//! Which form of signature goes to whom, verified by a library that shares no code with ours.

use std::time::Duration;

use federation::Limits;
use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::eventually;
use fedstream_tests::sign::Kind;

use crate::support::{ALICE, BOB, Failures, PATIENCE, hurried, inbox, note, remote, service};

#[tokio::test]
async fn every_delivery_is_signed_so_that_the_remote_verifies_it() {
    let (service, remote) = (service().await, remote().await);
    for number in 0..20 {
        let actor = if number % 2 == 0 { ALICE } else { BOB };
        service.deliver_to_inbox(inbox(&remote), note(number), actor).await.expect("delivered");
    }
    let seen = remote.seen();
    assert_eq!(seen.len(), 20);
    assert!(seen.iter().all(|seen| seen.signature == Ok(Kind::Cavage)), "{:?}", seen[0].signature);
    let agent = seen[0].message.header("user-agent").expect("a user agent");
    assert!(agent.starts_with("fedstream/") && agent.ends_with("(+https://our.example)"), "{agent}");
}

#[tokio::test]
async fn an_inbox_with_a_query_and_odd_characters_is_signed_as_it_is_asked() {
    let (service, remote) = (service().await, remote().await);
    for (number, path) in ["/inbox?a=b&c='%20", "/users/%40bob/inbox", "/a/../inbox", "/ünï"].into_iter().enumerate()
    {
        let inbox = format!("http://{}{path}", remote.addr()).parse().expect("a URL");
        service.deliver_to_inbox(inbox, note(number), ALICE).await.expect(path);
    }
}

#[tokio::test]
async fn a_remote_that_takes_rfc_9421_only_is_asked_twice_once_and_then_remembered() {
    let (service, remote) = (service().await, remote().await);
    remote.behave_where(None, Behaviour::rejects(401, "what is this?"), |seen| seen.signature == Ok(Kind::Cavage));
    for number in 0..5 {
        service.deliver_to_inbox(inbox(&remote), note(number), ALICE).await.expect("delivered");
    }
    let kinds: Vec<_> = remote.seen().into_iter().map(|seen| seen.signature).collect();
    let mut expected = vec![Ok(Kind::Cavage)];
    expected.extend(vec![Ok(Kind::Rfc9421); 5]);
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn an_actor_with_an_ed25519_key_is_tried_with_it_last() {
    let (service, remote) = (service().await, remote().await);
    let with_ed25519 = |message: &fedstream_tests::message::Message| {
        message.header("signature-input").is_some_and(|input| input.contains("alg=\"ed25519\""))
    };
    remote.behave_where(None, Behaviour::rejects(403, ""), move |seen| !with_ed25519(&seen.message));
    service.deliver_to_inbox(inbox(&remote), note(1), BOB).await.expect("delivered");
    let seen = remote.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.signature.is_ok()));
    assert!(with_ed25519(&seen[2].message));

    let refused = service.deliver_to_inbox(inbox(&remote), note(2), ALICE).await.expect_err("no such key");
    assert_eq!(refused.to_string(), "refused: the remote answered 403 to every form of signature");
    assert_eq!(remote.arrivals(), 5, "both RSA forms");
}

#[tokio::test]
async fn a_remote_that_can_not_fetch_our_key_is_tried_again_and_one_that_does_not_want_us_is_not() {
    let (service, remote) = (service().await, remote().await);
    remote.behave(Behaviour::rejects(401, "no key"));
    let error = service.deliver_to_inbox(inbox(&remote), note(1), ALICE).await.expect_err("not taken");
    assert_eq!(error.to_string(), "not now: the remote answered 401 to every form of signature: no key");
    // The usual form counts, whatever the other hears.
    remote.behave(Behaviour::rejects(403, "no"));
    remote.behave_where(None, Behaviour::rejects(401, ""), |seen| seen.signature != Ok(Kind::Cavage));
    let error = service.deliver_to_inbox(inbox(&remote), note(2), ALICE).await.expect_err("not taken");
    assert_eq!(error.to_string(), "refused: the remote answered 403 to every form of signature: no");
}

#[tokio::test]
async fn what_an_old_server_makes_of_headers_it_does_not_know_is_no_answer_to_the_delivery() {
    for odd in [404, 405, 415, 422, 500, 501, 503] {
        let (service, remote) = (service().await, remote().await);
        let cavage = |seen: &fedstream_tests::instance::Seen| seen.signature == Ok(Kind::Cavage);
        remote.behave_where(Some(1), Behaviour::rejects(401, "no key"), cavage);
        remote.behave_where(Some(1), Behaviour::rejects(403, "no"), cavage);
        remote.behave_where(None, Behaviour::rejects(odd, "what?"), move |seen| !cavage(seen));
        // BOB has a third form: it is tried as well.
        for (actor, said) in [
            (ALICE, "not now: the remote answered 401 to every form of signature: no key"),
            (BOB, "refused: the remote answered 403 to every form of signature: no"),
        ] {
            let error = service.deliver_to_inbox(inbox(&remote), note(1), actor).await.expect_err("not taken");
            assert_eq!(error.to_string(), said, "{odd}");
        }
        assert_eq!(remote.arrivals(), 5, "{odd}");
        // What is said to the usual form is said for all.
        remote.behave(Behaviour::rejects(odd, ""));
        let error = service.deliver_to_inbox(inbox(&remote), note(1), ALICE).await.expect_err("not taken");
        assert!(error.to_string().ends_with(&format!("the remote answered {odd}")), "{error}");
        assert_eq!(remote.arrivals(), 6, "{odd}");
    }
}

#[tokio::test]
async fn a_form_that_gets_no_answer_takes_none_back() {
    let (service, remote) = (service().await, remote().await);
    remote.behave_where(None, Behaviour::rejects(403, "no"), |seen| seen.signature == Ok(Kind::Cavage));
    remote.behave_where(None, Behaviour::Reset, |seen| seen.signature != Ok(Kind::Cavage));
    let error = service.deliver_to_inbox(inbox(&remote), note(1), BOB).await.expect_err("not taken");
    assert_eq!(error.to_string(), "refused: the remote answered 403 to every form of signature: no");
    assert_eq!(remote.arrivals(), 2, "it is gone, or behaves so: no third form");
    // Nor does one that takes all the time there is.
    let limits = Limits { attempt: Duration::from_secs(1), ..Limits::default() };
    let impatient = hurried(&Failures::default()).limits(limits).build().await.expect("a service");
    remote.behave_well();
    remote.behave_where(None, Behaviour::Hang, |seen| seen.signature != Ok(Kind::Cavage));
    remote.behave_where(None, Behaviour::rejects(403, "no"), |_| true);
    // On a busy machine that second may be over before the first answer: then once more.
    let refused = async || {
        let error = impatient.deliver_to_inbox(inbox(&remote), note(2), ALICE).await.expect_err("not taken");
        error.to_string().starts_with("refused: the remote answered 403").then_some(())
    };
    eventually("the usual form's answer stands", PATIENCE, refused).await.expect("in time");
}

#[tokio::test]
async fn a_form_that_was_remembered_and_is_not_taken_any_more_gives_way_to_the_usual_one() {
    for status in [400, 401, 403] {
        let (service, remote) = (service().await, remote().await);
        remote.behave_where(Some(1), Behaviour::rejects(401, ""), |seen| seen.signature == Ok(Kind::Cavage));
        service.deliver_to_inbox(inbox(&remote), note(1), ALICE).await.expect("delivered");
        remote.behave_where(None, Behaviour::rejects(status, ""), |seen| seen.signature == Ok(Kind::Rfc9421));
        service.deliver_to_inbox(inbox(&remote), note(2), ALICE).await.expect("the usual one");
        service.deliver_to_inbox(inbox(&remote), note(3), ALICE).await.expect("the usual one, first");
        let kinds: Vec<_> = remote.seen().into_iter().map(|seen| seen.signature).collect();
        let (cavage, rfc9421) = (Ok(Kind::Cavage), Ok(Kind::Rfc9421));
        assert_eq!(kinds, [&cavage, &rfc9421, &rfc9421, &cavage, &cavage].map(Clone::clone), "{status}");
    }
}
