//! The outbound side on this machine: broker, delivery-worker, and remotes that verify.
//!
//!   Application -> broker (FED_OUTBOX, FED_BACKFILL) -> delivery-worker -> Instances
//!
//! The application publishes the JSON that `nats/README.md` describes, with a plain NATS client, as one in any language does:
//! names, partitions and ids are worked out here a second time.

mod actors;
mod application;
mod peer;
mod sent;

use std::time::Duration;

use async_nats::jetstream::{Context, message};
use async_nats::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::broker::{self, Broker};
use crate::directory::Directory;
use crate::eventually::{becomes_true, eventually};
use crate::instance::Instance;
use crate::keys;
use crate::process::Service;

pub use actors::Actors;
pub use application::Outboxes;
pub use peer::Peer;
pub use sent::{Sent, Verdict};

/// Lanes of a remote: the worker's default.
const PARTITIONS: u64 = 4;

/// A busy machine's pause is shorter, and a killed worker's lanes stand for so long.
const LEASE_TTL: &str = "3s";

/// How long a publish is tried again where the broker is away.
const PUBLISH_TIME: Duration = Duration::from_secs(30);

/// What to start.
pub struct Builder {
    remotes: usize,
    broker: broker::Options,
    env: Vec<(String, String)>,
}

/// All parts. They end when it is dropped; on a panic the worker shows the end of its log.
pub struct Outbound {
    /// The worker.
    pub worker: Service,
    /// Where its deliveries go.
    pub remotes: Vec<Instance>,
    /// The broker.
    pub broker: Broker,
    /// What was published.
    pub sent: Sent,
    keys: TempDir,
    known: Directory,
}

impl Builder {
    /// A broker set up otherwise.
    #[must_use]
    pub fn broker(mut self, options: broker::Options) -> Self {
        self.broker = options;
        self
    }

    /// A variable of the worker.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Starts all and waits until the worker is ready: then its streams are there.
    ///
    /// # Errors
    /// What does not start.
    pub async fn start(self) -> anyhow::Result<Outbound> {
        let broker = Broker::start_with(self.broker).await?;
        let keys = TempDir::with_prefix("fedstream-keys-")?;
        let known = Directory::default();
        let mut remotes = Vec::new();
        for _ in 0..self.remotes {
            let remote = Instance::start(known.clone()).await?;
            remote.set_scheme("http");
            remotes.push(remote);
        }
        let mut worker = Service::new("delivery-worker", [])?;
        for (name, value) in [
            ("LOG_FORMAT", "pretty".to_owned()),
            ("NATS_URL", broker.url()),
            ("NATS_MONITOR_URL", broker.monitor_url()),
            ("FED_SHUTDOWN_GRACE", "10s".to_owned()),
            ("FED_KEYS_DIR", keys.path().display().to_string()),
            ("FED_KEY_ID_TEMPLATE", key_id("{actor}")),
            ("FED_PRIVATE_TARGETS", "yes".to_owned()),
            ("FED_LEASE_TTL", LEASE_TTL.to_owned()),
            ("FED_BACKOFF_MIN", "50ms".to_owned()),
            ("FED_BACKOFF_MAX", "500ms".to_owned()),
            ("FED_BREAKER_MIN", "100ms".to_owned()),
            ("FED_BREAKER_MAX", "500ms".to_owned()),
            ("FED_RAMP_PAUSE", "50ms".to_owned()),
            ("FED_DISCOVERY_INTERVAL", "100ms".to_owned()),
        ] {
            worker.set_env(name, Some(&value));
        }
        for (name, value) in &self.env {
            worker.set_env(name, Some(value));
        }
        let mut outbound = Outbound { worker, remotes, broker, sent: Sent::default(), keys, known };
        outbound.worker.start().await?;
        Ok(outbound)
    }
}

impl Outbound {
    /// So many remotes, and pauses of milliseconds.
    #[must_use]
    pub fn with(remotes: usize) -> Builder {
        Builder { remotes, broker: broker::Options::default(), env: Vec::new() }
    }

    /// A local user of this number, with a key; the id.
    ///
    /// # Errors
    /// No place for the key.
    pub fn actor(&self, number: usize) -> anyhow::Result<String> {
        let id = format!("00000000-0000-4000-8000-{number:012x}");
        let path = self.keys.path().join(format!("{id}.pem"));
        if !path.is_file() {
            let key = keys::of(&id);
            self.known.enter(&key_id(&id), key.public_pem())?;
            std::fs::write(path, key.private_pem())?;
        }
        Ok(id)
    }

