//! What the parts cost: processor time and memory, as the kernel counts them for each process.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// Linux counts 100 ticks a second towards user space, on every architecture that Rust runs on here.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time of each part, since its start.
#[derive(Clone, Debug)]
pub struct Processor {
    at: Instant,
    seconds: BTreeMap<String, f64>,
}

/// What a stretch of time cost.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Spent {
    /// How long the stretch was.
    pub wall_s: f64,
    /// User and system time of each part.
    pub parts_s: BTreeMap<String, f64>,
}

impl Spent {
    /// Of all parts.
    #[must_use]
    pub fn total_s(&self) -> f64 {
        self.parts_s.values().sum()
    }

    /// Of all parts, for a thousand of so many.
    #[must_use]
    pub fn per_thousand_s(&self, count: usize) -> f64 {
        self.total_s() / count as f64 * 1_000.0
    }
}

impl Processor {
    /// Of these processes now; one that does not run counts as nothing.
    #[must_use]
    pub fn now(parts: &[(String, u32)]) -> Self {
        let seconds = parts.iter().map(|(name, pid)| (name.clone(), processor_seconds(*pid).unwrap_or(0.0)));
        Self { at: Instant::now(), seconds: seconds.collect() }
    }

    /// From `before` until this.
    #[must_use]
    pub fn since(&self, before: &Self) -> Spent {
        let spent = self.seconds.iter().map(|(name, now)| {
            let then = before.seconds.get(name).copied().unwrap_or(0.0);
            // A part that was started in between began at zero.
            (name.clone(), if *now >= then { now - then } else { *now })
        });
        Spent { wall_s: (self.at - before.at).as_secs_f64(), parts_s: spent.collect() }
    }
}

fn processor_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything: fields are counted from behind it (proc(5): utime is 14, stime 15).
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || -> anyhow::Result<f64> { Ok(fields.next().context("stat is too short")?.parse()?) };
    Ok((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

/// Memory of a part, in KiB.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Resident.
    pub rss_kib: u64,
    /// Resident, with what is shared counted in shares.
    pub pss_kib: u64,
    /// The most that was resident at any time.
    pub peak_kib: u64,
}

/// Of these processes now.
///
/// # Errors
/// One does not run.
pub fn memory(parts: &[(String, u32)]) -> anyhow::Result<BTreeMap<String, Memory>> {
    parts.iter().map(|(name, pid)| Ok((name.clone(), memory_of(*pid)?))).collect()
}

fn memory_of(pid: u32) -> anyhow::Result<Memory> {
    let resident = fedstream_tests::memory::Resident::of(pid)?;
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line =
        rollup.lines().find_map(|line| line.strip_prefix("Pss:")).with_context(|| format!("{path} has no Pss"))?;
    let pss_kib = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(Memory { rss_kib: resident.now_kib, pss_kib, peak_kib: resident.peak_kib })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_costs_time_and_this_process_has_memory() {
        let me = [("me".to_owned(), std::process::id())];
        let before = Processor::now(&me);
        let begin = Instant::now();
        let mut sum = 0_u64;
        while begin.elapsed().as_millis() < 60 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let spent = Processor::now(&me).since(&before);
        assert!(spent.total_s() > 0.0 && spent.wall_s >= 0.06, "{spent:?}");
        let memory = memory(&me).unwrap()["me"];
        assert!(memory.pss_kib > 0 && memory.pss_kib <= memory.rss_kib, "{memory:?}");
    }
}
