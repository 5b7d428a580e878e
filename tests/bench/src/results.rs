//! What was measured, as it is kept: `results.json` beside the tables, so that they can be made again without measuring.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::stats::{Figures, Latency};
use crate::usage::{Memory, Spent};

/// All of a bench run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// On what.
    pub machine: Machine,
    /// Whether it was the short run.
    pub quick: bool,
    /// Variables that were set otherwise than by default.
    pub settings: BTreeMap<String, Vec<(String, String)>>,
    /// Idle memory.
    pub idle: Option<Idle>,
    /// One lane: each round trip with each service time.
    pub one_lane: Vec<OneLane>,
    /// Several lanes.
    pub lanes: Vec<Lanes>,
    /// End-to-end times at a steady rate.
    pub steady: Vec<Steady>,
    /// The front door against a bare publisher.
    pub front: Vec<Front>,
    /// Bytes over the line.
    pub bytes: Vec<LineBytes>,
    /// The same rate over more and more lanes.
    pub spread: Vec<Spread>,
    /// A lane that was filled during an outage.
    pub recovery: Option<Recovery>,
    /// Lines that are more than a delay.
    pub lines: Vec<WorseLine>,
}

/// Memory with nothing to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Idle {
    /// After the start.
    pub fresh: BTreeMap<String, Memory>,
    /// Some seconds after a run of this many activities.
    pub after: BTreeMap<String, Memory>,
    /// How many.
    pub activities: usize,
    /// Processor seconds a second while idle, before the run.
    pub processor: Spent,
}

/// One lane; activities a second.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OneLane {
    /// Of the line.
    pub round_trip_ms: u64,
    /// Of the instance.
    pub service_ms: u64,
    /// Activities in each run.
    pub activities: usize,
    /// Straight over the line, one at a time.
    pub direct: Figures,
    /// The limit: straight to the instance, no line.
    pub no_network: Figures,
    /// Through fedstream while the source sends.
    pub live: Figures,
    /// Through fedstream from a filled lane.
    pub backlog: Figures,
    /// How fast the source got rid of them in the live runs.
    pub accepted: Figures,
    /// Cost of the live runs, a thousand activities, in seconds.
    pub live_cpu_s: Figures,
    /// Cost of the backlog runs.
    pub backlog_cpu_s: Figures,
    /// The last backlog run by part, or live if there was none.
    pub spent: Spent,
    /// From the start of a run on an idle lane until its first activity was done, ms.
    pub first_ms: Figures,
}

/// Several lanes, from filled lanes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lanes {
    /// How many.
    pub lanes: usize,
    /// Of the line.
    pub round_trip_ms: u64,
    /// Of the instance.
    pub service_ms: u64,
    /// As many sources straight to the instance.
    pub no_network: Figures,
    /// Sum over lanes.
    pub backlog: Figures,
    /// Slowest lane by mean lane, until the first one is done.
    pub fairness: Figures,
    /// Processor seconds a second.
    pub cores: Figures,
    /// Of the last run.
    pub spent: Spent,
    /// Activities in it.
    pub activities: usize,
}

/// A steady rate on one lane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Steady {
    /// Activities a second.
    pub rate: f64,
    /// Of the line.
    pub round_trip_ms: u64,
    /// Of the instance.
    pub service_ms: u64,
    /// End to end.
    pub latency: Latency,
    /// How many.
    pub activities: usize,
    /// Cost.
    pub spent: Spent,
}

/// The front door; requests a second.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Front {
    /// At once.
    pub in_flight: usize,
    /// Requests in each slice.
    pub requests: usize,
    /// The front door.
    pub front: Figures,
    /// A bare publisher, the same messages.
    pub bare: Figures,
    /// Of the front's answers.
    pub front_latency: Latency,
    /// Of the publisher's acknowledgements.
    pub bare_latency: Latency,
    /// Cost of the front's slices: front and broker.
    pub spent: Spent,
}

/// Bytes over the line from a filled lane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LineBytes {
    /// What was sent.
    pub mix: String,
    /// How many.
    pub activities: usize,
    /// Of the requests.
    pub raw: u64,
    /// Over the line, there and back.
    pub line: [u64; 2],
}

/// The same rate over some lanes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spread {
    /// How many.
    pub lanes: usize,
    /// Of all lanes together, a second.
    pub rate: f64,
    /// How many activities.
    pub activities: usize,
    /// Cost of the run.
    pub spent: Spent,
    /// Cost of nothing, with the lanes known and at rest.
    pub rest: Spent,
    /// End to end.
    pub latency: Latency,
    /// Memory after it.
    pub memory: BTreeMap<String, Memory>,
}

/// After an outage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recovery {
    /// What a lane may hold.
    pub lane_limit: usize,
    /// Activities of the run: the last of them had to wait at the source.
    pub activities: usize,
    /// Of the line.
    pub round_trip_ms: u64,
    /// Of the instance.
    pub service_ms: u64,
    /// The limit, paired.
    pub no_network: f64,
    /// While it drained.
    pub drained: f64,
    /// From the end of the outage until the first activity was done.
    pub first_after_s: f64,
    /// Requests that the front refused.
    pub refused: usize,
    /// Memory with the lane full.
    pub full: BTreeMap<String, Memory>,
}

/// One lane over a line that is more than a delay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorseLine {
    /// In words.
    pub line: String,
    /// Of the instance.
    pub service_ms: u64,
    /// Straight to the instance, no line.
    pub no_network: f64,
    /// From a filled lane.
    pub backlog: f64,
    /// At 20 a second.
    pub latency: Latency,
}
