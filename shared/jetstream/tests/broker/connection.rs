//! Getting a broker, refusing one, losing one.

use std::time::Duration;

use fedstream_jetstream::{Broker, Held, NatsSettings, broker, durability};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::server::{PATIENCE, Server, eventually, make_inbox, within};

/// Stands in for a server that can't be installed here: it says INFO with an old version and answers the first PING,
/// which is all that a client needs to call itself connected.
async fn old_server(version: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("nats://{}", listener.local_addr().expect("an address"));
    let info =
        format!("INFO {{\"server_id\":\"X\",\"version\":\"{version}\",\"max_payload\":1048576,\"headers\":true}}\r\n");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (read, mut write) = stream.into_split();
            write.write_all(info.as_bytes()).await.ok();
            let mut lines = BufReader::new(read).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if line.starts_with("PING") {
                    write.write_all(b"PONG\r\n").await.ok();
                }
            }
        }
    });
    url
}

async fn error_of(settings: NatsSettings) -> broker::Error {
    match within("an answer", Broker::connect(settings, "test")).await {
        Ok(_) => panic!("it should have refused"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_2_10_server_is_refused_with_the_reason() {
    let settings = NatsSettings { url: old_server("2.10.27").await, ..NatsSettings::default() };
    let error = error_of(settings).await;
    assert!(error.to_string().starts_with("nats-server 2.10.27 is older than 2.12: "), "{error}");
    assert_eq!(error.exit_code(), 78);
}

#[tokio::test]
async fn no_broker_is_one_line_that_names_the_variable_and_no_credential() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let settings = NatsSettings {
        url: format!("nats://me:s3cret@{address}"),
        connect_timeout: Duration::from_millis(300),
        ..NatsSettings::default()
    };
    let error = error_of(settings).await;
    let line = error.to_string();
    assert!(line.starts_with(&format!("NATS_URL: no broker at nats://{address} within ")), "{line}");
    assert!(!line.contains("s3cret") && !line.contains('\n'), "{line}");
    assert_eq!(error.exit_code(), 69);
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_at_once() {
    let error = error_of(NatsSettings { url: "http://me:s3cret@x".into(), ..NatsSettings::default() }).await;
    assert!(error.to_string().starts_with("NATS_URL: \"http://x\" is not an address"), "{error}");
}

#[tokio::test]
async fn wrong_credentials_are_refused_at_once() {
    let server =
        Server::start_configured("host: 127.0.0.1, port: $FED_NATS_PORT, authorization { user: me, password: s3cret }")
            .await;
    let settings = NatsSettings { user: Some("me".into()), password: Some("wr0ng".into()), ..server.settings() };
    let line = error_of(settings).await.to_string();
    assert!(line.contains("refuses these credentials") && !line.contains("wr0ng"), "{line}");
    let settings = NatsSettings { user: Some("me".into()), password: Some("s3cret".into()), ..server.settings() };
    assert!(Broker::connect(settings, "test").await.is_ok());
    let url = server.settings().url.replace("nats://", "nats://me:s%33cret@");
    assert!(Broker::connect(NatsSettings { url, ..NatsSettings::default() }, "test").await.is_ok());
}

#[tokio::test]
async fn a_broker_that_takes_only_small_messages_is_refused() {
    let server = Server::start().await;
    let broker = server.connect().await;
    assert!(broker.check_max_payload(1_130_496).is_ok());
    let error = broker.check_max_payload(3_000_000).expect_err("server.conf says 2MB");
    assert_eq!(
        error.to_string(),
        "max_payload of the broker is 2097152, must be at least 3000000: the body limit and 80 KiB of headers must fit"
    );
}

#[tokio::test]
async fn a_broker_that_comes_back_is_reconnected_and_counted() {
    let mut server = Server::start().await;
    let broker = server.connect().await;
    let generation = *broker.generation().borrow();
    assert_eq!(generation, 1);
    server.kill().await;
    eventually("the loss is noticed", async || (!broker.connected()).then_some(())).await;
    server.start_again().await;
    let back = tokio::time::Instant::now();
    tokio::time::timeout(PATIENCE, broker.generation().wait_for(|count| *count == 2))
        .await
        .expect("in time")
        .expect("open");
    assert!(broker.connected());
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
}

#[tokio::test]
async fn synced_writes_are_seen_on_the_monitoring_port_and_nowhere_else() {
    let server = Server::start().await;
    let broker = server.connect().await;
    let facts = make_inbox(&broker).await;
    let settings = NatsSettings { monitor_url: Some(server.monitor_url.clone()), ..server.settings() };
    assert_eq!(durability::seen(&settings, &facts).await, Held::Synced);
    assert!(
        matches!(durability::seen(&server.settings(), &facts).await, Held::NotSeen(why) if why.contains("NATS_MONITOR_URL is not set"))
    );
    let mut replicated = facts.clone();
    replicated.replicas = 3;
    assert_eq!(durability::seen(&server.settings(), &replicated).await, Held::Replicated(3));

    let lazy = Server::start_configured(
        "host: 127.0.0.1, port: $FED_NATS_PORT, http_port: $FED_NATS_MONITOR_PORT, jetstream { store_dir: $FED_NATS_STORE_DIR }",
    )
    .await;
    let settings = NatsSettings { monitor_url: Some(lazy.monitor_url.clone()), ..lazy.settings() };
    assert!(matches!(durability::seen(&settings, &facts).await, Held::NotSeen(why) if why.contains("sync_interval")));
}
