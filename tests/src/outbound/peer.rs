//! A remote that others wrote: tests/application, on the `activitypub_federation` crate, in a process of its own.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::broker::repository;
use crate::http1;

/// Until it says where it listens: it is built before that, if need be, which this does not count.
const START: Duration = Duration::from_secs(20);

/// It runs. Gone on drop.
pub struct Peer {
    _process: Child,
    port: u16,
}

impl Peer {
    /// Builds it where that is due, and starts it.
    ///
    /// # Errors
    /// It can't be built (the script says why) or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let script = repository().join("tests/application.sh");
        let built = Command::new("sh").arg(script).stderr(Stdio::inherit()).output().await?;
        ensure!(built.status.success(), "tests/application.sh says why");
        let program = String::from_utf8(built.stdout)?;
        let mut process = Command::new(program.trim()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let stdout = process.stdout.take().context("its output is piped")?;
        let line = tokio::time::timeout(START, BufReader::new(stdout).lines().next_line()).await??;
        let line = line.context("it ended before it listened")?;
        let port = line.rsplit(':').next().and_then(|port| port.parse().ok()).with_context(|| line.clone())?;
        Ok(Self { _process: process, port })
    }

    /// Its shared inbox. By a name: that crate takes no addresses.
    #[must_use]
    pub fn inbox(&self) -> String {
        format!("http://localhost:{}/inbox", self.port)
    }

    /// What it verified and handled: `received`, the activities' ids in order; `notes`, the text by the id of each that is
    /// there; `followers`; and `odd`, in words, what did not fit into that.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn state(&self) -> anyhow::Result<Value> {
        Ok(http1::get(([127, 0, 0, 1], self.port).into(), "/state").await?.json())
    }
}
