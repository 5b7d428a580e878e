//! A real nats-server of the test's own, that can be killed and comes back on the same port with the same store.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::eventually::{becomes_true, eventually};
use crate::{http1, ports, process};

/// A start replays the store, on two busy cores.
const START: Duration = Duration::from_secs(15);

/// How a broker is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// `sync_interval: always`, as `nats/server.conf` has it: an ack means that it is on disk.
    pub sync_always: bool,
    /// More lines for the `jetstream` block, for example `max_file_store: 1MB`.
    pub jetstream: Vec<String>,
    /// More lines at the top level, for example an `accounts` block.
    pub lines: Vec<String>,
    /// Where the store lies; a directory that goes with the broker if not given.
    pub store: Option<PathBuf>,
    /// Where clients connect; a free port if not given.
    pub listen: Option<SocketAddr>,
    /// Ctrl-C in the terminal does not reach it: for a broker that a person runs.
    pub own_group: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sync_always: true,
            jetstream: Vec::new(),
            lines: Vec::new(),
            store: None,
            listen: None,
            own_group: false,
        }
    }
}

/// The process, its ports and its store. Killed on drop.
pub struct Broker {
    options: Options,
    directory: TempDir,
    listen: SocketAddr,
    monitor: SocketAddr,
    child: Option<Child>,
}

