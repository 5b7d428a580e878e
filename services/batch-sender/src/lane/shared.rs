//! What all lanes of a process share.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fedstream_jetstream::lane_settings::LaneSettingsWatch;
use fedstream_jetstream::{Broker, Leases, Publisher};
use fedstream_lane::{GateId, Moment};
use fedstream_service::shutdown::CancellationToken;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::budget::Budget;
use crate::config::Config;
use crate::link::Link;
use crate::registry::Registry;

/// What all lanes of a process share.
pub struct Shared {
    /// Settings.
    pub config: Config,
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
    /// To the batch-receiver that lanes go to which name no other.
    pub link: Link,
    /// Name of this process.
    pub sender_id: String,
    /// For `/lanes`.
    pub registry: Registry,
    /// The lives of the batch-receivers, as lanes learnt them.
    pub gates: KnownGates,
    /// Bytes that all lanes hold together.
    pub budget: Budget,
    /// Zero of every [`Moment`].
    pub started: Instant,
    /// Set when the service leaves.
    pub drain: CancellationToken,
}

impl Shared {
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

/// The gate id that a lane begins with, by batch URL. A wrong one costs a round trip, as an unknown one does.
#[derive(Debug, Default)]
pub struct KnownGates(Mutex<HashMap<String, GateId>>);

/// Receivers that are remembered: each is an URL that an operator wrote into a lane's settings.
const GATES_MAX: usize = 1024;

impl KnownGates {
    /// The life of the receiver at this URL, as far as it is known.
    #[must_use]
    pub fn known(&self, url: &str) -> Option<GateId> {
        self.lock().get(url).copied()
    }

    /// It is in this life.
    pub fn learn(&self, url: &str, gate: GateId) {
        let mut gates = self.lock();
        if gates.len() < GATES_MAX || gates.contains_key(url) {
            gates.insert(url.to_owned(), gate);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, GateId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
