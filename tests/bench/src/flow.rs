//! One run through the whole, in either of two ways, and what came of it.
//!
//! *Live*: the sources send at full speed or at a pace, everything works at once. *Backlog*: the lanes are filled while no
//! batch-sender runs, and what is measured is how they drain. A source is held up by the disk at each activity; a backlog
//! shows what the rest can do.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::instance::Record;
use crate::judge;
use crate::request::Load;
use crate::rig::Rig;
use crate::sender::{self, Pace, Sent};
use crate::usage::{Processor, Spent};

/// Until everything of a run is delivered: far beyond what any of them takes.
const PATIENCE: Duration = Duration::from_secs(240);

/// What begins a run is left out of its throughput: lanes are found, connections are made, a window fills.
const BEGINNING: f64 = 0.2;

/// What came of a run.
pub struct Outcome {
    /// What the senders sent, lane by lane.
    pub sent: Vec<Sent>,
    /// What the instance took, lane by lane.
    pub records: Vec<Record>,
    /// Processor time, from the first moment until all is trimmed.
    pub spent: Spent,
    /// Bytes over the line, there and back.
    pub line_bytes: [u64; 2],
    /// Bytes of the requests as the sources sent them.
    pub raw_bytes: u64,
    /// From the start of what is measured until the instance was done with the first one.
    pub first_after: Duration,
}

impl Outcome {
    /// Activities a second at the instance, the beginning left out.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        per_second(&self.records)
    }
}

/// Activities a second, the first fifth left out.
#[must_use]
pub fn per_second(records: &[Record]) -> f64 {
    let mut ends: Vec<Instant> = records.iter().map(|record| record.ended).collect();
    ends.sort();
    let first = (ends.len() as f64 * BEGINNING) as usize;
    match (ends.get(first), ends.last()) {
        (Some(first_end), Some(last)) if last > first_end => {
            (ends.len() - 1 - first) as f64 / (*last - *first_end).as_secs_f64()
        }
        _ => f64::NAN,
    }
}

/// All at once, through the front.
///
/// # Errors
/// Something is not delivered, or the judge objects.
pub async fn live(rig: &Rig, loads: &[Load], paces: impl Fn(usize) -> Pace) -> anyhow::Result<Outcome> {
    let meter = Meter::start(rig);
    let sent = send_all(loads, rig.front, paces, None).await?;
    meter.finish(rig, loads, sent).await
}

/// Filled first, drained then.
///
/// # Errors
/// As [`live`].
pub async fn backlog(rig: &mut Rig, loads: &[Load]) -> anyhow::Result<Outcome> {
    rig.hold().await?;
    let sent = send_all(loads, rig.front, |_| Pace::Full, None).await?;
    let meter = Meter::start(rig);
    rig.resume().await?;
    meter.finish(rig, loads, sent).await
}

/// Straight to `to`, one at a time per source, for as long as `lasts` at most.
///
/// # Errors
/// The judge objects.
pub async fn without_fedstream(
    rig: &Rig,
    loads: &[Load],
    to: SocketAddr,
    lasts: Duration,
) -> anyhow::Result<Vec<Record>> {
    let sent = send_all(loads, to, |_| Pace::Full, Some(Instant::now() + lasts)).await?;
    let records = rig.instance.take();
    judge::clean(&sent, &records, &rig.keys)?;
    Ok(records)
}

/// One thread for each source.
///
/// # Errors
/// A sender's panic.
pub async fn send_all(
    loads: &[Load],
    to: SocketAddr,
    paces: impl Fn(usize) -> Pace,
    deadline: Option<Instant>,
) -> anyhow::Result<Vec<Sent>> {
    let mut sending = JoinSet::new();
    for (number, load) in loads.iter().enumerate() {
        let (load, pace) = (load.clone(), paces(number));
        sending.spawn_blocking(move || sender::send(&load, to, pace, deadline));
    }
    let mut all = Vec::new();
    while let Some(sent) = sending.join_next().await {
        all.extend(sent?);
    }
    Ok(all)
}

/// What is read before and after.
pub struct Meter {
    processor: Processor,
    bytes: [u64; 2],
    begin: Instant,
}

impl Meter {
    /// Now.
    #[must_use]
    pub fn start(rig: &Rig) -> Self {
        Self { processor: Processor::now(&rig.parts()), bytes: rig.batches.bytes(), begin: Instant::now() }
    }

    /// Waits for the end of the run, reads again, and has it judged.
    ///
    /// # Errors
    /// As [`live`].
    pub async fn finish(self, rig: &Rig, loads: &[Load], sent: Vec<Sent>) -> anyhow::Result<Outcome> {
        rig.wait_taken(sent.len(), PATIENCE).await?;
        rig.wait_empty(PATIENCE).await?;
        let spent = Processor::now(&rig.parts()).since(&self.processor);
        let bytes = rig.batches.bytes();
        let records = rig.instance.take();
        judge::clean(&sent, &records, &rig.keys).map_err(|error| anyhow::anyhow!("{error}\n{}", rig.log_tails()))?;
        let first = records.iter().map(|record| record.ended).min().unwrap_or(self.begin);
        Ok(Outcome {
            sent,
            records,
            spent,
            line_bytes: [0, 1].map(|way| bytes[way] - self.bytes[way]),
            raw_bytes: loads.iter().map(Load::wire_bytes).sum(),
            first_after: first.saturating_duration_since(self.begin),
        })
    }
}
