//! The whole of it on this machine: broker, the three services, the link between the two halves, the instance behind.
//!
//!   Sender -> inbox-receiver -> broker -> batch-sender -> Link -> batch-receiver -> Instance
//!
//! Every part keeps its port when it is killed and started again. Backoffs are short; everything else is the services'
//! own default unless a test says otherwise.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::stream;

use crate::broker::{self, Broker};
use crate::check::Report;
use crate::directory::Directory;
use crate::eventually::{becomes_true, eventually};
use crate::instance::Instance;
use crate::ledger::Ledger;
use crate::link::Link;
use crate::otlp_sink::OtlpSink;
use crate::ports;
use crate::process::Service;
use crate::sender::Sender;

/// The stream between the halves.
pub const INBOX_STREAM: &str = "FED_INBOX";

/// What the batch-sender shows the batch-receiver, unless a test sets another.
pub const CREDENTIAL: &str = "test-credential";

/// One of the three services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    /// The front door.
    InboxReceiver,
    /// The near side of the link.
    BatchSender,
    /// The far side of the link.
    BatchReceiver,
}

impl Which {
    /// The name of its package and binary.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InboxReceiver => "inbox-receiver",
            Self::BatchSender => "batch-sender",
            Self::BatchReceiver => "batch-receiver",
        }
    }
}

/// What to start.
pub struct Builder {
    sources: Vec<String>,
    destinations: Vec<String>,
    instances: usize,
    one_way: Duration,
    broker: broker::Options,
    telemetry: bool,
    env: BTreeMap<(Which, String), String>,
    left_out: Vec<Which>,
}

/// All parts. They end when it is dropped; on a panic the services show the ends of their logs.
pub struct Pipeline {
    // The order of the fields is the order of the end: nobody loses what it stands on and logs about it.
    /// Near side.
    pub batch_sender: Service,
    /// Far side.
    pub batch_receiver: Service,
    /// Front door.
    pub inbox_receiver: Service,
    /// Between batch-sender and batch-receiver.
    pub link: Link,
    /// Behind the batch-receiver.
    pub instances: Vec<Instance>,
    /// The broker.
    pub broker: Broker,
    /// Where traces go, if asked for.
    pub traces: Option<OtlpSink>,
    /// What the senders handed in.
    pub ledger: Ledger,
    /// Keys that the instances know.
    pub keys: Directory,
    destinations: Vec<String>,
    front: SocketAddr,
    batch_address: SocketAddr,
}

impl Builder {
    /// A sending instance that the front takes activities from.
    #[must_use]
    pub fn source(mut self, host: &str) -> Self {
        self.sources.push(host.to_owned());
        self
    }

    /// A destination that the front takes activities for. Without any: `home.test`.
    #[must_use]
    pub fn destination(mut self, host: &str) -> Self {
        self.destinations.push(host.to_owned());
        self
    }

    /// This many instances, each a destination of its own, reached under its own address: [`Pipeline::destination`]
    /// names them. Otherwise one instance stands for all destinations, by `OVERRIDE_DESTINATION_DOMAIN`.
    #[must_use]
    pub fn instances(mut self, count: usize) -> Self {
        self.instances = count;
        self
    }

    /// The link's delay, one way: half a round trip.
    #[must_use]
    pub fn one_way(mut self, delay: Duration) -> Self {
        self.one_way = delay;
        self
    }

    /// A broker set up otherwise.
    #[must_use]
    pub fn broker(mut self, options: broker::Options) -> Self {
        self.broker = options;
        self
    }

    /// With an OTLP endpoint that all three export to.
    #[must_use]
    pub fn traced(mut self) -> Self {
        self.telemetry = true;
        self
    }

    /// A variable of one service.
    #[must_use]
    pub fn env(mut self, which: Which, name: &str, value: &str) -> Self {
        self.env.insert((which, name.to_owned()), value.to_owned());
        self
    }

    /// Prepares this service, but leaves the starting to the test.
    #[must_use]
    pub fn without(mut self, which: Which) -> Self {
        self.left_out.push(which);
        self
    }

