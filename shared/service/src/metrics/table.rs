//! Every metric of fedstream, in the order of an activity's way. `docs/metrics.md` is made from this table.

use super::definition::{Definition, Label, Values};
use super::instrument::{Counter, Gauge, Histogram};
use crate::attributes::{ERROR_TYPE, HTTP_METHOD, MESSAGING_OPERATION, MESSAGING_SYSTEM, NATS};

const FRONT: &[&str] = &["inbox-receiver"];
const SENDER: &[&str] = &["batch-sender"];
const RECEIVER: &[&str] = &["batch-receiver"];
const CARRIERS: &[&str] = &["batch-sender", "delivery-worker"];
const ON_THE_BROKER: &[&str] = &["inbox-receiver", "batch-sender", "delivery-worker"];
const DELIVERERS: &[&str] = &["batch-receiver", "delivery-worker"];
const WORKER: &[&str] = &["delivery-worker"];
const SERVERS: &[&str] = &["inbox-receiver", "batch-receiver"];
const EVERY: &[&str] = &["inbox-receiver", "batch-sender", "batch-receiver", "delivery-worker"];

/// Seconds of an HTTP request or a broker's answer: the bounds that OpenTelemetry's conventions recommend.
const SHORT_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Seconds of a delivery or a batch: an instance may take a minute, and a batch is a lane's deliveries one by one.
const LONG_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// Seconds from the front door to the outcome: 5 ms side by side, an hour after an outage (a signature's whole life).
const LATENCY_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0,
    3600.0,
];