impl Broker {
    /// A broker as a single machine runs it.
    ///
    /// # Errors
    /// No nats-server to be found, or it does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// A broker set up otherwise.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub async fn start_with(options: Options) -> anyhow::Result<Self> {
        let mut broker = Self::prepare(options)?;
        broker.start_again().await?;
        Ok(broker)
    }

    /// A broker that does not run yet: ports and a place for its store.
    ///
    /// # Errors
    /// No place.
    pub fn prepare(options: Options) -> anyhow::Result<Self> {
        Ok(Self {
            directory: TempDir::with_prefix("fedstream-broker-")?,
            listen: options.listen.unwrap_or_else(ports::free),
            monitor: ports::free(),
            options,
            child: None,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Its monitoring.
    #[must_use]
    pub fn monitor(&self) -> SocketAddr {
        self.monitor
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        process::tail(&self.log(), lines)
    }

    /// `nats://` address for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.listen)
    }

    /// `http://` address of its monitoring.
    #[must_use]
    pub fn monitor_url(&self) -> String {
        format!("http://{}", self.monitor)
    }

    /// Changes the set-up; it holds from the next start on.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// Starts it after a kill or a stop, on the same port and store, and waits until it answers.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        self.wait_healthy().await
    }

    /// Starts it, and does not wait.
    ///
    /// # Errors
    /// No nats-server to be found, or it runs already.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.child.is_none(), "the broker runs already");
        let conf = self.directory.path().join("server.conf");
        std::fs::write(&conf, self.configuration()?)?;
        let mut command = Command::new(binary()?);
        if self.options.own_group {
            command.process_group(0);
        }
        let child = command
            .arg("-c")
            .arg(&conf)
            .arg("-l")
            .arg(self.log())
            .env("GOMAXPROCS", "1") // as in deploy/, which says why
            .env("FED_NATS_PORT", self.listen.port().to_string())
            .env("FED_NATS_MONITOR_PORT", self.monitor.port().to_string())
            .env("FED_NATS_STORE_DIR", format!("\"{}\"", self.store().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("nats-server does not start")?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until its health check says 200: in a cluster, until JetStream knows its leader and has caught up.
    ///
    /// # Errors
    /// It ended, or is not healthy in time; with the end of its log.
    pub async fn wait_healthy(&mut self) -> anyhow::Result<()> {
        let answers = eventually("nats-server answers its health check", START, async || {
            match self.child.as_mut().map(Child::try_wait) {
                Some(Ok(None)) => {
                    http1::get(self.monitor, "/healthz").await.ok().filter(|r| r.status == 200).map(|_| true)
                }
                _ => Some(false),
            }
        });
        if !matches!(answers.await, Ok(true)) {
            bail!("nats-server did not come up:\n{}", self.log_tail(20));
        }
        Ok(())
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            process::kill_and_reap(&mut child);
        }
    }

    /// SIGSTOP: it keeps its connections and answers nothing.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> anyhow::Result<()> {
        process::signal(self.child.as_ref().context("not running")?, Signal::SIGSTOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> anyhow::Result<()> {
        process::signal(self.child.as_ref().context("not running")?, Signal::SIGCONT)
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        process::signal(&child, Signal::SIGTERM)?;
        let stopped =
            becomes_true("nats-server ends after SIGTERM", START, || !matches!(child.try_wait(), Ok(None))).await;
        process::kill_and_reap(&mut child);
        Ok(stopped?)
    }

    /// Stops it and starts it again.
    ///
    /// # Errors
    /// As the two.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// A client of the test's own.
    ///
    /// # Errors
    /// It can't connect.
    pub async fn client(&self) -> anyhow::Result<async_nats::Client> {
        Ok(async_nats::connect(self.url()).await?)
    }

    /// JetStream through a client of the test's own.
    ///
    /// # Errors
    /// As [`Broker::client`].
    pub async fn jetstream(&self) -> anyhow::Result<async_nats::jetstream::Context> {
        Ok(async_nats::jetstream::new(self.client().await?))
    }

    /// A copy of the store, as a backup would have it. The broker must not run.
    ///
    /// # Errors
    /// It runs, or the copy fails.
    pub fn back_up(&self) -> anyhow::Result<TempDir> {
        let backup = TempDir::with_prefix("fedstream-backup-")?;
        self.copy(&self.store(), backup.path())?;
        Ok(backup)
    }

    /// The store as it was when it was backed up. The broker must not run.
    ///
    /// # Errors
    /// As [`Broker::back_up`].
    pub fn restore(&self, backup: &TempDir) -> anyhow::Result<()> {
        std::fs::remove_dir_all(self.store())?;
        self.copy(backup.path(), &self.store())
    }

    fn copy(&self, from: &Path, to: &Path) -> anyhow::Result<()> {
        anyhow::ensure!(self.child.is_none(), "the broker runs");
        let copied = Command::new("cp").arg("-aT").arg(from).arg(to).status()?;
        anyhow::ensure!(copied.success(), "cp of the store: {copied}");
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    fn store(&self) -> PathBuf {
        self.options.store.clone().unwrap_or_else(|| self.directory.path().join("store"))
    }

    /// The project's own `nats/server.conf`, with what the test wants otherwise: a later line of a block wins.
    fn configuration(&self) -> anyhow::Result<String> {
        let path = repository().join("nats/server.conf");
        let own = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let keep = |line: &&str| self.options.sync_always || !line.trim_start().starts_with("sync_interval");
        let mut conf = own.lines().filter(keep).collect::<Vec<_>>().join("\n");
        let block_end = conf.rfind('}').context("nats/server.conf ends with its jetstream block")?;
        let more: String = self.options.jetstream.iter().map(|line| format!("  {line}\n")).collect();
        conf.insert_str(block_end, &more);
        for line in &self.options.lines {
            conf.push('\n');
            conf.push_str(line);
        }
        conf.push('\n');
        Ok(conf)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The password of every user of [`deployed_users`].
pub const PASSWORD: &str = "s3cret";

/// Lines for [`Options::lines`]: the users of this file in deploy/nats with [`PASSWORD`], and who comes without a name may do
/// everything: the test itself.
///
/// # Errors
/// There is no such file.
pub fn deployed_users(file: &str) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(repository().join("deploy/nats").join(file)).with_context(|| file.to_owned())?;
    let given = |line: &str| match line.split_once("password: $") {
        Some((indent, _variable)) => format!("{indent}password: \"{PASSWORD}\"\n"),
        None => format!("{line}\n"),
    };
    let text: String = text.lines().map(given).collect();
    let text = text.replacen("users = [", "users = [\n    { user: \"test\", password: \"test\" }", 1);
    Ok(vec![text, "no_auth_user: test".to_owned()])
}

/// Root of the checkout this was built from.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// The nats-server that `nats/install.sh` finds or installs: asked once per process.
///
/// # Errors
/// The script's own words.
pub fn binary() -> anyhow::Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| find_binary().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

fn find_binary() -> anyhow::Result<PathBuf> {
    let script = repository().join("nats/install.sh");
    let output = Command::new("sh").arg(&script).output().with_context(|| format!("can't run {}", script.display()))?;
    if !output.status.success() {
        bail!("nats/install.sh found no nats-server: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let said = String::from_utf8(output.stdout)?;
    let path = said.lines().last().unwrap_or_default().trim();
    if path.is_empty() { bail!("nats/install.sh printed no path") } else { Ok(PathBuf::from(path)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_acknowledged_survives_a_kill_on_the_same_port() {
        let mut broker = Broker::start().await.unwrap();
        let url = broker.url();
        let jetstream = broker.jetstream().await.unwrap();
        let config = async_nats::jetstream::stream::Config {
            name: "T".into(),
            subjects: vec!["t".into()],
            ..Default::default()
        };
        jetstream.create_stream(config).await.unwrap();
        jetstream.publish("t", "x".into()).await.unwrap().await.unwrap();
        broker.kill9();
        assert!(broker.client().await.is_err());
        broker.start_again().await.unwrap();
        assert_eq!(broker.url(), url);
        let state = broker.jetstream().await.unwrap().get_stream("T").await.unwrap().get_info().await.unwrap().state;
        assert_eq!(state.messages, 1);
        broker.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_broken_configuration_is_told_in_the_servers_words() {
        let options = Options { lines: vec!["nonsense {".into()], ..Options::default() };
        let error = Broker::start_with(options).await.err().expect("it can't start").to_string();
        assert!(error.contains("did not come up"), "{error}");
    }
}
