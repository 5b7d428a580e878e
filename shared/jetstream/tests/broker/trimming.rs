//! Purging what is settled, and nothing else.

use fedstream_jetstream::{Broker, Publisher, identity, lanes, purge};
use fedstream_lane::Seq;

use crate::server::{PATIENCE, Server, body, headers, lane, make_inbox, make_inbox_anew};

async fn store(broker: &Broker, destination: &str, id: &str) -> Seq {
    let stored = Publisher::new(broker).store(&lane(destination), headers(id), body("{}"), PATIENCE).await;
    stored.expect("stored").sequence
}

async fn held(broker: &Broker) -> Vec<(String, u64)> {
    let mut held = lanes::backlog(broker).await.expect("an answer");
    held.sort();
    held
}

#[tokio::test]
async fn a_trim_takes_the_lanes_own_messages_up_to_the_sequence_and_no_more() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let created = make_inbox(&broker).await.created;
    for id in 1..=5 {
        store(&broker, "a.example", &format!("a{id}")).await; // 1, 3, 5, 7, 9
        store(&broker, "b.example", &format!("b{id}")).await; // 2, 4, ..
    }
    let subject = lane("a.example").subject();
    let trim =
        async |upto: u64| purge::trim(&broker, "FED_INBOX", &subject, Seq(upto), created).await.expect("a purge");
    assert_eq!(trim(5).await, 3);
    assert_eq!(trim(5).await, 0); // again: nothing
    assert_eq!(trim(1).await, 0);
    assert_eq!(
        held(&broker).await,
        [("fed.inbox.a_example.sender_example".to_owned(), 2), ("fed.inbox.b_example.sender_example".to_owned(), 5)]
    );
    assert_eq!(trim(9).await, 2);
    assert_eq!(held(&broker).await.len(), 1);
}

#[tokio::test]
#[should_panic(expected = "would empty the lane")]
async fn a_trim_up_to_nothing_is_a_bug_and_not_a_purge_of_everything() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let created = make_inbox(&broker).await.created;
    drop(purge::trim(&broker, "FED_INBOX", &lane("a.example").subject(), Seq(0), created).await);
}

#[tokio::test]
async fn a_trim_meant_for_a_stream_that_was_made_anew_takes_nothing() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let old = make_inbox(&broker).await;
    store(&broker, "a.example", "old").await;
    make_inbox_anew(&broker).await;
    let sequence = store(&broker, "a.example", "new").await;
    let refused = purge::trim(&broker, "FED_INBOX", &lane("a.example").subject(), sequence, old.created).await;
    assert!(matches!(refused, Err(purge::Error::Identity(identity::Error::MadeAnew { .. }))), "{refused:?}");
    assert!(held(&broker).await.iter().any(|(_, messages)| *messages > 0));
}
