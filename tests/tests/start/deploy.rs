//! The settings in `deploy/` are settings that the services know: each gets past its configuration with them, and says
//! nothing about slips of the keyboard.

use fedstream_tests::broker::repository;

use crate::process::{Env, Taken, run, set};

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_to_begin_with_are_right_for_each_service() {
    let taken = Taken::new();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "s3cret\n").unwrap();
    for service in ["inbox-receiver", "batch-sender", "batch-receiver", "delivery-worker"] {
        let mut env = settings(service);
        assert!(env.len() >= 3, "{service}: {env:?}");
        // As the unit does it; and ports and a broker that end the process right after its configuration.
        if service.starts_with("batch-") {
            set(&mut env, "HTTP_BATCH_AUTHORIZATION_FILE", secret.path());
        }
        if service == "delivery-worker" {
            set(&mut env, "FED_KEYS_DIR", std::env::temp_dir());
        }
        if service.ends_with("-receiver") {
            set(&mut env, "FED_LISTEN", taken.listen.to_string());
        }
        set(&mut env, "FED_ADMIN_LISTEN", taken.admin.to_string());
        if service != "batch-receiver" {
            set(&mut env, "NATS_URL", "nats://127.0.0.1:1");
            set(&mut env, "NATS_CONNECT_TIMEOUT", "200ms");
        }
        let ended = run(service, &[], env).await;
        assert_eq!(ended.code, Some(69), "{ended:?}");
        let line = ended.line(service);
        assert!(line.contains("NATS_URL") || line.contains("FED_LISTEN"), "{line}");
    }
}

#[test]
fn each_unit_hands_over_the_settings_of_its_service() {
    for service in ["inbox-receiver", "batch-sender", "batch-receiver", "delivery-worker"] {
        let unit = read(&format!("deploy/systemd/{service}.service"));
        assert!(unit.contains(&format!("ExecStart=/usr/local/bin/{service}\n")), "{unit}");
        assert!(unit.contains(&format!("EnvironmentFile=/etc/fedstream/{service}.env\n")), "{unit}");
    }
}

/// `deploy/<service>.env`, as systemd reads it.
fn settings(service: &str) -> Env {
    let text = read(&format!("deploy/{service}.env"));
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once('=').unwrap_or_else(|| panic!("{service}: {line}")))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
