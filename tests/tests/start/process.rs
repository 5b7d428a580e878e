//! A service that is expected to end of itself.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use fedstream_tests::process::binary;
use tokio::process::Command;

/// Debug builds on two busy cores.
const PATIENCE: Duration = Duration::from_secs(20);

/// The environment of a process.
pub type Env = Vec<(String, OsString)>;

/// What is left of it.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The one line on stderr, without the service's name in front.
    pub fn line(&self, service: &str) -> &str {
        let mut lines = self.stderr.lines();
        let line = lines.next().unwrap_or_default();
        assert_eq!(lines.next(), None, "one line: {self:?}");
        line.strip_prefix(service).and_then(|rest| rest.strip_prefix(": ")).unwrap_or_else(|| panic!("{self:?}"))
    }
}

/// Runs a service until it ends; one that doesn't fails the test.
pub async fn run(service: &str, arguments: &[&str], env: Env) -> Ended {
    let child = Command::new(binary(service).expect("a built service"))
        .args(arguments)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output =
        output.unwrap_or_else(|_| panic!("{service} runs, though it should have refused")).expect("its output");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Ports that are taken: a service that bound before it looked at the rest would fail on them first.
pub struct Taken {
    _listeners: [TcpListener; 2],
    pub listen: SocketAddr,
    pub admin: SocketAddr,
}

impl Taken {
    pub fn new() -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let [listen, admin] = [&listeners[0], &listeners[1]].map(|l| l.local_addr().expect("an address"));
        Self { _listeners: listeners, listen, admin }
    }
}

/// Settings on which `service` would run, if its ports were free and the broker there.
pub fn right(service: &str, taken: &Taken, nats_url: &str) -> Env {
    let mut env: Vec<(&str, String)> =
        vec![("FED_ADMIN_LISTEN", taken.admin.to_string()), ("LOG_FORMAT", "json".into())];
    if !["batch-sender", "delivery-worker"].contains(&service) {
        env.push(("FED_LISTEN", taken.listen.to_string()));
    }
    if service != "batch-receiver" {
        env.push(("NATS_URL", nats_url.to_owned()));
        env.push(("NATS_CONNECT_TIMEOUT", "1s".into()));
    }
    let own: &[(&str, &str)] = match service {
        "inbox-receiver" => {
            &[("FED_SOURCES", "a.test"), ("FED_DESTINATIONS", "home.test"), ("HTTP_ALLOWED_IPS", "192.0.2.1")]
        }
        "batch-sender" => &[("FED_SITE", "near"), ("BATCH_RECEIVER_DOMAIN", "far.test")],
        "delivery-worker" => &[("FED_KEYS_DIR", "/")], // any directory: keys are looked for when they are needed
        "batch-receiver" => &[("FED_DESTINATIONS", "home.test"), ("HTTP_BATCH_AUTHORIZATION", "s3cret")],
        other => panic!("no service {other}"),
    };
    let own = own.iter().map(|(name, value)| (*name, (*value).to_owned()));
    env.into_iter().chain(own).map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// Sets a variable.
pub fn set(env: &mut Env, name: &str, value: impl Into<OsString>) {
    unset(env, name);
    env.push((name.to_owned(), value.into()));
}

/// Takes a variable away.
pub fn unset(env: &mut Env, name: &str) {
    env.retain(|(other, _)| other != name);
}
