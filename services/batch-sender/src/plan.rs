//! How an inbound lane is carried: the service's configuration, with the lane's own settings (KV fed_lanes) over it, and
//! what the format of its receiver allows.

use std::num::NonZeroU32;

use fedstream_carrier::Plan;
use fedstream_jetstream::lane_settings::LaneSettings;
use fedstream_lane::WindowLimits;
use fedstream_wire::protocol::Protocol;
use fedstream_wire::v1;

use crate::config::Config;

/// Where the batches of a lane with these settings go.
#[must_use]
pub fn batch_url(config: &Config, settings: &LaneSettings) -> String {
    settings.batch_url.clone().unwrap_or_else(|| config.batch_url())
}

/// What holds for a lane with these settings, towards a receiver that takes this format.
#[must_use]
pub fn plan(config: &Config, settings: LaneSettings, protocol: Protocol) -> Plan {
    let mut limits = limits(config.window_limits(), &settings);
    if protocol == Protocol::V1 {
        limits = v1_limits(limits, &settings, config.v1_batch_bytes.get());
    }
    Plan::new(settings, limits)
}

/// What held activities of so many bytes take in memory, for a receiver that takes this format.
///
/// What waits for a v1 receiver counts twice, in its size there: as it is held, and as the JSON with base64 in it that it
/// becomes for as long as its batch is posted, megabytes at a time. A v2 batch is small beside its window.
#[must_use]
pub fn memory(bytes: usize, protocol: Protocol) -> usize {
    match protocol {
        Protocol::V1 => bytes.saturating_mul(2),
        Protocol::V2 => bytes,
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
    use fedstream_lane::Profile;
    use fedstream_service::config::{Environment, load_from};

    fn config() -> Config {
        let pairs = [("FED_SITE", "near"), ("BATCH_RECEIVER_DOMAIN", "far.example")];
        load_from(&SERVICE, &Environment::from_pairs(&pairs)).unwrap()
    }

    fn plan_for(json: &str, protocol: Protocol) -> Plan {
        plan(&config(), LaneSettings::read(json.as_bytes()).unwrap(), protocol)
    }

    #[test]
    fn a_lane_without_settings_is_carried_as_the_service_is_configured() {
        let plan = plan_for("{}", Protocol::V2);
        assert_eq!((plan.limits.batch_items, plan.limits.items), (100, 1100));
        assert_eq!(
            (batch_url(&config(), &plan.settings).as_str(), plan.settings.profile),
            ("https://far.example/batch", None)
        );
    }

    #[test]
    fn its_own_settings_win_and_what_is_held_follows() {
        let json =
            r#"{"batch_items":1000,"rate_per_s":5,"profile":"lemmy","batch_url":"http://other/b","max_batch":9}"#;
        let plan = plan_for(json, Protocol::V2);
        let limits = plan.limits;
        assert_eq!((limits.batch_items, limits.in_flight_items, limits.items), (1000, 1000, 2000));
        assert_eq!((limits.rate_per_s, plan.settings.profile), (NonZeroU32::new(5), Some(Profile::Lemmy)));
        assert_eq!(
            (batch_url(&config(), &plan.settings).as_str(), plan.reader.options.max_batch),
            ("http://other/b", 9)
        );
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
    fn what_goes_by_v1_counts_as_it_is_held_and_as_it_is_posted() {
        assert_eq!((memory(49, Protocol::V1), memory(49, Protocol::V2)), (98, 49));
    }
}