    /// Gives an actor a second key, an Ed25519 one.
    ///
    /// # Errors
    /// No place for the key.
    pub fn add_ed25519(&self, actor: &str) -> anyhow::Result<()> {
        let second = format!("http://our.test/users/{actor}#ed25519-key");
        let (private, public) = keys::ed25519()?;
        self.known.enter_ed25519(&second, &public)?;
        let both =
            format!("Key-Id: {}\n{}\nKey-Id: {second}\n{private}\n", key_id(actor), keys::of(actor).private_pem());
        Ok(std::fs::write(self.keys.path().join(format!("{actor}.pem")), both)?)
    }

    /// Takes an actor's key away, or gives it back.
    ///
    /// # Errors
    /// The file can't be changed.
    pub fn set_key(&self, actor: &str, is_there: bool) -> anyhow::Result<()> {
        let path = self.keys.path().join(format!("{actor}.pem"));
        if is_there {
            std::fs::write(path, keys::of(actor).private_pem())?
        } else {
            std::fs::remove_file(path)?
        }
        Ok(())
    }

    /// JetStream, for publishing.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn jetstream(&self) -> anyhow::Result<Context> {
        self.broker.jetstream().await
    }

    /// Publishes the next activity of an actor for a remote, and enters it; tried until the broker has it.
    ///
    /// # Errors
    /// The broker does not take it.
    pub async fn publish(&self, jetstream: &Context, remote: usize, actor: &str) -> anyhow::Result<String> {
        let host = self.remotes[remote].addr().to_string();
        let activity = self.sent.compose(&host, actor);
        let id = activity["id"].as_str().unwrap_or_default().to_owned();
        let inbox = format!("http://{host}/inbox");
        put(jetstream, &inbox, actor, activity).await?;
        self.sent.stored(&host, actor, &id);
        Ok(id)
    }

    /// Publishes `count` activities of an actor for a remote, one after the other.
    ///
    /// # Errors
    /// As [`Outbound::publish`].
    pub async fn publish_many(&self, remote: usize, actor: &str, count: usize) -> anyhow::Result<()> {
        let jetstream = self.jetstream().await?;
        for _ in 0..count {
            self.publish(&jetstream, remote, actor).await?;
        }
        Ok(())
    }

    /// Asks for a backfill of an actor's history to a remote's inbox.
    ///
    /// # Errors
    /// The broker does not take it.
    pub async fn request_backfill(&self, remote: usize, actor: &str) -> anyhow::Result<()> {
        self.request_backfill_with(remote, actor, &[]).await
    }

    /// The same, with more headers: another time at which it was asked for, for instance.
    ///
    /// # Errors
    /// As [`Outbound::request_backfill`].
    pub async fn request_backfill_with(
        &self,
        remote: usize,
        actor: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let host = self.remotes[remote].addr().to_string();
        let inbox = format!("http://{host}/inbox");
        let event = json!({ "type": "BackfillRequested", "owner_user_id": actor, "follower_inbox_url": inbox });
        let subject = format!("fed.backfill.{}.{actor}", token(&host));
        store_with(&self.jetstream().await?, subject, &event, headers).await
    }

    /// Messages in a stream; `None` while the broker can't be asked.
    pub async fn depth(&self, stream: &str) -> Option<u64> {
        let jetstream = self.jetstream().await.ok()?;
        Some(jetstream.get_stream(stream).await.ok()?.get_info().await.ok()?.state.messages)
    }

    /// `kill -9` of the worker; answers how many deliveries a remote has taken or refused that are in FED_OUTBOX still: so many may
    /// come twice, for a remote remembers nothing.
    ///
    /// # Errors
    /// The remotes don't come to rest, or the broker can't be asked.
    pub async fn kill_worker(&mut self) -> anyhow::Result<usize> {
        self.worker.kill9();
        let at_rest = || self.remotes.iter().all(|remote| remote.in_progress() == 0);
        becomes_true("the remotes are done with what was under way", PUBLISH_TIME, at_rest).await?;
        let state = self.jetstream().await?.get_stream("FED_OUTBOX").await?.get_info().await?.state;
        let settled: usize = self.remotes.iter().map(Instance::settled).sum();
        let gone = usize::try_from(state.last_sequence - state.messages)?;
        Ok(settled.saturating_sub(gone))
    }

    /// Waits until a stream is empty.
    ///
    /// # Errors
    /// Something is left.
    pub async fn wait_empty(&self, stream: &str, within: Duration) -> anyhow::Result<()> {
        let empty = async || (self.depth(stream).await == Some(0)).then_some(());
        Ok(eventually(format!("{stream} is empty"), within, empty).await?)
    }

    /// Waits until a remote has taken so many different activities.
    ///
    /// # Errors
    /// It has not in time.
    pub async fn wait_accepted(&self, remote: usize, count: usize, within: Duration) -> anyhow::Result<()> {
        Ok(self.remotes[remote].wait_accepted(count, within).await?)
    }

    /// Waits until a remote has had so many requests.
    ///
    /// # Errors
    /// It has not in time.
    pub async fn wait_arrivals(&self, remote: usize, count: usize, within: Duration) -> anyhow::Result<()> {
        let arrived = || self.remotes[remote].arrivals() >= count;
        Ok(becomes_true(format!("{count} requests at remote {remote}"), within, arrived).await?)
    }

    /// The messages of a stream, oldest first.
    ///
    /// # Errors
    /// The broker can't be asked.
    pub async fn messages(&self, stream: &str) -> anyhow::Result<Vec<message::StreamMessage>> {
        let stream = self.jetstream().await?.get_stream(stream).await?;
        let state = stream.get_info().await?.state;
        let mut messages = Vec::new();
        for seq in state.first_sequence.max(1)..=state.last_sequence {
            messages.push(stream.get_raw_message(seq).await?);
        }
        Ok(messages)
    }

    /// What every remote made of what was published.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.sent.compare(self.remotes.iter())
    }
}