    /// Starts all and waits until all are ready.
    ///
    /// # Errors
    /// What does not start, with its log.
    pub async fn start(self) -> anyhow::Result<Pipeline> {
        let keys = Directory::default();
        let broker = Broker::start_with(self.broker.clone()).await.context("the broker")?;
        let mut instances = Vec::new();
        for _ in 0..self.instances {
            instances.push(Instance::start(keys.clone()).await?);
        }
        let batch_address = ports::free();
        let link = Link::start(batch_address, self.one_way).await?;
        let traces = if self.telemetry { Some(OtlpSink::start().await?) } else { None };

        let mut pipeline = Pipeline {
            inbox_receiver: Service::new(Which::InboxReceiver.name(), [])?,
            batch_sender: Service::new(Which::BatchSender.name(), [])?,
            batch_receiver: Service::new(Which::BatchReceiver.name(), [])?,
            destinations: self.destination_names(&instances),
            front: ports::free(),
            batch_address,
            link,
            instances,
            broker,
            traces,
            ledger: Ledger::default(),
            keys,
        };
        let all = [Which::InboxReceiver, Which::BatchReceiver, Which::BatchSender];
        for which in all {
            self.set_up(&mut pipeline, which);
        }
        // Side by side: each waits for what it needs.
        let started: Vec<Which> = all.into_iter().filter(|which| !self.left_out.contains(which)).collect();
        for which in &started {
            pipeline.service(*which).spawn()?;
        }
        for which in started {
            pipeline.service(which).wait_ready().await?;
        }
        Ok(pipeline)
    }

    fn destination_names(&self, instances: &[Instance]) -> Vec<String> {
        if instances.len() > 1 {
            return instances.iter().map(|instance| instance.addr().to_string()).collect();
        }
        if self.destinations.is_empty() { vec!["home.test".to_owned()] } else { self.destinations.clone() }
    }

    /// The environment of a service: ours, then the test's.
    fn set_up(&self, pipeline: &mut Pipeline, which: Which) {
        let mut env: Vec<(&str, String)> = vec![("LOG_FORMAT", "pretty".into()), ("LOG_LEVEL", "info".into())];
        env.push(("FED_SHUTDOWN_GRACE", "10s".into()));
        if let Some(traces) = &pipeline.traces {
            env.push(("OTEL_EXPORTER_OTLP_ENDPOINT", traces.endpoint()));
            // Batches of spans leave after 5 s by default: a test would wait for them.
            env.push(("OTEL_BSP_SCHEDULE_DELAY", "100".into()));
            // The endpoint takes traces only; metrics are on `/metrics`.
            env.push(("OTEL_METRICS_EXPORTER", "none".into()));
        }
        if which != Which::BatchReceiver {
            env.push(("NATS_URL", pipeline.broker.url()));
            env.push(("NATS_MONITOR_URL", pipeline.broker.monitor_url()));
        }
        let destinations = pipeline.destinations.join(",");
        match which {
            Which::InboxReceiver => env.extend([
                ("FED_LISTEN", pipeline.front.to_string()),
                ("FED_SOURCES", self.sources.join(",")),
                ("FED_DESTINATIONS", destinations),
                ("FED_OPEN_FRONT", "yes".into()),
            ]),
            Which::BatchSender => env.extend([
                ("FED_SITE", "test".into()),
                ("BATCH_RECEIVER_PROTOCOL", "http".into()),
                ("BATCH_RECEIVER_DOMAIN", pipeline.link.addr().to_string()),
                ("HTTP_BATCH_AUTHORIZATION", CREDENTIAL.into()),
                ("FED_BACKOFF_MIN", "50ms".into()),
                ("FED_BACKOFF_MAX", "500ms".into()),
            ]),
            Which::BatchReceiver => {
                env.extend([
                    ("FED_LISTEN", pipeline.batch_address.to_string()),
                    ("FED_DESTINATIONS", destinations),
                    ("HTTP_BATCH_AUTHORIZATION", CREDENTIAL.into()),
                    ("OVERRIDE_DESTINATION_PROTOCOL", "http".into()),
                ]);
                if let [instance] = pipeline.instances.as_slice() {
                    env.push(("OVERRIDE_DESTINATION_DOMAIN", instance.addr().to_string()));
                }
            }
        }
        let service = pipeline.service(which);
        for (name, value) in env {
            service.set_env(name, Some(&value));
        }
        for ((_, name), value) in self.env.iter().filter(|((of, _), _)| *of == which) {
            service.set_env(name, Some(value));
        }
    }
}

