//! What an instance refuses behind an existing receiver: its reason is heard, and many refusals in one answer cost nothing.

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::pipeline::{Pipeline, Which};
use serde_json::Value;

use crate::former::Lie;
use crate::{SOON, former, near_half, wait_lane, wait_protocol};

/// Lemmy's word for an activity that it has already.
const KNOWN: &str = r#"{"error":"unknown","message":""}"#;

/// So many refusals in a row pause a lane.
const REFUSALS_MAX: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_answer_says_behind_twenty_refusals_is_settled_and_not_delivered_again() {
    const BEHIND: usize = 280;
    let pipeline = near_half().env(Which::BatchSender, "HTTP_BATCH_SIZE", "300").start().await.unwrap();
    pipeline.instance().behave_next(REFUSALS_MAX, Behaviour::rejects(403, "no"));
    // All of them are read before the first one goes: it goes alone, and then the others at once.
    let former = former(&pipeline).await;
    former.lie(usize::from(u16::MAX), &Lie::Instead(503, ""));
    pipeline.sender("a.test", "home.test").send_many(REFUSALS_MAX + BEHIND).await;
    let all_read = |lane: &Value| lane["protocol"] == "v1" && lane["held"] == REFUSALS_MAX + BEHIND;
    wait_lane(&pipeline, "all are read", all_read).await;
    former.be_honest();
    pipeline.wait_trimmed(SOON).await.unwrap();
    assert_eq!(former.batches().iter().filter_map(|batch| batch.items).max(), Some(REFUSALS_MAX + BEHIND - 1));
    assert_eq!(pipeline.instance().accepted(), BEHIND);
    assert_eq!(pipeline.instance().arrivals(), REFUSALS_MAX + BEHIND, "none came twice");
    assert_eq!(parked(&pipeline).await, REFUSALS_MAX as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lemmy_that_compresses_its_reason_is_understood_through_either_receiver() {
    let mut pipeline = near_half().env(Which::BatchReceiver, "FED_PROFILE", "lemmy").start().await.unwrap();
    let mut former = former(&pipeline).await;
    let mut sender = pipeline.sender("a.test", "home.test");
    pipeline.instance().behave_next(2 * REFUSALS_MAX, Behaviour::rejects(400, KNOWN));
    sender.send_many(2 * REFUSALS_MAX).await;
    pipeline.wait_trimmed(SOON).await.unwrap();

    former.go_down().await;
    pipeline.batch_receiver.start().await.unwrap();
    pipeline.instance().behave_next(2 * REFUSALS_MAX, Behaviour::rejects(400, KNOWN));
    sender.send_many(2 * REFUSALS_MAX).await;
    pipeline.wait_trimmed(SOON).await.unwrap();
    wait_protocol(&pipeline, "v2").await;

    assert_eq!((pipeline.instance().arrivals(), parked(&pipeline).await), (4 * REFUSALS_MAX, 0));
    let log = pipeline.batch_sender.log();
    assert!(!log.contains("nothing but refusals"), "{log}");
    let seen = pipeline.instance().seen();
    let takes = |at: usize| seen[at].message.header("accept-encoding");
    assert_eq!(takes(0).as_deref(), Some("identity"), "v1 passes a body on only beside its length");
    assert_eq!(takes(4 * REFUSALS_MAX - 1).as_deref(), Some("gzip"), "v2 changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lemmy_is_understood_in_whatever_coding_the_sender_takes() {
    let mut pipeline = near_half().env(Which::BatchReceiver, "FED_PROFILE", "lemmy").start().await.unwrap();
    pipeline.batch_receiver.start().await.unwrap();
    pipeline.instance().behave(Behaviour::rejects(400, KNOWN));
    let mut sender = pipeline.sender("a.test", "home.test");
    let taken = ["br", "deflate, br", "deflate", "gzip, deflate"];
    for accepted in taken {
        let activity = sender.compose();
        let mut message = sender.signed(&activity);
        message.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("accept-encoding"));
        message.headers.push(("Accept-Encoding".to_owned(), accepted.to_owned()));
        assert_eq!(sender.send_verbatim(&message).await.status, 204);
    }
    pipeline.wait_trimmed(SOON).await.unwrap();
    let seen = pipeline.instance().seen();
    let asked: Vec<_> = seen.iter().filter_map(|seen| seen.message.header("accept-encoding")).collect();
    assert_eq!((&asked[..], parked(&pipeline).await), (&taken.map(str::to_owned)[..], 0), "all are duplicates");
}

/// Copies of what left its lane undelivered.
async fn parked(pipeline: &Pipeline) -> u64 {
    let jetstream = pipeline.broker.jetstream().await.expect("the broker");
    let stream = jetstream.get_stream("FED_PARKED").await.expect("the stream");
    stream.get_info().await.expect("its state").state.messages
}
