//! The worker itself: what consumes, delivers and backfills until it is told to stop. delivery-worker, the service, is one
//! with its configuration around it; a Rust application runs one inside its own process.

use std::sync::Arc;
use std::time::Duration;

use federation::jetstream::{ConnectError, Options as PublisherOptions};
use federation::{Attempts, History, JetStreamPublisher};
use fedstream_carrier::Carrier;
use fedstream_jetstream::{Broker, Cursors, members, streams};
use fedstream_service::readiness::Readiness;
use fedstream_service::shutdown::CancellationToken;

use crate::gone::Gone;
use crate::jobs::Jobs;
use crate::outbound::Outbound;
use crate::patience::Patience;
use crate::plan::Settings;
use crate::remotes::Remotes;
use crate::series;

/// What has to be in order, as the readiness page names it. Beside it, where it walks histories, [`BACKFILL`].
pub const READINESS: [&str; 2] = fedstream_carrier::READINESS;

/// The stream of backfill jobs, on the readiness page.
pub const BACKFILL: &str = "backfill";

/// Why a worker can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Lanes can't be carried.
    #[error(transparent)]
    Carrier(#[from] fedstream_carrier::Error),
    /// A stream is missing or dangerous.
    #[error(transparent)]
    Streams(#[from] streams::Error),
    /// What is given up, and what a history feeds, can't be published.
    #[error(transparent)]
    Publisher(#[from] ConnectError),
}

impl Error {
    /// The exit code that tells whose move it is.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Carrier(error) => error.exit_code(),
            Self::Streams(error) | Self::Publisher(ConnectError::Stream(error)) => error.exit_code(),
            Self::Publisher(ConnectError::Broker(error)) => error.exit_code(),
        }
    }
}

/// What a worker is given to work with: whose keys sign, over which way, and where histories are read.
pub struct Ports {
    /// Signs and posts: [`Attempts::new`] with a client and the application's own [`federation::SigningKeys`].
    pub attempts: Attempts,
    /// The application's own reader. Without one, backfill jobs stay where they are, for a worker that has one.
    pub history: Option<Arc<dyn History>>,
}

/// A worker that is a member, and carries no lane yet.
pub struct Worker {
    deliveries: Carrier<Outbound>,
    jobs: Option<Carrier<Jobs>>,
}

impl Worker {
    /// Makes or finds the streams and buckets, and joins the other workers. `readiness` knows [`READINESS`]; `drain` is set
    /// when the process leaves.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open(
        broker: Broker,
        settings: Settings,
        ports: Ports,
        readiness: Readiness,
        drain: CancellationToken,
    ) -> Result<Self, Error> {
        let sender_id = settings.sender_id.clone().unwrap_or_else(members::random_id);
        let settings = Settings { sender_id: Some(sender_id), ..settings };
        let options = PublisherOptions { partitions: settings.partitions, ..PublisherOptions::default() };
        let publisher = JetStreamPublisher::new(&broker, options).await?;
        let Ports { attempts, history } = ports;
        let gone = Arc::new(Gone::default());
        let jobs = match history {
            Some(history) => {
                let cursors = Cursors::open(&broker).await?;
                let (settings, publisher) = (settings.clone(), publisher.clone());
                let options = settings.carrier_options();
                let jobs = Jobs { settings, history, cursors, publisher, gone: Arc::clone(&gone) };
                let opening = Carrier::open(broker.clone(), jobs, options, readiness.clone(), drain.clone());
                Some(Box::pin(opening).await?) // boxed: several kB, as below
            }
            None => None,
        };
        let remotes = Arc::new(Remotes::new(settings.breaker, settings.deliveries_max, settings.ramp_pause));
        series::observe(&remotes);
        let options = settings.carrier_options();
        let patience = Arc::new(Patience::new(settings.key_wait));
        let outbound = Outbound {
            settings,
            attempts,
            remotes,
            evidence: Arc::default(),
            patience,
            gone,
            events: publisher,
            readiness: readiness.clone(),
        };
        let deliveries = Box::pin(Carrier::open(broker, outbound, options, readiness, drain)).await?;
        Ok(Self { deliveries, jobs })
    }

    /// Name of this process in leases and logs.
    #[must_use]
    pub fn sender_id(&self) -> &str {
        &self.deliveries.shared().sender_id
    }

    /// Whether it walks histories.
    #[must_use]
    pub fn backfills(&self) -> bool {
        self.jobs.is_some()
    }

    /// Makes `/lanes`, at any time: the lanes, and the backfill jobs beside them.
    pub fn pages(&self) -> impl Fn() -> serde_json::Value + Clone + Send + Sync + 'static {
        let deliveries = Arc::clone(self.deliveries.shared());
        let jobs = self.jobs.as_ref().map(|jobs| Arc::clone(jobs.shared()));
        move || {
            let mut page = deliveries.page();
            if let Some(jobs) = &jobs {
                page["backfills"] = jobs.page()["lanes"].take();
            }
            page
        }
    }

    /// Delivers and backfills until told to leave; then begins nothing more, and finishes what is under way within the grace
    /// period. Answers whether all of it was.
    pub async fn run(self, grace: Duration) -> bool {
        let Self { deliveries, jobs } = self;
        let jobs = async {
            match jobs {
                Some(jobs) => jobs.run(grace).await,
                None => true,
            }
        };
        let (delivered, walked) = tokio::join!(deliveries.run(grace), jobs);
        delivered && walked
    }
}
