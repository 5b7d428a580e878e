//! One try at an activity, as a span in the activity's own trace: from the moment its batch is posted to its outcome, or to
//! the reason why there was none.

use fedstream_jetstream::publish::MSG_ID;
use fedstream_lane::{Answer, End, Epoch, LaneName, PostId, Seq};
use fedstream_service::spans::KeyValue;
use fedstream_service::{attributes, context, spans};
use fedstream_wire::stored::header;
use time::OffsetDateTime;
use tracing::{Span, field};

use crate::held::Held;
use crate::{Ended, Item};

/// An attempt that is going on.
#[derive(Debug)]
pub struct Ongoing {
    post: PostId,
    seq: Seq,
    span: Span,
}

impl Ongoing {
    /// Begins one, in the activity's trace as far as it has any; the item carries this attempt's on.
    #[must_use]
    pub fn begin<L: LaneName, I: Item>(lane: &L, epoch: Epoch, post: PostId, held: &Held<I>, item: &mut I) -> Self {
        let waited = (OffsetDateTime::now_utc() - held.waits_since()).as_seconds_f64().max(0.0);
        let span = tracing::info_span!(
            parent: None,
            "process",
            otel.name = format!("process {}", L::TEMPLATE),
            otel.kind = "consumer",
            { attributes::MESSAGING_SYSTEM } = attributes::NATS,
            { attributes::MESSAGING_OPERATION } = "process",
            { attributes::MESSAGING_OPERATION_TYPE } = "process",
            { attributes::MESSAGING_DESTINATION } = lane.subject(),
            { attributes::MESSAGING_TEMPLATE } = L::TEMPLATE,
            { attributes::MESSAGE_ID } = held.message.headers.get(MSG_ID),
            { attributes::MESSAGE_BODY_SIZE } = attributes::number(held.message.payload.len()),
            { attributes::ACTIVITY_ID } = item.activity_id(),
            { attributes::ACTIVITY_TYPE } = held.message.headers.get(header::ACTIVITY_TYPE),
            { attributes::REMOTE_HOST } = lane.remote().as_str(),
            { attributes::LANE } = %lane,
            { attributes::SEQ } = attributes::number(held.seq.0),
            { attributes::EPOCH } = attributes::number(epoch.0),
            { attributes::ATTEMPT } = i64::from(held.attempts.count) + 1,
            { attributes::LANE_WAIT_S } = waited,
            { attributes::OUTCOME } = field::Empty,
        );
        let (traceparent, tracestate) = item.trace();
        context::continue_from(&span, context::extract(traceparent.as_deref(), tracestate.as_deref()));
        if let Some(trace) = context::of(&span) {
            (*traceparent, *tracestate) = (Some(trace.traceparent), trace.tracestate);
        }
        Self { post, seq: held.seq, span }
    }

    /// Its POST.
    #[must_use]
    pub fn post(&self) -> PostId {
        self.post
    }

    /// Its span.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// It ends with the instance's word.
    pub fn end(self, answer: &Answer) {
        let outcome = answer.outcome.as_str();
        self.span.record(attributes::OUTCOME, outcome);
        if answer.status != 0 {
            spans::set(&self.span, KeyValue::new(attributes::HTTP_STATUS, i64::from(answer.status)));
        }
        if answer.outcome.park_reason().is_some() {
            spans::failed(&self.span, outcome, format!("the instance answered {}", answer.status));
        }
    }

    /// Its POST ended without an outcome for it. The one that was `tried` last may have been at the instance; all others
    /// only go back.
    pub fn again(self, ended: &Ended, tried: Option<Seq>) {
        let cause = KeyValue::new(attributes::CAUSE, ended.cause.clone().unwrap_or_default());
        let end = KeyValue::new(attributes::BATCH_END, ended.name());
        if tried == Some(self.seq) {
            let kind = match ended.end {
                End::Retry { status: Some(status), .. } => {
                    spans::set(&self.span, KeyValue::new(attributes::HTTP_STATUS, i64::from(status)));
                    status.to_string()
                }
                _ => ended.name().to_owned(),
            };
            spans::failed(&self.span, kind, ended.cause.clone().unwrap_or_default());
            spans::event(&self.span, attributes::RETRY, vec![end, cause]);
        } else {
            spans::event(&self.span, ended.event().unwrap_or(attributes::REWIND), vec![end, cause]);
        }
        self.span.record(attributes::OUTCOME, "again");
    }

    /// Its owner lets go of the lane.
    pub fn let_go(self, event: &'static str, why: &str) {
        spans::event(&self.span, event, vec![KeyValue::new(attributes::CAUSE, why.to_owned())]);
        self.span.record(attributes::OUTCOME, "again");
    }
}
