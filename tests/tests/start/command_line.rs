//! `--help`, `--version`, and words that nobody knows.

use std::collections::BTreeMap;

use crate::process::{Taken, right, run};

const NATS: &str = "NATS_URL=nats://127.0.0.1:4222 NATS_USER? NATS_PASSWORD? NATS_CREDS_FILE? NATS_CA_FILE? NATS_INBOX_PREFIX? \
    NATS_MONITOR_URL? NATS_CONNECT_TIMEOUT=30s FED_STREAMS=create FED_STREAM_REPLICAS=1";

const COMMON: &str = "FED_SHUTDOWN_GRACE=20s LOG_FORMAT? LOG_LEVEL=info,async_nats=warn OTEL_EXPORTER_OTLP_ENDPOINT? \
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT? OTEL_EXPORTER_OTLP_METRICS_ENDPOINT? OTEL_SDK_DISABLED=false OTEL_TRACES_EXPORTER=otlp \
    OTEL_METRICS_EXPORTER=otlp OTEL_METRIC_EXPORT_INTERVAL? FED_METRIC_LANES=200 OTEL_SERVICE_NAME? \
    OTEL_RESOURCE_ATTRIBUTES? OTEL_EXPORTER_OTLP_HEADERS? OTEL_TRACES_SAMPLER? OTEL_TRACES_SAMPLER_ARG? \
    OTEL_BSP_SCHEDULE_DELAY? OTEL_BSP_MAX_QUEUE_SIZE?";

const INBOX_RECEIVER: &str = "FED_LISTEN=127.0.0.1:8080 FED_ADMIN_LISTEN=127.0.0.1:9090 FED_SOURCES! FED_DESTINATIONS! \
    FED_LANES_MAX=1000 FED_INBOX_PATHS=*/inbox FED_PUBLIC_SCHEME=https HTTP_ALLOWED_IPS? HTTP_TRUSTED_PROXIES? \
    FED_OPEN_FRONT=no FED_ACTIVITY_WITHOUT_ID=refuse FED_BODY_MAX=1MiB FED_HEADERS_MAX=16KiB FED_HEADER_COUNT_MAX=100 \
    FED_INFLIGHT_BYTES=64MiB FED_PUBLISH_TIMEOUT=5s FED_BODY_TIMEOUT=10s FED_HEADER_TIMEOUT=30s FED_CONNECTIONS_MAX=1024 \
    FED_RETRY_AFTER=10s FED_SIGNATURE_WINDOW=55m FED_SIGNATURE_MARGIN=5m FED_LANE_AGE_MAX=10m FED_LANE_MESSAGES_MAX=5000 \
    FED_STREAM_BYTES_MAX=4GiB";

const BATCH_SENDER: &str = "FED_ADMIN_LISTEN=127.0.0.1:9091 FED_SITE! FED_SENDER_ID? BATCH_RECEIVER_PROTOCOL=https \
    BATCH_RECEIVER_DOMAIN! BATCH_RECEIVER_PATH=/batch BATCH_RECEIVER_CA_FILE? BATCH_PROTOCOL=auto HTTP_BATCH_AUTHORIZATION? HTTP_BATCH_SIZE=100 FED_BATCH_BYTES=1MiB \
    FED_BATCH_LINGER=20ms HTTP_BATCH_MAX_WAIT? FED_WINDOW_BATCHES=16 FED_WINDOW_ITEMS=1000 FED_WINDOW_BYTES=4MiB FED_HELD_BYTES=512MiB \
    HTTP_USER_AGENT=fedstream/0.1.0 FED_BATCH_COMPRESSION=zstd FED_ANSWER_TIMEOUT=30s FED_V1_BATCH_BYTES=19MiB FED_V1_ANSWER_TIMEOUT=10m FED_BACKOFF_MIN=500ms FED_BACKOFF_MAX=60s \
    FED_RETRY_AFTER_MAX=5m FED_REJECTIONS_MAX=20 FED_POISON_ATTEMPTS=5 FED_POISON_AFTER=2m FED_LEASE_TTL=15s FED_TRIM_INTERVAL=200ms FED_DISCOVERY_INTERVAL=500ms FED_LANE_IDLE=60s FED_LANES_MAX=1000";

const BATCH_RECEIVER: &str = "FED_LISTEN=127.0.0.1:8081 FED_ADMIN_LISTEN=127.0.0.1:9092 FED_BATCH_PATH=/batch \
    HTTP_BATCH_AUTHORIZATION? FED_OPEN_RECEIVER=no FED_DESTINATIONS! FED_INBOX_PATHS=*/inbox OVERRIDE_DESTINATION_PROTOCOL=https \
    OVERRIDE_DESTINATION_DOMAIN? OVERRIDE_DESTINATION_CA_FILE? FED_PROFILE=generic FED_DESTINATION_PROBE=/nodeinfo/2.1 FED_PASS_TRACEPARENT=no FED_BATCH_ITEMS_MAX=1000 \
    FED_BATCH_BODY_MAX=64MiB FED_REQUEST_BODY_MAX=32MiB FED_BODY_MAX=1MiB \
    FED_BODY_TIMEOUT=60s FED_DELIVERY_TIMEOUT=60s FED_SILENCE=10s FED_ANSWER_LINGER=25ms FED_WAIT_MAX=20s FED_V1_BATCH_TIME=3m FED_CONNECTIONS_MAX=1024 FED_BATCHES_MAX=1024 \
    FED_INFLIGHT_BYTES=256MiB FED_MEMORY_ITEMS=4096 FED_LANES_MAX=1000 HTTP_ALLOWED_IPS? HTTP_TRUSTED_PROXIES?";

