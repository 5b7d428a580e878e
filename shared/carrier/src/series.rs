//! What is counted of one lane in metrics: its label, made once, and the words that go beside it.

use std::fmt::Display;

use fedstream_lane::{Final, ParkReason};
use fedstream_service::metrics::lanes::NAMES;
use fedstream_service::metrics::table::{LANE_LATENCY, LANE_OUTCOMES, LANE_PARKED, LANE_POSTS};
use fedstream_service::metrics::{Counter, KeyValue};
use time::OffsetDateTime;

use crate::Ended;

const FINALS: [Final; 5] = [Final::Delivered, Final::Duplicate, Final::Rejected, Final::Expired, Final::Unprocessed];

/// The lane in metrics. Clones count for the same lane.
#[derive(Clone, Debug)]
pub struct LaneSeries {
    /// None where metrics do not tell of the lane.
    lane: Option<KeyValue>,
    /// What its parks are counted under: those are told of any lane.
    parks: KeyValue,
}

impl LaneSeries {
    /// Of this lane. What it will count begins at 0 now, and is seen to grow.
    #[must_use]
    pub fn of(lane: &impl Display) -> Self {
        let name = NAMES.name(&lane.to_string());
        let series = Self { lane: Some(name.clone()), parks: name };
        for outcome in FINALS {
            series.count(&LANE_OUTCOMES, 0, "outcome", outcome.as_str());
        }
        series.begin_parks();
        series
    }

    /// Of a lane that metrics do not tell of. What leaves it undelivered is counted, with that of all lanes without a name.
    #[must_use]
    pub fn none() -> Self {
        let series = Self { lane: None, parks: NAMES.other() };
        series.begin_parks();
        series
    }

    fn begin_parks(&self) {
        for reason in ParkReason::LEAVING {
            self.count_park(0, reason);
        }
    }

    /// An activity has its first final outcome; `received` says when the front door took it, where that is the beginning of
    /// one journey.
    pub fn settled(&self, outcome: Final, received: Option<OffsetDateTime>) {
        self.count(&LANE_OUTCOMES, 1, "outcome", outcome.as_str());
        if let (Some(received), Some(lane)) = (received, &self.lane) {
            // Two machines' clocks: one that is behind makes no negative latency.
            let took = (OffsetDateTime::now_utc() - received).as_seconds_f64().max(0.0);
            LANE_LATENCY.record(took, std::slice::from_ref(lane));
        }
    }

    /// The copy of an activity is acked.
    pub fn parked(&self, reason: ParkReason) {
        self.count_park(1, reason);
    }

    /// A batch ended.
    pub fn posted(&self, ended: &Ended) {
        self.count(&LANE_POSTS, 1, "end", ended.name());
    }

    fn count_park(&self, more: u64, reason: ParkReason) {
        LANE_PARKED.add(more, &[self.parks.clone(), KeyValue::new("reason", reason.as_str())]);
    }

    fn count(&self, counter: &Counter, more: u64, key: &'static str, word: &'static str) {
        if let Some(lane) = &self.lane {
            counter.add(more, &[lane.clone(), KeyValue::new(key, word)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_lane::{End, Epoch, GateId, Seq};
    use fedstream_service::metrics::table::{ENDS, OUTCOMES, PARK_REASONS};

    #[test]
    fn every_word_is_one_of_the_definitions() {
        assert_eq!(FINALS.map(Final::as_str), *OUTCOMES);
        assert_eq!(ParkReason::LEAVING.map(ParkReason::as_str), *PARK_REASONS);
        let retry = End::Retry { seq: Seq(1), status: None, alive: false, retry_after_ms: None };
        let ends = [
            End::Done,
            retry,
            End::Gap,
            End::Overloaded { retry_after_ms: None },
            End::NewGate(GateId(1)),
            End::StaleEpoch(Epoch(1)),
            End::Unfit,
            End::Refused { retry_after_ms: None },
            End::Lost,
        ];
        let because = |end| Ended { end, cause: Some("why".to_owned()) };
        let named: Vec<_> = ends.map(because).iter().chain([&Ended::called_off()]).map(Ended::name).collect();
        assert_eq!(named, ENDS);
    }
}
