//! SIGTERM under a steady load: what is in flight is finished, the exit code is 0, and nothing is repeated or lost once
//! the service runs again.

use std::time::{Duration, Instant};

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::becomes_true;
use fedstream_tests::load::Load;
use fedstream_tests::pipeline::{Builder, Pipeline, Which};
use fedstream_tests::process::Service;

const SOON: Duration = Duration::from_secs(30);

/// What the services are given in these tests.
const GRACE: Duration = Duration::from_secs(10);

const LANES: [(&str, &str); 2] = [("a.test", "home.test"), ("b.test", "home.test")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbox_receiver_that_is_told_to_stop_answers_what_it_has_taken() {
    let mut pipeline = two_lanes().start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, 20).await;
    assert_eq!(pipeline.inbox_receiver.terminate(GRACE).await.unwrap(), Some(0));
    let stored = pipeline.stream().await.unwrap().state.last_sequence;
    let accepted = pipeline.ledger.accepted() as u64;
    assert_eq!(stored, accepted, "what is stored was answered");

    pipeline.inbox_receiver.start().await.unwrap();
    more_delivered(&pipeline, 20).await;
    let sent = load.stop().await;
    pipeline.settle(SOON).await.assert_clean(sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_sender_that_is_told_to_stop_settles_and_trims_what_was_delivered() {
    // One batch of a lane in flight, and that one is waited for. Others would be called back, and the far side may have begun
    // the first item of one before it sees that.
    let one_batch = two_lanes().env(Which::BatchSender, "FED_WINDOW_BATCHES", "1");
    let mut pipeline = one_batch.start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, 20).await;
    pipeline.instance().set_service_time(Duration::from_millis(300)); // so that it waits for an outcome
    all_in_progress(&pipeline).await;
    pipeline.batch_sender.ask_to_stop().unwrap();
    waits(&mut pipeline.batch_sender).await;
    pipeline.instance().set_service_time(Duration::ZERO);
    assert_eq!(pipeline.batch_sender.wait_exit(GRACE).await.unwrap(), Some(0));
    assert_eq!(pipeline.instance().in_progress(), 0, "it waited for the outcomes");
    let mut sent = load.stop().await;
    let in_stream = usize::try_from(pipeline.depth().await.unwrap()).unwrap();
    assert_eq!(in_stream + pipeline.instance().accepted(), sent, "in the stream or delivered, and nothing both");

    let load = Load::on(&pipeline, &LANES);
    pipeline.batch_sender.start().await.unwrap();
    more_delivered(&pipeline, 20).await;
    sent += load.stop().await;
    pipeline.settle(SOON).await.assert_clean(sent);
    pipeline.wait_trimmed(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_receiver_that_is_told_to_stop_finishes_and_tells_what_is_at_the_instance() {
    let mut pipeline = two_lanes().start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, 20).await;
    pipeline.instance().set_service_time(Duration::from_millis(300)); // so that it has something in hand
    all_in_progress(&pipeline).await;
    assert_eq!(pipeline.batch_receiver.terminate(GRACE).await.unwrap(), Some(0));
    assert_eq!(pipeline.instance().in_progress(), 0);
    pipeline.instance().set_service_time(Duration::ZERO);

    pipeline.batch_receiver.start().await.unwrap();
    more_delivered(&pipeline, 20).await;
    let sent = load.stop().await;
    // Its memory went with it: that nothing is repeated means that every outcome was told before.
    pipeline.settle(SOON).await.assert_clean(sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_service_that_waits_for_a_hanging_instance() {
    let mut pipeline = two_lanes().start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, 20).await;
    pipeline.instance().behave(Behaviour::Hang);
    all_in_progress(&pipeline).await;

    for which in [Which::BatchSender, Which::BatchReceiver] {
        let service = pipeline.service(which);
        service.ask_to_stop().unwrap();
        waits(service).await;
        let second = Instant::now();
        assert_eq!(service.terminate(GRACE).await.unwrap(), Some(130), "{}", which.name());
        assert!(second.elapsed() < GRACE / 2, "at once, and not at the end of the grace period");
    }

    pipeline.instance().behave_well();
    pipeline.batch_receiver.start().await.unwrap();
    pipeline.batch_sender.start().await.unwrap();
    more_delivered(&pipeline, 20).await;
    let sent = load.stop().await;
    let report = pipeline.settle(SOON).await;
    report.assert_clean_but_repeated();
    assert_eq!(report.delivered, sent, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_told_to_stop_while_the_broker_is_away_stops_within_its_grace_period() {
    let mut pipeline = short_of_grace().start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, 20).await;
    pipeline.broker.kill9();
    both_stop_in_time(&mut pipeline).await;
    pipeline.broker.start_again().await.unwrap();
    both_go_on(pipeline, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_told_to_stop_while_the_broker_hangs_stops_within_its_grace_period() {
    let mut pipeline = short_of_grace().start().await.unwrap();
    let load = Load::on(&pipeline, &LANES);
    more_delivered(&pipeline, 20).await;
    pipeline.broker.pause().unwrap();
    // By then every question that a service asks now and then is one that the broker does not answer.
    let refused = || pipeline.ledger.submissions().iter().any(|submission| submission.last_status == 503);
    becomes_true("a sender is answered 503", SOON, refused).await.unwrap();
    both_stop_in_time(&mut pipeline).await;
    pipeline.broker.resume().unwrap();
    both_go_on(pipeline, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_still_waits_for_its_first_broker_stops_when_it_is_told_to() {
    let builder = short_of_grace().without(Which::InboxReceiver).without(Which::BatchSender);
    let mut pipeline = builder.start().await.unwrap();
    pipeline.broker.kill9();
    for which in [Which::InboxReceiver, Which::BatchSender] {
        let service = pipeline.service(which);
        service.spawn().unwrap();
        becomes_true("it tries", SOON, || service.log().contains("no broker yet")).await.unwrap();
    }
    both_stop_in_time(&mut pipeline).await;
}

/// Of the two services that know the broker.
const SHORT_GRACE: Duration = Duration::from_secs(2);

fn short_of_grace() -> Builder {
    two_lanes()
        .env(Which::InboxReceiver, "FED_PUBLISH_TIMEOUT", "1s")
        .env(Which::InboxReceiver, "FED_SHUTDOWN_GRACE", "2s")
        .env(Which::BatchSender, "FED_SHUTDOWN_GRACE", "2s")
}

async fn both_stop_in_time(pipeline: &mut Pipeline) {
    let asked = Instant::now();
    for which in [Which::InboxReceiver, Which::BatchSender] {
        pipeline.service(which).ask_to_stop().expect("it runs");
    }
    for which in [Which::InboxReceiver, Which::BatchSender] {
        let code = pipeline.service(which).wait_exit(GRACE).await.expect("it ends");
        let took = asked.elapsed();
        assert_eq!(code, Some(0), "{}", which.name());
        assert!(took < SHORT_GRACE + Duration::from_secs(1), "{}: {took:?}", which.name());
    }
}

async fn both_go_on(mut pipeline: Pipeline, load: Load) {
    for which in [Which::InboxReceiver, Which::BatchSender] {
        pipeline.service(which).start().await.expect("it starts again");
    }
    more_delivered(&pipeline, 20).await;
    let sent = load.stop().await;
    pipeline.settle(SOON).await.assert_clean(sent);
}

/// Two sources, one destination.
fn two_lanes() -> Builder {
    Pipeline::builder().source("a.test").source("b.test")
}

/// The instance takes this many more.
async fn more_delivered(pipeline: &Pipeline, count: usize) {
    pipeline.instance().wait_accepted(pipeline.instance().accepted() + count, SOON).await.expect("deliveries go on");
}

/// The instance works on an activity of each lane.
async fn all_in_progress(pipeline: &Pipeline) {
    let all = || pipeline.instance().in_progress() == LANES.len();
    becomes_true("the instance works on an activity of each lane", SOON, all).await.expect("it takes them");
}

/// It has heard the signal, and has not ended.
async fn waits(service: &mut Service) {
    becomes_true("it says that it stops", SOON, || service.log().contains("a second signal ends at once"))
        .await
        .expect("it hears the signal");
    assert!(!service.has_ended(), "{}", service.log_tail());
}
