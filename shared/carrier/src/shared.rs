//! What all lanes of a process share.

use std::time::Duration;

use fedstream_jetstream::lane_settings::LaneSettingsWatch;
use fedstream_jetstream::{Broker, Leases, Publisher};
use fedstream_lane::Moment;
use fedstream_service::shutdown::CancellationToken;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::budget::Budget;
use crate::mine::Mine;
use crate::registry::Registry;
use crate::{Direction, Options};

/// What all lanes of a process share.
pub struct Shared<D> {
    /// Where they go.
    pub direction: D,
    /// How they are carried.
    pub options: Options,
    /// Settings of each lane.
    pub settings: LaneSettingsWatch,
    /// The broker.
    pub broker: Broker,
    /// Who owns which lane.
    pub leases: Leases,
    /// The tasks that keep leases, and give them back.
    pub keepers: TaskTracker,
    /// For parked copies.
    pub publisher: Publisher,
    /// Name of this process.
    pub sender_id: String,
    /// For `/lanes`.
    pub registry: Registry,
    /// Lanes that this process had last.
    pub mine: Mine,
    /// Bytes that all lanes hold together.
    pub budget: Budget,
    /// Zero of every [`Moment`].
    pub started: Instant,
    /// Set when the service leaves.
    pub drain: CancellationToken,
}

impl<D: Direction> Shared<D> {
    /// `/lanes`: each lane, who we are, and which settings are refused.
    #[must_use]
    pub fn page(&self) -> serde_json::Value {
        let refusals = self.settings.refusals();
        let refused = refusals.iter().map(|refusal| format!("{}: {}: {}", refusal.key, refusal.field, refusal.reason));
        let mut page = self.registry.page();
        page["sender"] = self.sender_id.as_str().into();
        page["settings_refused"] = refused.collect::<Vec<_>>().into();
        page
    }

    /// The window's time.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    /// An instant in the window's time; rounded down, so that a lease is never longer than it is.
    #[must_use]
    pub fn moment(&self, at: Instant) -> Moment {
        let since = at.saturating_duration_since(self.started);
        Moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// The other way round.
    #[must_use]
    pub fn instant(&self, moment: Moment) -> Instant {
        self.started + Duration::from_millis(moment.0)
    }

    /// A wall-clock time in the window's time; one that has passed is now.
    #[must_use]
    pub fn moment_of(&self, at: OffsetDateTime) -> Moment {
        let left = Duration::try_from(at - OffsetDateTime::now_utc()).unwrap_or_default();
        self.now().after_ms(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
    }
}
