//! The harness against itself: what judges the services must be judged first. No service and no broker here.

use std::time::{Duration, Instant};

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::check::Report;
use fedstream_tests::directory::Directory;
use fedstream_tests::eventually::becomes_true;
use fedstream_tests::instance::Instance;
use fedstream_tests::ledger::Ledger;
use fedstream_tests::link::{Direction, Link};
use fedstream_tests::sender::Sender;
use fedstream_tests::sign::Kind;

const SOON: Duration = Duration::from_secs(5);

/// A sender, a link and an instance in a row.
struct Row {
    sender: Sender,
    link: Link,
    instance: Instance,
    ledger: Ledger,
}

impl Row {
    async fn start(one_way: Duration) -> Self {
        let (keys, ledger) = (Directory::default(), Ledger::default());
        let instance = Instance::start(keys.clone()).await.expect("a port to listen on");
        let link = Link::start(instance.addr(), one_way).await.expect("a port to listen on");
        let sender = Sender::new("away.test", "home.test", link.addr(), &keys, &ledger);
        Self { sender, link, instance, ledger }
    }

    fn report(&self) -> Report {
        Report::of(&self.ledger.submissions(), &self.instance.seen())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_signature_kinds_and_odd_targets_arrive_and_verify() {
    let mut row = Row::start(Duration::ZERO).await;
    for kind in [Kind::Cavage, Kind::Rfc9421] {
        for target in ["/inbox?shared=1", "/users/%40bob/inbox", "/a/../inbox"] {
            row.sender.kind = kind;
            row.sender.target = target.to_owned();
            assert_eq!(row.sender.send_one().await.status, 200);
            assert_eq!(row.instance.seen().last().unwrap().message.target, target);
        }
    }
    row.report().assert_clean(6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_retries_what_lemmy_retries_and_nothing_overtakes() {
    let mut row = Row::start(Duration::ZERO).await;
    row.instance.behave_next(2, Behaviour::busy(503, Some(30)));
    row.instance.behave_next(1, Behaviour::Reset);
    row.instance.behave_next(1, Behaviour::busy(429, None));
    row.sender.send_many(5).await;
    row.report().assert_clean(5);
    assert_eq!(row.ledger.submissions()[0].tries(), 5);
    assert_eq!(row.instance.arrivals(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_refusal_ends_the_retries() {
    let mut row = Row::start(Duration::ZERO).await;
    row.instance.behave(Behaviour::rejects(400, "{}"));
    assert_eq!(row.sender.send_one().await.status, 400);
    assert_eq!(row.ledger.submissions()[0].tries(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_makes_a_repeat_that_the_report_shows() {
    let mut row = Row::start(Duration::ZERO).await;
    row.instance.behave_next(1, Behaviour::LoseAnswer { status: 200 });
    row.sender.send_many(2).await;
    let report = row.report();
    assert_eq!(report.repeated.len(), 1);
    report.assert_clean_but_repeated();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_hangs_lets_go_and_one_that_is_down_comes_back_on_its_port() {
    let mut row = Row::start(Duration::ZERO).await;
    row.instance.behave(Behaviour::Hang);
    let ledger = row.ledger.clone();
    let sending = tokio::spawn(async move {
        row.sender.send_many(3).await;
    });
    becomes_true("it hangs", SOON, || row.instance.arrivals() == 1).await.unwrap();
    row.instance.go_down().await;
    becomes_true("it is retried in vain", SOON, || ledger.tries() >= 3).await.unwrap();
    row.instance.behave_well();
    row.instance.come_up().await.unwrap();
    sending.await.unwrap();
    Report::of(&ledger.submissions(), &row.instance.seen()).assert_clean(3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_delays_both_ways_without_limiting_what_is_on_its_way() {
    let mut row = Row::start(Duration::from_millis(50)).await;
    row.sender.text_bytes = 500_000;
    let start = Instant::now();
    assert_eq!(row.sender.send_one().await.status, 200);
    let (first, start) = (start.elapsed(), Instant::now());
    assert_eq!(row.sender.send_one().await.status, 200);
    let second = start.elapsed();
    // A round trip to connect and one to ask. A megabyte is 16 chunks: one after the other they would take a second.
    assert!(first >= Duration::from_millis(200), "{first:?}");
    assert!((Duration::from_millis(100)..Duration::from_millis(600)).contains(&second), "{second:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_cut_in_the_middle_is_retried() {
    let mut row = Row::start(Duration::ZERO).await;
    row.link.cut_after(Direction::Forward, 700);
    row.sender.send_many(2).await;
    assert!(!row.link.cut_pending());
    row.link.cut_after(Direction::Back, 10);
    row.sender.send_many(1).await;
    let report = row.report();
    report.assert_clean_but_repeated();
    assert_eq!((report.delivered, report.repeated.len()), (3, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_or_refusing_link_holds_everything_back() {
    let mut row = Row::start(Duration::ZERO).await;
    row.link.refuse().await;
    let activity = row.sender.compose();
    assert!(row.sender.try_once(&activity).await.is_err());
    row.link.open().await.unwrap();
    row.link.stall();
    row.sender.answer_timeout = Duration::from_millis(100);
    assert!(row.sender.try_once(&activity).await.is_err());
    assert_eq!(row.instance.arrivals(), 0);
    row.link.flow();
    row.sender.answer_timeout = SOON;
    assert_eq!(row.sender.send(&activity).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_byte_on_the_way_is_refused_and_told() {
    let mut row = Row::start(Duration::ZERO).await;
    let activity = row.sender.compose();
    let mut message = row.sender.signed(&activity);
    message.target = "/inbox/".into();
    let answer = row.sender.send_verbatim(&message).await;
    assert_eq!(answer.status, 400);
    assert_eq!(row.report().signature_failures.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_at_a_time_of_one_lane_are_told() {
    let mut row = Row::start(Duration::ZERO).await;
    row.instance.set_service_time(Duration::from_millis(100));
    let keys = Directory::default();
    let mut second = Sender::new("away.test", "home.test", row.instance.addr(), &keys, &row.ledger);
    tokio::join!(row.sender.send_one(), second.send_one());
    assert_eq!(row.report().overlapping.len(), 1);
}
