//! Everything that is measured, started from nothing: broker, the three services, the lines, the instance.
//!
//! ```text
//!   senders ─▶ inbox-receiver ─▶ broker ─▶ batch-sender ══ line ══▶ batch-receiver ─▶ instance     fedstream
//!   sender  ═══════════════════════════════ line ════════════════════════════════════▶ instance     direct
//!   sender  ───────────────────────────────────────────────────────────────────────────▶ instance     no network
//! ```
//!
//! The services run as they come: default settings, release builds, and a broker that syncs each write to disk.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use fedstream_tests::broker::Broker;
use fedstream_tests::directory::Directory;
use fedstream_tests::eventually::{becomes_true, eventually};
use fedstream_tests::ports;
use fedstream_tests::process::Service;

use crate::instance::Instance;
use crate::link::{Line, Link};
use crate::request::{DESTINATION, source};

const CREDENTIAL: &str = "bench-credential";
const GRACE: Duration = Duration::from_secs(30);

/// Variables of services, by service, beyond what the rig needs.
pub type Settings = BTreeMap<String, Vec<(String, String)>>;

/// All parts, running. They end when it is dropped.
pub struct Rig {
    /// Near side of the line.
    pub batch_sender: Service,
    /// Far side of the line.
    pub batch_receiver: Service,
    /// Front door.
    pub inbox_receiver: Service,
    /// Between batch-sender and batch-receiver.
    pub batches: Link,
    /// Between a sender and the instance, without fedstream.
    pub direct: Link,
    /// Behind all.
    pub instance: Instance,
    /// The broker.
    pub broker: Broker,
    /// Keys of the sources.
    pub keys: Directory,
    /// Where senders connect.
    pub front: SocketAddr,
}

impl Rig {
    /// For so many sources.
    ///
    /// # Errors
    /// What does not start, with its log.
    pub async fn start(sources: usize, settings: &Settings) -> anyhow::Result<Self> {
        let broker = Broker::start().await?;
        let instance = Instance::start()?;
        let (front, far) = (ports::free(), ports::free());
        let mut rig = Self {
            inbox_receiver: Service::new("inbox-receiver", [])?,
            batch_sender: Service::new("batch-sender", [])?,
            batch_receiver: Service::new("batch-receiver", [])?,
            batches: Link::start(far)?,
            direct: Link::start(instance.addr())?,
            instance,
            broker,
            keys: Directory::default(),
            front,
        };
        rig.configure(sources, far, settings);
        rig.inbox_receiver.spawn()?;
        rig.batch_receiver.spawn()?;
        rig.batch_sender.spawn()?;
        for service in [&mut rig.inbox_receiver, &mut rig.batch_receiver, &mut rig.batch_sender] {
            service.wait_ready().await?;
        }
        Ok(rig)
    }

    fn configure(&mut self, sources: usize, far: SocketAddr, settings: &Settings) {
        let names: Vec<String> = (0..sources).map(source).collect();
        let (nats, monitor) = (self.broker.url(), self.broker.monitor_url());
        let (line, instance) = (self.batches.addr().to_string(), self.instance.addr().to_string());
        set(
            &mut self.inbox_receiver,
            settings,
            &[
                ("NATS_URL", &nats),
                ("NATS_MONITOR_URL", &monitor),
                ("FED_LISTEN", &self.front.to_string()),
                ("FED_SOURCES", &names.join(",")),
                ("FED_DESTINATIONS", DESTINATION),
                ("FED_OPEN_FRONT", "yes"),
            ],
        );
        set(
            &mut self.batch_sender,
            settings,
            &[
                ("NATS_URL", &nats),
                ("NATS_MONITOR_URL", &monitor),
                ("FED_SITE", "bench"),
                ("BATCH_RECEIVER_PROTOCOL", "http"),
                ("BATCH_RECEIVER_DOMAIN", &line),
                ("HTTP_BATCH_AUTHORIZATION", CREDENTIAL),
            ],
        );
        set(
            &mut self.batch_receiver,
            settings,
            &[
                ("FED_LISTEN", &far.to_string()),
                ("FED_DESTINATIONS", DESTINATION),
                ("HTTP_BATCH_AUTHORIZATION", CREDENTIAL),
                ("OVERRIDE_DESTINATION_PROTOCOL", "http"),
                ("OVERRIDE_DESTINATION_DOMAIN", &instance),
            ],
        );
    }

    /// Both lines, with and without fedstream, are like this from now on.
    pub fn set_line(&self, line: Line) {
        self.batches.set(line);
        self.direct.set(line);
    }

    /// Name and process id of each part that runs.
    #[must_use]
    pub fn parts(&self) -> Vec<(String, u32)> {
        let services = [&self.inbox_receiver, &self.batch_sender, &self.batch_receiver];
        let services = services.into_iter().filter_map(|service| Some((service.name().to_owned(), service.pid()?)));
        services.chain(self.broker.pid().map(|pid| ("nats-server".to_owned(), pid))).collect()
    }

    /// Ends the batch-sender in good order: lanes fill up until [`Rig::resume`].
    ///
    /// # Errors
    /// It does not end.
    pub async fn hold(&mut self) -> anyhow::Result<()> {
        self.batch_sender.terminate(GRACE).await.map(drop)
    }

    /// Starts the batch-sender again.
    ///
    /// # Errors
    /// It does not.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        self.batch_sender.start().await
    }

    /// Waits until the instance has taken so many.
    ///
    /// # Errors
    /// It has not in time.
    pub async fn wait_taken(&self, count: usize, within: Duration) -> anyhow::Result<()> {
        let what = format!("{count} activities at the instance");
        becomes_true(what, within, || self.instance.taken() >= count)
            .await
            .map_err(|timeout| anyhow::anyhow!("{timeout}: it has {}\n{}", self.instance.taken(), self.log_tails()))
    }

    /// Waits until nothing is left in the lanes: all is settled and trimmed.
    ///
    /// # Errors
    /// Something is left.
    pub async fn wait_empty(&self, within: Duration) -> anyhow::Result<()> {
        let jetstream = self.broker.jetstream().await?;
        eventually("the lanes are empty", within, async || {
            let mut stream = jetstream.get_stream("FED_INBOX").await.ok()?;
            (stream.info().await.ok()?.state.messages == 0).then_some(())
        })
        .await?;
        Ok(())
    }

    /// The ends of all logs.
    #[must_use]
    pub fn log_tails(&self) -> String {
        [&self.inbox_receiver, &self.batch_sender, &self.batch_receiver].map(Service::log_tail).join("\n")
    }
}

fn set(service: &mut Service, settings: &Settings, ours: &[(&str, &str)]) {
    for (name, value) in ours {
        service.set_env(name, Some(value));
    }
    let name = service.name().to_owned();
    for (variable, value) in settings.get(&name).into_iter().flatten() {
        service.set_env(variable, Some(value));
    }
}
