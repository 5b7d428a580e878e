//! A lane out of the broker: in order, whole, and from the stream that was meant.

use std::time::Duration;

use fedstream_jetstream::{
    Broker, Created, LaneReader, Publisher, ReaderOptions, StoredMessage, StreamFacts, identity, purge, reader,
};
use fedstream_lane::Seq;
use futures::TryStreamExt;

use crate::server::{PATIENCE, Server, body, eventually, headers, lane, make_inbox, make_inbox_anew, within};

const OPTIONS: ReaderOptions =
    ReaderOptions { max_batch: 16, max_expires: Duration::from_secs(2), idle_check: Duration::from_millis(300) };

async fn fill(broker: &Broker, destination: &str, ids: std::ops::Range<u32>) {
    let publisher = Publisher::new(broker);
    for id in ids {
        let text = id.to_string();
        publisher
            .store(
                &lane(destination),
                headers(&format!("{destination}-{id}-{}", fastrand::u64(..))),
                body(&text),
                PATIENCE,
            )
            .await
            .expect("stored");
    }
}

async fn open(broker: &Broker, destination: &str, created: Created) -> LaneReader {
    LaneReader::open(broker, "FED_INBOX", &lane(destination).subject(), created, OPTIONS).await.expect("a reader")
}

async fn take(reader: &mut LaneReader, count: usize) -> Vec<StoredMessage> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(within("a message", reader.next()).await.expect("a message"));
    }
    taken
}

fn texts(messages: &[StoredMessage]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.payload).into_owned()).collect()
}

async fn consumers(broker: &Broker) -> usize {
    let mut stream = broker.context().get_stream("FED_INBOX").await.expect("a stream");
    stream.info().await.expect("its state").state.consumer_count
}

#[tokio::test]
async fn a_lane_is_read_in_order_and_alone_and_its_consumer_goes_when_it_is_closed() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let StreamFacts { created, .. } = make_inbox(&broker).await;
    for part in 0..5 {
        fill(&broker, "a.example", part * 20..part * 20 + 20).await;
        fill(&broker, "b.example", 0..5).await;
    }
    let mut reader = open(&broker, "a.example", created).await;
    let read = take(&mut reader, 100).await;
    assert_eq!(texts(&read), (0..100).map(|id| id.to_string()).collect::<Vec<_>>());
    assert!(read.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    assert_eq!((read[0].pending, read[99].pending), (99, 0));
    assert_eq!(read[0].headers.get("Fed-Target"), Some("/inbox"));
    fill(&broker, "a.example", 100..101).await; // and it goes on
    assert_eq!(texts(&take(&mut reader, 1).await), ["100"]);
    assert_eq!(consumers(&broker).await, 1);
    reader.close().await;
    assert_eq!(consumers(&broker).await, 0);
}

#[tokio::test]
async fn a_cancelled_wait_loses_no_message() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let facts = make_inbox(&broker).await;
    fill(&broker, "a.example", 0..30).await;
    let mut reader = open(&broker, "a.example", facts.created).await;
    let mut read = Vec::new();
    within("all of them", async {
        while read.len() < 30 {
            let moment = Duration::from_micros(fastrand::u64(0..400)); // in the middle of receiving and confirming
            if let Ok(message) = tokio::time::timeout(moment, reader.next()).await {
                read.push(message.expect("a message"));
            }
        }
    })
    .await;
    assert_eq!(texts(&read), (0..30).map(|id| id.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reader_ends_when_the_broker_restarts_and_the_next_one_goes_on_at_once() {
    let mut server = Server::start().await;
    let broker = server.connect().await;
    let facts = make_inbox(&broker).await;
    fill(&broker, "a.example", 0..10).await;
    let mut reader = open(&broker, "a.example", facts.created).await;
    let read = take(&mut reader, 5).await;
    purge::trim(&broker, "FED_INBOX", &lane("a.example").subject(), read[4].seq, facts.created).await.expect("a purge");
    server.kill().await;
    server.start_again().await;
    let ended = within("the reader ends", async {
        loop {
            if let Err(error) = reader.next().await {
                return error; // what was already on its way is still handed out
            }
        }
    })
    .await;
    assert!(matches!(ended, reader::Error::Reconnected), "{ended}");
    reader.close().await;
    let mut reader = open(&broker, "a.example", facts.created).await; // the same stream: it has the same creation time
    assert_eq!(texts(&take(&mut reader, 5).await), ["5", "6", "7", "8", "9"]);
}

#[tokio::test]
async fn nothing_of_a_stream_made_anew_is_handed_out_by_an_open_reader() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let old = make_inbox(&broker).await;
    fill(&broker, "a.example", 0..3).await;
    let mut reader = open(&broker, "a.example", old.created).await;
    assert_eq!(texts(&take(&mut reader, 3).await), ["0", "1", "2"]);
    let new = make_inbox_anew(&broker).await;
    fill(&broker, "a.example", 100..120).await; // sequences above those of the old stream: the library would go on
    let error = within("the reader ends", reader.next()).await.expect_err("nothing of the new stream");
    match &error {
        reader::Error::Identity(identity::Error::MadeAnew { meant, now, .. }) => {
            assert_eq!((*meant, *now), (old.created, new.created));
        }
        other => panic!("{other}"),
    }
    assert!(error.is_made_anew());
}

#[tokio::test]
async fn a_reader_that_saw_nothing_yet_does_not_take_the_new_streams_first_message() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let old = make_inbox(&broker).await;
    let mut reader = open(&broker, "a.example", old.created).await;
    make_inbox_anew(&broker).await;
    fill(&broker, "a.example", 0..1).await;
    let error = within("the reader ends", reader.next()).await.expect_err("nothing of the new stream");
    assert!(error.is_made_anew(), "{error}");
}

