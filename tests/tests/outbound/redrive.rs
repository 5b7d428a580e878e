//! What was given up, as an operator meets it: listed with the remote's answer, put back when that is mended, delivered once.

use async_nats::HeaderMap;
use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::eventually::eventually;
use fedstream_tests::http1;
use fedstream_tests::metrics_page::MetricsPage;
use fedstream_tests::outbound::{Outbound, Outboxes};
use fedstream_tests::tool::Tool;
use serde_json::{Value, json};

use crate::SOON;

/// The copies that `fedctl parked` lists with these words, as soon as there are so many.
async fn parked(fedctl: &Tool, words: &str, count: usize) -> Vec<Value> {
    let list = async || fedctl.json(&format!("parked {words} --json")).await["parked"].as_array().cloned();
    let enough = async || list().await.filter(|copies| copies.len() == count);
    eventually(format!("{count} copies are parked"), SOON, enough).await.expect("as many copies")
}

/// The one lane that there is, as `fedctl lanes` has it, once somebody sends it.
async fn the_lane(fedctl: &Tool) -> Value {
    let owned = async || {
        let lanes = fedctl.json("lanes --json").await["lanes"].as_array().cloned()?;
        lanes.into_iter().find(|lane| lane["kind"] == "outbox" && lane["owner"].is_string())
    };
    eventually("the lane has an owner", SOON, owned).await.expect("an owned lane")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_remote_refused_is_listed_and_delivered_once_when_the_remote_is_mended() {
    let outbound = Outbound::with(1).start().await.unwrap();
    let fedctl = Tool::at(&outbound.broker);
    let (actor, remote) = (outbound.actor(1).unwrap(), &outbound.remotes[0]);
    let refuses = |seen: &fedstream_tests::instance::Seen| seen.id.ends_with("/1");
    remote.behave_where(Some(2), Behaviour::rejects(410, "gone fishing"), refuses);
    outbound.publish_many(0, &actor, 3).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();

    let copy = parked(&fedctl, "", 1).await.remove(0);
    let (host, inbox) = (remote.addr().to_string(), format!("http://{}/inbox", remote.addr()));
    assert_eq!((&copy["kind"], &copy["reason"], &copy["status"]), (&json!("outbox"), &json!("rejected"), &json!(410)));
    assert_eq!((&copy["inbox"], &copy["actor"], &copy["attempts"]), (&json!(inbox), &json!(actor), &json!(1)));
    assert_eq!(copy["answer"], "the remote answered 410: gone fishing");
    assert!(copy["last_attempt_at"].is_string() && copy["requested_at"].is_string(), "{copy}");
    let table = fedctl.says(&format!("parked --kind outbox --remote {host} --actor {actor} --reason rejected")).await;
    assert!(table.contains(&format!("{host}/")) && table.contains("gone fishing"), "{table}");
    let other = outbound.actor(2).unwrap();
    for words in ["--kind inbox", "--remote elsewhere.test", "--reason remote-full", &format!("--actor {other}")] {
        assert_eq!(fedctl.says(&format!("parked {words}")).await, "nothing is parked\n", "{words}");
    }
    let shown = fedctl.says(&format!("parked show {}", copy["sequence"])).await;
    assert!(shown.contains(&format!("\nto     {inbox}\nactor  {actor}\n")), "{shown}");
    assert!(shown.contains("\nFed-Parked-Status: 410\n") && shown.contains("DeliveryRequested"), "{shown}");

    // The remote still refuses it: parked once more, and the application hears of it once more, however soon.
    fedctl.says(&format!("redrive {}", copy["sequence"])).await;
    let twice = async || (outbound.depth("FED_EVENTS").await == Some(2)).then_some(());
    eventually("it is told of again", SOON, twice).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let again = parked(&fedctl, "", 1).await.remove(0);
    assert_ne!(again["sequence"], copy["sequence"]);
    assert_eq!(remote.accepted(), 2);

    // Mended now.
    let said = fedctl.says(&format!("redrive --remote {host} --kind outbox")).await;
    assert!(said.ends_with("1 of 1 went back\n"), "{said}");
    outbound.wait_accepted(0, 3, SOON).await.unwrap();
    parked(&fedctl, "", 0).await;
    let twice = fedctl.run(&format!("redrive {}", again["sequence"])).await;
    assert!(twice.code == Some(1) && twice.stderr.contains("there is no copy"), "{twice:?}");
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let verdict = outbound.verdict();
    verdict.assert_whole(3); // each signed, and verified by the remote
    assert_eq!((verdict.repeats, remote.accepted(), remote.arrivals()), (2, 3, 5), "refused twice, taken once");
    assert_eq!(outbound.depth("FED_EVENTS").await, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_back_is_tried_for_as_long_as_if_it_were_new() {
    const DAY: f64 = 86_400.0;
    let outbound = Outbound::with(1).env("FED_DELIVERY_HORIZON", "3days").start().await.unwrap();
    let fedctl = Tool::at(&outbound.broker);
    let (actor, remote) = (outbound.actor(1).unwrap(), &outbound.remotes[0]);
    remote.behave_next(1, Behaviour::rejects(410, ""));
    // Asked for long before the horizon: tried for a minute still, were it not put back.
    let mut headers = HeaderMap::new();
    headers.append("Nats-Msg-Id", "old");
    headers.append("Fed-Requested-At", "2026-01-01T00:00:00Z");
    let event = json!({
        "type": "DeliveryRequested", "inbox": format!("http://{}/inbox", remote.addr()),
        "activity": { "id": "http://our.test/old", "type": "Like" }, "signing_actor_id": actor,
    });
    let subject = format!("fed.outbox.127_0_0_1=3A{}.0", remote.addr().port());
    let jetstream = outbound.jetstream().await.unwrap();
    let stored = jetstream.publish_with_headers(subject, headers, event.to_string().into()).await.unwrap();
    stored.await.unwrap();
    parked(&fedctl, "", 1).await;
    remote.behave(Behaviour::Hang);
    fedctl.says("redrive --all --reason rejected").await;
    let left = async || MetricsPage::of(&outbound.worker).await?.sum("fedstream_lane_deadline_seconds", &[]);
    let left = eventually("the lane has a deadline", SOON, left).await.unwrap();
    assert!((2.9 * DAY..=3.0 * DAY).contains(&left), "{left} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_found_its_lane_full_stays_parked_until_there_is_room_and_comes_after_it() {
    const LENGTH: usize = 5;
    const ROOM: i64 = 2;
    let outboxes = Outboxes::start(LENGTH).await.unwrap();
    let outbound =
        Outbound::with(1).env("FED_OUTBOX_URL_TEMPLATE", outboxes.template()).env("FED_BACKFILL_PAUSE", "10ms");
    let outbound = outbound.start().await.unwrap();
    let fedctl = Tool::at(&outbound.broker);
    let (actor, remote) = (outbound.actor(1).unwrap(), &outbound.remotes[0]);
    let jetstream = outbound.jetstream().await.unwrap();
    let mut config = jetstream.get_stream("FED_OUTBOX").await.unwrap().get_info().await.unwrap().config;
    config.max_messages_per_subject = ROOM;
    jetstream.update_stream(config).await.unwrap();
    remote.behave(Behaviour::busy(503, None));
    // The worker is the publisher here: it feeds the lane with the history.
    outbound.sent.enter(&remote.addr().to_string(), &actor, Outboxes::history(&actor, LENGTH));
    outbound.request_backfill(0, &actor).await.unwrap();
    let copies = parked(&fedctl, "--reason remote-full", 3).await;
    assert!(copies.iter().all(|copy| copy["kind"] == "outbox" && copy["attempts"] == 0), "{copies:?}");
    outbound.wait_empty("FED_BACKFILL", SOON).await.unwrap();

    let full = fedctl.run("redrive --all --reason remote-full").await;
    assert_eq!((full.code, full.stdout.as_str()), (Some(1), "0 of 3 went back\n"), "{full:?}");
    let complaints = full.stderr.lines().filter(|line| line.contains("stays parked")).count();
    assert_eq!(complaints, 1, "the lane is asked once: {full:?}");
    assert!(full.stderr.contains("stopped: 0 of 3 went back, 3 did not"), "{full:?}");
    parked(&fedctl, "", 3).await;

    remote.behave_well();
    let all = async || (fedctl.run("redrive --all --reason remote-full").await.code == Some(0)).then_some(());
    eventually("all found room", SOON, all).await.unwrap();
    outbound.wait_accepted(0, LENGTH, SOON).await.unwrap();
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    let verdict = outbound.verdict();
    verdict.assert_whole(LENGTH);
    assert_eq!((verdict.repeats, outbound.depth("FED_PARKED").await), (0, Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbound_lane_is_shown_and_paused_and_its_head_parked() {
    let outbound = Outbound::with(1).start().await.unwrap();
    let fedctl = Tool::at(&outbound.broker);
    let (actor, remote) = (outbound.actor(1).unwrap(), &outbound.remotes[0]);
    remote.behave(Behaviour::busy(503, None));
    outbound.publish_many(0, &actor, 3).await.unwrap();
    let row = the_lane(&fedctl).await;
    let lane = row["lane"].as_str().unwrap();
    assert!(lane.starts_with(&format!("{}/", remote.addr())), "{row}");
    assert_eq!((&row["depth"], &row["head"], &row["paused"]), (&json!(3), &json!(1), &json!(false)), "{row}");

    let said = fedctl.says(&format!("park {lane} 1")).await;
    assert!(said.contains("the delivery-worker parks it"), "{said}");
    let copy = parked(&fedctl, lane, 1).await.remove(0);
    assert_eq!((&copy["reason"], &copy["lane"]), (&json!("operator"), &json!(lane)));

    fedctl.says("set outbox paused=true").await;
    let stands = async || {
        let page = http1::get(outbound.worker.admin(), "/lanes").await.ok()?.json();
        let view = &page["lanes"][lane];
        (view["why"].as_str()?.contains("paused by its settings") && view["posts"] == 0).then_some(())
    };
    eventually("the worker knows of the pause, and has nothing under way", SOON, stands).await.unwrap();
    let shown = fedctl.says(&format!("show {lane}")).await;
    assert!(shown.contains("\npaused  yes\n") && shown.contains(" outbox\n"), "it is that of all: {shown}");
    remote.behave_well();
    let refused = fedctl.run(&format!("set {lane} batch_items=5")).await;
    assert!(refused.code == Some(64) && refused.stderr.contains("does nothing for what leads out"), "{refused:?}");
    fedctl.says(&format!("redrive --lane {lane}")).await;
    assert_eq!((remote.accepted(), outbound.depth("FED_OUTBOX").await), (0, Some(3)));
    fedctl.says(&format!("resume {lane}")).await;
    outbound.wait_empty("FED_OUTBOX", SOON).await.unwrap();
    assert_eq!(remote.accepted(), 3);
    let last = remote.seen().last().map(|seen| seen.id.clone());
    assert_eq!(last.as_deref(), copy["activity_id"].as_str(), "at the end of its lane");
}
