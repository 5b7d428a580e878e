//! Three real nats-servers with routes between them, each route through a link of its own.
//!
//! ```text
//!   n0 ──link──▶ n1      Every node is told of the two others, at addresses of links. What it would tell others of
//!   n0 ◀──link── n1      itself (gossip) leads nowhere: `no_advertise` keeps clients at the servers they were given,
//!    .    ..      .      and the address that nodes pass on is one where nobody listens. So no connection between
//!   n1 ◀──link── n2      two nodes goes round its link, and cutting the link parts them.
//! ```
//!
//! A node keeps its ports and its store when it is killed and started again. All is gone on drop.

use std::net::SocketAddr;

use anyhow::Context;
use futures::future::{join_all, try_join_all};
use serde_json::Value;

use crate::broker::{Broker, Options};
use crate::eventually::eventually;
use crate::link::Link;
use crate::{http1, ports};

/// The fewest that survive the loss of one.
pub const NODES: usize = 3;

/// An election after the loss of a leader takes 4 to 9 s, on two busy cores.
const LEADER: std::time::Duration = std::time::Duration::from_secs(30);

/// The nodes, and the links between them.
pub struct Cluster {
    nodes: Vec<Broker>,
    /// From the first to the second; both directions of a pair, for either may be the one that connects.
    routes: Vec<((usize, usize), Link)>,
}

impl Cluster {
    /// Three nodes that have found each other.
    ///
    /// # Errors
    /// A node that does not start, or does not become healthy; with its log.
    pub async fn start() -> anyhow::Result<Self> {
        let route_ports: Vec<SocketAddr> = (0..NODES).map(|_| ports::free()).collect();
        let mut routes = Vec::new();
        for from in 0..NODES {
            for to in (0..NODES).filter(|to| *to != from) {
                routes.push(((from, to), Link::start(route_ports[to], std::time::Duration::ZERO).await?));
            }
        }
        let mut nodes = Vec::new();
        for (number, listen) in route_ports.iter().enumerate() {
            let others = routes.iter().filter(|((from, _), _)| *from == number);
            let others: Vec<String> = others.map(|(_, link)| format!("nats://{}", link.addr())).collect();
            nodes.push(Broker::prepare(options(number, *listen, &others))?);
        }
        let mut cluster = Self { nodes, routes };
        for node in &mut cluster.nodes {
            node.spawn()?;
        }
        try_join_all(cluster.nodes.iter_mut().map(Broker::wait_healthy)).await?;
        cluster.wait_led().await?;
        Ok(cluster)
    }

    /// Healthy is each by itself: streams are made by a leader that sees the others, and not before.
    async fn wait_led(&self) -> anyhow::Result<()> {
        let led = async || {
            let pages = join_all(self.nodes.iter().map(|node| http1::get(node.monitor(), "/jsz"))).await;
            let pages: Vec<Value> = pages.into_iter().filter_map(|page| Some(page.ok()?.json())).collect();
            let meta = pages.iter().map(|page| &page["meta_cluster"]).collect::<Vec<_>>();
            let all_know = meta.len() == NODES && meta.iter().all(|meta| meta["leader"].is_string());
            // Only the leader's own page lists the others.
            let sees = |meta: &&Value| {
                let others = meta["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
                others.len() == NODES - 1
                    && others.iter().all(|peer| peer["current"] == true && peer["offline"] != true)
            };
            (all_know && meta.iter().any(sees)).then_some(())
        };
        Ok(eventually("all nodes follow a leader that sees them", LEADER, led).await?)
    }

    /// One node.
    ///
    /// # Panics
    /// There is none of this number.
    #[must_use]
    pub fn node(&self, number: usize) -> &Broker {
        &self.nodes[number]
    }

    /// One node, to kill it or to start it again.
    ///
    /// # Panics
    /// There is none of this number.
    pub fn node_mut(&mut self, number: usize) -> &mut Broker {
        &mut self.nodes[number]
    }

    /// The links between two nodes, one each way.
    pub fn between(&mut self, a: usize, b: usize) -> impl Iterator<Item = &mut Link> {
        self.routes.iter_mut().filter(move |(ends, _)| *ends == (a, b) || *ends == (b, a)).map(|(_, link)| link)
    }

    /// Addresses for a client of the test's own: all nodes, no link.
    #[must_use]
    pub fn direct(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Broker::listen).collect()
    }

