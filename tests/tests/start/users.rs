//! The broker's users of `deploy/nats/users.conf`: each has the rights that its service needs, and no more.

use std::time::Duration;

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::broker::{Options, PASSWORD, deployed_users};
use fedstream_tests::eventually::eventually;
use fedstream_tests::pipeline::{Pipeline, Which};
use fedstream_tests::tool::Tool;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_service_and_fedctl_can_do_all_they_do_with_the_rights_they_have() {
    let mut builder = Pipeline::builder().source("a.test").broker(Options { lines: users(), ..Options::default() });
    for which in [Which::InboxReceiver, Which::BatchSender] {
        builder = builder.env(which, "NATS_USER", which.name()).env(which, "NATS_PASSWORD", PASSWORD).env(
            which,
            "NATS_INBOX_PREFIX",
            &format!("_INBOX_{}", which.name()),
        );
    }
    let mut pipeline = builder.start().await.unwrap();
    let mut other = pipeline.batch_sender.twin().unwrap();
    other.start().await.unwrap();
    let mut sender = pipeline.sender("a.test", pipeline.destination(0));
    sender.send_many(3).await;
    pipeline.instance().behave_next(1, Behaviour::rejects(400, "{}"));
    sender.send_many(3).await;
    pipeline.settle(SOON).await;
    pipeline.wait_trimmed(SOON).await.unwrap();

    let fedctl = Tool::at(&pipeline.broker)
        .env("NATS_USER", "fedctl")
        .env("NATS_PASSWORD", PASSWORD)
        .env("NATS_INBOX_PREFIX", "_INBOX_fedctl");
    assert!(fedctl.says("lanes").await.contains("home.test/a.test"));
    assert!(fedctl.says("parked").await.contains("rejected"));
    fedctl.says("set home.test/a.test batch_items=50").await;
    assert!(fedctl.says("show home.test/a.test").await.contains("50"));
    fedctl.says("pause home.test/a.test").await;
    let paused = async || {
        let activity = sender.compose();
        (sender.try_once(&activity).await.ok()?.status == 503).then_some(())
    };
    eventually("the door knows of the pause", SOON, paused).await.unwrap();
    fedctl.says("resume home.test/a.test").await;
    sender.send_many(1).await;
    let parked = pipeline.instance().accepted();
    fedctl.says("redrive --lane home.test/a.test").await;
    let again = async || (pipeline.instance().accepted() > parked).then_some(());
    eventually("what was parked is delivered", SOON, again).await.unwrap();

    pipeline.batch_sender.terminate(SOON).await.unwrap();
    sender.send_many(1).await;
    let empty = pipeline.wait_trimmed(SOON).await;
    empty.expect("the other batch-sender has taken the lane");
    for log in [pipeline.inbox_receiver.log(), pipeline.batch_sender.log(), other.log()] {
        let complaint = log.lines().find(|line| line.to_lowercase().contains("permissions violation"));
        assert_eq!(complaint, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_in_without_a_password() {
    let lines = users().into_iter().filter(|line| !line.contains("no_auth_user")).collect();
    let broker = fedstream_tests::broker::Broker::start_with(Options { lines, ..Options::default() }).await.unwrap();
    assert!(broker.client().await.is_err());
}

fn users() -> Vec<String> {
    deployed_users("users.conf").expect("a file")
}
