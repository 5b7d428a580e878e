//! One of the services as a process: the binary that was built with the test, an environment of its own, a log.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::eventually::eventually;
use crate::{http1, ports};

/// A debug build on two busy cores, broker connection included.
const READY: Duration = Duration::from_secs(20);

/// Lines of log that a failure shows: a start and a few errors.
const LOG_LINES: usize = 60;

/// A service that can be killed, paused and started again with the same ports. Killed on drop.
pub struct Service {
    name: String,
    env: BTreeMap<String, String>,
    admin: SocketAddr,
    log: PathBuf,
    own_group: bool,
    /// Holds the log, unless [`Service::lasting`].
    _directory: TempDir,
    child: Option<Child>,
}

impl Service {
    /// A service that does not run yet. `FED_ADMIN_LISTEN` is a free port unless `env` has one.
    ///
    /// # Errors
    /// An admin address that is none; no place for the log.
    pub fn new(name: &str, env: impl IntoIterator<Item = (String, String)>) -> anyhow::Result<Self> {
        let mut env: BTreeMap<String, String> = env.into_iter().collect();
        let admin = env.entry("FED_ADMIN_LISTEN".to_owned()).or_insert_with(|| ports::free().to_string());
        let admin = admin.parse().with_context(|| format!("FED_ADMIN_LISTEN of {name}: {admin}"))?;
        let directory = TempDir::with_prefix(format!("fedstream-{name}-"))?;
        let log = directory.path().join("log");
        Ok(Self { name: name.to_owned(), env, admin, log, own_group: false, _directory: directory, child: None })
    }

    /// Another process of the same service: the same environment, but an admin listener and a log of its own. It does not
    /// run yet.
    ///
    /// # Errors
    /// As [`Service::new`].
    pub fn twin(&self) -> anyhow::Result<Self> {
        let env = self.env.iter().filter(|(name, _)| *name != "FED_ADMIN_LISTEN");
        Self::new(&self.name, env.map(|(name, value)| (name.clone(), value.clone())))
    }

    /// For a service that a person runs: its log stays at `log`, and Ctrl-C in the terminal does not reach it. In a test
    /// Ctrl-C had better reach all.
    #[must_use]
    pub fn lasting(mut self, log: PathBuf) -> Self {
        self.log = log;
        self.own_group = true;
        self
    }

    /// Its name, which is its binary's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its admin listener.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether it has ended of itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    /// Sets a variable for the next start; `None` takes it away.
    pub fn set_env(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.env.insert(name.to_owned(), value.to_owned()),
            None => self.env.remove(name),
        };
    }

    /// Starts it, and does not wait.
    ///
    /// # Errors
    /// No binary, or it runs already.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            bail!("{} runs already", self.name);
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(binary(&self.name)?);
        if self.own_group {
            command.process_group(0);
        }
        let child = command
            // The machine's own environment must not leak in: a test would then depend on it.
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(&self.env)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} does not start", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// As [`Service::spawn`] and [`Service::wait_ready`].
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        self.wait_ready().await
    }

    /// Waits until `/readyz` says 200.
    ///
    /// # Errors
    /// It ended, or did not become ready; the log's end is in the error.
    pub async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let what = format!("{} is ready", self.name);
        let ready = eventually(what, READY, async || match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => self.is_ready().await.then_some(true),
            _ => Some(false),
        })
        .await;
        match ready {
            Ok(true) => Ok(()),
            Ok(false) => bail!("{} ended instead of becoming ready\n{}", self.name, self.log_tail()),
            Err(timeout) => {
                let readyz = http1::get(self.admin, "/readyz").await;
                bail!("{timeout}; /readyz says {readyz:?}\n{}", self.log_tail())
            }
        }
    }

    /// Whether `/readyz` says 200 now.
    pub async fn is_ready(&self) -> bool {
        http1::get(self.admin, "/readyz").await.is_ok_and(|response| response.status == 200)
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill_and_reap(&mut child);
        }
    }

    /// SIGTERM, waits for the end, and says the exit code (`None`: by a signal).
    ///
    /// # Errors
    /// It does not run, or not end in time.
    pub async fn terminate(&mut self, within: Duration) -> anyhow::Result<Option<i32>> {
        self.ask_to_stop()?;
        self.wait_exit(within).await
    }

    /// SIGTERM, and does not wait.
    ///
    /// # Errors
    /// It does not run.
    pub fn ask_to_stop(&self) -> anyhow::Result<()> {
        signal(self.child.as_ref().context("not running")?, Signal::SIGTERM)
    }

    /// Waits until it ends of itself, and says the exit code (`None`: by a signal).
    ///
    /// # Errors
    /// It does not run, or not end in time.
    pub async fn wait_exit(&mut self, within: Duration) -> anyhow::Result<Option<i32>> {
        let child = self.child.as_mut().context("not running")?;
        let status = eventually(format!("{} ends", self.name), within, async || child.try_wait().ok().flatten()).await;
        let status = status.map_err(|timeout| anyhow::anyhow!("{timeout}\n{}", self.log_tail()))?;
        self.child = None;
        Ok(status.code())
    }

    /// `kill -9` and start again, ready when it returns.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill9();
        self.start().await
    }

    /// SIGSTOP: its clock, its sockets and its timers stand still.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> anyhow::Result<()> {
        signal(self.child.as_ref().context("not running")?, Signal::SIGSTOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> anyhow::Result<()> {
        signal(self.child.as_ref().context("not running")?, Signal::SIGCONT)
    }

    /// All it has written, over all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The end of the log, under a heading.
    #[must_use]
    pub fn log_tail(&self) -> String {
        format!("--- log of {}\n{}", self.name, tail(&self.log, LOG_LINES))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
    }
}

/// The binary of a service, from the same profile as the running test.
///
/// # Errors
/// It was not built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let directory = exe.parent().context("an executable lies in a directory")?;
    // Tests lie in target/<profile>/deps, binaries beside it.
    let directory = if directory.ends_with("deps") { directory.parent().unwrap_or(directory) } else { directory };
    let path = directory.join(name);
    if !path.is_file() {
        bail!("no {}: run `make build` (or `cargo build --workspace`) first", path.display());
    }
    Ok(path)
}

/// The last lines of a file.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Sends a signal to a process that has not been reaped.
///
/// # Errors
/// What the system says.
pub fn signal(child: &Child, which: Signal) -> anyhow::Result<()> {
    Ok(signal::kill(Pid::from_raw(i32::try_from(child.id())?), which)?)
}

/// `kill -9`, and waits for the end, so that ports and files are free.
pub fn kill_and_reap(child: &mut Child) {
    // Both fail only if it ended already.
    let _ended = child.kill();
    let _ended = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_says_how_to_build_it() {
        let error = binary("no-such-service").unwrap_err().to_string();
        assert!(error.ends_with("run `make build` (or `cargo build --workspace`) first"), "{error}");
    }
}
