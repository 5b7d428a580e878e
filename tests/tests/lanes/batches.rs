//! The batches that came, as the batch-receiver's log has them, for tests that look at their size and pace.

use std::time::Duration;

use fedstream_tests::process::Service;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// One batch that was answered to its end.
#[derive(Clone, Debug)]
pub struct Done {
    /// Activities in it.
    pub items: u64,
    /// When it was done.
    pub at: OffsetDateTime,
}

/// All that ended well, in that order. Needs the service's log as JSON, with its debug lines.
pub fn done(receiver: &Service) -> Vec<Done> {
    lines(receiver).iter().filter(|line| line["message"] == "batch done").filter_map(batch).collect()
}

/// How many activities went between the first batch and the last, and how long that took: each batch is paid for before
/// the next.
pub fn pace(batches: &[Done]) -> (u64, Duration) {
    let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return (0, Duration::ZERO) };
    let items = batches[..batches.len() - 1].iter().map(|batch| batch.items).sum();
    (items, Duration::try_from(last.at - first.at).unwrap_or_default())
}

/// The log's lines.
pub fn lines(receiver: &Service) -> Vec<Value> {
    receiver.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn batch(line: &Value) -> Option<Done> {
    let spans = line["spans"].as_array()?;
    let items = spans.iter().find_map(|span| span["messaging.batch.message_count"].as_u64())?;
    let at = OffsetDateTime::parse(line["timestamp"].as_str()?, &Rfc3339).ok()?;
    Some(Done { items, at })
}
