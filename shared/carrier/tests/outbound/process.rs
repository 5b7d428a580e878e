//! A process that carries lanes: a runtime of its own, so that it can be killed as a process is.

use std::sync::Arc;
use std::time::Duration;

use fedstream_carrier::{Carrier, LaneView, Options, READINESS, Shared};
use fedstream_jetstream::{Broker, NatsSettings};
use fedstream_lane::{Backoff, OutboxLane};
use fedstream_service::readiness::Readiness;
use fedstream_service::shutdown::CancellationToken;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::remote::{Outbound, Remote};

/// Generous: these machines are small and busy. A passing test never waits this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Longer than a busy machine pauses, and short enough to wait for: a killed owner's lanes stand so long.
pub const LEASE_TTL: Duration = Duration::from_secs(3);

pub struct Process {
    runtime: Option<Runtime>,
    run: JoinHandle<bool>,
    drain: CancellationToken,
    shared: Arc<Shared<Outbound>>,
}

impl Process {
    /// Returns once it is a member.
    pub async fn start(url: &str, sender_id: &str, remote: &Remote) -> Self {
        Self::carrying(100, url, sender_id, remote).await
    }

    /// One that carries so many lanes at most.
    pub async fn carrying(lanes_max: u32, url: &str, sender_id: &str, remote: &Remote) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let options = Options {
            sender_id: Some(sender_id.to_owned()),
            lanes_max,
            held_bytes: 1 << 20,
            lease_ttl: LEASE_TTL,
            discovery_interval: Duration::from_millis(50),
            lane_idle: Duration::from_secs(60),
            backoff: Backoff::new(5, 50, 1_000),
        };
        let (url, direction, drain) = (url.to_owned(), Outbound(remote.clone()), CancellationToken::new());
        let told = drain.clone();
        let opened = runtime.spawn(async move {
            let broker = connect(&url).await;
            Carrier::open(broker, direction, options, Readiness::new(&READINESS), told).await.expect("a carrier")
        });
        let carrier = opened.await.expect("it opens");
        let shared = Arc::clone(carrier.shared());
        Self { run: runtime.spawn(carrier.run(PATIENCE)), runtime: Some(runtime), drain, shared }
    }

    /// What it shows of a lane.
    pub fn view(&self, lane: &OutboxLane) -> Option<LaneView> {
        let mut seen = None;
        self.shared.registry.each(|name, view| {
            if name == lane.to_string() {
                seen = Some(view.clone());
            }
        });
        seen
    }

    /// No goodbye: nothing is given back.
    pub fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Told to leave; answers whether all was settled in time.
    pub async fn leave(&mut self) -> bool {
        self.drain.cancel();
        within("it leaves", &mut self.run).await.expect("it runs")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // a runtime must not be dropped where it would be waited for
        }
    }
}

pub async fn connect(url: &str) -> Broker {
    let settings = NatsSettings { url: url.to_owned(), ..NatsSettings::default() };
    Broker::connect(settings, "test").await.expect("a broker")
}

/// Fails the test when `future` takes too long.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long: {what}"))
}