    /// JetStream through a client of the test's own, which goes round all links.
    ///
    /// # Errors
    /// No node that takes it.
    pub async fn jetstream(&self) -> anyhow::Result<async_nats::jetstream::Context> {
        let urls: Vec<String> = self.nodes.iter().map(Broker::url).collect();
        Ok(async_nats::jetstream::new(async_nats::connect(urls).await?))
    }

    /// The node that leads a stream, by what the nodes' monitoring says.
    ///
    /// # Errors
    /// No node knows one in time: there is no quorum.
    pub async fn leader_of(&self, stream: &str) -> anyhow::Result<usize> {
        let what = format!("a leader of {stream}");
        let found = eventually(what, LEADER, async || {
            for node in self.nodes.iter().filter(|node| node.pid().is_some()) {
                if let Some(leader) = leader_seen_by(node.monitor(), stream).await {
                    return Some(leader);
                }
            }
            None
        });
        found.await.context("the stream has no leader")
    }
}

/// What the project's own `nats/server.conf` says, and the cluster: a later line wins.
fn options(number: usize, listen: SocketAddr, others: &[String]) -> Options {
    let nowhere = ports::free();
    let others = others.join(", ");
    Options {
        lines: vec![
            format!("server_name: {}", name(number)),
            format!(
                "cluster {{ name: fedstream, listen: \"{listen}\", advertise: \"{nowhere}\", no_advertise: true, \
                 routes: [{others}] }}"
            ),
        ],
        ..Options::default()
    }
}

fn name(number: usize) -> String {
    format!("n{number}")
}

async fn leader_seen_by(monitor: SocketAddr, stream: &str) -> Option<usize> {
    let page = http1::get(monitor, "/jsz?accounts=true&streams=true").await.ok()?.json();
    let accounts = page["account_details"].as_array()?.iter();
    let mut streams = accounts.filter_map(|account| account["stream_detail"].as_array()).flatten();
    let found = streams.find(|detail| detail["name"] == stream)?;
    let leader = found["cluster"]["leader"].as_str()?;
    (0..NODES).find(|number| name(*number) == leader)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_nats::jetstream::stream::Config;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_three_nodes_acknowledged_outlives_the_leader() {
        let mut cluster = Cluster::start().await.unwrap();
        let jetstream = cluster.jetstream().await.unwrap();
        let config = Config { name: "T".into(), subjects: vec!["t".into()], num_replicas: 3, ..Config::default() };
        // A cluster that has just settled may not know all of its peers yet ("no suitable peers").
        let made = async || jetstream.create_stream(config.clone()).await.ok().map(drop);
        eventually("a stream on three nodes", LEADER, made).await.unwrap();
        jetstream.publish("t", "x".into()).await.unwrap().await.unwrap();
        let leader = cluster.leader_of("T").await.unwrap();
        cluster.node_mut(leader).kill9();
        let another = async || cluster.leader_of("T").await.ok().filter(|now| *now != leader);
        eventually("another node leads", LEADER, another).await.unwrap();
        let messages = async || {
            let info = cluster.jetstream().await.ok()?.get_stream("T").await.ok()?.get_info().await.ok()?;
            Some(info.state.messages)
        };
        assert_eq!(eventually("the stream answers", LEADER, messages).await.unwrap(), 1);
        cluster.node_mut(leader).start_again().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_whose_routes_are_cut_is_alone() {
        let mut cluster = Cluster::start().await.unwrap();
        let routes = async |cluster: &Cluster| {
            let page = http1::get(cluster.node(0).monitor(), "/routez").await.ok()?.json();
            page["num_routes"].as_u64()
        };
        assert!(routes(&cluster).await.unwrap() > 0);
        for other in [1, 2] {
            for link in cluster.between(0, other) {
                link.refuse().await;
            }
        }
        let within = Duration::from_secs(10);
        let alone = async || routes(&cluster).await.filter(|count| *count == 0);
        eventually("no route is left, and none goes round the links", within, alone).await.unwrap();
        for other in [1, 2] {
            for link in cluster.between(0, other) {
                link.open().await.unwrap();
            }
        }
        let found = async || routes(&cluster).await.filter(|count| *count > 0);
        eventually("they find each other again", within, found).await.unwrap();
    }
}
