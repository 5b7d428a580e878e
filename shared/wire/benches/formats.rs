//! What each activity costs in formats: the stored message, and a batch of a hundred. `make bench-micro`.
//!
//! The activities are the captured ones of a real Lemmy, over and over with new sequences and signatures of their own: as
//! a saturated lane has them.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use fedstream_lane::{Epoch, GateId, Lane, MsgId, Origin, Seq};
use fedstream_wire::encoding::Encoding;
use fedstream_wire::from_micros;
use fedstream_wire::stored::{StoredActivity, message_id};
use fedstream_wire::v2::{Batch, BatchHeader, BatchItem};

const CAPTURED: &str = include_str!("../../../tests/fixtures/lemmy-requests.ndjson");

/// The default of HTTP_BATCH_SIZE.
const ITEMS: usize = 100;

fn main() {
    divan::main();
}

fn lane() -> Lane {
    Lane::from_subject("fed.inbox.aussie_zone.lemmy_world").expect("a lane")
}

fn activities() -> Vec<StoredActivity> {
    let captured: Vec<serde_json::Value> =
        CAPTURED.lines().map(|line| serde_json::from_str(line).expect("the fixtures are JSON")).collect();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (0..ITEMS)
        .map(|number| {
            let line = &captured[number % captured.len()];
            let body = STANDARD.decode(text(&line["body_b64"])).expect("base64");
            let headers = line["headers"].as_array().expect("headers").iter();
            StoredActivity {
                msg_id: message_id(&lane(), "POST", &number.to_string(), &body),
                activity_id: format!("https://lemmy.world/activities/announce/{number}"),
                activity_type: Some("Announce".to_owned()),
                received_at: from_micros(1_790_000_000_000_000 + number as i64).expect("a time"),
                target: text(&line["path"]),
                scheme: "https".to_owned(),
                http: headers.map(|pair| (text(&pair[0]), text(&pair[1]).into_bytes())).collect(),
                deadline: from_micros(1_790_000_000_000_000 + 3_300_000_000),
                traceparent: Some(format!("00-{number:032x}-{number:016x}-01")),
                tracestate: None,
                body: body.into(),
            }
        })
        .collect()
}

fn batch() -> Batch {
    let items = activities().into_iter().enumerate().map(|(number, activity)| BatchItem {
        seq: Seq(number as u64 + 1),
        msg_id: activity.msg_id,
        received_at_us: fedstream_wire::micros(activity.received_at),
        scheme: activity.scheme,
        target: activity.target,
        http: activity.http.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect(),
        body: activity.body,
        activity_id: activity.activity_id,
        traceparent: activity.traceparent,
        tracestate: None,
    });
    Batch {
        header: BatchHeader {
            origin: Origin { site: "bench".into(), created_us: 1 },
            lane: lane(),
            epoch: Epoch(1),
            gate: Some(GateId(1)),
            floor: Seq(0),
            prev: Seq(0),
            profile: None,
        },
        items: items.collect(),
    }
}

#[divan::bench]
fn message_ids(bencher: Bencher<'_, '_>) {
    let (lane, all) = (lane(), activities());
    bencher.counter(ItemsCount::new(ITEMS)).bench_local(|| {
        all.iter().map(|activity| message_id(&lane, "POST", &activity.target, &activity.body)).collect::<Vec<MsgId>>()
    });
}

#[divan::bench]
fn stored_written(bencher: Bencher<'_, '_>) {
    let all = activities();
    bencher
        .counter(ItemsCount::new(ITEMS))
        .bench_local(|| all.iter().map(StoredActivity::to_headers).collect::<Vec<_>>());
}

#[divan::bench]
fn stored_read(bencher: Bencher<'_, '_>) {
    let all: Vec<(HashMap<&str, String>, Bytes)> = activities()
        .iter()
        .map(|activity| (activity.to_headers().into_iter().collect(), activity.body.clone()))
        .collect();
    bencher.counter(ItemsCount::new(ITEMS)).bench_local(|| {
        let read = all.iter().map(|(headers, body)| {
            StoredActivity::from_headers(|name| headers.get(name).map(String::as_str), body.clone())
        });
        read.collect::<Result<Vec<_>, _>>()
    });
}

#[divan::bench]
fn batch_encoded(bencher: Bencher<'_, '_>) {
    let batch = batch();
    bencher
        .counter(ItemsCount::new(ITEMS))
        .counter(BytesCount::new(batch.encode().len()))
        .bench_local(|| black_box(&batch).encode());
}

#[divan::bench]
fn batch_decoded(bencher: Bencher<'_, '_>) {
    let body = Bytes::from(batch().encode());
    bencher
        .counter(ItemsCount::new(ITEMS))
        .counter(BytesCount::new(body.len()))
        .bench_local(|| Batch::decode(black_box(&body), ITEMS));
}

#[divan::bench(args = [Encoding::Zstd, Encoding::Gzip])]
fn batch_compressed(bencher: Bencher<'_, '_>, encoding: Encoding) {
    let body = batch().encode();
    bencher
        .counter(ItemsCount::new(ITEMS))
        .counter(BytesCount::new(body.len()))
        .with_inputs(|| body.clone())
        .bench_local_values(|body| encoding.compress(body));
}

#[divan::bench(args = [Encoding::Zstd, Encoding::Gzip])]
fn batch_inflated(bencher: Bencher<'_, '_>, encoding: Encoding) {
    let body = batch().encode();
    let (encoding, small) = encoding.compress(body.clone());
    bencher
        .counter(ItemsCount::new(ITEMS))
        .counter(BytesCount::new(body.len()))
        .bench_local(|| encoding.inflate(black_box(&small), body.len()));
}