#[tokio::test]
async fn a_stream_made_anew_with_lower_sequences_is_noticed_by_a_reader_that_hears_nothing() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let old = make_inbox(&broker).await;
    fill(&broker, "a.example", 0..20).await;
    let mut reader = open(&broker, "a.example", old.created).await;
    take(&mut reader, 20).await;
    make_inbox_anew(&broker).await;
    fill(&broker, "a.example", 0..3).await; // the library skips them: it waits for sequence 21
    let error = within("the reader ends", reader.next()).await.expect_err("nothing of the new stream");
    assert!(error.is_made_anew(), "{error}");
}

#[tokio::test]
async fn a_reader_is_not_opened_on_another_stream_than_the_one_meant() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let old = make_inbox(&broker).await;
    make_inbox_anew(&broker).await;
    let opened = LaneReader::open(&broker, "FED_INBOX", &lane("a.example").subject(), old.created, OPTIONS).await;
    assert!(opened.err().is_some_and(|error| error.is_made_anew()));
}

#[tokio::test]
async fn a_consumer_deleted_under_the_reader_costs_nothing() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let facts = make_inbox(&broker).await;
    fill(&broker, "a.example", 0..3).await;
    let mut reader = open(&broker, "a.example", facts.created).await;
    take(&mut reader, 3).await;
    delete_consumers(&broker).await;
    fill(&broker, "a.example", 3..6).await;
    let read = take(&mut reader, 3).await; // another consumer, confirmed again
    assert_eq!(texts(&read), ["3", "4", "5"]);
    assert_eq!(read[2].seq, Seq(6));
    reader.close().await;
    eventually("its consumer is gone", async || (consumers(&broker).await == 0).then_some(())).await;
}

#[tokio::test]
async fn a_consumer_that_stays_silent_while_the_lane_has_a_message_ends_the_reader() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let facts = make_inbox(&broker).await;
    let mut reader = open(&broker, "a.example", facts.created).await;
    let stream = broker.context().get_stream("FED_INBOX").await.expect("a stream");
    for name in consumer_names(&broker).await {
        let later = facts.created.time() + Duration::from_secs(3_600);
        stream.pause_consumer(&name, later).await.expect("paused");
    }
    fill(&broker, "a.example", 0..1).await;
    let error = within("the reader ends", reader.next()).await.expect_err("nothing comes");
    assert!(matches!(error, reader::Error::Silent { waiting: Seq(1) }), "{error}");
}

async fn consumer_names(broker: &Broker) -> Vec<String> {
    let stream = broker.context().get_stream("FED_INBOX").await.expect("a stream");
    stream.consumer_names().try_collect().await.expect("names")
}

async fn delete_consumers(broker: &Broker) {
    let stream = broker.context().get_stream("FED_INBOX").await.expect("a stream");
    for name in consumer_names(broker).await {
        stream.delete_consumer(&name).await.expect("deleted");
    }
}
