//! How one lane is carried: the service's configuration, with the lane's own settings (KV fed_lanes) over it.

use std::num::NonZeroU32;
use std::time::Duration;

use fedstream_jetstream::ReaderOptions;
use fedstream_jetstream::lane_settings::LaneSettings;
use fedstream_lane::{Event, Lane, Profile, WindowLimits};
use fedstream_wire::protocol::Protocol;
use fedstream_wire::v1;

use crate::config::Config;
use crate::lane::Shared;

/// Handed-on activities that are remembered beyond a window and as much that is settled and not trimmed (more than that
/// a window does not let happen): what is on its way between the two.
const REMEMBERED_BESIDE_A_WINDOW: usize = 2048;

/// How one lane is carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The lane's own settings.
    pub settings: LaneSettings,
    /// Bounds and pace of its window.
    pub limits: WindowLimits,
    /// How it is read.
    pub reader: ReadPlan,
    /// How the instance's refusals are read; none: as the batch-receiver is told.
    pub profile: Option<Profile>,
    /// Where its batches go.
    pub batch_url: String,
}

/// How a lane is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPlan {
    /// Its consumer.
    pub options: ReaderOptions,
    /// Activities that were handed on and may come again.
    pub remember: usize,
}

impl Plan {
    /// What holds for this lane now, towards a receiver that takes this format.
    #[must_use]
    pub fn of(shared: &Shared, lane: &Lane, protocol: Protocol) -> Self {
        Self::new(&shared.config, shared.settings.for_lane(lane), protocol)
    }

    /// Where the batches of a lane with these settings go.
    #[must_use]
    pub fn batch_url(config: &Config, settings: &LaneSettings) -> String {
        settings.batch_url.clone().unwrap_or_else(|| config.batch_url())
    }

    /// What holds for a lane with these settings.
    #[must_use]
    pub fn new(config: &Config, settings: LaneSettings, protocol: Protocol) -> Self {
        let mut limits = limits(config.window_limits(), &settings);
        if protocol == Protocol::V1 {
            limits = v1_limits(limits, &settings, config.v1_batch_bytes.get());
        }
        let mut options = ReaderOptions::default();
        options.max_batch = settings.max_batch.unwrap_or(options.max_batch);
        options.max_expires = settings.max_expires_s.map_or(options.max_expires, Duration::from_secs);
        let reader = ReadPlan { options, remember: 2 * limits.items + REMEMBERED_BESIDE_A_WINDOW };
        let batch_url = Self::batch_url(config, &settings);
        Self { limits, reader, profile: settings.profile, batch_url, settings }
    }

    /// What a window that begins has to be told beside its limits.
    #[must_use]
    pub fn at_start(&self) -> Vec<Event> {
        let park = self.settings.park.map(|seq| Event::ParkHead { seq });
        let pause = self.is_paused().then_some(Event::Pause(true));
        park.into_iter().chain(pause).collect()
    }

    /// What a window has to be told when these settings follow others.
    #[must_use]
    pub fn changes_from(&self, before: &Self) -> Vec<Event> {
        let mut events = Vec::new();
        if self.limits != before.limits {
            events.push(Event::Limits(self.limits));
        }
        if self.is_paused() != before.is_paused() {
            events.push(Event::Pause(self.is_paused()));
        }
        // Said in so many words, and not just left out: it lifts the pause after refusals too.
        if self.settings.paused == Some(false) && before.settings.paused != Some(false) {
            events.push(Event::Resume);
        }
        if let Some(seq) = self.settings.park.filter(|_| self.settings.park != before.settings.park) {
            events.push(Event::ParkHead { seq });
        }
        events
    }

    fn is_paused(&self) -> bool {
        self.settings.paused == Some(true)
    }
}

fn limits(config: WindowLimits, settings: &LaneSettings) -> WindowLimits {
    let size = |own: Option<u64>, else_: usize| own.map_or(else_, |own| usize::try_from(own).unwrap_or(usize::MAX));
    let count = |own: Option<u32>, else_: usize| size(own.map(u64::from), else_);
    let batch_items = count(settings.batch_items, config.batch_items);
    let batch_bytes = size(settings.batch_bytes, config.batch_bytes);
    // A larger batch than the service's window is a wish for a larger window.
    let in_flight_items = count(settings.window_items, config.in_flight_items.max(batch_items));
    let in_flight_bytes = size(settings.window_bytes, config.in_flight_bytes.max(batch_bytes));
    WindowLimits {
        batch_items,
        batch_bytes,
        posts: count(settings.window_batches, config.posts),
        in_flight_items,
        in_flight_bytes,
        items: in_flight_items.saturating_add(batch_items),
        bytes: in_flight_bytes.saturating_add(batch_bytes),
        linger_ms: settings.linger_ms.unwrap_or(config.linger_ms),
        rate_per_s: settings.rate_per_s.and_then(NonZeroU32::new),
        ..config
    }
}

