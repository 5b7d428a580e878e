//! The instance gets the traceparent of its delivery where that is wanted, and nowhere else.

use crate::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_instance_gets_the_deliverys_traceparent_where_that_is_wanted() {
    let pipeline = traced().env(Which::BatchReceiver, "FED_PASS_TRACEPARENT", "yes").start().await.unwrap();
    let id = send_one(&pipeline).await;
    let report = pipeline.settle(SOON).await;
    assert!(report.lost.is_empty() && report.signature_failures.is_empty(), "{report}");
    let spans = of_activity(&pipeline, &id, "four spans", |spans| spans.len() >= 4).await;
    let delivery = the(&spans, RECEIVER, "POST /inbox");
    let expected = format!("00-{}-{}-01", delivery.trace_id, delivery.span_id);
    assert_eq!(arrived_traceparents(&pipeline), [Some(expected)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn otherwise_it_gets_what_the_sender_sent_and_no_more() {
    let pipeline = traced().start().await.unwrap();
    send_one(&pipeline).await;
    let mut sender = pipeline.sender("a.test", "home.test");
    let activity = sender.compose();
    let mut message = sender.signed(&activity);
    let theirs = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    message.headers.push(("traceparent".into(), theirs.into()));
    assert_eq!(sender.send_verbatim(&message).await.status, 204);
    pipeline.settle(SOON).await.assert_clean(2);
    assert_eq!(arrived_traceparents(&pipeline), [None, Some(theirs.to_owned())]);
}

fn arrived_traceparents(pipeline: &Pipeline) -> Vec<Option<String>> {
    pipeline.instance().seen().into_iter().map(|seen| seen.message.header("traceparent")).collect()
}
