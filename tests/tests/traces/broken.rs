//! An activity that doesn't get through at once: each try is a span of its own in the one trace, and says why there was
//! another.

use std::collections::BTreeSet;

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::becomes_true;
use fedstream_tests::otlp_sink::Span;

use crate::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_is_a_second_attempt_in_the_same_trace_and_the_first_says_why() {
    let pipeline = traced().start().await.unwrap();
    pipeline.instance().behave_next(1, Behaviour::busy(503, None));
    let id = send_one(&pipeline).await;
    pipeline.settle(SOON).await.assert_clean_but_repeated();
    let spans = of_activity(&pipeline, &id, "two tries at the instance", |spans| spans.len() >= 6).await;
    let attempts = all(&spans, SENDER, PROCESS);
    let deliveries = all(&spans, RECEIVER, "POST /inbox");
    let ([first, second], [refused, taken]) = (&attempts[..], &deliveries[..]) else { panic!("two: {spans:#?}") };
    assert_eq!((first.get("fedstream.outcome"), second.get("fedstream.outcome")), ("again", "delivered"));
    assert_eq!((first.get("fedstream.attempt"), second.get("fedstream.attempt")), ("1", "2"));
    assert_eq!((&refused.parent_id, &taken.parent_id), (&first.span_id, &second.span_id));
    for failed in [first, refused] {
        assert!(failed.failed() && failed.get("error.type") == "503", "{failed:#?}");
        assert_eq!(failed.numbers.get("http.response.status_code"), Some(&503));
    }
    assert!(!second.failed() && !taken.failed());
    let retry = first.event("fedstream.retry").expect("the event");
    assert_eq!(retry.attributes["fedstream.batch.end"], "retry");
    assert!(retry.attributes["fedstream.cause"].contains("503"), "{retry:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_cut_link_the_one_that_was_tried_and_those_behind_it_say_so() {
    let mut pipeline = traced().without(Which::BatchSender).start().await.unwrap();
    let (first, second, third) = (send_one(&pipeline).await, send_one(&pipeline).await, send_one(&pipeline).await);
    pipeline.instance().behave(Behaviour::Hang);
    pipeline.batch_sender.start().await.unwrap(); // all three are in one batch
    becomes_true("the first is at the instance", SOON, || pipeline.instance().in_progress() == 1).await.unwrap();
    pipeline.link.cut();
    pipeline.instance().behave_well();
    pipeline.instance().release();
    pipeline.settle(SOON).await.assert_clean_but_repeated();

    for (id, event) in [(first, "fedstream.retry"), (second, "fedstream.rewind"), (third, "fedstream.rewind")] {
        let delivered = |spans: &[Span]| {
            let attempts = all(spans, SENDER, PROCESS);
            attempts.len() >= 2
                && attempts.iter().any(|span| ["delivered", "duplicate"].contains(&span.get("fedstream.outcome")))
        };
        let spans = of_activity(&pipeline, &id, "two tries", delivered).await;
        let attempts = all(&spans, SENDER, PROCESS);
        let cut = attempts[0];
        let said = cut.event(event).unwrap_or_else(|| panic!("{event}: {cut:#?}"));
        assert_eq!(said.attributes["fedstream.batch.end"], "lost");
        assert_eq!((cut.failed(), cut.get("fedstream.outcome")), (event == "fedstream.retry", "again"));
    }
    let posts = sink(&pipeline).spans();
    let lost: Vec<&Span> =
        all(&posts, SENDER, BATCH).into_iter().filter(|post| post.get("fedstream.batch.end") == "lost").collect();
    assert!(
        lost.iter().any(|post| post.failed() && post.get("error.type") == "lost" && post.links.len() == 3),
        "{lost:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_on_after_a_restart_of_the_broker() {
    let mut pipeline = traced().broker(broker::Options::default()).without(Which::BatchSender).start().await.unwrap();
    let id = send_one(&pipeline).await;
    pipeline.broker.restart().await.unwrap();
    pipeline.batch_sender.start().await.unwrap();
    pipeline.settle(SOON).await.assert_clean(1);
    let spans = of_activity(&pipeline, &id, "four spans", |spans| spans.len() >= 4).await;
    let process = the(&spans, SENDER, PROCESS);
    assert_eq!(process.parent_id, the(&spans, FRONT, PUBLISH).span_id);
    assert_eq!(the(&spans, RECEIVER, "POST /inbox").parent_id, process.span_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_owner_is_on_the_attempts_of_both() {
    let builder = traced().env(Which::BatchSender, "FED_SENDER_ID", "sender-a");
    let pipeline = builder.env(Which::BatchSender, "FED_LEASE_TTL", "2s").start().await.unwrap();
    pipeline.instance().behave(Behaviour::Hang);
    let id = send_one(&pipeline).await;
    becomes_true("it is at the instance", SOON, || pipeline.instance().in_progress() == 1).await.unwrap();
    pipeline.batch_sender.pause().unwrap(); // beyond its lease, with the activity in flight
    let mut second = pipeline.batch_sender.twin().unwrap();
    second.set_env("FED_SENDER_ID", Some("sender-b"));
    second.start().await.unwrap();
    let carried = || second.log().contains("the lane is carried");
    becomes_true("the other has the lane", SOON, carried).await.unwrap();
    pipeline.instance().behave_well();
    pipeline.instance().release();
    pipeline.settle(SOON).await.assert_clean_but_repeated();
    pipeline.batch_sender.resume().unwrap();

    let epoch = |span: &Span| span.numbers["fedstream.epoch"];
    let both = |spans: &[Span]| {
        let attempts = all(spans, SENDER, PROCESS);
        let epochs: BTreeSet<i64> = attempts.iter().map(|span| epoch(span)).collect();
        epochs.len() >= 2 && attempts.iter().any(|span| span.get("fedstream.outcome") != "again")
    };
    let spans = of_activity(&pipeline, &id, "an attempt of each owner", both).await;
    let attempts = all(&spans, SENDER, PROCESS);
    let (first, last) = (attempts[0], attempts[attempts.len() - 1]);
    assert!(epoch(first) < epoch(last), "{spans:#?}");
    let lost = ["fedstream.lease.lost", "fedstream.stale_epoch", "fedstream.retry"];
    assert!(lost.iter().any(|event| first.event(event).is_some()), "{first:#?}");
    assert_eq!(first.get("fedstream.outcome"), "again");
    assert!(last.event("fedstream.lease.taken").is_some(), "{last:#?}");
    assert!(["delivered", "duplicate"].contains(&last.get("fedstream.outcome")), "{last:#?}");
}
