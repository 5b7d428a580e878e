//! Debian's Prometheus as a process, with the files of `deploy/observability/prometheus`, in which only addresses and intervals are
//! changed; and promtool.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use fedstream_tests::eventually::eventually;
use fedstream_tests::process::{kill_and_reap, tail};
use fedstream_tests::{debian, http1, ports};
use serde_json::Value;
use tempfile::TempDir;

use crate::{SOON, deployed, read};

/// A running Prometheus. Ended on drop; on a panic it shows its log.
pub struct Prometheus {
    addr: SocketAddr,
    child: Child,
    directory: TempDir,
}

impl Prometheus {
    /// Starts it; each target is an address of `targets.yml`, and where that service really is.
    pub async fn start(targets: &[(&str, SocketAddr)]) -> Self {
        let directory = TempDir::with_prefix("fedstream-prometheus-").expect("a directory");
        let targets: Vec<(String, String)> =
            targets.iter().map(|(from, to)| (format!("\"{from}\""), format!("\"{to}\""))).collect();
        // A test does not wait for quarters of a minute.
        let often = ["scrape_interval: 15s", "scrape_timeout: 10s", "evaluation_interval: 15s"]
            .map(|line| (line.to_owned(), format!("{}: 1s", line.split(':').next().unwrap_or_default())));
        for (file, changes) in
            [("prometheus.yml", &often[..]), ("targets.yml", &targets), ("records.yml", &[]), ("alerts.yml", &[])]
        {
            let mut text = read(&deployed("prometheus").join(file));
            if file == "targets.yml" {
                text = text.replace("\n#- ", "\n- ").replace("\n#  ", "\n  "); // what not everybody has, we have
            }
            for (from, to) in changes {
                assert!(text.contains(from.as_str()), "{from} is not in {file}");
                text = text.replace(from.as_str(), to);
            }
            std::fs::write(directory.path().join(file), text).expect("room");
        }
        let addr = ports::free();
        let log = File::create(directory.path().join("log")).expect("room");
        let child = Command::new(debian::program("prometheus"))
            .arg(format!("--config.file={}", directory.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the same file"))
            .stderr(log)
            .spawn()
            .expect("it starts");
        let mut prometheus = Self { addr, child, directory };
        let ready = eventually("Prometheus is ready", SOON, async || {
            let ended = prometheus.child.try_wait().expect("its state");
            assert!(ended.is_none(), "Prometheus ended\n{}", prometheus.log());
            http1::get(addr, "/-/ready").await.ok().filter(|answer| answer.status == 200)
        });
        ready.await.expect("it starts");
        prometheus
    }

    /// What it answers to an expression now: the samples.
    pub async fn query(&self, expression: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/v1/query?query={}", encoded(expression))).await;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{expression}: {answer}")).clone()
    }

    /// The names of all series that it has.
    pub async fn names(&self) -> Vec<String> {
        let answer = self.get("/api/v1/label/__name__/values").await;
        let names = answer["data"].as_array().unwrap_or_else(|| panic!("{answer}"));
        names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    }

    /// Its rules, as it runs them.
    pub async fn rules(&self) -> Vec<Value> {
        let answer = self.get("/api/v1/rules").await;
        let groups = answer["data"]["groups"].as_array().unwrap_or_else(|| panic!("{answer}"));
        groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
    }

    async fn get(&self, path: &str) -> Value {
        let answer = http1::get(self.addr, path).await;
        answer.unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log())).json()
    }

    fn log(&self) -> String {
        tail(&self.directory.path().join("log"), 40)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        kill_and_reap(&mut self.child);
        if std::thread::panicking() {
            eprintln!("--- log of Prometheus\n{}", self.log());
        }
    }
}

/// Runs promtool in a directory, with this on its standard input.
pub fn promtool(directory: &Path, arguments: &[&str], input: &str) -> Output {
    let given = tempfile::NamedTempFile::new().expect("room");
    std::fs::write(given.path(), input).expect("room");
    Command::new(debian::program("promtool"))
        .args(arguments)
        .current_dir(directory)
        .stdin(File::open(given.path()).expect("what was written"))
        .output()
        .expect("promtool starts")
}

/// For a query string.
fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
