//! All parts of a fedstream that must survive, with a link between any two that talk.
//!
//! ```text
//!   4 senders ─┬─▶ front 0 ─┐            ┌─ batch-sender 0 ─┐
//!              └─▶ front 1 ─┼─▶ n0 n1 n2 ┤                  ├─▶ batch-receiver ──▶ instance
//!                           ┘            └─ batch-sender 1 ─┘
//! ```
//!
//! Every arrow and every route between two nodes is a [`Link`] of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;

use super::fault::{Fault, Happened, REFUSAL};
use super::part::{Part, Shape};
use super::rule::Rule;
use super::services::{self, LANES};
use crate::behaviour::Behaviour;
use crate::cluster::{Cluster, NODES};
use crate::directory::Directory;
use crate::eventually::eventually;
use crate::http1;
use crate::instance::Instance;
use crate::ledger::Ledger;
use crate::link::Link;
use crate::pipeline::INBOX_STREAM;
use crate::ports;
use crate::process::Service;
use crate::sender::Sender;

/// A busy instance's Retry-After, in seconds: the shortest that there is.
const RETRY_AFTER_S: u64 = 1;

/// As many answers get lost in one fault: some on each lane.
const ANSWERS_LOST: usize = 6;

/// Between two activities of a lane: some 30 a second in all, which leaves two cores room for three nodes and the rest.
const PACE: Duration = Duration::from_millis(110);

/// Lines of a node's log that a failure shows.
const NODE_LOG_LINES: usize = 25;

/// All of them from nothing, on two busy cores.
const READY: Duration = Duration::from_secs(40);

/// Between two looks for a service that has ended of itself.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A process that has ended is reaped at once; this is for a machine that swaps.
const REAP: Duration = Duration::from_secs(5);

/// The parts. They end when it is dropped; on a panic the services show the ends of their logs.
pub struct World {
    // In the order of their end.
    senders: Vec<Service>,
    receiver: Service,
    fronts: Vec<Service>,
    links: BTreeMap<(Part, Part), Link>,
    /// Behind the batch-receiver.
    pub instance: Instance,
    /// The broker.
    pub cluster: Cluster,
    /// What the senders handed in.
    pub ledger: Ledger,
    keys: Directory,
    outside: Vec<SocketAddr>,
    /// Killed by a fault that has not ended.
    down: BTreeSet<Part>,
    /// Services that ended of themselves and were started again, as systemd does it: which, and with what exit code.
    pub ended_by_themselves: Vec<(Part, Option<i32>)>,
}

/// A fault that goes on.
pub struct Ongoing {
    fault: Fault,
    began: SystemTime,
    /// The node that it turned out to be.
    node: Option<usize>,
    /// Of an instance that says something.
    rule: Option<Rule>,
}

