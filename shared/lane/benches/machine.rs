//! What the lane itself costs: both machines over a whole lane, and the names. `make bench-micro`.

use std::collections::VecDeque;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use fedstream_lane::{
    Action, Answer, Backoff, Batch, End, Epoch, Event, Final, GateId, GateLimits, Head, Lane, MemoryLimits, Moment,
    MsgId, Origin, ReceiveGate, SendWindow, Seq, Start, Step, Visit, WindowLimits,
};

/// A lane at its limit.
const ITEMS: u64 = 5_000;

fn main() {
    divan::main();
}

/// The defaults of batch-sender.
fn limits() -> WindowLimits {
    WindowLimits {
        batch_items: 100,
        batch_bytes: 1 << 20,
        posts: 4,
        in_flight_items: 400,
        in_flight_bytes: 4 << 20,
        items: 564,
        bytes: 8 << 20,
        linger_ms: 20,
        rate_per_s: None,
        trim_interval_ms: 200,
        rejections_max: 20,
        poison_attempts: 5,
        poison_after_ms: 120_000,
    }
}

fn window() -> SendWindow {
    let start = Start { epoch: Epoch(1), floor: Seq(0), gate: Some(GateId(1)), lease_until: Moment(u64::MAX) };
    SendWindow::new(start, limits(), Backoff::new(500, 60_000, 300_000))
}

fn gate() -> ReceiveGate {
    let memory = MemoryLimits { items: 4_096, bytes: 4_096 * 512 };
    ReceiveGate::new(GateId(1), GateLimits { memory, wait_max_ms: 20_000 })
}

/// The far side's whole work on a batch.
fn deliver(gate: &mut ReceiveGate, batch: &Batch, ids: &[MsgId], now: Moment) -> Vec<(Seq, Final)> {
    let origin = Origin { site: "bench".into(), created_us: 1 };
    let head = Head { gate: batch.gate, origin, epoch: Epoch(1), floor: batch.floor };
    gate.admit(&head).expect("the only owner");
    let mut prev = batch.prev;
    let mut outcomes = Vec::with_capacity(batch.items.len());
    for seq in &batch.items {
        let msg_id = &ids[usize::try_from(seq.0).expect("a small lane") - 1];
        let step = gate.step(now, &Visit { epoch: Epoch(1), prev, seq: *seq, msg_id, since: now });
        assert_eq!(step, Step::Deliver);
        gate.finished(Some(Answer { outcome: Final::Delivered, status: 200, body: None }));
        outcomes.push((*seq, Final::Delivered));
        prev = *seq;
    }
    outcomes
}

#[divan::bench]
fn a_full_lane_through_both(bencher: Bencher<'_, '_>) {
    let ids: Vec<MsgId> = (1..=ITEMS).map(|seq| MsgId::new(format!("{seq:064x}"))).collect();
    bencher.counter(ItemsCount::new(ITEMS)).bench_local(|| {
        let (mut window, mut gate) = (window(), gate());
        let (mut now, mut next) = (Moment(1), 1);
        let mut on_the_way: VecDeque<Batch> = VecDeque::new();
        while window.floor() < Seq(ITEMS) {
            while next <= ITEMS && window.has_room() {
                window.handle(now, Event::Read { seq: Seq(next), bytes: 2_500, deadline: Some(Moment(3_300_000)) });
                next += 1;
            }
            while let Some(action) = window.poll(now) {
                match action {
                    Action::Post(batch) => on_the_way.push_back(batch),
                    Action::Trim { .. } => window.handle(now, Event::Trimmed { done: true }),
                    other => unreachable!("{other:?}"),
                }
            }
            now = now.after_ms(25);
            let Some(batch) = on_the_way.pop_front() else { continue };
            for (seq, outcome) in deliver(&mut gate, &batch, &ids, now) {
                window.handle(now, Event::Outcome { post: batch.post, seq, outcome });
            }
            window.handle(now, Event::Ended { post: batch.post, end: End::Done, jitter: 500 });
        }
        (window, gate)
    });
}

#[divan::bench]
fn a_subject_from_names(bencher: Bencher<'_, '_>) {
    let lane =
        Lane { destination: "aussie.zone".parse().expect("a name"), source: "lemmy.world".parse().expect("a name") };
    bencher.bench_local(|| black_box(&lane).subject());
}

#[divan::bench]
fn names_from_a_subject() -> Lane {
    Lane::from_subject(black_box("fed.inbox.aussie_zone.lemmy_world")).expect("a lane")
}

#[divan::bench]
fn a_name_from_a_host() -> fedstream_lane::InstanceName {
    black_box("Lemmy.World:443").parse().expect("a name")
}
