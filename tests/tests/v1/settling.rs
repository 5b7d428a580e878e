//! What an existing receiver's answers settle: the good entries before the first that is not, and nothing where the
//! answer is not whole or does not fit. The process never ends over one.

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::becomes_true;
use fedstream_tests::load::Load;
use fedstream_tests::pipeline::Pipeline;
use serde_json::json;

use crate::former::{Former, Lie, Version};
use crate::{SOON, begin_anew, former, near_half, wait_why};

/// How often each fault is met.
const TIMES: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_an_instance_fails_behind_a_newer_receiver() {
    let pipeline = near_half().start().await.unwrap();
    let _former = former(&pipeline).await;
    let load = Load::on(&pipeline, &[("a.test", "home.test")]);
    for status in [503, 429, 500] {
        more_accepted(&pipeline).await;
        pipeline.instance().behave_next(TIMES, Behaviour::busy(status, None));
    }
    more_accepted(&pipeline).await;
    // The array ends with it: what stands before it is settled, and not repeated.
    let sent = load.stop().await;
    pipeline.settle(SOON).await.assert_clean(sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_an_older_receiver_fails_whole_batches_or_is_restarted() {
    let mut pipeline = near_half().start().await.unwrap();
    let mut former = former(&pipeline).await;
    former.be(Version::Older);
    let load = Load::on(&pipeline, &[("a.test", "home.test")]);
    more_accepted(&pipeline).await;
    pipeline.instance().behave_next(TIMES, Behaviour::busy(503, None));
    more_accepted(&pipeline).await;
    former.go_down().await;
    former.come_up().await.unwrap();
    more_accepted(&pipeline).await;
    former.lie(TIMES, &Lie::Lost);
    told(&former).await;
    more_accepted(&pipeline).await;
    load.stop().await;
    pipeline.settle(SOON).await.assert_clean_but_repeated();
    assert!(!pipeline.batch_sender.has_ended());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_none_or_does_not_fit_settles_nothing() {
    let mut pipeline = near_half().start().await.unwrap();
    let former = former(&pipeline).await;
    let load = Load::on(&pipeline, &[("a.test", "home.test")]);
    more_accepted(&pipeline).await;
    let lies = [
        Lie::Instead(200, "<html>welcome</html>"),
        Lie::Instead(200, "[]"),
        Lie::Instead(200, "{}"),
        Lie::Instead(204, ""),
        Lie::Instead(301, ""),
        Lie::Instead(401, ""),
        Lie::Instead(500, "Internal Server Error"),
        Lie::After(|entries| entries.push(entries[0].clone())),
        Lie::After(|entries| drop(entries.pop())),
        Lie::After(|entries| entries[0]["activity_id"] = json!("https://a.test/another")),
        Lie::After(|entries| entries[0]["status"] = json!("200")),
        Lie::After(|entries| entries[0]["headers"] = json!("x".repeat(5 << 20))),
    ];
    for lie in lies {
        former.lie(1, &lie);
    }
    told(&former).await;
    more_accepted(&pipeline).await;
    load.stop().await;
    pipeline.settle(SOON).await.assert_clean_but_repeated();
    assert!(!pipeline.batch_sender.has_ended());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_receiver_that_refuses_the_credential_is_named_and_tried_again() {
    let mut pipeline = near_half().start().await.unwrap();
    let _former = former(&pipeline).await;
    pipeline.batch_sender.set_env("HTTP_BATCH_AUTHORIZATION", Some("another"));
    begin_anew(&mut pipeline.batch_sender).await;
    pipeline.sender("a.test", "home.test").send_many(3).await;
    wait_why(&pipeline, "the batch-receiver answered 401 Unauthorized").await;
    pipeline.batch_sender.set_env("HTTP_BATCH_AUTHORIZATION", Some("test-credential"));
    begin_anew(&mut pipeline.batch_sender).await;
    pipeline.settle(SOON).await.assert_clean(3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lemmys_word_for_a_repeat_is_one_and_a_refusal_is_parked() {
    let pipeline = near_half().start().await.unwrap();
    let _former = former(&pipeline).await;
    let instance = pipeline.instance();
    instance.behave_next(1, Behaviour::rejects(400, r#"{"error":"unknown","message":""}"#));
    instance.behave_next(1, Behaviour::rejects(403, "no"));
    pipeline.sender("a.test", "home.test").send_many(3).await;
    pipeline.wait_trimmed(SOON).await.unwrap();
    let parked = pipeline.broker.jetstream().await.unwrap().get_stream("FED_PARKED").await.unwrap();
    assert_eq!(parked.get_info().await.unwrap().state.messages, 1);
    assert_eq!(instance.arrivals(), 3);
}

async fn more_accepted(pipeline: &Pipeline) {
    let wanted = pipeline.instance().accepted() + 40;
    pipeline.instance().wait_accepted(wanted, SOON).await.expect("deliveries go on");
}

async fn told(former: &Former) {
    becomes_true("all lies are told", SOON, || former.lies_left() == 0).await.expect("it is asked so often");
}
