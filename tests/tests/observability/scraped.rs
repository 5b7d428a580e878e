//! One run of everything: traffic with a duplicate, refusals, a retry, a parked activity and one that waits; Prometheus reads
//! the services, and answers every query of every dashboard.

use std::collections::BTreeSet;

use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::eventually;
use fedstream_tests::http1;
use fedstream_tests::instance::Seen;
use fedstream_tests::outbound::Outbound;
use fedstream_tests::pipeline::{Pipeline, Which};
use fedstream_tests::process::Service;
use fedstream_tests::tool::Tool;

use crate::SOON;
use crate::boards;
use crate::known::Known;
use crate::prometheus::{Prometheus, promtool};
use crate::rules;

const LANE: &str = "home.test/a.test";

/// What none of this makes happen. A query that asks for nothing else may come back empty.
const NEVER_HERE: [&str; 1] = ["ALERTS"]; // no alert waits for less than a minute

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_answers_every_query_of_the_dashboards_and_runs_every_rule() {
    let (pipeline, outbound) = tokio::join!(busy(), busy_outside());
    let prometheus = Prometheus::start(&[
        ("inbox-receiver:9090", pipeline.inbox_receiver.admin()),
        ("batch-sender:9091", pipeline.batch_sender.admin()),
        ("batch-receiver:9092", pipeline.batch_receiver.admin()),
        ("delivery-worker:9093", outbound.worker.admin()),
    ])
    .await;
    let up = async || (prometheus.query("up == 1").await.len() == 4).then_some(());
    eventually("all four services are scraped", SOON, up).await.unwrap();
    // What happens between two looks makes a rate. Then one that the instance does not take: it waits, and its lane is in trouble.
    let mut sender = pipeline.sender("a.test", "home.test");
    sender.send_many(10).await;
    pipeline.instance().wait_accepted(10 + 9, SOON).await.unwrap();
    pipeline.instance().behave(Behaviour::busy(503, None));
    sender.send_many(2).await;

    let services = [&pipeline.inbox_receiver, &pipeline.batch_sender, &pipeline.batch_receiver, &outbound.worker];
    every_name_on_the_page_is_known(&services).await;
    every_query_is_answered(&prometheus).await;
    every_rule_runs(&prometheus).await;
}

/// A pipeline to which most has happened that is counted.
async fn busy() -> Pipeline {
    let pipeline = Pipeline::builder().source("a.test").start().await.expect("it starts");
    let number = |number: &'static str| move |seen: &Seen| seen.id.ends_with(number);
    pipeline.instance().behave_where(None, Behaviour::rejects(403, "no"), number("-2"));
    pipeline.instance().behave_where(Some(1), Behaviour::busy(503, None), number("-3"));
    let tool = Tool::at(&pipeline.broker);
    tool.says(&format!("pause {LANE}")).await;
    refused(&pipeline, "a.test", "lane-paused").await;
    tool.says(&format!("resume {LANE}")).await;
    refused(&pipeline, "stranger.test", "source-not-configured").await;

    let mut sender = pipeline.sender("a.test", "home.test");
    let first = sender.compose();
    let stored = async || (sender.try_once(&first).await.ok()?.status == 204).then_some(());
    eventually("the lane is resumed", SOON, stored).await.expect("a 204");
    assert_eq!(sender.try_once(&first).await.expect("an answer").status, 204, "known already");
    sender.send_many(10).await;
    pipeline.instance().wait_accepted(10, SOON).await.expect("ten of them");
    pipeline
}

/// A worker that has delivered something, and waits for a remote now.
async fn busy_outside() -> Outbound {
    let outbound = Outbound::with(1).start().await.expect("it starts");
    let actor = outbound.actor(1).expect("a key");
    outbound.publish_many(0, &actor, 3).await.expect("stored");
    outbound.wait_accepted(0, 3, SOON).await.expect("three of them");
    outbound.remotes[0].behave(Behaviour::Hang);
    outbound.publish_many(0, &actor, 2).await.expect("stored");
    outbound
}