/// The id of an actor's key.
fn key_id(actor: &str) -> String {
    format!("http://our.test/users/{actor}#main-key")
}

/// Publishes one delivery, for an inbox anywhere.
///
/// # Errors
/// The broker does not take it.
pub async fn put(jetstream: &Context, inbox: &str, actor: &str, activity: Value) -> anyhow::Result<()> {
    put_with(jetstream, inbox, actor, activity, &[]).await
}

/// The same, with more headers: a trace's, for instance.
///
/// # Errors
/// The broker does not take it.
pub async fn put_with(
    jetstream: &Context,
    inbox: &str,
    actor: &str,
    activity: Value,
    headers: &[(&str, &str)],
) -> anyhow::Result<()> {
    let host = inbox.split('/').nth(2).unwrap_or_default();
    let subject = format!("fed.outbox.{}.{}", token(host), partition(actor));
    let event = json!({ "type": "DeliveryRequested", "inbox": inbox, "activity": activity, "signing_actor_id": actor });
    store_with(jetstream, subject, &event, headers).await
}

async fn store_with(jetstream: &Context, subject: String, event: &Value, more: &[(&str, &str)]) -> anyhow::Result<()> {
    let body = serde_json::to_vec(event)?;
    let mut headers = HeaderMap::new();
    let id = crate::message::sha256_hex(&[subject.as_bytes(), &body].concat());
    headers.append("Nats-Msg-Id", id.parse::<HeaderValue>()?);
    let now = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339)?;
    let requested_at = [("Fed-Requested-At", now.as_str())];
    let others = requested_at.iter().filter(|(name, _)| more.iter().all(|(given, _)| given != name));
    for (name, value) in others.chain(more) {
        headers.append(*name, value.parse::<HeaderValue>()?);
    }
    // Under the same id: a repeat is the same message.
    let stored = eventually(format!("{subject} takes an event"), PUBLISH_TIME, async || {
        let sent = jetstream.publish_with_headers(subject.clone(), headers.clone(), body.clone().into()).await;
        sent.ok()?.await.ok()
    });
    stored.await?;
    Ok(())
}

/// A host name as one token of a subject (`nats/README.md`).
fn token(host: &str) -> String {
    let one = |c: char| match c {
        '.' => "_".to_owned(),
        'a'..='z' | '0'..='9' | '-' => c.to_string(),
        _ => format!("={:02X}", u32::from(c)),
    };
    host.chars().map(one).collect()
}

/// The partition of an actor (`nats/README.md`).
#[must_use]
pub fn partition(actor: &str) -> u64 {
    let hex: String = actor.chars().filter(char::is_ascii_hexdigit).collect();
    let bytes: Vec<u8> =
        (0..hex.len() / 2).filter_map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()).collect();
    let hash = Sha256::digest(&bytes);
    hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte)) % PARTITIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_partitions_are_those_of_the_contract() {
        assert_eq!(token("127.0.0.1:20123"), "127_0_0_1=3A20123");
        assert_eq!(partition("7f9c24e8-3b12-4fef-91e1-4c1d2f1a0b77"), 0);
    }
}
