//! How much memory a process holds, as the kernel counts it.

use std::fmt;

use anyhow::Context;

/// Resident memory of a process, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// `VmRSS`: now.
    pub now_kib: u64,
    /// `VmHWM`: the most that it ever was.
    pub peak_kib: u64,
}

impl Resident {
    /// Of a process that runs.
    ///
    /// # Errors
    /// It does not, or this is no Linux.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let kib = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let line = line.with_context(|| format!("{path} has no {name}"))?;
            Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
        };
        Ok(Self { now_kib: kib("VmRSS")?, peak_kib: kib("VmHWM")? })
    }
}

/// `12.3 MiB`.
#[derive(Clone, Copy, Debug)]
pub struct Mib(
    /// In KiB.
    pub u64,
);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{} MiB", self.0 / 1024, self.0 % 1024 * 10 / 1024))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_larger_than_nothing_and_never_above_its_peak() {
        let resident = Resident::of(std::process::id()).unwrap();
        assert!(resident.now_kib > 0 && resident.now_kib <= resident.peak_kib, "{resident:?}");
    }

    #[test]
    fn kib_are_shown_as_mib() {
        assert_eq!(Mib(1536).to_string(), "1.5 MiB");
    }
}