/// One that the front does not take, for this reason.
async fn refused(pipeline: &Pipeline, source: &str, reason: &str) {
    let mut sender = pipeline.sender(source, "home.test");
    let activity = sender.compose();
    let refused = async || {
        let answer = sender.try_once(&activity).await.ok()?;
        (answer.status == 503 && answer.json()["type"].as_str()?.ends_with(reason)).then_some(())
    };
    eventually(reason, SOON, refused).await.expect("a refusal");
}

/// promtool has nothing to say against the pages, and what is on them is documented.
async fn every_name_on_the_page_is_known(services: &[&Service]) {
    let known = Known::with([]);
    let documented: BTreeSet<&str> = known.metrics().collect();
    for service in services {
        let page = http1::get(service.admin(), "/metrics").await.expect("a page");
        let text = String::from_utf8(page.body.to_vec()).expect("text");
        let checked = promtool(std::path::Path::new("."), &["check", "metrics"], &text);
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success() && said.is_empty(), "{}: {said}\n{text}", service.name());
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            assert!(
                name == "target_info" || documented.contains(name),
                "{}: {name} is not on the page",
                service.name()
            );
        }
    }
}

/// Each is understood, and each has something to show.
async fn every_query_is_answered(prometheus: &Prometheus) {
    let mut waiting: Vec<(String, String)> = boards::all().iter().flat_map(boards::Board::expressions).collect();
    waiting.extend(boards::queries_at_spans());
    assert!(waiting.len() > 60, "{} queries", waiting.len());
    for (_, expression) in &mut waiting {
        *expression = expression.replace("$__rate_interval", "1m").replace("$lane", LANE);
    }
    waiting.retain(|(_, expression)| !NEVER_HERE.iter().any(|name| expression.starts_with(name)));
    let all_answered = async || {
        let mut empty = Vec::new();
        for (at, expression) in waiting.drain(..) {
            if prometheus.query(&expression).await.is_empty() {
                empty.push((at, expression));
            }
        }
        waiting = empty;
        waiting.is_empty().then_some(())
    };
    let answered = eventually("every query is answered", SOON, all_answered).await;
    let names = prometheus.names().await;
    assert!(answered.is_ok(), "nothing to show for {waiting:#?}\nof {names:?}");
}

/// Each has been evaluated without a fault, what each asks for is there, and what each records too.
async fn every_rule_runs(prometheus: &Prometheus) {
    let (records, alerts) = (rules::records(), rules::alerts());
    let evaluated = async || {
        let rules = prometheus.rules().await;
        (rules.len() == records.len() + alerts.len() && rules.iter().all(|rule| rule["health"] == "ok")).then_some(())
    };
    if let Err(timeout) = eventually("every rule is evaluated", SOON, evaluated).await {
        panic!("{timeout}: {:#?}", prometheus.rules().await);
    }
    let names: BTreeSet<String> = prometheus.names().await.into_iter().collect();
    for rule in records.iter().chain(&alerts) {
        for name in crate::promql::read(&rule.expression).selectors.into_iter().flat_map(|selector| selector.names) {
            assert!(names.contains(&name), "{} asks for {name}, and nobody has it", rule.name);
        }
    }
    for record in &records {
        // A look at a service that took too long leaves a record out, until the next one.
        let has_samples = async || (!prometheus.query(&record.name).await.is_empty()).then_some(());
        eventually(format!("{} records something", record.name), SOON, has_samples).await.expect("it has samples");
    }
}

/// The services' names in rules and dashboards are those of the harness.
#[test]
fn the_jobs_are_the_services() {
    let targets = crate::read(&crate::deployed("prometheus/targets.yml"));
    let inbound = [Which::InboxReceiver, Which::BatchSender, Which::BatchReceiver].map(Which::name);
    for name in inbound.into_iter().chain(["delivery-worker"]) {
        assert!(targets.contains(&format!("job: {name} ")), "{name}");
    }
}
