//! The pipeline alone, in front of an instance of the user's choice, until Ctrl-C.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use fedstream_tests::broker::{self, Broker};
use fedstream_tests::ports;
use fedstream_tests::process::Service;
use tokio::signal::unix::{SignalKind, signal};

/// The services' own grace is 20 s.
const GRACE: Duration = Duration::from_secs(25);

/// What the user asked for.
struct Wishes {
    protocol: String,
    domain: String,
    destinations: String,
    sources: String,
    listen: SocketAddr,
}

/// Runs until Ctrl-C or SIGTERM; `false` when a service ended of itself.
pub async fn up() -> anyhow::Result<bool> {
    let wishes = Wishes::from_env()?;
    let place = broker::repository().join(".up");
    std::fs::create_dir_all(&place)?;
    let options = broker::Options {
        store: Some(place.join("store")),
        listen: Some(ports::preferred(4222)),
        own_group: true,
        ..broker::Options::default()
    };
    let mut broker = Broker::start_with(options).await?;
    let mut services = wishes.services(&broker, &place)?;
    for service in &mut services {
        service.spawn()?;
    }
    for service in &mut services {
        service.wait_ready().await?;
    }
    println!("the front takes POSTs at http://{} for {} from {}", wishes.listen, wishes.destinations, wishes.sources);
    println!("they arrive at {}://{}", wishes.protocol, wishes.domain);
    for service in &services {
        println!("  {:<16} http://{}/readyz   log: .up/{}.log", service.name(), service.admin(), service.name());
    }
    println!("  {:<16} {}   monitoring: {}   store: .up/store", "nats-server", broker.url(), broker.monitor_url());
    println!("Ctrl-C ends it; what is not delivered by then stays in the store");

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let ended = loop {
        tokio::select! {
            _asked = interrupt.recv() => break None,
            _asked = terminate.recv() => break None,
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                let ended = services.iter_mut().find_map(|service| service.has_ended().then(|| service.log_tail()));
                if ended.is_some() {
                    break ended;
                }
            }
        }
    };
    if let Some(log) = &ended {
        eprintln!("a service ended of itself\n{log}");
    }
    println!("stopping");
    for service in services.iter_mut().filter(|_| ended.is_none()) {
        service.terminate(GRACE).await?;
    }
    broker.stop().await?;
    Ok(ended.is_none())
}

impl Wishes {
    fn from_env() -> anyhow::Result<Self> {
        let url =
            wanted("FED_DEST_URL", "your instance's own address, for example FED_DEST_URL=http://127.0.0.1:8536")?;
        let destinations =
            wanted("FED_DESTINATIONS", "your instance's host name, for example FED_DESTINATIONS=my.instance")?;
        let sources = wanted("FED_SOURCES", "whose activities to take, for example FED_SOURCES=lemmy.world,lemmy.ml")?;
        let Some((protocol @ ("http" | "https"), domain)) = url.trim_end_matches('/').split_once("://") else {
            bail!(
                "FED_DEST_URL: \"{url}\" is not an http or https address, for example FED_DEST_URL=http://127.0.0.1:8536"
            );
        };
        if domain.is_empty() || domain.contains('/') {
            bail!("FED_DEST_URL: \"{url}\" must be a scheme, a host and a port only: the path is the sender's");
        }
        let listen = std::env::var("FED_LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
        let listen: SocketAddr =
            listen.parse().with_context(|| format!("FED_LISTEN: \"{listen}\" is not an address"))?;
        std::net::TcpListener::bind(listen).with_context(|| {
            format!("nothing can listen on {listen}: choose another with FED_LISTEN=127.0.0.1:8088")
        })?;
        Ok(Self { protocol: protocol.to_owned(), domain: domain.to_owned(), destinations, sources, listen })
    }

    fn services(&self, broker: &Broker, place: &Path) -> anyhow::Result<Vec<Service>> {
        let batches = ports::preferred(8081);
        // Both ends live and die with this process: nobody else has to know it.
        let credential = format!("{:032x}", fastrand::u128(..));
        let nats = [("NATS_URL", broker.url()), ("NATS_MONITOR_URL", broker.monitor_url())];
        let common = |name: &str| name.starts_with("OTEL_") || name.starts_with("LOG_");
        let of_the_front = |name: &str| {
            let http = ["HTTP_ALLOWED_IPS", "HTTP_TRUSTED_PROXIES"].contains(&name);
            common(name) || http || (name.starts_with("FED_") && name != "FED_DEST_URL")
        };
        let mut front = vec![("HTTP_ALLOWED_IPS".to_owned(), "127.0.0.1,::1".to_owned())];
        front.extend(std::env::vars().filter(|(name, _)| of_the_front(name)));
        front.extend(owned([("FED_LISTEN", self.listen.to_string()), admin(9090)]));
        front.extend(owned(nats.clone()));

        let mut near: Vec<(String, String)> = std::env::vars().filter(|(name, _)| common(name)).collect();
        let mut far = near.clone();
        near.extend(owned([
            ("FED_SITE", "up".to_owned()),
            ("BATCH_RECEIVER_PROTOCOL", "http".to_owned()),
            ("BATCH_RECEIVER_DOMAIN", batches.to_string()),
            ("HTTP_BATCH_AUTHORIZATION", credential.clone()),
            admin(9091),
        ]));
        near.extend(owned(nats));
        far.extend(owned([
            ("FED_LISTEN", batches.to_string()),
            ("FED_DESTINATIONS", self.destinations.clone()),
            ("HTTP_BATCH_AUTHORIZATION", credential),
            ("OVERRIDE_DESTINATION_PROTOCOL", self.protocol.clone()),
            ("OVERRIDE_DESTINATION_DOMAIN", self.domain.clone()),
            admin(9092),
        ]));
        [("inbox-receiver", front), ("batch-sender", near), ("batch-receiver", far)]
            .into_iter()
            .map(|(name, env)| Ok(Service::new(name, env)?.lasting(place.join(format!("{name}.log")))))
            .collect()
    }
}

fn wanted(name: &str, what: &str) -> anyhow::Result<String> {
    match std::env::var(name) {
        Ok(value) if !value.trim().is_empty() => Ok(value),
        _ => bail!("{name} is missing: {what}\n`make up` needs FED_DEST_URL, FED_DESTINATIONS and FED_SOURCES"),
    }
}

fn admin(port: u16) -> (&'static str, String) {
    ("FED_ADMIN_LISTEN", ports::preferred(port).to_string())
}

fn owned<const N: usize>(pairs: [(&str, String); N]) -> impl Iterator<Item = (String, String)> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value))
}