/// One batch at a time: a v1 receiver knows no order between two. So it may be large, and sizes are those of its JSON.
fn v1_limits(limits: WindowLimits, settings: &LaneSettings, most: usize) -> WindowLimits {
    let own = settings.batch_bytes.map_or(usize::MAX, |own| usize::try_from(own).unwrap_or(usize::MAX));
    let batch_bytes = own.min(most).saturating_sub(v1::BATCH_OVERHEAD_BYTES);
    WindowLimits {
        batch_bytes,
        posts: 1,
        in_flight_items: limits.batch_items,
        in_flight_bytes: batch_bytes,
        items: limits.batch_items.saturating_mul(2),
        bytes: batch_bytes.saturating_mul(2),
        ..limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SERVICE;
    use fedstream_lane::Seq;
    use fedstream_service::config::{Environment, load_from};

    fn plan(json: &str) -> Plan {
        plan_for(json, Protocol::V2)
    }

    fn plan_for(json: &str, protocol: Protocol) -> Plan {
        let pairs = [("FED_SITE", "near"), ("BATCH_RECEIVER_DOMAIN", "far.example")];
        let config: Config = load_from(&SERVICE, &Environment::from_pairs(&pairs)).unwrap();
        Plan::new(&config, LaneSettings::read(json.as_bytes()).unwrap(), protocol)
    }

    #[test]
    fn a_lane_without_settings_is_carried_as_the_service_is_configured() {
        let plan = plan("{}");
        assert_eq!((plan.limits.batch_items, plan.limits.items), (100, 1100));
        assert_eq!((plan.batch_url.as_str(), plan.profile), ("https://far.example/batch", None));
    }

    #[test]
    fn its_own_settings_win_and_what_is_held_follows() {
        let plan =
            plan(r#"{"batch_items":1000,"rate_per_s":5,"profile":"lemmy","batch_url":"http://other/b","max_batch":9}"#);
        let limits = plan.limits;
        assert_eq!((limits.batch_items, limits.in_flight_items, limits.items), (1000, 1000, 2000));
        assert_eq!((limits.rate_per_s, plan.profile), (NonZeroU32::new(5), Some(Profile::Lemmy)));
        assert_eq!((plan.batch_url.as_str(), plan.reader.options.max_batch), ("http://other/b", 9));
    }

    #[test]
    fn a_v1_receiver_gets_one_batch_at_a_time_and_never_more_than_it_takes() {
        let limits = plan_for("{}", Protocol::V1).limits;
        let most = 19 * 1024 * 1024 - v1::BATCH_OVERHEAD_BYTES;
        assert_eq!((limits.posts, limits.batch_items, limits.in_flight_items, limits.items), (1, 100, 100, 200));
        assert_eq!((limits.batch_bytes, limits.in_flight_bytes, limits.bytes), (most, most, 2 * most));
        let own = |json| plan_for(json, Protocol::V1).limits.batch_bytes;
        assert_eq!((own(r#"{"batch_bytes":2000}"#), own(r#"{"batch_bytes":60000000}"#)), (1998, most));
    }

    #[test]
    fn a_window_hears_of_what_changed_and_of_nothing_else() {
        let before = plan("{}");
        assert_eq!(plan("{}").changes_from(&before), []);
        assert_eq!(plan(r#"{"paused":true}"#).changes_from(&before), [Event::Pause(true)]);
        assert_eq!(
            plan(r#"{"paused":false}"#).changes_from(&plan(r#"{"paused":true}"#)),
            [Event::Pause(false), Event::Resume]
        );
        let resumed = plan(r#"{"paused":false}"#);
        assert_eq!(resumed.changes_from(&before), [Event::Resume]);
        let also = plan(r#"{"paused":false,"profile":"lemmy"}"#);
        assert_eq!(also.changes_from(&resumed), [], "it was said before");
        assert_eq!(plan(r#"{"park":7}"#).changes_from(&before), [Event::ParkHead { seq: Seq(7) }]);
        let faster = plan(r#"{"batch_items":7}"#);
        assert_eq!(faster.changes_from(&before), [Event::Limits(faster.limits)]);
    }
}
