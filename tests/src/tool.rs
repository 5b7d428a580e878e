//! `fedctl` as an operator runs it: a process of its own for each command, which says something and ends.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::broker::Broker;
use crate::process::binary;

/// Debug builds on two busy cores, and the longest time limit of a request to the broker.
const PATIENCE: Duration = Duration::from_secs(30);

/// The tool, with the variables that it is run with.
#[derive(Clone, Debug)]
pub struct Tool {
    env: Vec<(String, String)>,
}

/// What came of one command.
#[derive(Clone, Debug)]
pub struct Said {
    /// The exit code.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Tool {
    /// At this broker.
    #[must_use]
    pub fn at(broker: &Broker) -> Self {
        Self::nowhere().env("NATS_URL", &broker.url())
    }

    /// Without any variable.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { env: Vec::new() }
    }

    /// With one more variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs a command line; its words are parted by spaces.
    ///
    /// # Panics
    /// It is not built, or does not end.
    pub async fn run(&self, words: &str) -> Said {
        let running = Command::new(binary("fedctl").expect("a built fedctl"))
            .args(words.split_ascii_whitespace())
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, running).await;
        let output = output.unwrap_or_else(|_| panic!("fedctl {words} does not end")).expect("it starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// What a command prints that has nothing to complain of.
    ///
    /// # Panics
    /// It complains.
    pub async fn says(&self, words: &str) -> String {
        let said = self.run(words).await;
        assert_eq!(said.code, Some(0), "fedctl {words}: {said:?}");
        said.stdout
    }

    /// The JSON that a command prints.
    ///
    /// # Panics
    /// It complains, or prints something else.
    pub async fn json(&self, words: &str) -> serde_json::Value {
        let printed = self.says(words).await;
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("fedctl {words}: {error}: {printed}"))
    }
}
