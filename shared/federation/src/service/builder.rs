//! Putting a service together. Everything but the base URL has a default.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::{ActivityPubService, Shared};
use crate::attempt::{Attempts, Client, ClientError, Limits, Setup};
use crate::backfill::{History, Pace};
use crate::breaker;
use crate::guard::{Guard, Names};
use crate::in_process::{Bounds, InProcess, OnFailed, Parts};
use crate::keys::{KeysInMemory, SigningKeys};
use crate::rules::{Rules, millis};
use crate::{EventPublisher, FederationEvent};

/// After so many failures in a row a remote is asked by one request at a time.
const FAILURES: u32 = 5;

/// A service can't be put together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an address of an application.
    #[error("{0:?} is no base URL, for example https://our.example")]
    BaseUrl(String),
    /// It would deliver in process, and could sign nothing.
    #[error("no signing keys: give `signing_keys(..)`, or an `event_publisher(..)` whose worker has them")]
    NoKeys,
    /// No attempt at all.
    #[error("delivery_max_attempts is 0: nothing would ever be delivered")]
    NoAttempts,
    /// No HTTP client.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Puts an [`ActivityPubService`] together.
pub struct Builder {
    base_url: String,
    publisher: Option<Arc<dyn EventPublisher>>,
    keys: Option<Arc<dyn SigningKeys>>,
    history: Option<Arc<dyn History>>,
    on_failed: Option<OnFailed>,
    rules: Rules,
    bounds: Bounds,
    pace: Pace,
    setup: Setup,
}

impl Builder {
    pub(super) fn new(base_url: String) -> Self {
        Self {
            base_url,
            publisher: None,
            keys: None,
            history: None,
            on_failed: None,
            rules: Rules::default(),
            bounds: Bounds::default(),
            pace: Pace::default(),
            setup: Setup::default(),
        }
    }

    /// Where events go. Without one, deliveries and backfills run in this process.
    #[must_use]
    pub fn event_publisher(mut self, publisher: Arc<dyn EventPublisher>) -> Self {
        self.publisher = Some(publisher);
        self
    }

    /// Attempts of a delivery in process, the first included (default 15).
    #[must_use]
    pub fn delivery_max_attempts(mut self, attempts: u32) -> Self {
        self.rules.attempts_max = attempts;
        self
    }

    /// Seconds between the first and the second attempt in process, twice as long each time (default 2).
    #[must_use]
    pub fn delivery_initial_delay_secs(self, seconds: u64) -> Self {
        self.delivery_initial_delay(Duration::from_secs(seconds))
    }

    /// The same, to the millisecond.
    #[must_use]
    pub fn delivery_initial_delay(mut self, delay: Duration) -> Self {
        self.rules.delay_min = delay;
        self
    }

    /// The longest pause between two attempts (default 30 min).
    #[must_use]
    pub fn delivery_max_delay(mut self, delay: Duration) -> Self {
        self.rules.delay_max = delay;
        self
    }

    /// Keys by the id of the signing actor.
    #[must_use]
    pub fn signing_keys(mut self, keys: Arc<dyn SigningKeys>) -> Self {
        self.keys = Some(keys);
        self
    }

    /// The users' own activities, by page: what a backfill sends.
    #[must_use]
    pub fn history(mut self, history: Arc<dyn History>) -> Self {
        self.history = Some(history);
        self
    }

    /// The pause between two pages of a backfill (default 0.5 s).
    #[must_use]
    pub fn backfill_pause(mut self, pause: Duration) -> Self {
        self.pace = Pace { pause };
        self
    }

    /// Who hears of a delivery in process that was given up: a `DeliveryFailed` each. It must not block.
    #[must_use]
    pub fn on_delivery_failed(mut self, hear: impl Fn(FederationEvent) + Send + Sync + 'static) -> Self {
        self.on_failed = Some(Arc::new(hear));
        self
    }

    /// Deliveries and backfills that may be queued in process (default 10,000); beyond it, publishing is an error.
    #[must_use]
    pub fn queue(mut self, deliveries: usize) -> Self {
        self.bounds.queue = deliveries;
        self
    }

    /// Bytes of activities that may be queued in process (default 128 MiB); one that goes to many inboxes counts once.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.bounds.queue_bytes = bytes;
        self
    }

    /// Requests at a time in process (default 32); to one remote four, or half of them where that is less.
    #[must_use]
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.bounds.concurrency = requests;
        self
    }

    /// What may be connected to (default [`Guard::public`]). [`Guard::development`] is the switch for one's own machine.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.setup.guard = guard;
        self
    }

    /// How names become addresses (default: as the system does it).
    #[must_use]
    pub fn names(mut self, names: Arc<dyn Names>) -> Self {
        self.setup.names = names;
        self
    }

    /// Bounds of one request.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.setup.limits = limits;
        self
    }

    /// Certificate authorities to trust in place of the system's.
    #[must_use]
    pub fn ca_file(mut self, file: PathBuf) -> Self {
        self.setup.ca_file = Some(file);
        self
    }

    /// The service. In process it delivers on the tokio runtime that this is called on, which has to live as long as it does.
    ///
    /// # Errors
    /// Something is missing, or can't be right. (It is `async` as k-ap's is; nothing is waited for.)
    pub async fn build(self) -> Result<ActivityPubService, Error> {
        let Self { base_url, publisher, keys, history, on_failed, rules, bounds, pace, mut setup } = self;
        let valid = base_url.parse::<Url>().is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !valid {
            return Err(Error::BaseUrl(base_url));
        }
        if rules.attempts_max == 0 {
            return Err(Error::NoAttempts);
        }
        let keys = match (keys, &publisher) {
            (Some(keys), _) => keys,
            (None, Some(_)) => Arc::new(KeysInMemory::default()),
            (None, None) => return Err(Error::NoKeys),
        };
        setup.user_agent = format!("{} (+{base_url})", setup.user_agent);
        let attempts = Attempts::new(Client::new(setup)?, keys);
        let breaker = breaker(&rules, attempts.deadline());
        let parts = Parts { attempts: attempts.clone(), rules, breaker, bounds, history, pace, on_failed };
        Ok(ActivityPubService { shared: Arc::new(Shared { attempts, publisher, in_process: InProcess::new(parts) }) })
    }
}

/// It opens when one delivery alone would have waited as long: a single lane hardly notices it, a thousand do.
fn breaker(rules: &Rules, attempt: Duration) -> breaker::Limits {
    let open_max_ms = millis(rules.delay_max).max(1);
    let open_min_ms = millis(rules.delay_min).saturating_mul(1 << FAILURES).clamp(1, open_max_ms);
    breaker::Limits {
        failures: FAILURES,
        open_min_ms,
        open_max_ms,
        busy_max_ms: millis(rules.retry_after_max),
        // A probe that counts as lost while it is on its way would let a second one out.
        probe_max_ms: millis(attempt).saturating_mul(2).max(breaker::Limits::default().probe_max_ms),
        ..breaker::Limits::default()
    }
}
