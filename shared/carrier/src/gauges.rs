//! What metrics show of this process when somebody looks: its lanes, as the registry knows them, its fellows, and how
//! full the streams are.
//!
//! Many processes share the lanes, and a sum over all of them must be right. So a lane's gauges come from the one that has
//! its lease, and from nobody else. A lane that nobody has must not be out of sight: its depth comes from the process
//! that it belongs to by the hash. In between (a lane that changes hands, or whose owner died a moment ago) a lane may show
//! nothing for up to a lease's TTL; and while nobody knows who else there is, a lane without an owner belongs to nobody.

use fedstream_jetstream::{Living, Usage};
use fedstream_service::metrics::lanes::NAMES;
use fedstream_service::metrics::{Gauge, KeyValue, table};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::registry::{LaneView, Registry, Standpoint};

/// What a gauge says of a lane; none where it says nothing.
type Look = fn(&LaneView, OffsetDateTime) -> Option<f64>;

/// What several lanes of one name come to.
type Fold = fn(f64, f64) -> f64;

const SUM: Fold = |sum, one| sum + one;

/// The gauges of a lane that is owned here.
static OF_AN_OWNER: [(&Gauge, Look, Fold); 7] = [
    (&table::LANE_OLDEST, |lane, now| Some(lane.oldest_for(now)?.as_seconds_f64()), f64::max),
    (&table::LANE_DEADLINE, |lane, now| Some((lane.deadline?.at - now).as_seconds_f64()), f64::min),
    (&table::LANE_LIFETIME, |lane, _| Some(lane.deadline?.lifetime()?.as_seconds_f64()), f64::min),
    (&table::LANE_IN_FLIGHT, |lane, _| Some(lane.in_flight as f64), SUM),
    (&table::LANE_HELD, |lane, _| Some(lane.held as f64), SUM),
    (&table::LANE_TROUBLE, |lane, _| Some(yes(lane.trouble.is_some() || lane.refusing)), f64::max),
    (&table::LANE_PAUSED, |lane, _| Some(yes(lane.paused)), f64::max),
];

/// Shows all of it from now on.
pub fn observe(registry: &Registry, living: watch::Receiver<Living>, usage: watch::Receiver<Vec<Usage>>) {
    for (gauge, look, fold) in &OF_AN_OWNER {
        let registry = registry.clone();
        gauge.observe(move |observed| {
            let now = OffsetDateTime::now_utc();
            let look = |lane: &LaneView| if lane.standpoint == Standpoint::Owner { look(lane, now) } else { None };
            for (label, value) in by_label(&registry, look, *fold) {
                observed.is(value, &[label]);
            }
        });
    }
    let of_depth = registry.clone();
    table::LANE_DEPTH.observe(move |observed| {
        let look = |lane: &LaneView| (lane.standpoint != Standpoint::Others).then_some(lane.depth as f64);
        for (label, value) in by_label(&of_depth, look, SUM) {
            observed.is(value, &[label]);
        }
    });
    let of_owned = registry.clone();
    table::LANES_OWNED.observe(move |observed| observed.is(of_owned.owned() as f64, &[]));
    table::MEMBERS.observe(move |observed| {
        let members = match &*living.borrow() {
            Living::Known(members) => members.len(),
            Living::Unknown(_) => 0,
        };
        observed.is(members as f64, &[]);
    });
    let of_limit = usage.clone();
    table::STREAM_USED.observe(move |observed| {
        for usage in &*usage.borrow() {
            observed.is(usage.bytes as f64, &[KeyValue::new("stream", usage.stream)]);
        }
    });
    table::STREAM_LIMIT.observe(move |observed| {
        for usage in &*of_limit.borrow() {
            if let Some(most) = usage.bytes_max {
                observed.is(most as f64, &[KeyValue::new("stream", usage.stream)]);
            }
        }
    });
}

/// One value for each name: lanes beyond FED_METRIC_LANES share one.
fn by_label(registry: &Registry, look: impl Fn(&LaneView) -> Option<f64>, fold: Fold) -> Vec<(KeyValue, f64)> {
    let mut values: Vec<(KeyValue, f64)> = Vec::new();
    let (other, mut of_others) = (NAMES.other(), None);
    registry.each(|lane, view| {
        let Some(value) = look(view) else { return };
        let label = NAMES.name(lane);
        if label == other {
            of_others = Some(of_others.map_or(value, |before| fold(before, value)));
        } else {
            values.push((label, value));
        }
    });
    values.extend(of_others.map(|value| (other, value)));
    values
}

fn yes(so: bool) -> f64 {
    f64::from(u8::from(so))
}
