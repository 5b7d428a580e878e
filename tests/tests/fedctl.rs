//! The operator's tool against a real broker and the running pipeline, as a user who may do what nats/README.md says and
//! nothing more.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::kv;
use async_nats::jetstream::message::StreamMessage;
use fedstream_tests::behaviour::Behaviour;
use fedstream_tests::broker::{self, Broker};
use fedstream_tests::eventually::{becomes_true, eventually};
use fedstream_tests::pipeline::{Builder, Pipeline, Which};
use fedstream_tests::sender::Sender;
use fedstream_tests::tool::Tool;
use serde_json::{Value, json};

/// For anything that happens of itself: generous, since two cores may be shared with a build.
const SOON: Duration = Duration::from_secs(30);

const LANE: &str = "home.test/a.test";
const KEY: &str = "inbox.home_test.a_test";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_rejected_is_listed_shown_and_delivered_at_its_lanes_end() {
    const ANSWER: &str = r#"{"error":"couldnt_find_community"}"#;
    let (pipeline, fedctl) = start(one_lane()).await;
    pipeline.instance().behave_next(1, Behaviour::rejects(400, ANSWER));
    let mut sender = pipeline.sender("a.test", "home.test");
    let id = send(&mut sender).await;
    let copy = parked(&fedctl, 1).await.remove(0);
    assert_eq!(copy["lane"], LANE);
    assert_eq!((&copy["reason"], &copy["status"], &copy["attempts"]), (&json!("rejected"), &json!(400), &json!(1)));
    assert_eq!((&copy["answer"], &copy["activity_id"]), (&json!(ANSWER), &json!(id)));
    let table = fedctl.says(&format!("parked {LANE} --reason rejected --limit 5")).await;
    assert!(table.contains(&id) && table.contains("couldnt_find_community"), "{table}");
    assert_eq!(fedctl.says(&format!("parked {LANE} --reason poison")).await, "nothing is parked\n");

    let seq = &copy["sequence"];
    let shown = fedctl.says(&format!("parked show {seq}")).await;
    assert!(shown.contains("\nFed-Parked-Reason: rejected\n") && shown.contains("\nPOST /inbox\n"), "{shown}");
    assert!(shown.contains("bytes; --headers shows them") && !shown.contains("keyId="), "{shown}");
    assert!(shown.contains(r#""type":"Announce""#), "its body: {shown}");
    assert!(fedctl.says(&format!("parked show {seq} --headers")).await.contains("keyId="));

    sender.send_many(2).await;
    pipeline.instance().wait_accepted(2, SOON).await.unwrap();
    let dry = fedctl.says(&format!("redrive --lane {LANE} --dry-run")).await;
    assert!(dry.contains(&id) && dry.ends_with("1 would go back\n"), "{dry}");
    assert_eq!(parked(&fedctl, 1).await.len(), 1, "it is still there");
    let said = fedctl.says(&format!("redrive {seq}")).await;
    assert!(said.ends_with("1 of 1 went back\n"), "{said}");
    pipeline.instance().wait_accepted(3, SOON).await.unwrap();
    assert_eq!(pipeline.instance().seen().last().unwrap().id, id, "behind the others");
    assert_eq!(parked(&fedctl, 0).await, [] as [Value; 0], "and the copy is gone");

    let again = fedctl.run(&format!("redrive {seq}")).await;
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains(&format!("there is no copy {seq} in FED_PARKED")), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_one_goes_back_without_the_deadline_that_would_park_it_again() {
    let (pipeline, fedctl) = start(one_lane()).await;
    pipeline.instance().behave_next(1, Behaviour::rejects(400, ""));
    let id = send(&mut pipeline.sender("a.test", "home.test")).await;
    parked(&fedctl, 1).await;
    // An hour later: the same copy, as it would have been parked then.
    let deadline = "2026-01-01T00:00:00Z";
    let seq = park_again(&pipeline, &[("Fed-Parked-Reason", "expired"), ("Fed-Deadline", deadline)]).await;
    pipeline.instance().behave(Behaviour::busy(503, None)); // so that it can be looked at in its lane

    let said = fedctl.says("redrive --all --reason expired").await;
    assert!(said.ends_with("1 of 1 went back\n"), "{said}");
    let jetstream = pipeline.broker.jetstream().await.unwrap();
    let inbox = jetstream.get_stream("FED_INBOX").await.unwrap();
    let back = inbox.get_last_raw_message_by_subject(&format!("fed.{KEY}")).await.unwrap();
    let header = |name: &str| back.headers.get(name).map(|value| value.as_str());
    assert_eq!((header("Fed-Deadline"), header("Fed-Redrive")), (None, Some(seq.to_string().as_str())));
    assert_eq!(header("Fed-Parked-Reason"), None, "nothing of the copy's own goes along");
    pipeline.instance().behave_well();
    pipeline.instance().wait_accepted(1, SOON).await.unwrap();
    assert_eq!(pipeline.instance().seen().last().unwrap().id, id);
    assert_eq!(parked(&fedctl, 1).await[0]["reason"], "rejected", "the other one was not asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_lane_ends_a_redrive_which_goes_on_later() {
    let builder = one_lane().env(Which::InboxReceiver, "FED_LANE_MESSAGES_MAX", "2");
    let (pipeline, fedctl) = start(builder).await;
    pipeline.instance().behave_next(1, Behaviour::rejects(400, ""));
    send(&mut pipeline.sender("a.test", "home.test")).await;
    parked(&fedctl, 1).await;
    for number in 0..4 {
        let own_id = format!("another-{number}"); // each a message of its own
        park_again(&pipeline, &[("Fed-Parked-Reason", "poison"), ("Fed-Parked-Msg-Id", &own_id)]).await;
    }
    pipeline.wait_trimmed(SOON).await.unwrap();
    pipeline.instance().behave(Behaviour::busy(503, None)); // so that nothing leaves the lane
    let said = fedctl.run(&format!("redrive --lane {LANE} --reason poison")).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(said.stdout, "2 of 4 went back\n");
    assert!(
        said.stderr.contains("stays parked") && said.stderr.contains("stopped: 2 of 4 went back, 2 did not"),
        "{said:?}"
    );
    assert_eq!(parked(&fedctl, 3).await.len(), 3);

    pipeline.instance().behave_well();
    pipeline.wait_trimmed(SOON).await.unwrap();
    fedctl.says(&format!("redrive --lane {LANE} --reason poison")).await;
    let taken = || pipeline.instance().seen().iter().filter(|seen| seen.accepted()).count();
    becomes_true("all four came", SOON, || taken() == 4).await.unwrap();
    parked(&fedctl, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_setting_names_its_field_and_reason_and_stores_nothing() {
    let (pipeline, fedctl) = start(one_lane()).await;
    let refused = async |words: &str, said: &str| {
        let answer = fedctl.run(words).await;
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(64), ""), "{words}: {answer:?}");
        assert!(answer.stderr.starts_with("fedctl: ") && answer.stderr.contains(said), "{words}: {answer:?}");
    };
    refused(&format!("set {LANE} batch_items=50 linger_ms=99999"), "linger_ms: is 99999, must be 0 to 10000").await;
    refused(&format!("set {LANE} batch_item=50"), "batch_item: no such setting").await;
    refused("set default park=5", "park: a sequence is one lane's").await;
    refused(&format!("unset {LANE} pausd"), "pausd: no such setting").await;
    assert_eq!(entry(&pipeline, KEY).await, None);
    assert_eq!(entry(&pipeline, "default").await, None);

    let said = fedctl.says(&format!("set {LANE} batch_items=50 profile=lemmy")).await;
    assert!(
        said.contains("  batch_items: not set -> 50\n") && said.contains("  profile: not set -> lemmy\n"),
        "{said}"
    );
    refused(&format!("set {LANE} window_items=10"), "window_items: is 10, less than batch_items (50)").await;
    assert_eq!(entry(&pipeline, KEY).await, Some(json!({ "batch_items": 50, "profile": "lemmy" })), "as it was");

    fedctl.says(&format!("set {LANE} batch_url=http://one.test/batch")).await;
    let said = fedctl.says("set inbox.home_test.a_test batch_url=http://two.test/batch batch_items=60").await;
    assert!(said.contains("  batch_items: 50 -> 60\n"), "{said}");
    assert!(said.contains("  batch_url_before: not set -> http://one.test/batch\n"), "{said}");
    fedctl.says("set default linger_ms=5 batch_items=9").await;
    let shown = fedctl.json(&format!("show {LANE} --json")).await;
    assert_eq!(
        (&shown["in_force"]["linger_ms"], &shown["in_force"]["batch_items"]),
        (&json!(5), &json!(60)),
        "{shown}"
    );
    let row = fedctl.json("lanes --json").await;
    assert_eq!((&row["lanes"][0]["lane"], &row["default"]["linger_ms"]), (&json!(LANE), &json!(5)), "{row}");
    fedctl.says("unset default linger_ms").await;
    assert_eq!(entry(&pipeline, "default").await, Some(json!({ "batch_items": 9 })));
    fedctl.says("reset default").await;
    assert_eq!(entry(&pipeline, "default").await, None);
    fedctl.says(&format!("reset {LANE}")).await;
    assert_eq!(
        entry(&pipeline, KEY).await,
        Some(json!({ "batch_url_before": "http://one.test/batch" })),
        "still to close"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_another_program_that_is_not_valid_is_shown_and_must_be_reset_first() {
    let (pipeline, fedctl) = start(one_lane()).await;
    bucket(&pipeline).await.put(KEY, r#"{"batch_items":0}"#.into()).await.unwrap();
    let table = fedctl.says("lanes").await;
    assert!(table.contains("NOT VALID: batch_items: is 0"), "{table}");
    let said = fedctl.run(&format!("set {LANE} linger_ms=5")).await;
    assert!(said.code == Some(1) && said.stderr.contains(&format!("`fedctl reset {LANE}` first")), "{said:?}");
    fedctl.says(&format!("reset {LANE}")).await;
    fedctl.says(&format!("set {LANE} linger_ms=5")).await;
    assert_eq!(entry(&pipeline, KEY).await, Some(json!({ "linger_ms": 5 })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_is_paused_and_resumed_while_the_pipeline_runs() {
    let (pipeline, fedctl) = start(one_lane()).await;
    let mut sender = pipeline.sender("a.test", "home.test");
    sender.send_many(2).await;
    pipeline.instance().wait_accepted(2, SOON).await.unwrap();
    let said = fedctl.says(&format!("pause {LANE}")).await;
    assert_eq!(said, format!("{LANE}\n  paused: not set -> true\n"));
    let activity = sender.compose();
    eventually("the front refuses the lane", SOON, async || {
        sender.try_once(&activity).await.ok().filter(|answer| answer.status == 503)
    })
    .await
    .unwrap();
    assert_eq!(fedctl.json(&format!("show {LANE} --json")).await["paused"], true);
    fedctl.says(&format!("resume {LANE}")).await;
    let taken = pipeline.instance().accepted();
    sender.send_many(3).await;
    pipeline.instance().wait_accepted(taken + 3, SOON).await.unwrap();
    assert_eq!(fedctl.json(&format!("show {LANE} --json")).await["paused"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_lifts_the_pause_after_refusals_each_time_it_is_said() {
    // One refusal pauses the lane, and it would try again of itself in half an hour.
    let builder = one_lane()
        .env(Which::BatchSender, "FED_REJECTIONS_MAX", "1")
        .env(Which::BatchSender, "HTTP_BATCH_SIZE", "1")
        .env(Which::BatchSender, "FED_WINDOW_BATCHES", "1")
        .env(Which::BatchSender, "FED_BACKOFF_MIN", "30m")
        .env(Which::BatchSender, "FED_BACKOFF_MAX", "30m");
    let (pipeline, fedctl) = start(builder).await;
    pipeline.instance().behave(Behaviour::rejects(403, "go away"));
    pipeline.sender("a.test", "home.test").send_many(3).await;
    for refused in 1..=3 {
        assert_eq!(parked(&fedctl, refused).await.len(), refused);
        assert_eq!(pipeline.instance().arrivals(), refused, "no more than that");
        fedctl.says(&format!("resume {LANE}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_head_is_parked() {
    let (pipeline, fedctl) = start(one_lane()).await;
    pipeline.instance().behave(Behaviour::busy(503, None));
    let mut sender = pipeline.sender("a.test", "home.test");
    let first = send(&mut sender).await;
    sender.send_many(2).await;
    let shown = fedctl.json(&format!("show {LANE} --json")).await;
    assert_eq!(
        (&shown["depth"], &shown["head"], &shown["head_activity"]),
        (&json!(3), &json!(1), &json!(first)),
        "{shown}"
    );
    let owned =
        async || fedctl.says("lanes").await.lines().nth(1).filter(|row| !row.contains(" -  ")).map(str::to_owned);
    let row = eventually("the lane has an owner", SOON, owned).await.unwrap();
    assert!(row.starts_with(LANE), "{row}");

    let said = fedctl.run(&format!("park {LANE} 2")).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("2 is not the head of home.test/a.test, 1 is"), "{said:?}");
    assert_eq!(entry(&pipeline, KEY).await, None, "nothing is stored");
    let said = fedctl.says(&format!("park {LANE} 1")).await;
    assert!(said.contains("only the head of a lane is parked") && said.contains(&first), "{said}");
    let copy = parked(&fedctl, 1).await.remove(0);
    assert_eq!((&copy["reason"], &copy["activity_id"]), (&json!("operator"), &json!(first)));
    assert_eq!(fedctl.run(&format!("park {LANE} 1")).await.code, Some(1), "it has left");
    // The last one, when its turn comes.
    fedctl.says(&format!("park {LANE} 3 --wait")).await;
    assert_eq!(entry(&pipeline, KEY).await, Some(json!({ "park": 3 })));
    pipeline.instance().behave_well();
    pipeline.wait_trimmed(SOON).await.unwrap();
    assert!(pipeline.instance().accepted() >= 1);
    let empty = fedctl.run(&format!("park {LANE} 4")).await;
    assert!(empty.code == Some(1) && empty.stderr.contains("is empty"), "{empty:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_missing_is_said_and_not_made() {
    let broker = Broker::start().await.unwrap();
    let fedctl = Tool::at(&broker).env("FED_STREAMS", "create").env("FED_SITE", "another program's, and no warning");
    for (words, stream) in
        [("lanes", "FED_INBOX"), ("parked", "FED_PARKED"), ("set default linger_ms=5", "KV_fed_lanes")]
    {
        let said = fedctl.run(words).await;
        assert_eq!((said.code, said.stdout.as_str()), (Some(69), ""), "{said:?}");
        assert!(said.stderr.starts_with(&format!("fedctl: stream {stream} is missing; fedctl makes none")), "{said:?}");
        assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
        assert!(broker.jetstream().await.unwrap().get_stream(stream).await.is_err(), "nobody made it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn help_lists_the_variables_and_a_wrong_word_or_no_broker_has_its_own_exit_code() {
    let help = Tool::nowhere().says("--help").await;
    for name in ["NATS_URL", "NATS_USER", "NATS_PASSWORD", "NATS_CREDS_FILE", "NATS_CA_FILE", "NATS_INBOX_PREFIX"] {
        assert!(help.contains(&format!("\n  {name} (")), "{name}: {help}");
    }
    assert!(!help.contains("FED_STREAMS") && help.contains("\n  redrive "), "{help}");
    for words in ["", "lane", "show nowhere", "redrive", "set default batch_items", "pause default"] {
        let said = Tool::nowhere().run(words).await;
        assert_eq!((said.code, said.stdout.as_str()), (Some(64), ""), "{words}: {said:?}");
    }
    let away = Tool::nowhere().env("NATS_URL", "nats://me:hunter2@127.0.0.1:1").env("NATS_CONNECT_TIMEOUT", "200ms");
    let said = away.run("lanes").await;
    assert_eq!(said.code, Some(69), "{said:?}");
    assert!(said.stderr.contains("NATS_URL") && !said.stderr.contains("hunter2"), "{said:?}");
    let said = Tool::nowhere().env("NATS_URL", "gopher://x").run("lanes").await;
    assert_eq!(said.code, Some(64), "{said:?}");
}

fn one_lane() -> Builder {
    Pipeline::builder().source("a.test")
}

/// The pipeline, and the tool as an operator who may do what nats/README.md says.
async fn start(builder: Builder) -> (Pipeline, Tool) {
    let allowed = [
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.*",
        "$JS.API.STREAM.MSG.GET.FED_INBOX",
        "fed.inbox.>",
        "$JS.API.STREAM.MSG.GET.FED_PARKED",
        "$JS.API.STREAM.MSG.DELETE.FED_PARKED",
        "$JS.API.DIRECT.GET.KV_fed_leases.>",
        "$JS.API.DIRECT.GET.KV_fed_lanes.>",
        "$KV.fed_lanes.>",
    ];
    let users = format!(
        "authorization {{ users = [ {{ user: all, password: all }}, {{ user: operator, password: operator,
        permissions: {{ publish: {allowed:?}, subscribe: \"_INBOX_operator.>\" }} }} ] }}"
    );
    let options = broker::Options { lines: vec![users, "no_auth_user: all".into()], ..broker::Options::default() };
    let pipeline = builder.broker(options).start().await.expect("all start");
    let fedctl = Tool::at(&pipeline.broker)
        .env("NATS_USER", "operator")
        .env("NATS_PASSWORD", "operator")
        .env("NATS_INBOX_PREFIX", "_INBOX_operator");
    (pipeline, fedctl)
}

/// Has one activity accepted by the front, and says its id.
async fn send(sender: &mut Sender) -> String {
    let activity = sender.compose();
    assert!(sender.send(&activity).await.status < 300);
    activity.id
}

/// What is parked, as soon as it is so many.
async fn parked(fedctl: &Tool, count: usize) -> Vec<Value> {
    let list = async || fedctl.json("parked --json").await["parked"].as_array().cloned();
    let enough = async || list().await.filter(|copies| copies.len() == count);
    eventually(format!("{count} copies are parked"), SOON, enough).await.expect("as many copies")
}

/// The first copy once more, with other headers; says its sequence.
async fn park_again(pipeline: &Pipeline, changed: &[(&str, &str)]) -> u64 {
    let jetstream = pipeline.broker.jetstream().await.expect("a connection");
    let stream = jetstream.get_stream("FED_PARKED").await.expect("the batch-sender made it");
    let StreamMessage { subject, headers, payload, .. } = stream.get_raw_message(1).await.expect("the first copy");
    let mut map = HeaderMap::new();
    for (name, values) in headers.iter().filter(|(name, _)| AsRef::<str>::as_ref(*name) != "Nats-Msg-Id") {
        let other = changed.iter().all(|(changed, _)| AsRef::<str>::as_ref(name) != *changed);
        values.iter().filter(|_| other).for_each(|value| map.append(name.clone(), value.clone()));
    }
    changed.iter().for_each(|(name, value)| map.append(*name, *value));
    let ack = jetstream.publish_with_headers(subject, map, payload).await.expect("sent").await;
    ack.expect("stored").sequence
}

async fn bucket(pipeline: &Pipeline) -> kv::Store {
    pipeline.broker.jetstream().await.expect("a connection").get_key_value("fed_lanes").await.expect("the bucket")
}

/// What stands in fed_lanes.
async fn entry(pipeline: &Pipeline, key: &str) -> Option<Value> {
    let value = bucket(pipeline).await.get(key).await.expect("an answer")?;
    Some(serde_json::from_slice(&value).expect("JSON"))
}
