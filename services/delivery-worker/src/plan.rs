//! How outbound lanes are carried: what holds for all of them, with the lane's own settings (KV fed_lanes) over it.

use std::num::NonZeroU32;
use std::time::Duration;

use federation::breaker;
use fedstream_carrier::Plan;
use fedstream_jetstream::lane_settings::LaneSettings;
use fedstream_lane::{Backoff, WindowLimits};
use time::OffsetDateTime;

use crate::remotes::millis;
use crate::{outbound, suspicion};

/// Deliveries that a lane holds in memory: the one that is posted, and what the reader brings meanwhile.
const HELD_ITEMS: usize = 8;

/// And their bytes. A larger one is held alone.
const HELD_BYTES: usize = 1024 * 1024;

/// What holds for all lanes. [`Settings::default`] is what the service's variables say where they are not set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this process in leases and logs, its own; none: random.
    pub sender_id: Option<String>,
    /// For how long a delivery is tried.
    pub horizon: Duration,
    /// Pause after a first failure; doubled with each further one.
    pub backoff_min: Duration,
    /// And at most.
    pub backoff_max: Duration,
    /// A Retry-After counts up to here.
    pub retry_after_max: Duration,
    /// A delivery is given up after so long without a key for its actor, or of nothing but 401 or a redirect that a POST does
    /// not follow, where its remote takes others meanwhile: its lane waits behind it.
    pub key_wait: Duration,
    /// Requests at a time, to all remotes together, and as many again to those that fail or take long.
    pub deliveries_max: usize,
    /// When a remote counts as down, and how often it is asked then.
    pub breaker: breaker::Limits,
    /// When an activity counts as what its remote fails on.
    pub poison: suspicion::Rule,
    /// Between the first two requests to a remote that is back.
    pub ramp_pause: Duration,
    /// Lanes of one remote: the number that every publisher uses.
    pub partitions: std::num::NonZeroU16,
    /// Pause between two pages of a history.
    pub backfill_pause: Duration,
    /// A history feeds a lane only while that holds fewer deliveries.
    pub backfill_watermark: u64,
    /// Most lanes at a time.
    pub lanes_max: u32,
    /// Bytes that all lanes hold in memory together.
    pub held_bytes: usize,
    /// A dead worker's lanes are taken over after so long.
    pub lease_ttl: Duration,
    /// Shortest time between two purges of a lane.
    pub trim_interval: Duration,
    /// How often the stream is asked which lanes hold something.
    pub discovery_interval: Duration,
    /// A lane is let go after so long without a delivery.
    pub lane_idle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            sender_id: None,
            horizon: seconds(3 * 24 * 60 * 60), // an outage over a weekend
            backoff_min: seconds(2),
            backoff_max: seconds(15 * 60),
            retry_after_max: seconds(60 * 60),
            key_wait: seconds(60 * 60), // longer than a deployment that forgot a mount takes to be seen, on either side
            deliveries_max: 256,
            breaker: breaker::Limits::default(),
            poison: suspicion::Rule::default(),
            ramp_pause: Duration::from_millis(500),
            partitions: federation::lanes::PARTITIONS,
            backfill_pause: Duration::from_millis(500),
            backfill_watermark: 20,
            lanes_max: 5_000,
            held_bytes: 256 * 1024 * 1024,
            lease_ttl: seconds(15),
            trim_interval: Duration::from_millis(20), // no remote remembers: what is not purged yet comes again after a crash
            discovery_interval: Duration::from_millis(500),
            lane_idle: seconds(60),
        }
    }
}

impl Settings {
    /// How lanes are carried.
    #[must_use]
    pub fn carrier_options(&self) -> fedstream_carrier::Options {
        fedstream_carrier::Options {
            sender_id: self.sender_id.clone(),
            lanes_max: self.lanes_max,
            held_bytes: self.held_bytes,
            lease_ttl: self.lease_ttl,
            discovery_interval: self.discovery_interval,
            lane_idle: self.lane_idle,
            // What the breaker asks for is a Retry-After too.
            backoff: Backoff::new(
                millis(self.backoff_min),
                millis(self.backoff_max),
                millis(self.retry_after_max).max(self.breaker.open_max_ms),
            ),
        }
    }

    /// Since when something waits that is tried since then, and until when it is tried.
    pub(crate) fn times(&self, since: OffsetDateTime) -> (OffsetDateTime, OffsetDateTime) {
        outbound::times(since, self.horizon)
    }
}

/// One at a time, in order, for as long as it takes: a remote has no memory of what it was sent, so nothing is posted
/// before what precedes it has its outcome.
#[must_use]
pub fn one_at_a_time(all: &Settings, settings: LaneSettings) -> Plan {
    let limits = WindowLimits {
        batch_items: 1,
        batch_bytes: HELD_BYTES,
        posts: 1,
        in_flight_items: 1,
        in_flight_bytes: HELD_BYTES,
        items: HELD_ITEMS,
        bytes: HELD_BYTES,
        linger_ms: 0,
        rate_per_s: settings.rate_per_s.and_then(NonZeroU32::new),
        trim_interval_ms: millis(all.trim_interval),
        rejections_max: 0, // inboxes go away one by one, and many of them at a time: no reason to stop
        poison_attempts: all.poison.attempts,
        poison_after_ms: millis(all.poison.after),
    };
    Plan::new(settings, limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_has_one_delivery_under_way_at_its_own_rate() {
        let settings = LaneSettings { rate_per_s: Some(3), ..LaneSettings::default() };
        let limits = one_at_a_time(&Settings::default(), settings).limits;
        assert_eq!((limits.posts, limits.in_flight_items, limits.batch_items), (1, 1, 1));
        assert_eq!(limits.rate_per_s, NonZeroU32::new(3));
    }
}