const DELIVERY_WORKER: &str = "FED_ADMIN_LISTEN=127.0.0.1:9093 FED_KEYS_DIR! FED_KEY_ID_TEMPLATE? FED_KEY_WAIT=1h FED_SENDER_ID? \
    HTTP_USER_AGENT=fedstream/0.1.0 FED_REMOTE_CA_FILE? FED_PRIVATE_TARGETS=no FED_DELIVERY_HORIZON=3days FED_DELIVERY_TIMEOUT=30s \
    FED_CONNECT_TIMEOUT=10s FED_DELIVERIES_MAX=256 FED_BACKOFF_MIN=2s FED_BACKOFF_MAX=15m FED_RETRY_AFTER_MAX=1h FED_POISON_ATTEMPTS=5 \
    FED_POISON_AFTER=15m FED_POISON_PROBED_AFTER=6h FED_POISON_PROBE=/.well-known/nodeinfo FED_BREAKER_FAILURES=5 \
    FED_BREAKER_MIN=10s FED_BREAKER_MAX=15m FED_RAMP_PAUSE=500ms FED_PARTITIONS=4 FED_OUTBOX_URL_TEMPLATE? FED_OUTBOX_AUTHORIZATION? \
    FED_OUTBOX_TIMEOUT=30s FED_BACKFILL_PAGE_BYTES=4MiB FED_BACKFILL_PAUSE=500ms FED_BACKFILL_WATERMARK=20 FED_HELD_BYTES=256MiB \
    FED_LEASE_TTL=15s FED_TRIM_INTERVAL=20ms FED_DISCOVERY_INTERVAL=500ms FED_LANE_IDLE=60s FED_LANES_MAX=5000";

#[tokio::test(flavor = "multi_thread")]
async fn help_lists_every_variable_with_its_default_and_meaning() {
    for (service, tables) in [
        ("inbox-receiver", vec![INBOX_RECEIVER, NATS, COMMON]),
        ("batch-sender", vec![BATCH_SENDER, NATS, COMMON]),
        ("batch-receiver", vec![BATCH_RECEIVER, COMMON]),
        ("delivery-worker", vec![DELIVERY_WORKER, NATS, COMMON]),
    ] {
        let ended = run(service, &["--help"], Vec::new()).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{service}");
        let expected: BTreeMap<String, String> =
            tables.iter().flat_map(|table| table.split_ascii_whitespace()).map(entry).collect();
        assert_eq!(listed(&ended.stdout), expected, "{service}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn version_and_unknown_words_need_no_settings() {
    for service in ["inbox-receiver", "batch-sender", "batch-receiver", "delivery-worker"] {
        let ended = run(service, &["--version"], Vec::new()).await;
        let version = format!("{service} {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!((ended.code, ended.stdout, ended.stderr), (Some(0), version, String::new()));
        for words in [&["--config"][..], &["start"], &["--help", "me"]] {
            let ended = run(service, words, right(service, &Taken::new(), "nats://127.0.0.1:1")).await;
            assert_eq!(ended.code, Some(64), "{ended:?}");
            assert!(ended.line(service).contains(words[0]), "{ended:?}");
        }
    }
}

/// `NAME=default`, `NAME!` for required, `NAME?` for optional.
fn entry(text: &str) -> (String, String) {
    let (name, state) = match text.split_once('=') {
        Some((name, default)) => (name, format!("default: {default}")),
        None if text.ends_with('!') => (text.trim_end_matches('!'), "required".to_owned()),
        None => (text.trim_end_matches('?'), "optional".to_owned()),
    };
    let secret =
        ["NATS_PASSWORD", "HTTP_BATCH_AUTHORIZATION", "FED_OUTBOX_AUTHORIZATION", "OTEL_EXPORTER_OTLP_HEADERS"]
            .contains(&name);
    (name.to_owned(), if secret { format!("{state}, secret") } else { state })
}

/// Name and state of each variable; panics on one without a meaning below it.
fn listed(help: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut lines = help.lines();
    while let Some(line) = lines.next() {
        let Some((name, state)) = line.strip_prefix("  ").and_then(|line| line.split_once(" (")) else { continue };
        let meaning = lines.next().unwrap_or_default();
        assert!(meaning.starts_with("      ") && meaning.trim().len() > 5, "{name}: {meaning:?}");
        let repeated = found.insert(name.to_owned(), state.trim_end_matches(')').to_owned());
        assert_eq!(repeated, None, "{name} is there twice");
    }
    found
}