/// Activities of a batch: FED_BATCH_ITEMS_MAX of the batch-receiver is 1000 at most by default.
const ITEMS: &[f64] = &[0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

/// Bytes of a batch: an activity is about 4 KiB, a batch 1 MiB at most by default.
const SIZES: &[f64] = &[256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// Methods of requests, as they are told apart in spans too.
const METHOD: Label =
    Label { key: HTTP_METHOD, values: Values::AtMost(10, "the method, `_OTHER` where it is none of HTTP's") };

/// Why the front door refuses: the last word of each problem type.
pub const REFUSALS: &[&str] = &[
    "method-not-allowed",
    "client-not-allowed",
    "destination-not-found",
    "destination-not-configured",
    "source-not-found",
    "source-not-configured",
    "not-an-inbox",
    "unsupported-media-type",
    "content-encoding",
    "body-too-large",
    "headers-too-large",
    "body-timeout",
    "body-incomplete",
    "two-hosts",
    "connection-names-signed-header",
    "not-an-activity",
    "activity-without-id",
    "signature-too-old",
    "lane-paused",
    "lane-too-old",
    "too-many-lanes",
    "in-flight-full",
    "stream-unsafe",
    "lane-full",
    "stream-full",
    "storage-full",
    "broker-payload-limit",
    "stream-missing",
    "broker-unavailable",
    "publish-timeout",
    "duplicate-not-stored",
    "broker-refused",
];

/// Those of them that are the broker's.
pub const BROKER_REFUSALS: &[&str] = &[
    "lane-full",
    "stream-full",
    "storage-full",
    "broker-payload-limit",
    "stream-missing",
    "broker-unavailable",
    "publish-timeout",
    "duplicate-not-stored",
    "broker-refused",
];

/// Final outcomes.
pub const OUTCOMES: &[&str] = &["delivered", "duplicate", "rejected", "expired", "unprocessed"];

/// Why an activity is parked.
pub const PARK_REASONS: &[&str] = &["rejected", "expired", "poison", "unprocessed", "operator", "unreadable"];

/// How a batch ended for its lane.
pub const ENDS: &[&str] =
    &["done", "retry", "gap", "overloaded", "new_gate", "stale_epoch", "unfit", "refused", "lost", "called_off"];

/// What a batch-receiver says to a batch.
pub const ADMISSIONS: &[&str] = &[
    "accepted",
    "empty",
    "v1",
    "new_gate",
    "stale_epoch",
    "other_origin",
    "unauthorized",
    "malformed",
    "refused",
    "busy",
    "asked",
];

/// Why there is no answer of the instance.
pub const NO_ANSWER: &[&str] = &["connect", "timeout", "broken_off", "no_request"];

/// What telemetry is dropped.
pub const SIGNALS: &[&str] = &["traces", "metrics"];

/// Why.
pub const DROP_REASONS: &[&str] = &["queue_full", "export_failed", "rate_limited"];

/// What happened to leases.
pub const LEASE_CHANGE_WORDS: &[&str] = &["taken", "released", "lost", "renewed_epoch"];

/// Streams whose fill is shown.
pub const STREAMS: &[&str] = &["FED_INBOX", "FED_OUTBOX", "FED_PARKED"];

const BY_LANE: &[Label] = &[Label::LANE];
const BY_STREAM: &[Label] = &[Label::words("stream", STREAMS)];

/// Activities that are in their lane now.
pub static FRONT_ACCEPTED: Counter = Counter::new(
    "fedstream.front.accepted",
    "{activity}",
    "Activities that were answered with 204: stored in their lane, or stored there before",
)
.by(&[Label::LANE, Label::words("result", &["stored", "duplicate"])])
.of(FRONT);

/// Requests that were not taken.
pub static FRONT_REFUSED: Counter = Counter::new(
    "fedstream.front.refused",
    "{request}",
    "Requests that were refused, by the last word of the problem type; without a lane where that was not known yet",
)
.by(&[Label::words("reason", REFUSALS), Label::LANE])
.of(FRONT);

/// FED_INFLIGHT_BYTES in use.
pub static FRONT_INFLIGHT: Gauge =
    Gauge::new("fedstream.front.inflight", "By", "Bytes of bodies that are being read or stored (FED_INFLIGHT_BYTES)")
        .of(FRONT);

/// HTTP requests, until their answer's head.
pub static SERVER_DURATION: Histogram = Histogram::new(
    "http.server.request.duration",
    "s",
    SHORT_SECONDS,
    "From a request's head to its answer's; the lines of a batch's answer come after that",
)
.by(&[METHOD, Label::STATUS])
.of(SERVERS);

/// The broker's acks.
pub static PUBLISH_DURATION: Histogram = Histogram::new(
    "messaging.client.operation.duration",
    "s",
    SHORT_SECONDS,
    "From an activity's publish to the broker's ack, or to why there is none",
)
.by(&[
    Label::words(MESSAGING_SYSTEM, &[NATS]),
    Label::words(MESSAGING_OPERATION, &["publish"]),
    Label::words(ERROR_TYPE, BROKER_REFUSALS),
])
.of(FRONT);

/// What waits in a lane.
pub static LANE_DEPTH: Gauge = Gauge::new(
    "fedstream.lane.depth",
    "{activity}",
    "Activities in the lane's part of FED_INBOX or FED_OUTBOX. Its owner tells; where nobody has it, the process that it belongs to",
)
.by(BY_LANE)
.of(CARRIERS);

/// How long the oldest waits.
pub static LANE_OLDEST: Gauge =
    Gauge::new("fedstream.lane.oldest.age", "s", "How long the oldest activity that the lane's owner has read waits")
        .by(BY_LANE)
        .of(CARRIERS);

/// How long until one expires.
pub static LANE_DEADLINE: Gauge = Gauge::new(
    "fedstream.lane.deadline",
    "s",
    "Until the nearest deadline among the activities that the lane's owner has read; negative where it has passed, absent \
     where none has one",
)
.by(BY_LANE)
.of(CARRIERS);

/// What the nearest deadline is a part of.
pub static LANE_LIFETIME: Gauge = Gauge::new(
    "fedstream.lane.deadline.lifetime",
    "s",
    "From the receipt of the activity that has the nearest deadline to that deadline; absent where none has one. The shortest \
     of all in \"other\"",
)
.by(BY_LANE)
.of(CARRIERS);

/// What has no outcome yet.
pub static LANE_IN_FLIGHT: Gauge =
    Gauge::new("fedstream.lane.in_flight", "{activity}", "Activities in batches that have no end yet")
        .by(BY_LANE)
        .of(CARRIERS);

/// What is in memory.
pub static LANE_HELD: Gauge =
    Gauge::new("fedstream.lane.held", "{activity}", "Activities that the lane's owner holds in memory")
        .by(BY_LANE)
        .of(CARRIERS);

/// Is something wrong?
pub static LANE_TROUBLE: Gauge = Gauge::new(
    "fedstream.lane.trouble",
    "",
    "1 while something that the lane needs fails, or nothing but refusals come",
)
.by(BY_LANE)
.of(CARRIERS);

/// Did somebody pause it?
pub static LANE_PAUSED: Gauge =
    Gauge::new("fedstream.lane.paused", "", "1 while the lane is paused by its settings").by(BY_LANE).of(CARRIERS);

/// What became of activities.
pub static LANE_OUTCOMES: Counter = Counter::new(
    "fedstream.lane.outcomes",
    "{activity}",
    "Activities with a final outcome, each counted once by the lane's owner",
)
.by(&[Label::LANE, Label::words("outcome", OUTCOMES)])
.of(CARRIERS);

/// What left its lane undelivered.
pub static LANE_PARKED: Counter = Counter::new(
    "fedstream.lane.parked",
    "{activity}",
    "Activities whose copy in FED_PARKED the broker has acknowledged; backfill jobs count under the lane `other`",
)
.by(&[Label::LANE, Label::words("reason", PARK_REASONS)])
.of(CARRIERS);

/// How batches ended.
pub static LANE_POSTS: Counter = Counter::new(
    "fedstream.lane.posts",
    "{batch}",
    "Batches by how they ended for the lane, those too that ended before they were sent",
)
.by(&[Label::LANE, Label::words("end", ENDS)])
.of(CARRIERS);

/// From end to end.
pub static LANE_LATENCY: Histogram = Histogram::new(
    "fedstream.lane.latency",
    "s",
    LATENCY_SECONDS,
    "From the front door's receipt of an activity, or the application's request, until its final outcome is known to the lane's owner",
)
.by(BY_LANE)
.of(CARRIERS);

/// Activities of a batch.
pub static BATCH_ITEMS: Histogram =
    Histogram::new("fedstream.batch.items", "{activity}", ITEMS, "Activities in a batch as it is sent").of(SENDER);

/// Bytes of a batch.
pub static BATCH_SIZE: Histogram =
    Histogram::new("fedstream.batch.size", "By", SIZES, "Bytes of a batch as it is sent, compressed").of(SENDER);

/// Time of a batch.
pub static BATCH_DURATION: Histogram =
    Histogram::new("fedstream.batch.duration", "s", LONG_SECONDS, "From a batch's request to its end").of(SENDER);

/// Lanes of this process.
pub static LANES_OWNED: Gauge =
    Gauge::new("fedstream.lanes.owned", "{lane}", "Lanes that this process has the lease of").of(CARRIERS);

/// Leases that come and go.
pub static LEASE_CHANGES: Counter =
    Counter::new("fedstream.lease.changes", "{change}", "What happened to leases of lanes here")
        .by(&[Label::words("change", LEASE_CHANGE_WORDS)])
        .of(CARRIERS);

/// Living senders.
pub static MEMBERS: Gauge = Gauge::new(
    "fedstream.members",
    "{sender}",
    "Processes that share the lanes, as this one sees them; 0 while it can't",
)
.of(CARRIERS);

/// Is the broker there?
pub static BROKER_CONNECTED: Gauge =
    Gauge::new("fedstream.broker.connected", "", "1 while there is a connection to the broker").of(ON_THE_BROKER);

/// Does an ack mean a disk?
pub static BROKER_UNSYNCED: Gauge = Gauge::new(
    "fedstream.broker.unsynced",
    "",
    "1 where neither `sync_interval: always` nor three replicas are seen: a power failure may lose acknowledged activities",
)
.of(ON_THE_BROKER);

/// Connections made again.
pub static BROKER_RECONNECTS: Counter =
    Counter::new("fedstream.broker.reconnects", "{reconnect}", "How often the connection to the broker was made again")
        .of(ON_THE_BROKER);

/// Bytes in a stream.
pub static STREAM_USED: Gauge =
    Gauge::new("fedstream.stream.used", "By", "Bytes that the stream holds").by(BY_STREAM).of(CARRIERS);

/// And how many it may hold.
pub static STREAM_LIMIT: Gauge =
    Gauge::new("fedstream.stream.limit", "By", "Bytes that the stream may hold").by(BY_STREAM).of(CARRIERS);

/// What instances answered.
pub static REPLAY_OUTCOMES: Counter = Counter::new(
    "fedstream.replay.outcomes",
    "{activity}",
    "Deliveries by what the instance's answer means; an activity that is tried again is counted each time",
)
.by(&[Label::LANE, Label::words("outcome", &["delivered", "duplicate", "rejected", "expired", "unprocessed", "retry"])])
.of(RECEIVER);

/// What became of batches at the door.
pub static REPLAY_BATCHES: Counter = Counter::new(
    "fedstream.replay.batches",
    "{batch}",
    "Batches by what was decided before the answer: taken (accepted, empty, v1), or why not",
)
.by(&[Label::words("result", ADMISSIONS)])
.of(RECEIVER);

/// Batches under way.
pub static REPLAY_ACTIVE: Gauge =
    Gauge::new("fedstream.replay.active", "{batch}", "Batches that are being read or delivered (FED_BATCHES_MAX)")
        .of(RECEIVER);

/// Bytes of them.
pub static REPLAY_HELD: Gauge =
    Gauge::new("fedstream.replay.held", "By", "Bytes of the batches that are under way (FED_INFLIGHT_BYTES)")
        .of(RECEIVER);

/// Requests to instances.
pub static CLIENT_DURATION: Histogram = Histogram::new(
    "http.client.request.duration",
    "s",
    LONG_SECONDS,
    "From a delivery's request to the end of the instance's answer; error.type where there is none",
)
.by(&[Label::words(HTTP_METHOD, &["POST"]), Label::STATUS, Label::words(ERROR_TYPE, NO_ANSWER)])
.of(DELIVERERS);

/// Remotes that are left alone.
pub static REMOTES_DOWN: Gauge = Gauge::new(
    "fedstream.remotes.down",
    "{remote}",
    "Remotes that do not answer, or asked to be left alone: they are asked by one request at a time, and rarely",
)
.of(WORKER);

/// Telemetry that is lost.
pub static TELEMETRY_DROPPED: Counter = Counter::new(
    "fedstream.telemetry.dropped",
    "{item}",
    "Spans and metrics that did not reach the collector; counters among them are sums, and arrive with the next export",
)
.by(&[Label::words("signal", SIGNALS), Label::words("reason", DROP_REASONS)])
.of(EVERY);

/// What runs.
pub static BUILD: Gauge = Gauge::new("fedstream.build", "", "1, with the version that runs")
    .by(&[Label { key: "version", values: Values::AtMost(1, "the version") }])
    .of(EVERY);

/// All of them.
pub static ALL: &[&Definition] = &[
    FRONT_ACCEPTED.definition(),
    FRONT_REFUSED.definition(),
    FRONT_INFLIGHT.definition(),
    SERVER_DURATION.definition(),
    PUBLISH_DURATION.definition(),
    LANE_DEPTH.definition(),
    LANE_OLDEST.definition(),
    LANE_DEADLINE.definition(),
    LANE_LIFETIME.definition(),
    LANE_IN_FLIGHT.definition(),
    LANE_HELD.definition(),
    LANE_TROUBLE.definition(),
    LANE_PAUSED.definition(),
    LANE_OUTCOMES.definition(),
    LANE_PARKED.definition(),
    LANE_POSTS.definition(),
    LANE_LATENCY.definition(),
    BATCH_ITEMS.definition(),
    BATCH_SIZE.definition(),
    BATCH_DURATION.definition(),
    LANES_OWNED.definition(),
    LEASE_CHANGES.definition(),
    MEMBERS.definition(),
    BROKER_CONNECTED.definition(),
    BROKER_UNSYNCED.definition(),
    BROKER_RECONNECTS.definition(),
    STREAM_USED.definition(),
    STREAM_LIMIT.definition(),
    REPLAY_OUTCOMES.definition(),
    REPLAY_BATCHES.definition(),
    REPLAY_ACTIVE.definition(),
    REPLAY_HELD.definition(),
    CLIENT_DURATION.definition(),
    REMOTES_DOWN.definition(),
    TELEMETRY_DROPPED.definition(),
    BUILD.definition(),
];
