//! The copies in FED_PARKED: what left its lane undelivered.

use async_nats::jetstream;
use async_nats::jetstream::stream::LastRawMessageErrorKind;

use crate::message::sha256_hex;

/// One copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The activity's id.
    pub id: String,
    /// `Fed-Parked-Reason`.
    pub reason: String,
    /// Hex sha256 of its body.
    pub body_sha256: String,
    /// `Fed-Parked-Status`: what the instance answered last; 0 if it never did.
    pub status: u16,
    /// `Fed-Parked-Answer`: what it said, or what went wrong.
    pub answer: String,
    /// `Fed-Parked-Attempts`, of its last owner.
    pub attempts: u32,
}

/// All of them, oldest first.
///
/// # Errors
/// The broker can't be asked.
pub async fn read(jetstream: &jetstream::Context) -> anyhow::Result<Vec<Parked>> {
    // Made with the first need of it.
    let Ok(stream) = jetstream.get_stream("FED_PARKED").await else { return Ok(Vec::new()) };
    let state = stream.get_info().await?.state;
    let mut copies = Vec::new();
    // A stream that never held a message says 0 of both, and no message has that sequence.
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        let message = match stream.get_raw_message(sequence).await {
            Ok(message) => message,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => continue,
            Err(error) => return Err(error.into()),
        };
        let header = |name: &str| message.headers.get(name).map(ToString::to_string).unwrap_or_default();
        copies.push(Parked {
            id: header("Fed-Activity-Id"),
            reason: header("Fed-Parked-Reason"),
            body_sha256: sha256_hex(&message.payload),
            status: header("Fed-Parked-Status").parse().unwrap_or_default(),
            answer: header("Fed-Parked-Answer"),
            attempts: header("Fed-Parked-Attempts").parse().unwrap_or_default(),
        });
    }
    Ok(copies)
}