impl World {
    /// Everything started and ready; a dead batch-sender keeps its lanes for `lease_ttl`.
    ///
    /// # Errors
    /// What does not start, with its log.
    pub async fn start(shape: Shape, lease_ttl: Duration) -> anyhow::Result<Self> {
        let cluster = Cluster::start().await.context("the cluster")?;
        let keys = Directory::default();
        let instance = Instance::start(keys.clone()).await?;
        instance.set_service_time(Duration::from_millis(2)); // so that there is an "in the middle of a delivery"
        let receiver_at = ports::free();
        let front_at: Vec<SocketAddr> = (0..shape.fronts).map(|_| ports::free()).collect();
        let mut links = BTreeMap::new();
        for (from, to) in shape.pairs().into_iter().flatten() {
            let address = match to {
                Part::Front(number) => front_at[number],
                Part::Receiver => receiver_at,
                Part::Instance => instance.addr(),
                Part::Node(number) if matches!(from, Part::Node(_)) => {
                    debug_assert!(number < NODES, "the cluster has the links of its routes");
                    continue;
                }
                Part::Node(number) => cluster.node(number).listen(),
                // All the nodes' own, and those that nobody connects to.
                Part::Broker | Part::Outside | Part::Sender(_) => continue,
            };
            links.insert((from, to), Link::start(address, Duration::ZERO).await?);
        }
        let link = |from: Part, to: Part| links.get(&(from, to)).map(Link::addr).context("a link of the shape");
        let nodes = |from: Part| -> anyhow::Result<String> {
            let urls: anyhow::Result<Vec<String>> =
                (0..NODES).map(|node| Ok(format!("nats://{}", link(from, Part::Node(node))?))).collect();
            Ok(urls?.join(","))
        };
        let fronts: anyhow::Result<Vec<Service>> =
            front_at.iter().enumerate().map(|(n, listen)| services::front(*listen, nodes(Part::Front(n))?)).collect();
        let senders: anyhow::Result<Vec<Service>> = (0..shape.senders)
            .map(|n| services::sender(n, nodes(Part::Sender(n))?, link(Part::Sender(n), Part::Receiver)?, lease_ttl))
            .collect();
        let outside: anyhow::Result<Vec<SocketAddr>> =
            (0..shape.fronts).map(|n| link(Part::Outside, Part::Front(n))).collect();
        let mut world = Self {
            senders: senders?,
            receiver: services::receiver(receiver_at, link(Part::Receiver, Part::Instance)?)?,
            fronts: fronts?,
            outside: outside?,
            links,
            instance,
            cluster,
            ledger: Ledger::default(),
            keys,
            down: BTreeSet::new(),
            ended_by_themselves: Vec::new(),
        };
        for service in world.services_mut() {
            service.spawn()?;
        }
        world.all_ready().await?;
        Ok(world)
    }

