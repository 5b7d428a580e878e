//! A nats-server of a test's own: free ports, a store directory that goes with it, killed on drop.

use std::future::Future;
use std::path::PathBuf;
use std::process::{Command as BlockingCommand, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use fedstream_jetstream::{Bounds, Broker, NatsSettings, StreamFacts, StreamNeed, definitions, streams};
use fedstream_lane::Lane;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Generous: these machines are small and busy. A passing test never waits this long.
pub const PATIENCE: Duration = Duration::from_secs(10);

static NATS_SERVER: LazyLock<PathBuf> = LazyLock::new(|| {
    let output = BlockingCommand::new(repository().join("nats/install.sh")).stderr(Stdio::inherit()).output();
    let output = output.expect("nats/install.sh runs");
    assert!(output.status.success(), "nats/install.sh found no nats-server");
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
});

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A running broker.
pub struct Server {
    process: Child,
    dir: TempDir,
    config: PathBuf,
    port: u16,
    pub url: String,
    pub monitor_url: String,
}

impl Server {
    /// A broker with the project's own configuration.
    pub async fn start() -> Self {
        Self::start_with(repository().join("nats/server.conf"), TempDir::new().expect("a directory")).await
    }

    /// A broker with another one; `$FED_NATS_STORE_DIR` and the ports are given all the same.
    pub async fn start_configured(text: &str) -> Self {
        let dir = TempDir::new().expect("a directory");
        let config = dir.path().join("server.conf");
        std::fs::write(&config, text).expect("a writable directory");
        Self::start_with(config, dir).await
    }

    async fn start_with(config: PathBuf, dir: TempDir) -> Self {
        let process = spawn(&config, &dir, -1);
        let mut server = Self { process, dir, config, port: 0, url: String::new(), monitor_url: String::new() };
        server.read_ports().await;
        server
    }

    /// Kills it as a power failure would: no goodbye.
    pub async fn kill(&mut self) {
        self.process.kill().await.expect("it was running");
    }

    /// Starts it again on the same port and store.
    pub async fn start_again(&mut self) {
        self.process = spawn(&self.config, &self.dir, i32::from(self.port));
        self.read_ports().await;
    }

    /// The server writes them to a file once it listens.
    async fn read_ports(&mut self) {
        let file = format!("nats-server_{}.ports", self.process.id().expect("it runs"));
        let file = self.dir.path().join(file);
        let ports = eventually("the server listens", async || {
            let text = std::fs::read_to_string(&file).ok()?;
            serde_json::from_str::<serde_json::Value>(&text).ok()
        })
        .await;
        self.url = ports["nats"][0].as_str().expect("an address").to_owned();
        self.monitor_url = ports["monitoring"][0].as_str().unwrap_or_default().to_owned();
        self.port = self.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    }

    pub fn settings(&self) -> NatsSettings {
        NatsSettings { url: self.url.clone(), connect_timeout: PATIENCE, ..NatsSettings::default() }
    }

    pub async fn connect(&self) -> Broker {
        Broker::connect(self.settings(), "test").await.expect("a broker")
    }
}

fn spawn(config: &PathBuf, dir: &TempDir, port: i32) -> Child {
    Command::new(&*NATS_SERVER)
        .arg("-c")
        .arg(config)
        .arg("--ports_file_dir")
        .arg(dir.path())
        .env("FED_NATS_PORT", port.to_string())
        .env("FED_NATS_MONITOR_PORT", "-1")
        .env("FED_NATS_STORE_DIR", dir.path().join("store"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("nats-server starts")
}

/// Waits for a condition, and fails the test when it does not come.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, wait).await
}

/// Fails the test when `future` takes too long.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long: {what}"))
}

pub fn lane(destination: &str) -> Lane {
    Lane { destination: destination.parse().expect("a name"), source: "sender.example".parse().expect("a name") }
}

pub fn headers(id: &str) -> Vec<(&'static str, String)> {
    vec![("Nats-Msg-Id", id.to_owned()), ("Fed-Target", "/inbox".to_owned())]
}

pub fn body(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

/// The inbox with bounds of a test's own.
pub fn inbox_need(messages_per_lane: u64, bytes: u64) -> StreamNeed {
    StreamNeed {
        definition: definitions::inbox(),
        bounds: Some(Bounds { messages_per_lane, bytes }),
        lanes_max: 1_000,
        message_bytes_max: 1 << 20,
    }
}

pub async fn make_inbox(broker: &Broker) -> StreamFacts {
    streams::ensure(broker, &inbox_need(1_000, 1 << 30)).await.expect("a fit stream")
}

/// Deletes the inbox and makes it again, as an operator would; answers the new one.
pub async fn make_inbox_anew(broker: &Broker) -> StreamFacts {
    broker.context().delete_stream("FED_INBOX").await.expect("it was there");
    make_inbox(broker).await
}
