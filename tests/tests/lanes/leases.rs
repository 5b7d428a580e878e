//! Several batch-senders: each lane has one owner at a time, whichever of them stops, dies or stands still.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fedstream_tests::chaos::deliveries::{self, Attempt};
use fedstream_tests::eventually::{becomes_true, eventually};
use fedstream_tests::load::Load;
use fedstream_tests::pipeline::{Builder, Pipeline, Which};
use fedstream_tests::process::Service;

use crate::entries::{Entries, KEY};
use crate::{LANE, SOON, batches, one_lane, view};

/// Lanes that are shared: enough that each of three batch-senders gets some by the hash of these names.
const SOURCES: [&str; 12] = [
    "a.test", "b.test", "c.test", "d.test", "e.test", "f.test", "g.test", "h.test", "i.test", "j.test", "k.test",
    "l.test",
];

/// How many of them the hash gives to `sender-c` beside `sender-a` and `sender-b`. It may not change: two versions that
/// share lanes have to agree.
const OF_THE_THIRD: usize = 4;

/// Between two activities of a lane: twelve lanes are a load, and no more than two cores carry.
const PACE: Duration = Duration::from_millis(30);

/// Delivered between two events, over all lanes.
const SOME: usize = 60;

/// What a lease lasts where its end is waited for.
const TTL: Duration = Duration::from_secs(2);

/// Renewed at a third of the TTL, so this much of it was left when its owner fell silent; less what clocks and the
/// scheduler may be off.
const LEFT_AT_LEAST: Duration = Duration::from_millis(1_200);

/// The broker looks for what has expired once a second, on two busy cores.
const EXPIRED_WITHIN: Duration = Duration::from_secs(6);

