//! Who has waited longest, from the broker itself.

use std::time::Instant;

use fedstream_jetstream::{Publisher, oldest, purge};

use crate::server::{PATIENCE, Server, body, headers, lane, make_inbox};

#[tokio::test]
async fn the_oldest_of_a_lane_is_the_first_that_no_trim_took() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let created = make_inbox(&broker).await.created;
    let (wanted, other) = (lane("a.example"), lane("b.example"));
    assert_eq!(oldest::of(&broker, &wanted).await.expect("an answer"), None);

    let publisher = Publisher::new(&broker);
    publisher.store(&other, headers("other"), body("{}"), PATIENCE).await.expect("stored");
    let first = publisher.store(&wanted, headers("first"), body("{}"), PATIENCE).await.expect("stored").sequence;
    publisher.store(&wanted, headers("second"), body("{}"), PATIENCE).await.expect("stored");
    let found = oldest::of(&broker, &wanted).await.expect("an answer").expect("one");
    assert_eq!(found.headers.get("Nats-Msg-Id"), Some("first"));
    assert_eq!(found.headers.get("Fed-Target"), Some("/inbox"));

    purge::trim(&broker, "FED_INBOX", &wanted.subject(), first, created).await.expect("a purge");
    let left = oldest::of(&broker, &wanted).await.expect("an answer").expect("one");
    assert_eq!(left.headers.get("Nats-Msg-Id"), Some("second"));
    assert!(left.stored_at >= found.stored_at);

    const QUESTIONS: u32 = 500;
    let began = Instant::now();
    for _ in 0..QUESTIONS {
        oldest::of(&broker, &wanted).await.expect("an answer");
    }
    println!("a question takes {:?}", began.elapsed() / QUESTIONS);
}

#[tokio::test]
async fn without_a_stream_nobody_is_the_oldest_and_the_connection_survives_a_head_that_is_no_text() {
    let server = Server::start().await;
    let broker = server.connect().await;
    assert!(matches!(oldest::of(&broker, &lane("a.example")).await, Err(oldest::Error::Away)));
    make_inbox(&broker).await;

    // Another client's message, with a header that is no UTF-8: written by hand, the library would not.
    let address = server.url.trim_start_matches("nats://").to_owned();
    let mut raw = tokio::net::TcpStream::connect(address).await.expect("the broker");
    let head = b"NATS/1.0\r\nX: \xff\r\n\r\n";
    let lane = lane("a.example");
    let command = format!(
        "CONNECT {{\"headers\":true,\"verbose\":false}}\r\nHPUB {} {} {}\r\n",
        lane.subject(),
        head.len(),
        head.len() + 2
    );
    tokio::io::AsyncWriteExt::write_all(&mut raw, &[command.as_bytes(), head, b"{}\r\nPING\r\n"].concat())
        .await
        .expect("sent");
    let found =
        crate::server::eventually("it is stored", async || oldest::of(&broker, &lane).await.expect("an answer")).await;
    assert_eq!(found.headers.get("X"), Some("\u{fffd}"));
    assert!(broker.connected());
    assert_eq!(*broker.generation().borrow(), 1, "the connection is the first one still");
}
