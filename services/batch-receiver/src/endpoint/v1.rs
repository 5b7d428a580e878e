//! A v1 batch at the endpoint: what is decided before anything of it is begun, beside what holds of every batch, and its
//! answer at the end.
//!
//! | case | answer |
//! |---|---|
//! | not a batch | 400, names item and field |
//! | more activities than FED_BATCH_ITEMS_MAX | 413 |
//! | a destination, Host or path that is not on the lists | 403, names the entry to add |
//! | a lane of it is fed by v2 batches; its sender names itself, and the lane has a later owner | 409 |
//! | an earlier v1 batch of a lane is not over within FED_WAIT_MAX; a lane too many | 503 + Retry-After |
//! | else | 200 when all is over, within FED_V1_BATCH_TIME and one FED_DELIVERY_TIMEOUT from its arrival |

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use fedstream_lane::Lane;
use fedstream_service::attributes;
use fedstream_wire::protocol::Protocol;
use fedstream_wire::v1::{self, Item, Owner};
use fedstream_wire::v2::RefusalKind;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::{Instrument, Span, field};

use super::{Endpoint, NO_ROOM_RETRY, OPERATOR_RETRY, Refused, not_allowed, overloaded, problem};
use crate::feeders::{self, Turn};
use crate::room::Place;
use crate::series::{self, Taken};
use crate::v1::activity::{self, Activity};
use crate::v1::visit::V1Visit;
use crate::visit::COME_BACK;

impl Endpoint {
    /// Takes a v1 batch to its end.
    pub(super) async fn take_v1(
        self: &Arc<Self>,
        whole: Bytes,
        place: Place,
        owner: Option<Owner>,
        span: &Span,
    ) -> Result<Response, Refused> {
        let until = Instant::now() + self.limits.v1_batch_time;
        let (items, place) = self.decode_v1(whole, place).await?;
        span.record(attributes::BATCH_MESSAGE_COUNT, attributes::number(items.len()));
        let activities = activity::check(&self.rules, items).map_err(not_relayed)?;
        let turns = self.turns(&activities, owner.as_ref(), span).await?;
        // Not at the end: a sender may be gone by then, and this handler with it.
        series::taken(Taken::V1);
        let watched = activities.into_iter().map(|activity| {
            let witness = self.witnesses.of(&activity.lane).cloned();
            (activity, witness)
        });
        let visit = V1Visit {
            replay: self.replay.clone(),
            profile: self.profile,
            turns,
            place,
            until,
            stopping: self.stopping.clone(),
        };
        let (sender, entries) = oneshot::channel();
        self.tasks.spawn(visit.run(watched.collect(), sender).instrument(span.clone()));
        // Dropped with its connection, this handler takes only the receiver along.
        let entries = entries.await.map_err(|_| overloaded("the batch was interrupted", COME_BACK))?;
        let mut response = Response::new(Body::from(v1::answer::encode(&entries)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(v1::CONTENT_TYPE));
        Ok(response)
    }

    /// The activities in the body. Taking megabytes of JSON apart is work for a thread of its own, as inflating is, and
    /// counts as such: for a moment the bodies are there twice.
    async fn decode_v1(&self, whole: Bytes, place: Place) -> Result<(Vec<Item>, Place), Refused> {
        let (turn, most) = (self.room.turn_to_inflate().await, self.limits.items);
        let decoding = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            v1::batch::decode(&whole, most).map(|items| (items, place)).map_err(malformed)
        });
        decoding.await.unwrap_or_else(|_| Err(overloaded("reading the batch was interrupted", COME_BACK)))
    }

    /// The turn at each lane of the batch. Every batch takes its turns in the lanes' order, so that no two wait for each
    /// other.
    async fn turns(&self, activities: &[Activity], owner: Option<&Owner>, span: &Span) -> Result<Vec<Turn>, Refused> {
        let lanes: BTreeSet<_> = activities.iter().map(|activity| &activity.lane).collect();
        if let (Some(lane), 1) = (lanes.first(), lanes.len()) {
            span.record(attributes::LANE, field::display(lane));
        }
        let enter = |lane: &Lane| {
            // An epoch is of the lane that its owner means, which need not be what the activities say.
            let owner = owner.filter(|owner| owner.lane == *lane).cloned();
            let owner = owner.map(|owner| feeders::Owner { origin: owner.origin, epoch: owner.epoch });
            self.feeders.enter(lane, Protocol::V1, owner)
        };
        let entered = lanes.into_iter().map(enter).collect::<Result<Vec<_>, _>>().map_err(not_fed)?;
        let waiting = async {
            let mut turns = Vec::with_capacity(entered.len());
            for feeding in entered {
                turns.push(feeding.turn().await);
            }
            turns
        };
        timeout(self.limits.wait_max, waiting).await.map_err(|_| {
            let detail = "an earlier batch of the lane is not over within FED_WAIT_MAX";
            problem(StatusCode::SERVICE_UNAVAILABLE, "lane-busy", detail).retry_after(NO_ROOM_RETRY).into()
        })
    }
}

/// A batch whose lane may not be fed by it.
pub(super) fn not_fed(error: feeders::Error) -> Refused {
    match error {
        // As two sites on one lane of v2: a sender shows it, and somebody has to decide.
        feeders::Error::TwoFeeders { .. } => problem(StatusCode::CONFLICT, "other-origin", error.to_string()).into(),
        feeders::Error::Replaced { by, .. } => {
            let kind = RefusalKind::StaleEpoch.as_str();
            problem(StatusCode::CONFLICT, kind, error.to_string()).with("epoch", by.0).into()
        }
        feeders::Error::TooManyLanes(_) => {
            let refusal = problem(StatusCode::SERVICE_UNAVAILABLE, "too-many-lanes", error.to_string());
            refusal.retry_after(OPERATOR_RETRY).into()
        }
    }
}

fn malformed(error: v1::Error) -> Refused {
    let (status, kind) = match error {
        v1::Error::TooMany { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
        _ => (StatusCode::BAD_REQUEST, "malformed-batch"),
    };
    problem(status, kind, error.to_string()).into()
}

fn not_relayed(error: activity::Error) -> Refused {
    match error {
        activity::Error::Rules { error: ref rule, .. } => not_allowed(rule, error.to_string()),
        activity::Error::Host { .. } => problem(StatusCode::BAD_REQUEST, "malformed-batch", error.to_string()).into(),
    }
}
