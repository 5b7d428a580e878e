//! inbox-receiver, the front door: takes signed activities from other instances over HTTP and stores each in its lane,
//! a JetStream subject, before it says 204.
//!
//! ```text
//!   POST /inbox ─▶ front ─▶ admit ── signature, source, headers, body, activity, deadline
//!                             │      rules (of the lane), age (of the lane: what waits longest)
//!                             ├─ refusal ─▶ problem+json (4xx: never right; 503: the sender keeps it)
//!                             └─ store ───▶ FED_INBOX ─▶ 204
//! ```
//!
//! `admit.rs` is the one list of decisions, in order; `refusal.rs` the one list of answers. It keeps no state that a restart
//! would lose (the lanes that `*` made are read back from the stream), verifies no signature yet, and never says 204 to what
//! the broker has not acknowledged.

mod activity;
mod admit;
mod age;
mod body;
mod config;
mod deadline;
mod front;
mod headers;
mod inflight;
mod lanes;
mod page;
mod ready;
mod refusal;
mod rules;
mod source;
mod store;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use fedstream_connect::DurabilityWatch;
use fedstream_jetstream::{Bounds, Broker, StreamFacts, StreamNeed, StreamWatch, broker, definitions, streams};
use fedstream_service::admin::Admin;
use fedstream_service::cli::Failure;
use fedstream_service::http_server::{self, Limits};
use fedstream_service::metrics::table::FRONT_INFLIGHT;
use fedstream_service::shutdown::CancellationToken;
use tokio::net::TcpListener;

pub use config::{Config, NamePattern, SERVICE, WithoutId};
pub use refusal::Refusal;

/// How often the stream is looked at when nothing else gives reason to.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Requests of one HTTP/2 connection at once: a sender that wants more opens another, and those are counted.
const STREAMS_MAX: u32 = 16;

/// Connects to the broker, and makes sure that the stream is there and loses nothing. Before anything is bound.
pub async fn connect(config: &Config) -> Result<(Broker, StreamFacts), Failure> {
    let refused = |error: broker::Error| Failure { code: error.exit_code(), line: error.to_string() };
    let broker = fedstream_connect::connect(&config.nats, SERVICE.name).await?;
    broker.check_max_payload(config.message_bytes_max()).map_err(refused)?;
    let facts = streams::ensure(&broker, &stream_need(config))
        .await
        .map_err(|error| Failure { code: error.exit_code(), line: error.to_string() })?;
    Ok((broker, facts))
}

/// Serves until `shutdown`, then finishes what is in flight.
pub async fn run(
    config: Config,
    (broker, facts): (Broker, StreamFacts),
    listener: TcpListener,
    admin_listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let watch = StreamWatch::start(&broker, stream_need(&config), facts.clone(), WATCH_EVERY);
    let readiness = ready::checks();
    let _asks_on = DurabilityWatch::start(&broker, watch.state(), &readiness).await;

    let rules = rules::Rules::follow(&config, &broker).await;
    let store = store::Store::new(&broker, watch.state());
    let admission = Arc::new(admit::Admission::new(&config, &broker, store, rules));
    let tally = Arc::new(tally::Tally::new(admission.lanes_most(), !admission.bounds_lanes()));
    tally::Tally::begin_counting();
    let inflight = admission.inflight().clone();
    FRONT_INFLIGHT.observe(move |held| held.is(inflight.bytes() as f64, &[]));
    let followed = tokio::spawn(ready::follow(readiness.clone(), broker.clone(), watch.state(), admission.clone()));
    if admission.bounds_lanes() {
        remember_lanes(&admission, &broker).await?;
    }
    announce(&config, &facts, &listener, &admin_listener, admission.lanes_most());
    warn_of_strangers(&config);
    if config.lane_age_max.get().is_zero() {
        tracing::warn!("FED_LANE_AGE_MAX=0: a lane that stands still takes activities that expire in it");
    }
    let front = front::Front {
        admission: admission.clone(),
        tally: tally.clone(),
        retry_after: config.retry_after.get(),
        body_max: config.body_max.get(),
        body_timeout: config.body_timeout.get(),
    };

    // The admin pages answer until the last activity is stored.
    let admin_stop = CancellationToken::new();
    let page = page::LanesPage { broker: broker.clone(), admission, tally, state: watch.state() };
    let pages = Admin::new(readiness).lanes(move || page.clone().json());
    let admin = tokio::spawn(pages.serve(admin_listener, admin_stop.clone()));

    let limits = Limits {
        connections: config.connections_max.get(),
        header_timeout: config.header_timeout.get(),
        grace: config.common.shutdown_grace.get(),
        streams: STREAMS_MAX,
        ..Limits::default()
    };
    let finished = http_server::serve(listener, front::router(front), limits, shutdown).await;
    if finished {
        tracing::info!("every request has its answer; stopped");
    } else {
        tracing::warn!("the grace period is over; requests without an answer are given up, their senders keep them");
    }
    followed.abort();
    admin_stop.cancel();
    if let Err(error) = admin.await {
        tracing::warn!(%error, "the admin listener ended badly");
    }
    Ok(())
}

/// The stream that this service owns: its bounds are the backpressure.
fn stream_need(config: &Config) -> StreamNeed {
    StreamNeed {
        definition: definitions::inbox(),
        bounds: Some(Bounds {
            messages_per_lane: config.lane_messages_max.get() as u64,
            bytes: config.stream_bytes_max.0,
        }),
        lanes_max: 0,
        message_bytes_max: config.message_bytes_max(),
    }
}

/// The lanes that hold something count against FED_LANES_MAX, or each restart would allow as many again.
async fn remember_lanes(admission: &admit::Admission, broker: &Broker) -> Result<(), Failure> {
    let backlog = fedstream_jetstream::lanes::backlog(broker).await.map_err(Failure::unavailable)?;
    for lane in backlog.iter().filter_map(|(subject, _)| fedstream_lane::Lane::from_subject(subject).ok()) {
        admission.remember(&lane);
    }
    Ok(())
}

/// Says at start who could post in whose name, with these settings.
fn warn_of_strangers(config: &Config) {
    if config.is_open() {
        tracing::warn!(
            "FED_OPEN_FRONT=yes: until signatures are verified here, anyone can post as anyone, and a forged copy of an \
             activity suppresses the genuine one for ten minutes (both have the same message id)"
        );
    }
    if config.allows_an_untrusted_proxy() {
        tracing::warn!(
            "HTTP_ALLOWED_IPS names a private address, and HTTP_TRUSTED_PROXIES is not set: if that is a proxy, whoever \
             reaches the proxy can post as anyone; set HTTP_TRUSTED_PROXIES to it and HTTP_ALLOWED_IPS to your senders"
        );
    }
}

/// One line at start that says what runs.
fn announce(config: &Config, facts: &StreamFacts, listener: &TcpListener, admin: &TcpListener, lanes: usize) {
    let address = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    tracing::info!(
        version = SERVICE.version,
        listen = address(listener),
        admin = address(admin),
        lanes,
        lane_messages_max = facts.messages_per_lane,
        stream_bytes_max = facts.bytes_max,
        body_max = %config.body_max,
        inflight_bytes = %config.inflight_bytes,
        publish_timeout = %config.publish_timeout,
        signature_window = %config.signature_window,
        lane_age_max = %config.lane_age_max,
        stream = facts.name,
        stream_created = %facts.created,
        "taking activities"
    );
}
