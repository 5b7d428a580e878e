//! An activity as it is posted: the item of a batch.

use bytes::Bytes;
use fedstream_carrier::Item;
use fedstream_jetstream::StoredMessage;
use fedstream_lane::Seq;
use fedstream_wire::micros;
use fedstream_wire::stored::StoredActivity;
use fedstream_wire::v2::BatchItem;
use time::OffsetDateTime;

/// An item of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing(pub BatchItem);

/// Reads what inbox-receiver stored: the item, when it was accepted, and until when its signature is.
///
/// # Errors
/// It was stored by another version, or by somebody else; why.
pub fn read(message: &StoredMessage) -> Result<(Outgoing, OffsetDateTime, Option<OffsetDateTime>), String> {
    let stored = StoredActivity::from_headers(|name| message.headers.get(name), message.payload.clone());
    let stored = stored.map_err(|error| error.to_string())?;
    let (received_at, deadline) = (stored.received_at, stored.deadline);
    Ok((Outgoing(item(message.seq, stored)), received_at, deadline))
}

fn item(seq: Seq, stored: StoredActivity) -> BatchItem {
    BatchItem {
        seq,
        msg_id: stored.msg_id,
        received_at_us: micros(stored.received_at),
        scheme: stored.scheme,
        target: stored.target,
        http: stored.http.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect(),
        body: stored.body,
        activity_id: stored.activity_id,
        traceparent: stored.traceparent,
        tracestate: stored.tracestate,
    }
}

impl Item for Outgoing {
    fn activity_id(&self) -> &str {
        &self.0.activity_id
    }

    fn trace(&mut self) -> (&mut Option<String>, &mut Option<String>) {
        (&mut self.0.traceparent, &mut self.0.tracestate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_jetstream::Headers;

    #[test]
    fn a_message_of_somebody_else_cannot_be_read() {
        let (headers, payload) = (Headers::default(), Bytes::from_static(b"x"));
        let stored_at = OffsetDateTime::UNIX_EPOCH;
        let message = StoredMessage { seq: Seq(3), headers, payload, stored_at, pending: 0 };
        assert_eq!(read(&message).expect_err("nobody's"), "the header Fed-Version is missing");
    }
}
