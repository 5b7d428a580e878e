//! The lanes that `*` makes: bounded, whatever is refused meanwhile and however often the front door is restarted.

use std::time::Duration;

use fedstream_tests::pipeline::{Pipeline, Which};

use crate::inbox::Inbox;
use crate::request::{Request, activity, assert_come_back, kind};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_counts_while_it_may_hold_something_and_over_a_restart() {
    let mut pipeline = Pipeline::builder()
        .source("*")
        .env(Which::InboxReceiver, "FED_LANES_MAX", "2")
        .env(Which::InboxReceiver, "FED_STREAM_BYTES_MAX", "64KiB")
        .without(Which::BatchSender)
        .without(Which::BatchReceiver)
        .start()
        .await
        .unwrap();
    let (inbox, front) = (Inbox::of(&pipeline.broker).await, pipeline.front());
    let from = |source: &str| Request::new(source, "home.test");
    let large = |source: &str| {
        let mut json = activity(source);
        json["padding"] = "x".repeat(40 * 1024).into();
        from(source).body(json.to_string())
    };

    // The second does not fit into the stream, whoever sends it: none of them makes a lane.
    assert_eq!(large("a.test").send(front).await.status, 204);
    for source in ["b.test", "c.test", "d.test"] {
        assert_come_back(&large(source).send(front).await, "stream-full");
    }
    assert_eq!(from("e.test").send(front).await.status, 204, "there is a place for one more lane");
    let third = from("f.test").send(front).await;
    assert_eq!((third.status, kind(&third).as_str()), (503, "too-many-lanes"), "{third:?}");

    assert_eq!(pipeline.inbox_receiver.terminate(SOON).await.unwrap(), Some(0));
    pipeline.inbox_receiver.start().await.unwrap();
    let third = from("f.test").send(front).await;
    assert_eq!((third.status, kind(&third).as_str()), (503, "too-many-lanes"), "{third:?}");
    for source in ["a.test", "e.test"] {
        assert_eq!(from(source).send(front).await.status, 204, "{source} has its lane");
    }
    assert_eq!(inbox.messages().await, 4);
}
