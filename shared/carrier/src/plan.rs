//! How one lane is carried: the service's configuration, with the lane's own settings (KV fed_lanes) over it.

use std::time::Duration;

use fedstream_jetstream::ReaderOptions;
use fedstream_jetstream::lane_settings::LaneSettings;
use fedstream_lane::{Event, WindowLimits};

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
    /// What holds for a lane with these settings, and a window of these limits.
    #[must_use]
    pub fn new(settings: LaneSettings, limits: WindowLimits) -> Self {
        let mut options = ReaderOptions::default();
        options.max_batch = settings.max_batch.unwrap_or(options.max_batch);
        options.max_expires = settings.max_expires_s.map_or(options.max_expires, Duration::from_secs);
        let reader = ReadPlan { options, remember: 2 * limits.items + REMEMBERED_BESIDE_A_WINDOW };
        Self { settings, limits, reader }
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

#[cfg(test)]
mod tests {
    use super::*;
    use fedstream_lane::Seq;

    fn plan(json: &str) -> Plan {
        plan_of(json, 4)
    }

    fn plan_of(json: &str, items: usize) -> Plan {
        let limits = WindowLimits {
            batch_items: 1,
            batch_bytes: 1,
            posts: 1,
            in_flight_items: 1,
            in_flight_bytes: 1,
            items,
            bytes: 1,
            linger_ms: 0,
            rate_per_s: None,
            trim_interval_ms: 0,
            rejections_max: 0,
            poison_attempts: 1,
            poison_after_ms: 0,
        };
        Plan::new(LaneSettings::read(json.as_bytes()).expect("settings"), limits)
    }

    #[test]
    fn its_reader_is_as_the_lane_says_and_else_as_every_reader_is() {
        let own = plan(r#"{"max_batch":9,"max_expires_s":2}"#).reader.options;
        assert_eq!((own.max_batch, own.max_expires), (9, Duration::from_secs(2)));
        assert_eq!(plan("{}").reader.options, ReaderOptions::default());
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
        let larger = plan_of("{}", 7);
        assert_eq!(larger.changes_from(&before), [Event::Limits(larger.limits)]);
    }
}
