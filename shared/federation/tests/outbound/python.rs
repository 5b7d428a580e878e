//! The Python example, run as it stands: what it stores is what a Rust application stores.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use federation::{EventPublisher, FederationEvent};
use fedstream_tests::broker::Broker;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::streams::{all, publisher};
use crate::support::ALICE;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nats/examples")
}

/// A Python with what the example needs; none where somebody said in so many words that there is none.
async fn python() -> Option<PathBuf> {
    if std::env::var("FED_PYTHON").is_ok_and(|value| value == "none") {
        eprintln!("FED_PYTHON=none: the Python example is not run");
        return None;
    }
    let output = Command::new("sh").arg(examples().join("python.sh")).stderr(Stdio::inherit()).output().await;
    let output = output.expect("sh");
    assert!(output.status.success(), "no Python for the example: nats/examples/python.sh says why");
    Some(PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim()))
}

async fn run(python: &Path, broker: &Broker, inbox: &str, activity: &Value) -> Result<Value, String> {
    let mut child = Command::new(python)
        .arg(examples().join("publish.py"))
        .args([&broker.url(), inbox, &ALICE.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(activity.to_string().as_bytes()).await.expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().await.expect("it ends");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[tokio::test]
async fn a_delivery_published_from_python_is_the_message_that_rust_would_have_stored() {
    let Some(python) = python().await else { return };
    let broker = Broker::start().await.expect("a broker");
    let publisher = publisher(&broker).await;
    let activity = serde_json::json!({
        "type": "Like", "id": "https://our.example/likes/1", "object": { "z": ["ü", 1, null, true], "a": "\n\"" }
    });
    for (number, inbox) in
        ["https://remote.example/inbox", "https://Bücher.example:8443/a%20b/inbox?c=d"].into_iter().enumerate()
    {
        let sequence = number as u64 + 1;
        // As `Url` writes it: a program that publishes another spelling has another id, and another lane never.
        let inbox: url::Url = inbox.parse().expect("a URL");
        let first = run(&python, &broker, inbox.as_str(), &activity).await.expect("stored");
        assert_eq!((first["seq"].as_u64(), first["duplicate"].as_bool()), (Some(sequence), Some(false)), "{first}");
        let again = run(&python, &broker, inbox.as_str(), &activity).await.expect("stored before");
        assert_eq!((again["seq"].as_u64(), again["duplicate"].as_bool()), (Some(sequence), Some(true)), "{again}");

        let event = FederationEvent::DeliveryRequested {
            inbox: inbox.clone(),
            activity: activity.clone(),
            signing_actor_id: ALICE,
        };
        publisher.publish(event).await.expect("stored before");
        let found = all(&broker, "FED_OUTBOX").await;
        assert_eq!(found.len(), number + 1, "the same subject and id, so one message");
        assert_eq!(found[number].subject, first["subject"]);
        let delivery = found[number].delivery();
        assert_eq!((delivery.inbox, delivery.signing_actor_id), (inbox, ALICE));
        assert_eq!(delivery.activity.to_value(), activity);
    }
}

#[tokio::test]
async fn the_lane_of_an_inbox_is_that_of_rust_and_a_name_in_other_letters_is_refused() {
    let Some(python) = python().await else { return };
    let broker = Broker::start().await.expect("a broker");
    let _streams = publisher(&broker).await;
    for inbox in [
        "https://remote.example:80/inbox",
        "http://remote.example:443/inbox",
        "http://remote.example:80/inbox",
        "https://[2606:4700::1]:8443/inbox",
    ] {
        let url: url::Url = inbox.parse().expect("a URL");
        let stored = run(&python, &broker, inbox, &serde_json::json!({ "id": inbox })).await.expect("stored");
        let lane = federation::lanes::remote_of(&url).expect("a remote").token();
        let subject = stored["subject"].as_str().expect("a subject");
        assert!(subject.starts_with(&format!("fed.outbox.{lane}.")), "{inbox}: {subject}");
    }
    let refused = run(&python, &broker, "https://stra\u{df}e.example/inbox", &serde_json::json!({})).await;
    assert!(refused.expect_err("two standards, two names").contains("not in its ASCII form"));
}

#[tokio::test]
async fn without_a_stream_the_example_says_that_nothing_is_stored() {
    let Some(python) = python().await else { return };
    let broker = Broker::start().await.expect("a broker");
    let error = run(&python, &broker, "https://remote.example/inbox", &serde_json::json!({})).await;
    assert!(error.expect_err("no stream").contains("NoStreamResponseError"));
}
