//! The copies in FED_PARKED, with all that they say.

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use fedstream_tests::eventually::eventually;
use fedstream_tests::pipeline::Pipeline;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::SOON;

/// Their stream.
pub const STREAM: &str = "FED_PARKED";

/// One copy.
#[derive(Debug)]
pub struct Copy(StreamMessage);

impl Copy {
    /// A header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.0.headers.get(name).map_or("", |value| value.as_str())
    }

    /// `Fed-Parked-Reason`.
    pub fn reason(&self) -> &str {
        self.header("Fed-Parked-Reason")
    }

    /// `Fed-Parked-Attempts`.
    pub fn attempts(&self) -> u32 {
        self.header("Fed-Parked-Attempts").parse().expect("a number")
    }

    /// A header that is a time.
    pub fn time(&self, name: &str) -> OffsetDateTime {
        let text = self.header(name);
        OffsetDateTime::parse(text, &Rfc3339).unwrap_or_else(|error| panic!("{name}: {text:?}: {error}"))
    }

    /// The activity's body.
    pub fn body(&self) -> &[u8] {
        &self.0.payload
    }

    /// The sequence that it had in its lane.
    pub fn lane_sequence(&self) -> u64 {
        self.header("Fed-Parked-Sequence").parse().expect("a number")
    }

    /// Its number in the stream of copies.
    pub fn number(&self) -> u64 {
        self.0.sequence
    }
}

/// All of them, oldest first.
pub async fn all(pipeline: &Pipeline) -> Vec<Copy> {
    let jetstream = pipeline.broker.jetstream().await.expect("a connection");
    let stream = jetstream.get_stream(STREAM).await.expect("a service has made it");
    let state = stream.get_info().await.expect("its state").state;
    let mut copies = Vec::new();
    // A stream that never held a message says 0 of both, and no message has that sequence.
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        match stream.get_raw_message(sequence).await {
            Ok(message) => copies.push(Copy(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {}
            Err(error) => panic!("copy {sequence}: {error}"),
        }
    }
    copies
}

/// Waits until there are so many, and no more. In the order of their lane: copies of what was refused are stored side by
/// side, and none waits for another.
pub async fn wait(pipeline: &Pipeline, count: usize) -> Vec<Copy> {
    let enough = async || Some(all(pipeline).await).filter(|copies| copies.len() >= count);
    let mut copies = eventually(format!("{count} copies are parked"), SOON, enough).await.expect("the lane parks them");
    assert_eq!(copies.len(), count, "{copies:?}");
    copies.sort_by_key(Copy::lane_sequence);
    copies
}
