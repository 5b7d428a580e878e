//! Brokers that a service doesn't start on, and ports that are taken.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fedstream_tests::broker::{Broker, Options};
use fedstream_tests::ports;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::process::{Taken, right, run, set};

const CLIENTS: [&str; 3] = ["inbox-receiver", "batch-sender", "delivery-worker"];

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_is_named_without_credentials_after_the_timeout() {
    let taken = Taken::new();
    let nobody = ports::free();
    for service in CLIENTS {
        let began = Instant::now();
        let ended = run(service, &[], right(service, &taken, &format!("nats://me:hunter2@{nobody}"))).await;
        assert_eq!(ended.code, Some(69), "{ended:?}");
        let line = ended.line(service);
        assert!(line.starts_with("NATS_URL: ") && line.contains(&nobody.to_string()), "{line}");
        assert!(!format!("{ended:?}").contains("hunter2"), "{ended:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

/// Stands in for servers that can't be had where this runs: what it says of itself is all that is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_known_to_lose_data_is_refused_with_the_reason() {
    let taken = Taken::new();
    for version in ["2.9.25", "2.10.27", "2.11.11"] {
        let server = server_that_says(version).await;
        for service in CLIENTS {
            let ended = run(service, &[], right(service, &taken, &format!("nats://{server}"))).await;
            assert_eq!(ended.code, Some(78), "{ended:?}");
            let line = ended.line(service);
            assert!(line.contains(&format!("nats-server {version} is older than 2.12")), "{line}");
            assert!(line.contains("acknowledges activities that it did not store"), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_takes_too_small_messages_or_refuses_us_is_refused() {
    let options = Options {
        lines: vec!["max_payload: 1MB".into(), "authorization { user: fed, password: hunter2 }".into()],
        ..Options::default()
    };
    let broker = Broker::start_with(options).await.unwrap();
    let taken = Taken::new();
    // Let in by the credentials in the address, it finds the limit.
    let url = broker.url().replace("nats://", "nats://fed:hunter2@");
    let ended = run("inbox-receiver", &[], right("inbox-receiver", &taken, &url)).await;
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(
        ended.line("inbox-receiver").starts_with("max_payload of the broker is 1048576, must be at least 1130496"),
        "{ended:?}"
    );

    for service in CLIENTS {
        let mut env = right(service, &taken, &broker.url());
        set(&mut env, "NATS_USER", "fed");
        set(&mut env, "NATS_PASSWORD", "hunter3");
        set(&mut env, "LOG_LEVEL", "trace");
        let ended = run(service, &[], env).await;
        assert_eq!(ended.code, Some(78), "{ended:?}");
        let line = ended.line(service);
        assert!(line.starts_with("NATS_URL: ") && line.contains("NATS_PASSWORD"), "{line}");
        assert!(!format!("{ended:?}").contains("hunter"), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named_by_its_variable() {
    let broker = Broker::start().await.unwrap();
    let taken = Taken::new();
    for service in ["inbox-receiver", "batch-sender", "batch-receiver"] {
        for variable in ["FED_LISTEN", "FED_ADMIN_LISTEN"] {
            let (other, address) =
                if variable == "FED_LISTEN" { ("FED_ADMIN_LISTEN", taken.listen) } else { ("FED_LISTEN", taken.admin) };
            if service == "batch-sender" && variable == "FED_LISTEN" {
                continue; // it has no such port
            }
            let mut env = right(service, &taken, &broker.url());
            if service != "batch-sender" {
                set(&mut env, other, ports::free().to_string());
            }
            let ended = run(service, &[], env).await;
            assert_eq!(ended.code, Some(69), "{ended:?}");
            assert!(ended.line(service).starts_with(&format!("{variable}={address}: ")), "{ended:?}");
        }
    }
}

/// As much of a NATS server as a client needs to be connected.
async fn server_that_says(version: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let info = format!(
        "INFO {{\"server_id\":\"S\",\"server_name\":\"s\",\"version\":\"{version}\",\"go\":\"go1\",\"host\":\"127.0.0.1\",\
         \"port\":{},\"headers\":true,\"max_payload\":8388608,\"proto\":1,\"jetstream\":true}}\r\n",
        address.port()
    );
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let info = info.clone();
            // A client that hangs up is done with us.
            tokio::spawn(async move { greet(stream, &info).await.is_ok() });
        }
    });
    address
}

async fn greet(mut stream: TcpStream, info: &str) -> std::io::Result<()> {
    stream.write_all(info.as_bytes()).await?;
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        if line.starts_with("PING") {
            writer.write_all(b"PONG\r\n").await?;
        }
    }
    Ok(())
}
