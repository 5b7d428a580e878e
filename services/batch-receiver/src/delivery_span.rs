//! What traces and logs show of one activity at the instance: a client span, and one more that is always exported when the
//! instance does not take the activity.

use fedstream_lane::{Final, Lane, Seq};
use fedstream_service::spans::KeyValue;
use fedstream_service::{attributes, spans};
use http::uri::Authority;
use tracing::{Span, field};

use crate::parcel::Parcel;
use crate::verdict::Verdict;

/// Of an URL or an answer: enough for a span and a line. The whole answer goes to the sender, which parks it.
const CHARS_MAX: usize = 200;

/// The span of a delivery of `url`, of no parent yet.
pub fn begin(url: &str, address: &Authority, parcel: &Parcel, lane: &Lane, seq: Option<Seq>) -> Span {
    tracing::info_span!(
        parent: None,
        "deliver",
        otel.name = name(parcel.target.path()),
        otel.kind = "client",
        { attributes::HTTP_METHOD } = "POST",
        { attributes::URL_FULL } = beginning(&attributes::without_query(url)),
        { attributes::URL_PATH } = beginning(parcel.target.path()),
        { attributes::SERVER_ADDRESS } = address.host(),
        { attributes::SERVER_PORT } = address.port_u16().map(i64::from),
        { attributes::MESSAGE_BODY_SIZE } = attributes::number(parcel.body.len()),
        { attributes::ACTIVITY_ID } = parcel.activity_id,
        { attributes::REMOTE_HOST } = lane.source.as_str(),
        { attributes::LANE } = %lane,
        { attributes::SEQ } = seq.map(|seq| attributes::number(seq.0)),
        { attributes::OUTCOME } = field::Empty,
    )
}

/// Tells the current span, which is the delivery's, what became of it; and the log, if the instance does not take it.
pub fn tell(parcel: &Parcel, lane: &Lane, seq: Option<Seq>, verdict: &Verdict) {
    let span = Span::current();
    span.record(attributes::OUTCOME, verdict.name());
    if let Some(status) = verdict.status() {
        spans::set(&span, KeyValue::new(attributes::HTTP_STATUS, i64::from(status)));
    }
    match verdict {
        Verdict::Final(answer) => {
            let Some(body) = &answer.body else { return };
            let kind = answer.outcome.as_str();
            spans::failed(&span, kind, format!("the instance answered {}", answer.status));
            let (status, body) = (answer.status, beginning(body));
            reject_span(parcel, lane, seq, kind, status, &body).in_scope(|| {
                let (seq, activity_id) = (seq.map(|seq| seq.0), &parcel.activity_id);
                tracing::warn!(%lane, seq, activity.id = activity_id, status, answer = %body, "{}", not_taken(answer.outcome));
            });
        }
        // The batch tells of it, once: it ends here.
        Verdict::Retry { status, cause, .. } => {
            let kind = status.map_or_else(|| "no_answer".to_owned(), |status| status.to_string());
            spans::failed(&span, kind, cause.clone());
        }
    }
}

/// A rejection is exported whatever share of traces is: below the delivery's own span, which may not be.
fn reject_span(parcel: &Parcel, lane: &Lane, seq: Option<Seq>, kind: &'static str, status: u16, answer: &str) -> Span {
    tracing::info_span!(
        "reject",
        otel.kind = "internal",
        otel.status_code = "ERROR",
        otel.status_description = answer,
        { attributes::ALWAYS_SAMPLED } = true,
        { attributes::ERROR_TYPE } = kind,
        { attributes::HTTP_STATUS } = i64::from(status),
        { attributes::ACTIVITY_ID } = parcel.activity_id,
        { attributes::REMOTE_HOST } = lane.source.as_str(),
        { attributes::LANE } = %lane,
        { attributes::SEQ } = seq.map(|seq| attributes::number(seq.0)),
        { attributes::OUTCOME } = kind,
    )
}

/// The span's name: of few kinds, so that traces can be grouped by it. Whose inbox it is, is in `url.path`.
fn name(path: &str) -> String {
    match path.rsplit_once('/') {
        Some(("", _)) | None => format!("POST {path}"),
        Some((_, last)) => format!("POST */{last}"),
    }
}

/// Why a copy of it will be parked.
fn not_taken(outcome: Final) -> &'static str {
    match outcome {
        Final::Expired => "the instance no longer takes the signature",
        Final::Unprocessed => "the instance gave up in the middle of the activity",
        Final::Rejected | Final::Delivered | Final::Duplicate => "rejected by the instance",
    }
}

fn beginning(text: &str) -> String {
    text.chars().take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_named_by_the_kind_of_inbox() {
        assert_eq!(name("/inbox"), "POST /inbox");
        assert_eq!(name("/users/%40bob/inbox"), "POST */inbox");
    }
}