    /// A service may end of itself before that, and is started again: a stream that is being made answers nobody until its
    /// three nodes have a leader.
    async fn all_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            self.keep_running().await?;
            let ready = async || {
                for service in self.fronts.iter().chain(&self.senders).chain([&self.receiver]) {
                    if !service.is_ready().await {
                        return None;
                    }
                }
                Some(())
            };
            if eventually("all services are ready", LOOK_EVERY, ready).await.is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                anyhow::bail!("not all services become ready\n{}", self.describe().await);
            }
        }
    }

    /// One for each lane. Half of them begin at each front, and all go to the next front when one doesn't answer, as behind
    /// a load balancer.
    #[must_use]
    pub fn outside_senders(&self) -> Vec<Sender> {
        let sender = |(number, (source, destination)): (usize, &(&str, &str))| {
            let mut fronts: std::collections::VecDeque<SocketAddr> = self.outside.iter().copied().collect();
            fronts.rotate_left(number % self.outside.len());
            let first = fronts.pop_front().expect("a shape has a front");
            let mut sender = Sender::new(source, destination, first, &self.keys, &self.ledger);
            sender.more_fronts = fronts;
            sender.pace = PACE;
            // Lemmy gives up after 10 s; the front's own clock is 2 s here.
            sender.answer_timeout = Duration::from_secs(4);
            sender
        };
        LANES.iter().enumerate().map(sender).collect()
    }

    /// Lets a fault begin.
    ///
    /// # Errors
    /// It can't: no leader to be found, a process that is not there.
    pub async fn begin(&mut self, fault: Fault) -> anyhow::Result<Ongoing> {
        let mut ongoing = Ongoing { fault, began: SystemTime::now(), node: None, rule: None };
        let (instance, ledger) = (&self.instance, &self.ledger);
        let for_all = |count, behaviour| Rule::for_all(instance, count, behaviour);
        let for_one = |lane: usize, behaviour, for_good| {
            let (source, destination) = LANES[lane];
            Rule::for_one(instance, ledger, format!("{destination}/{source}"), behaviour, for_good)
        };
        match fault {
            Fault::Kill(part) => self.kill(part).await,
            Fault::KillLeader => {
                let leader = self.cluster.leader_of(INBOX_STREAM).await?;
                ongoing.began = SystemTime::now();
                ongoing.node = Some(leader);
                self.kill(Part::Node(leader)).await;
            }
            Fault::Pause(part) => self.pause(part)?,
            Fault::Cut(from, to) => {
                for link in self.links(from, to) {
                    link.refuse().await;
                }
            }
            Fault::Stall(from, to) => self.links(from, to).into_iter().for_each(|link| link.stall()),
            Fault::Reset(from, to) => self.links(from, to).into_iter().for_each(|link| link.reset()),
            Fault::Busy503 => ongoing.rule = Some(for_all(None, Behaviour::busy(503, None))),
            Fault::Busy429 => ongoing.rule = Some(for_all(None, Behaviour::busy(429, Some(RETRY_AFTER_S)))),
            Fault::Broken500 => {
                self.instance.set_probe_status(500);
                ongoing.rule = Some(for_all(None, Behaviour::busy(500, None)));
            }
            Fault::Hang => ongoing.rule = Some(for_all(None, Behaviour::Hang)),
            Fault::LoseAnswers => {
                let lost = Behaviour::LoseAnswer { status: 200 };
                ongoing.rule = Some(for_all(Some(ANSWERS_LOST), lost));
            }
            Fault::Poison(lane) => ongoing.rule = Some(for_one(lane, Behaviour::busy(500, None), false)),
            Fault::Reject(lane) => {
                ongoing.rule = Some(for_one(lane, Behaviour::rejects(400, REFUSAL), true));
            }
        }
        Ok(ongoing)
    }

    /// Ends a fault. What it caused may take longer.
    ///
    /// # Errors
    /// What was killed does not start; a port was taken.
    pub async fn end(&mut self, ongoing: Ongoing) -> anyhow::Result<Happened> {
        match ongoing.fault {
            Fault::Kill(part) => self.start_again(part).await?,
            Fault::KillLeader => {
                self.start_again(Part::Node(ongoing.node.context("the fault has begun")?)).await?;
            }
            Fault::Pause(part) => self.resume(part)?,
            Fault::Cut(from, to) => {
                for link in self.links(from, to) {
                    link.open().await?;
                }
            }
            Fault::Stall(from, to) => self.links(from, to).into_iter().for_each(|link| link.flow()),
            Fault::Reset(from, to) => self.links(from, to).into_iter().for_each(|link| link.end_reset()),
            Fault::Broken500 => self.instance.set_probe_status(200),
            _ => {}
        }
        let mut about = None;
        if let Some(rule) = ongoing.rule {
            about = rule.end();
            if ongoing.fault == Fault::Hang {
                self.instance.release();
            }
        }
        Ok(Happened { fault: ongoing.fault, about, began: ongoing.began, ended: SystemTime::now() })
    }

    /// Starts again what has ended of itself, as systemd does with `Restart=on-failure`, and writes it down.
    ///
    /// # Errors
    /// It does not start.
    pub async fn keep_running(&mut self) -> anyhow::Result<()> {
        let fronts = (0..self.fronts.len()).map(Part::Front);
        let senders = (0..self.senders.len()).map(Part::Sender);
        for part in fronts.chain(senders).chain([Part::Receiver]).collect::<Vec<_>>() {
            if self.down.contains(&part) {
                continue;
            }
            let Some(service) = self.service_mut(part) else { continue };
            if service.has_ended() {
                let code = service.wait_exit(REAP).await?;
                service.spawn()?;
                self.ended_by_themselves.push((part, code));
            }
        }
        Ok(())
    }

    /// What each batch-sender has logged over all its lives.
    #[must_use]
    pub fn sender_logs(&self) -> Vec<String> {
        self.senders.iter().map(Service::log).collect()
    }

    /// What the batch-receiver has logged over all its lives.
    #[must_use]
    pub fn receiver_log(&self) -> String {
        self.receiver.log()
    }

    /// Process ids of all processes that run.
    #[must_use]
    pub fn pids(&self) -> Vec<(Part, u32)> {
        let fronts = self.fronts.iter().enumerate().map(|(n, service)| (Part::Front(n), service.pid()));
        let senders = self.senders.iter().enumerate().map(|(n, service)| (Part::Sender(n), service.pid()));
        let nodes = (0..NODES).map(|n| (Part::Node(n), self.cluster.node(n).pid()));
        let all = fronts.chain(nodes).chain(senders).chain([(Part::Receiver, self.receiver.pid())]);
        all.filter_map(|(part, pid)| Some((part, pid?))).collect()
    }

    /// What the parts say of themselves, for a failure: the lanes' pages, and the ends of the nodes' logs. The services' own
    /// logs are shown when they are dropped in a panic.
    pub async fn describe(&self) -> String {
        let mut text = String::new();
        let senders = self.senders.iter().enumerate().map(|(n, service)| (Part::Sender(n), service));
        let fronts = self.fronts.iter().enumerate().map(|(n, service)| (Part::Front(n), service));
        for (part, service) in senders.chain([(Part::Receiver, &self.receiver)]).chain(fronts) {
            for path in ["/lanes", "/readyz"] {
                let page = http1::get(service.admin(), path).await;
                let page =
                    page.map_or_else(|error| error.to_string(), |p| String::from_utf8_lossy(&p.body).into_owned());
                text.push_str(&format!("--- {path} of {part}\n{page}\n"));
            }
        }
        for number in 0..NODES {
            let tail = self.cluster.node(number).log_tail(NODE_LOG_LINES);
            text.push_str(&format!("--- log of nats node {number}\n{tail}\n"));
        }
        text
    }

    async fn kill(&mut self, part: Part) {
        self.down.insert(part);
        match part {
            Part::Node(number) => self.cluster.node_mut(number).kill9(),
            Part::Instance => self.instance.go_down().await,
            _ => {
                if let Some(service) = self.service_mut(part) {
                    service.kill9();
                }
            }
        }
    }

    /// Does not wait until it is ready: the recovery of the lanes shows it.
    async fn start_again(&mut self, part: Part) -> anyhow::Result<()> {
        self.down.remove(&part);
        match part {
            Part::Node(number) => self.cluster.node_mut(number).spawn()?,
            Part::Instance => self.instance.come_up().await?,
            _ => {
                if let Some(service) = self.service_mut(part) {
                    service.spawn()?;
                }
            }
        }
        Ok(())
    }

    fn pause(&mut self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Node(number) => self.cluster.node(number).pause(),
            Part::Instance => {
                self.instance.freeze();
                Ok(())
            }
            _ => self.service_mut(part).map_or(Ok(()), |service| service.pause()),
        }
    }

    fn resume(&mut self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Node(number) => self.cluster.node(number).resume(),
            Part::Instance => {
                self.instance.thaw();
                Ok(())
            }
            _ => self.service_mut(part).map_or(Ok(()), |service| service.resume()),
        }
    }

    fn links(&mut self, from: Part, to: Part) -> Vec<&mut Link> {
        match (from, to) {
            (Part::Node(a), Part::Node(b)) => self.cluster.between(a, b).collect(),
            (_, Part::Broker) => {
                let its =
                    self.links.iter_mut().filter(|((one, other), _)| *one == from && matches!(other, Part::Node(_)));
                its.map(|(_, link)| link).collect()
            }
            _ => self.links.get_mut(&(from, to)).into_iter().collect(),
        }
    }

    fn service_mut(&mut self, part: Part) -> Option<&mut Service> {
        match part {
            Part::Front(number) => self.fronts.get_mut(number),
            Part::Sender(number) => self.senders.get_mut(number),
            Part::Receiver => Some(&mut self.receiver),
            _ => None,
        }
    }

    fn services_mut(&mut self) -> impl Iterator<Item = &mut Service> {
        self.fronts.iter_mut().chain(&mut self.senders).chain([&mut self.receiver])
    }
}

impl Ongoing {
    /// Whether it has had its effect, so that its end need not be waited for: the one activity that it is about was passed
    /// by the next.
    #[must_use]
    pub fn is_through(&self) -> bool {
        matches!(self.fault, Fault::Poison(_) | Fault::Reject(_))
            && self.rule.as_ref().is_some_and(|rule| rule.is_passed())
    }
}