/// A handover among living processes: far below the TTL that they run with (15 s).
const HANDED_OVER_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_are_shared_by_two_batch_senders_and_a_third_gets_its_part_without_a_repeat_or_disorder() {
    let pipeline = shared().start().await.unwrap();
    let second = another(&pipeline, "sender-b").await;
    let load = load(&pipeline);
    let two = shared_out(&[&pipeline.batch_sender, &second]).await;
    more_delivered(&pipeline).await;

    let joined = Instant::now();
    let before = [&pipeline.batch_sender, &second].map(given_back);
    let third = another(&pipeline, "sender-c").await;
    let all = [&pipeline.batch_sender, &second, &third];
    let three = shared_out_so(&all, |by_id| by_id["sender-c"].len() == OF_THE_THIRD).await;
    println!("the third has its part {} ms after its start", joined.elapsed().as_millis());
    for (id, lanes) in &two {
        assert!(three[id].is_subset(lanes), "who was there gets no lane from one who joins: {two:?} {three:?}");
    }
    more_delivered(&pipeline).await;
    let sent = load.stop().await;
    pipeline.settle(SOON).await.assert_clean(sent);
    pipeline.wait_trimmed(SOON).await.unwrap();
    let attempts = attempts(&pipeline);
    assert_one_after_the_other(&attempts);
    let after = [&pipeline.batch_sender, &second].map(given_back);
    for (id, given_back) in [("sender-a", after[0] - before[0]), ("sender-b", after[1] - before[1])] {
        assert_eq!(given_back, two[id].len() - three[id].len(), "{id} gives up what is another's now, and no more");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_sender_that_is_told_to_stop_hands_its_lanes_over_long_before_the_leases_would_end() {
    let mut pipeline = shared().start().await.unwrap();
    let second = another(&pipeline, "sender-b").await;
    let load = load(&pipeline);
    let two = shared_out(&[&pipeline.batch_sender, &second]).await;
    more_delivered(&pipeline).await;

    let told = Instant::now();
    assert_eq!(pipeline.batch_sender.terminate(SOON).await.unwrap(), Some(0));
    let stopped = told.elapsed();
    shared_out(&[&second]).await;
    let took = told.elapsed();
    println!("stopped in {} ms, all lanes carried by the other after {} ms", stopped.as_millis(), took.as_millis());
    assert!(took < HANDED_OVER_WITHIN, "{} lanes in {took:?}", two["sender-a"].len());
    more_delivered(&pipeline).await;
    let sent = load.stop().await;
    pipeline.settle(SOON).await.assert_clean(sent);
    assert_one_after_the_other(&attempts(&pipeline));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lanes_of_a_killed_batch_sender_are_taken_over_when_its_leases_have_ended_and_not_before() {
    let mut pipeline = shared().env(Which::BatchSender, "FED_LEASE_TTL", "2s").start().await.unwrap();
    let second = another(&pipeline, "sender-b").await;
    let load = load(&pipeline);
    let two = shared_out(&[&pipeline.batch_sender, &second]).await;
    more_delivered(&pipeline).await;

    let killed = Instant::now();
    pipeline.batch_sender.kill9();
    let epochs = epochs(&attempts(&pipeline));
    let taken_over = || {
        let later = attempts(&pipeline).into_iter().filter(|attempt| attempt.epoch > epochs[&attempt.lane]);
        later.map(|attempt| attempt.lane).collect::<BTreeSet<_>>()
    };
    becomes_true("the first lane is taken over", SOON, || !taken_over().is_empty()).await.unwrap();
    let first = killed.elapsed();
    becomes_true("all of them are", SOON, || taken_over() == two["sender-a"]).await.unwrap();
    let last = killed.elapsed();
    println!("the first after {} ms, the last after {} ms", first.as_millis(), last.as_millis());
    assert!(first >= LEFT_AT_LEAST && last < TTL + EXPIRED_WITHIN, "{first:?} to {last:?}");
    let sent = load.stop().await;
    pipeline.settle(SOON).await.assert_clean(sent);
    assert_one_after_the_other(&attempts(&pipeline));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_stood_still_beyond_its_lease_posts_nothing_more_and_says_so_in_one_line_a_lane() {
    // One batch in flight. Its owner may stop while it is half written: the rest of it leaves when the owner goes on, before
    // anybody has looked at a lease, and is refused for its epoch.
    let services =
        shared().env(Which::BatchSender, "FED_LEASE_TTL", "2s").env(Which::BatchSender, "FED_WINDOW_BATCHES", "1");
    let pipeline = services.start().await.unwrap();
    let second = another(&pipeline, "sender-b").await;
    let load = load(&pipeline);
    let two = shared_out(&[&pipeline.batch_sender, &second]).await;
    pipeline.instance().set_service_time(Duration::from_millis(20)); // so that it stops with something in flight
    more_delivered(&pipeline).await;

    pipeline.batch_sender.pause().unwrap();
    let mut epochs = epochs(&attempts(&pipeline));
    epochs.retain(|lane, _| two["sender-a"].contains(lane));
    shared_out(&[&second]).await;
    more_delivered(&pipeline).await;
    let refused = || {
        let lines = batches::lines(&pipeline.batch_receiver);
        lines.iter().filter(|line| line["message"] == "batch refused" && line["kind"] == "stale-epoch").count()
    };
    let (before, posted) = (refused(), posts_of(&attempts(&pipeline), &epochs));
    pipeline.batch_sender.resume().unwrap();
    let lost = || lost_lines(&pipeline.batch_sender, &two["sender-a"]);
    becomes_true("it says that each of its leases is lost", SOON, || lost().values().all(|lines| !lines.is_empty()))
        .await
        .unwrap_or_else(|timeout| panic!("{timeout}: {:?}", lost()));
    more_delivered(&pipeline).await;
    let sent = load.stop().await;
    let report = pipeline.settle(SOON).await;
    report.assert_clean(sent);
    let attempts = attempts(&pipeline);
    assert_one_after_the_other(&attempts);
    assert_eq!(posts_of(&attempts, &epochs), posted, "nothing of the old epochs came to the instance after that");
    assert!(refused() <= before + epochs.len(), "each lane had one batch on its way, and posted no other");
    for (lane, lines) in lost() {
        assert_eq!(lines.len(), 1, "{lane}: {lines:#?}");
        assert!(lines[0].contains(&format!("epoch={}", epochs[&lane])), "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_whose_lease_somebody_else_has_stops_at_once_and_names_who_has_it() {
    let pipeline = one_lane().env(Which::BatchSender, "FED_LEASE_TTL", "3s").start().await.unwrap();
    pipeline.sender("a.test", "home.test").send_many(3).await;
    pipeline.settle(SOON).await.assert_clean(3);
    let leases = Entries::leases(&pipeline).await;
    let mut lease = leases.get(KEY).await.expect("it is carried");
    let epoch = lease["epoch"].as_u64().unwrap();
    // As an older version writes it, which expires by itself.
    lease.as_object_mut().unwrap().remove("session");
    (lease["owner"], lease["nonce"], lease["epoch"]) =
        ("sender-z".into(), "0123456789abcdef".into(), (epoch + 1).into());
    leases.set(KEY, &lease).await;

    let said = || lines_about(&pipeline.batch_sender, LANE, "lease");
    becomes_true("it says that the lease is lost", SOON, || !said().is_empty()).await.unwrap();
    pipeline.sender("a.test", "home.test").send_many(3).await;
    view::wait_why(&pipeline.batch_sender, LANE, "sender-z has it until it gives it back, or its lease ends").await;
    // Nobody renews it, so it ends.
    pipeline.settle(SOON).await.assert_clean(6);
    assert_eq!(said().len(), 1, "{:#?}", said());
    for words in [format!("epoch={epoch} seq=3 "), "sender-z holds it".to_owned()] {
        assert!(said()[0].contains(&words), "{words}: {:?}", said());
    }
    assert!(leases.get(KEY).await.unwrap()["epoch"].as_u64() > Some(epoch + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_with_one_id_the_second_refuses_to_start_and_the_first_goes_on() {
    let pipeline = one_lane()
        .env(Which::BatchSender, "FED_SENDER_ID", "sender-a")
        .env(Which::BatchSender, "FED_LEASE_TTL", "2s")
        .start()
        .await
        .unwrap();
    let mut twin = pipeline.batch_sender.twin().unwrap();
    twin.spawn().unwrap();
    assert_eq!(twin.wait_exit(SOON).await.unwrap(), Some(64), "{}", twin.log());
    assert!(twin.log().contains("another process runs under the id sender-a"), "{}", twin.log());

    pipeline.sender("a.test", "home.test").send_many(10).await;
    pipeline.settle(SOON).await.assert_clean(10);
    let carried = view::lane(&pipeline.batch_sender, LANE).await.unwrap();
    assert_eq!(carried["owner"], "sender-a");
}

/// Twelve lanes and a first batch-sender.
fn shared() -> Builder {
    let builder = one_lane().env(Which::BatchSender, "FED_SENDER_ID", "sender-a");
    SOURCES.into_iter().skip(1).fold(builder, |builder, source| builder.source(source))
}

async fn another(pipeline: &Pipeline, id: &str) -> Service {
    let mut sender = pipeline.batch_sender.twin().expect("a place for its log");
    sender.set_env("FED_SENDER_ID", Some(id));
    sender.start().await.expect("it starts");
    sender
}

fn load(pipeline: &Pipeline) -> Load {
    Load::of(SOURCES.map(|source| {
        let mut sender = pipeline.sender(source, "home.test");
        sender.pace = PACE;
        sender
    }))
}

async fn more_delivered(pipeline: &Pipeline) {
    pipeline.instance().wait_accepted(pipeline.instance().accepted() + SOME, SOON).await.expect("deliveries go on");
}

/// The lanes that each batch-sender has, by its id.
type Shares = BTreeMap<String, BTreeSet<String>>;

/// Waits until every lane is on the page of exactly one of these as its own, and each of them has some: by id.
async fn shared_out(senders: &[&Service]) -> Shares {
    shared_out_so(senders, |_| true).await
}

/// The same, and so.
async fn shared_out_so(senders: &[&Service], so: impl Fn(&Shares) -> bool) -> Shares {
    let mut last = None;
    let shared_out = eventually("each lane has one owner, and each batch-sender a lane", SOON, async || {
        let mut by_id = Shares::new();
        for sender in senders {
            let page = view::page(sender).await?;
            let id = page["sender"].as_str()?.to_owned();
            let lanes = page["lanes"].as_object()?.iter();
            let own = lanes.filter(|(_, lane)| lane["owner"] == id.as_str() && !view::says(lane, "nobody has it yet"));
            let own: BTreeSet<String> = own.map(|(name, _)| name.clone()).collect();
            by_id.insert(id, own);
        }
        last = Some(by_id.clone());
        let all: BTreeSet<&String> = by_id.values().flatten().collect();
        let count: usize = by_id.values().map(BTreeSet::len).sum();
        let shared_out = all.len() == SOURCES.len() && count == all.len() && by_id.values().all(|own| !own.is_empty());
        (shared_out && so(&by_id)).then_some(by_id)
    });
    let shared_out = shared_out.await;
    shared_out.unwrap_or_else(|timeout| panic!("{timeout}: {last:?}"))
}

/// How many lanes it gave to another one.
fn given_back(sender: &Service) -> usize {
    sender.log().matches("it is drained and given back").count()
}

/// What the batch-receiver did at the instance.
fn attempts(pipeline: &Pipeline) -> Vec<Attempt> {
    deliveries::read(&pipeline.batch_receiver.log())
}

/// The highest epoch of each lane.
fn epochs(attempts: &[Attempt]) -> BTreeMap<String, u64> {
    let mut epochs = BTreeMap::new();
    for attempt in attempts {
        let highest = epochs.entry(attempt.lane.clone()).or_insert(0);
        *highest = attempt.epoch.max(*highest);
    }
    epochs
}

/// How many attempts there were of these epochs.
fn posts_of(attempts: &[Attempt], epochs: &BTreeMap<String, u64>) -> usize {
    attempts.iter().filter(|attempt| epochs.get(&attempt.lane) == Some(&attempt.epoch)).count()
}

/// The far side saw epochs only grow, and never two activities of a lane at a time.
fn assert_one_after_the_other(attempts: &[Attempt]) {
    let mut highest: BTreeMap<&str, u64> = BTreeMap::new();
    for attempt in attempts {
        let before = highest.insert(&attempt.lane, attempt.epoch);
        assert!(before.is_none_or(|before| before <= attempt.epoch), "after epoch {before:?}: {attempt:?}");
        assert_eq!(attempt.beside, None, "{attempt:?}");
    }
}

/// What the log says of the leases of these lanes being lost.
fn lost_lines(sender: &Service, lanes: &BTreeSet<String>) -> BTreeMap<String, Vec<String>> {
    lanes.iter().map(|lane| (lane.clone(), lines_about(sender, lane, "lease"))).collect()
}

/// The lines of the log that are about a lane and have this word in them.
fn lines_about(sender: &Service, lane: &str, word: &str) -> Vec<String> {
    let about = |line: &&str| line.contains(&format!("lane={lane} ")) && line.contains(word);
    sender.log().lines().filter(about).map(str::to_owned).collect()
}
