//! On what it was measured.

use std::path::Path;
use std::process::Command;

use fedstream_tests::broker;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Names and sizes, as the system tells them; empty where it does not.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// UTC, to the minute.
    pub when: String,
    /// Model.
    pub processor: String,
    /// How many.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// In GiB.
    pub memory_gib: u64,
    /// File system of the broker's store.
    pub store: String,
    /// Version.
    pub nats_server: String,
    /// The commit that was checked out, with `+` where files differ from it.
    pub commit: String,
    /// Programs that wanted a processor before the start, over a minute: above zero others were at work.
    pub load_before: f64,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn here() -> Self {
        // `2026-11-22T05:03`: nobody asks for the second.
        let when = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default().chars().take(16).collect();
        let processor = field("/proc/cpuinfo", "model name");
        let memory_kib: u64 = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").trim().parse().unwrap_or(0);
        let changed = if said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { "+" };
        let nats = broker::binary().map(|path| said(&path.to_string_lossy(), &["--version"])).unwrap_or_default();
        Self {
            when,
            processor,
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease"),
            memory_gib: memory_kib / 1024 / 1024,
            store: said("stat", &["-f", "-c", "%T", &std::env::temp_dir().to_string_lossy()]),
            nats_server: nats.trim_start_matches("nats-server: ").to_owned(),
            commit: format!("{}{changed}", said("git", &["rev-parse", "--short", "HEAD"])),
            load_before: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(path)).unwrap_or_default().trim().to_owned()
}

fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':').map(|(_, value)| value.trim()));
    value.unwrap_or_default().to_owned()
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(broker::repository()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