impl Pipeline {
    /// One instance, no delay, no traces, until said otherwise.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            sources: Vec::new(),
            destinations: Vec::new(),
            instances: 1,
            one_way: Duration::ZERO,
            broker: broker::Options::default(),
            telemetry: false,
            env: BTreeMap::new(),
            left_out: Vec::new(),
        }
    }

    /// Where senders connect.
    #[must_use]
    pub fn front(&self) -> SocketAddr {
        self.front
    }

    /// Where the batch-receiver listens, behind the link.
    #[must_use]
    pub fn batch_address(&self) -> SocketAddr {
        self.batch_address
    }

    /// The destination of this number, as senders write it in `Host`.
    ///
    /// # Panics
    /// There are not as many.
    #[must_use]
    pub fn destination(&self, number: usize) -> &str {
        &self.destinations[number]
    }

    /// The first instance.
    ///
    /// # Panics
    /// It was built without one.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instances[0]
    }

    /// The first instance, to take it down.
    ///
    /// # Panics
    /// It was built without one.
    pub fn instance_mut(&mut self) -> &mut Instance {
        &mut self.instances[0]
    }

    /// A service.
    pub fn service(&mut self, which: Which) -> &mut Service {
        match which {
            Which::InboxReceiver => &mut self.inbox_receiver,
            Which::BatchSender => &mut self.batch_sender,
            Which::BatchReceiver => &mut self.batch_receiver,
        }
    }

    /// A source towards a destination, through the front door.
    #[must_use]
    pub fn sender(&self, source: &str, destination: &str) -> Sender {
        Sender::new(source, destination, self.front, &self.keys, &self.ledger)
    }

    /// What the broker says of the inbox stream; `None` while it can't be asked.
    pub async fn stream(&self) -> Option<stream::Info> {
        let jetstream = self.broker.jetstream().await.ok()?;
        jetstream.get_stream(INBOX_STREAM).await.ok()?.get_info().await.ok()
    }

    /// How many messages lie in the inbox stream; `None` while it can't be asked.
    pub async fn depth(&self) -> Option<u64> {
        Some(self.stream().await?.state.messages)
    }

    /// Waits until all that was delivered is trimmed.
    ///
    /// # Errors
    /// Something is left.
    pub async fn wait_trimmed(&self, within: Duration) -> anyhow::Result<()> {
        let empty = async || (self.depth().await == Some(0)).then_some(());
        Ok(eventually("the inbox stream is empty", within, empty).await?)
    }

    /// The verdict on what has happened so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let seen: Vec<_> = self.instances.iter().flat_map(Instance::seen).collect();
        Report::of(&self.ledger.submissions(), &seen)
    }

    /// Waits until everything accepted at the front has its final outcome, and judges. The senders are done by then. What
    /// is missing after `within` is in the report.
    pub async fn settle(&self, within: Duration) -> Report {
        let settled = || self.instances.iter().map(Instance::settled).sum::<usize>();
        let what = "everything that was accepted has its outcome";
        // Counted first: a report of thousands is not made every 10 ms.
        let counted = becomes_true(what, within, || settled() >= self.ledger.accepted()).await;
        // An activity that was stored but whose 204 was lost counts as well, so the count may be reached too early.
        if counted.is_ok() {
            let nothing_lost = becomes_true(what, within, || self.report().lost.is_empty()).await;
            if let Err(timeout) = nothing_lost {
                eprintln!("{timeout}");
            }
        }
        self.report()
    }
}
