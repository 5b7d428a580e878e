//! nginx or Caddy as a process, with a file of `deploy/` in which only what an operator changes is changed.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fedstream_tests::broker::repository;
use fedstream_tests::debian;
use fedstream_tests::eventually::eventually;
use fedstream_tests::ports;
use fedstream_tests::process::{kill_and_reap, tail};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::SOON;
use crate::tls::Issued;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Caddy,
}

/// Which of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Front,
    Back,
}

/// What is put in place of what: each of the first must be in the file.
pub type Changes = Vec<(String, String)>;

/// A running proxy. Ended on drop; on a panic it shows its log.
pub struct Proxy {
    name: &'static str,
    addr: SocketAddr,
    child: Child,
    directory: TempDir,
}

impl Proxy {
    /// Starts the program with its file of this side, listening for TLS.
    pub async fn start(kind: Kind, side: Side, issued: &Issued, authority: &Path, changes: Changes) -> Self {
        let directory = TempDir::with_prefix("fedstream-proxy-").expect("a directory");
        let addr = ports::free();
        let mut all = vec![
            ("/etc/fedstream/tls/fullchain.pem".to_owned(), issued.certificate.display().to_string()),
            ("/etc/fedstream/tls/privkey.pem".to_owned(), issued.key.display().to_string()),
        ];
        all.extend(changes);
        let (name, mut command) = match kind {
            Kind::Nginx => {
                all.push(("listen 443 ssl;".to_owned(), format!("listen {addr} ssl;")));
                ("nginx", nginx(side, &all, directory.path()))
            }
            Kind::Caddy => {
                let site = match side {
                    Side::Front => "https://my.instance",
                    Side::Back => "https://localhost",
                };
                all.push((format!("{site} {{"), format!("{site}:{} {{\n\tbind {}", addr.port(), addr.ip())));
                let mut command = caddy(side, &all, directory.path());
                command.env("SSL_CERT_FILE", authority); // in place of the system's authorities
                ("caddy", command)
            }
        };
        let log = File::create(directory.path().join("log")).expect("room");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the same file"))
            .stderr(log)
            .spawn()
            .expect("it starts");
        let mut proxy = Self { name, addr, child, directory };
        let listens = eventually(format!("{name} listens"), SOON, async || {
            assert!(proxy.child.try_wait().expect("its state").is_none(), "{name} ended\n{}", proxy.log());
            TcpStream::connect(addr).await.ok()
        });
        listens.await.expect("it takes connections");
        proxy
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The end of what it has written.
    pub fn log(&self) -> String {
        tail(&self.directory.path().join("log"), 40)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // nginx's workers end with their master only if it is told to end.
        if fedstream_tests::process::signal(&self.child, nix::sys::signal::Signal::SIGTERM).is_ok() {
            let _ended = self.child.wait();
        }
        kill_and_reap(&mut self.child);
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.name, self.log());
        }
    }
}

/// The address of a local service, as both examples have it: it is replaced by where the service really is.
pub fn upstream(port: u16, to: SocketAddr) -> (String, String) {
    (format!("127.0.0.1:{port}"), to.to_string())
}

fn nginx(side: Side, changes: &Changes, directory: &Path) -> Command {
    let site = directory.join("site.conf");
    std::fs::write(&site, changed(&example(Kind::Nginx, side), changes)).expect("room");
    // What a distribution's nginx.conf is around it, in a directory of ours. (Its workers must read there: started by root
    // they would be nobody. For anybody else `user` means nothing.)
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("  {what}_temp_path {}/{what};\n", directory.display()))
        .concat();
    let main = format!(
        "daemon off;\nuser root;\nworker_processes 1;\npid {dir}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n  access_log off;\n\
         {temporary}  include {site};\n}}\n",
        dir = directory.display(),
        site = site.display(),
    );
    let path = directory.join("nginx.conf");
    std::fs::write(&path, main).expect("room");
    let mut command = Command::new(binary(Kind::Nginx));
    command.arg("-e").arg("stderr").arg("-p").arg(directory).arg("-c").arg(path);
    command
}

fn caddy(side: Side, changes: &Changes, directory: &Path) -> Command {
    let path = directory.join("Caddyfile");
    std::fs::write(&path, changed(&example(Kind::Caddy, side), changes)).expect("room");
    let mut command = Command::new(binary(Kind::Caddy));
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(path);
    command.env("HOME", directory).env("XDG_DATA_HOME", directory).env("XDG_CONFIG_HOME", directory);
    command.env("CADDY_ADMIN", ports::free().to_string());
    command
}

/// The file as it is in `deploy/`.
pub fn example(kind: Kind, side: Side) -> String {
    let path = match (kind, side) {
        (Kind::Nginx, Side::Front) => "deploy/nginx/front.conf",
        (Kind::Nginx, Side::Back) => "deploy/nginx/back.conf",
        (Kind::Caddy, Side::Front) => "deploy/caddy/Caddyfile.front",
        (Kind::Caddy, Side::Back) => "deploy/caddy/Caddyfile.back",
    };
    std::fs::read_to_string(repository().join(path)).expect("a file of the repository")
}

fn changed(text: &str, changes: &Changes) -> String {
    changes.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from.as_str()), "{from:?} is not in\n{text}");
        text.replace(from.as_str(), to)
    })
}

/// What `tests/debian.sh` finds or fetches.
fn binary(kind: Kind) -> PathBuf {
    debian::program(match kind {
        Kind::Nginx => "nginx",
        Kind::Caddy => "caddy",
    })
}
