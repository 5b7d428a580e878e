//! `examples/minimal.rs`, run as a reader would: alone, and with a broker and the real delivery-worker.

use std::path::Path;

use fedstream_tests::outbound::Outbound;
use fedstream_tests::process::binary;
use tokio::process::Command;

use crate::support::PATIENCE;

/// `minimal try`; what it says, where it ends well.
async fn tried(keys: &Path, nats_url: Option<&str>) -> String {
    let program =
        binary("examples/minimal").expect("`cargo test` builds it; by hand: cargo build -p federation --examples");
    let mut command = Command::new(program);
    command.arg("try").env("KEYS_DIR", keys).env_remove("LISTEN").env_remove("NATS_URL").kill_on_drop(true);
    if let Some(url) = nats_url {
        command.env("NATS_URL", url);
    }
    let output = tokio::time::timeout(PATIENCE * 3, command.output()).await.expect("it ends").expect("it starts");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    assert_eq!(errors, "", "and nothing is given up or left");
    said.into_owned()
}

fn expected(way: &str) -> String {
    format!("alice to bob: Hello, bob\nbob to alice: Hello, alice\nboth notes arrived, {way}\n")
}

#[tokio::test]
async fn the_minimal_application_federates_with_itself_in_process() {
    let keys = tempfile::tempdir().expect("room");
    let said = tried(keys.path(), None).await;
    assert_eq!(said.split_once('\n').map(|(_address, rest)| rest), Some(expected("in process").as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_minimal_application_federates_with_itself_through_jetstream_and_a_worker() {
    let keys = tempfile::tempdir().expect("room");
    let outbound = Outbound::with(0).env("FED_KEYS_DIR", keys.path().display().to_string());
    let outbound = outbound.start().await.expect("broker and worker");
    let said = tried(keys.path(), Some(&outbound.broker.url())).await;
    let way = "through JetStream and a delivery-worker";
    assert_eq!(said.split_once('\n').map(|(_address, rest)| rest), Some(expected(way).as_str()));
    outbound.wait_empty("FED_OUTBOX", PATIENCE).await.expect("both are delivered, and that is all");
    assert_eq!((outbound.depth("FED_PARKED").await, outbound.depth("FED_EVENTS").await), (Some(0), Some(0)));
}
