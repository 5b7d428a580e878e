//! The three services' environments in a run with faults. Time-outs and backoffs are shorter than the defaults, so that a
//! run of many faults ends today; nothing else is set otherwise.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::plan::POISON_AFTER;
use crate::cluster::NODES;
use crate::pipeline::{CREDENTIAL, Which};
use crate::process::Service;

/// Source and destination of each lane.
pub const LANES: [(&str, &str); 4] =
    [("a.test", "home.test"), ("b.test", "home.test"), ("a.test", "other.test"), ("b.test", "other.test")];

/// As often an activity has to fail. Few, for a backoff of a second at most and a run that ends today.
pub const POISON_ATTEMPTS: u32 = 3;

/// How long the batch-receiver waits for the instance.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(3);

/// Variables that all three have.
fn common() -> Vec<(String, String)> {
    // The batch-receiver's debug lines are what the checker reads.
    let pairs = [
        ("LOG_FORMAT", "json"),
        ("LOG_LEVEL", "info,async_nats=warn,batch_receiver=debug,fedstream_carrier=debug"),
        ("FED_SHUTDOWN_GRACE", "10s"),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn service(which: Which, pairs: Vec<(&str, String)>) -> anyhow::Result<Service> {
    let own = pairs.into_iter().map(|(name, value)| (name.to_owned(), value));
    Service::new(which.name(), common().into_iter().chain(own))
}

fn destinations() -> String {
    LANES.iter().map(|(_, destination)| *destination).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(",")
}

/// An inbox-receiver.
pub(super) fn front(listen: SocketAddr, nodes: String) -> anyhow::Result<Service> {
    let sources: BTreeSet<&str> = LANES.iter().map(|(source, _)| *source).collect();
    let env = vec![
        ("NATS_URL", nodes),
        ("FED_STREAM_REPLICAS", NODES.to_string()),
        ("FED_LISTEN", listen.to_string()),
        ("FED_SOURCES", sources.into_iter().collect::<Vec<_>>().join(",")),
        ("FED_DESTINATIONS", destinations()),
        ("FED_OPEN_FRONT", "yes".to_owned()),
        ("FED_PUBLISH_TIMEOUT", "2s".to_owned()),
        ("FED_BODY_TIMEOUT", "2s".to_owned()),
    ];
    service(Which::InboxReceiver, env)
}

/// A batch-sender; once it is dead its lanes are kept for `lease_ttl`.
pub(super) fn sender(
    number: usize,
    nodes: String,
    receiver: SocketAddr,
    lease_ttl: Duration,
) -> anyhow::Result<Service> {
    let env = vec![
        ("NATS_URL", nodes),
        ("FED_STREAM_REPLICAS", NODES.to_string()),
        ("FED_SITE", "chaos".to_owned()),
        ("FED_SENDER_ID", format!("sender-{number}")),
        ("BATCH_RECEIVER_PROTOCOL", "http".to_owned()),
        ("BATCH_RECEIVER_DOMAIN", receiver.to_string()),
        ("HTTP_BATCH_AUTHORIZATION", CREDENTIAL.to_owned()),
        ("FED_BACKOFF_MIN", "100ms".to_owned()),
        ("FED_BACKOFF_MAX", "1s".to_owned()),
        ("FED_RETRY_AFTER_MAX", "2s".to_owned()),
        // Above the receiver's FED_SILENCE, well below the longest stall.
        ("FED_ANSWER_TIMEOUT", "2s".to_owned()),
        ("FED_LEASE_TTL", format!("{}s", lease_ttl.as_secs())),
        ("FED_POISON_ATTEMPTS", POISON_ATTEMPTS.to_string()),
        ("FED_POISON_AFTER", format!("{}s", POISON_AFTER.as_secs())),
    ];
    service(Which::BatchSender, env)
}

/// The batch-receiver.
pub(super) fn receiver(listen: SocketAddr, instance: SocketAddr) -> anyhow::Result<Service> {
    let env = vec![
        ("FED_LISTEN", listen.to_string()),
        ("FED_DESTINATIONS", destinations()),
        ("HTTP_BATCH_AUTHORIZATION", CREDENTIAL.to_owned()),
        ("OVERRIDE_DESTINATION_PROTOCOL", "http".to_owned()),
        ("OVERRIDE_DESTINATION_DOMAIN", instance.to_string()),
        ("FED_DELIVERY_TIMEOUT", format!("{}ms", DELIVERY_TIMEOUT.as_millis())),
        ("FED_SILENCE", "500ms".to_owned()),
        ("FED_WAIT_MAX", "2s".to_owned()),
    ];
    service(Which::BatchReceiver, env)
}
