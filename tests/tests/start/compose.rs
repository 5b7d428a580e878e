//! The compose files and the Dockerfile in `deploy/`, as far as they can be tried without Docker: every setting is one that
//! its service knows and loads, nothing is published or unpinned that must not be, and what is built is there to build.

use std::collections::BTreeMap;
use std::path::Path;

use fedstream_tests::broker::repository;
use serde_json::Value;

use crate::process::{Env, Taken, run, set};

const FILES: [&str; 3] = ["compose.front.yaml", "compose.back.yaml", "compose.outbound.yaml"];

/// What an operator fills in: not in the repository.
const FILLED_IN: &str = "./secrets/";

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_of_each_composed_service_are_known_to_it_and_load() {
    let taken = Taken::new();
    let secrets = tempfile::tempdir().unwrap();
    let mut tried = Vec::new();
    for (name, service) in composed() {
        let Some(target) = service["build"]["target"].as_str() else { continue };
        let help = run(target, &["--help"], Vec::new()).await.stdout;
        let mut env = environment(&service, secrets.path());
        for (variable, _) in &env {
            let known = variable.strip_suffix("_FILE").unwrap_or(variable);
            assert!(
                help.contains(&format!("  {known} (")) || help.contains(&format!("  {variable} (")),
                "{name}: {variable}"
            );
        }
        tried.push(name.clone());
        if target == "fedctl" {
            continue;
        }
        if target == "delivery-worker" {
            set(&mut env, "FED_KEYS_DIR", secrets.path());
        }
        // Ports and a broker that end the process right after its configuration. A warning would be a second line.
        for (variable, address) in [("FED_LISTEN", taken.listen), ("FED_ADMIN_LISTEN", taken.admin)] {
            if env.iter().any(|(name, _)| name == variable) {
                set(&mut env, variable, address.to_string());
            }
        }
        if env.iter().any(|(name, _)| name == "NATS_URL") {
            set(&mut env, "NATS_URL", "nats://127.0.0.1:1");
            set(&mut env, "NATS_CONNECT_TIMEOUT", "200ms");
        }
        let ended = run(target, &[], env).await;
        assert_eq!(ended.code, Some(69), "{name}: {ended:?}");
        ended.line(target);
    }
    assert_eq!(tried, ["batch-sender", "fedctl", "inbox-receiver", "batch-receiver", "delivery-worker", "fedctl"]);
}

#[test]
fn what_is_composed_is_pinned_private_bounded_and_restarted() {
    for (name, service) in composed() {
        let image = service["image"].as_str().unwrap_or_else(|| panic!("{name} has no image"));
        let (repository, version) = image.split_once(':').unwrap_or_else(|| panic!("{name}: {image} has no version"));
        assert!(
            version.starts_with("${FEDSTREAM_VERSION") || version.starts_with(|c: char| c.is_ascii_digit()),
            "{image}"
        );
        assert!(!repository.contains('.'), "{image} names a registry");
        for port in service["ports"].as_array().into_iter().flatten() {
            let port = port.as_str().expect("a port in quotes");
            assert!(name != "nats" && port.starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
        let grace = service["stop_grace_period"].as_str().and_then(|text| text.strip_suffix('s')?.parse::<u32>().ok());
        assert!(grace.is_some_and(|grace| grace > 20), "{name} is killed before FED_SHUTDOWN_GRACE has passed");
        assert!(service["mem_limit"].is_string() && service["restart"].is_string(), "{name}");
        assert!(service["environment"].as_object().is_some_and(|env| env.keys().all(|key| !key.ends_with("PASSWORD"))));
        // Ours have theirs in the image.
        let health =
            if name == "nats" { service["healthcheck"]["test"].is_array() } else { service["build"].is_object() };
        assert!(health, "{name} has no health check");
    }
}

#[test]
fn every_file_that_is_mounted_or_included_is_there() {
    for (name, service) in composed() {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = volume.as_str().and_then(|text| text.split(':').next()).expect("a short volume");
            let named = !source.starts_with('.') || source.starts_with(FILLED_IN);
            assert!(named || deploy().join(source).is_file(), "{name}: {source}");
        }
    }
    let broker = read("deploy/nats/compose.conf");
    for included in broker.lines().filter_map(|line| line.strip_prefix("include ")) {
        let file = format!("/etc/nats/{}", included.trim_matches('"'));
        for composed in ["compose.front.yaml", "compose.outbound.yaml"] {
            assert!(read(&format!("deploy/{composed}")).contains(&format!(":{file}:ro")), "{composed}: {file}");
        }
    }
}

/// A password that the broker's configuration asks for and nobody gives would keep it from starting.
#[test]
fn every_password_that_the_broker_asks_for_is_one_of_its_secrets_and_its_user_is_a_service() {
    for (composed, users) in [("compose.front.yaml", "users.conf"), ("compose.outbound.yaml", "delivery-worker.conf")] {
        let (file, text) = (read(&format!("deploy/{composed}")), read(&format!("deploy/nats/{users}")));
        let words = |sign: &str| -> Vec<String> {
            let lines = text.lines().filter_map(|line| line.trim().strip_prefix(sign));
            lines.map(|word| word.trim_matches('"').to_owned()).collect()
        };
        let (passwords, users) = (words("password: $"), words("user: "));
        assert_eq!((passwords.len(), users.len()), (3, 3), "{text}");
        for (password, user) in passwords.iter().zip(users) {
            let secret = format!("nats_{}", user.replace('-', "_"));
            let exported = format!("export {password}=\"\\\"$$(cat /run/secrets/{secret})\\\"\"");
            assert!(file.contains(&exported), "{composed} lacks {exported}");
            // The application is not ours to start.
            assert!(user == "application" || file.contains(&format!("NATS_USER: {user}\n")), "{composed}: {user}");
            let replies = format!("_INBOX_{user}.>");
            assert!(text.contains(&format!("subscribe: {{ allow: [\"{replies}\"] }}")), "{replies}");
        }
    }
}

#[test]
fn the_dockerfile_builds_what_is_composed_from_what_is_there() {
    let text = read("deploy/Dockerfile");
    let stages: Vec<&str> = text.lines().filter_map(|line| line.split(" AS ").nth(1)).collect();
    for (name, service) in composed() {
        let Some(target) = service["build"]["target"].as_str() else { continue };
        assert!(stages.contains(&target), "{name}: no stage {target}");
        assert_eq!(service["build"]["dockerfile"], "deploy/Dockerfile");
        let healthy = format!("CMD [\"/usr/local/bin/{target}\", \"--healthy\"]");
        assert!(target == "fedctl" || text.contains(&healthy), "{target} has no health check");
        assert!(text.contains(&format!("-p {target}")), "{target} is not built");
        assert!(repository().join("services").join(target).join("Cargo.toml").is_file());
    }
    for line in text.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from=")) {
        let mut words: Vec<&str> = line.split(' ').skip(1).collect();
        words.pop();
        let missing = words.iter().find(|word| !repository().join(word).exists());
        assert_eq!(missing, None, "{line}");
    }
    for line in text.lines().filter(|line| line.starts_with("FROM ")) {
        let image = line.split(' ').nth(1).expect("an image");
        assert!(!image.contains("latest") && !image.contains('.'), "{line}");
        assert!(image == "scratch" || stages.contains(&image) || image.contains(':'), "{line} has no version");
    }
    assert!(text.contains("USER 10001:10001"), "not as root");
    let rust = text.lines().find_map(|line| line.strip_prefix("ARG RUST_VERSION=")).expect("a version of Rust");
    let oldest = read("Cargo.toml").lines().find_map(|line| line.strip_prefix("rust-version = ").map(str::to_owned));
    assert!(oldest.is_some_and(|oldest| rust.starts_with(oldest.trim_matches('"'))), "{rust}");
}

/// Every service of both files, with what `<<` merges in; in each file by name.
fn composed() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for file in FILES {
        let parsed: Value =
            serde_saphyr::from_str(&read(&format!("deploy/{file}"))).unwrap_or_else(|e| panic!("{file}: {e}"));
        let services = parsed["services"].as_object().unwrap_or_else(|| panic!("{file} has no services"));
        let sorted: BTreeMap<&String, &Value> = services.iter().collect();
        for (name, service) in sorted {
            for secret in service["secrets"].as_array().into_iter().flatten() {
                let secret = secret.as_str().expect("a short secret");
                let path = format!("./secrets/{secret}");
                assert_eq!(parsed["secrets"][secret]["file"], path, "{file}: {name}");
            }
            all.push((name.clone(), service.clone()));
        }
    }
    all
}

/// The environment as compose would hand it over, with `.env.example` as `.env` and each secret a file here.
fn environment(service: &Value, secrets: &Path) -> Env {
    let example = read("deploy/.env.example");
    let given: BTreeMap<&str, &str> =
        example.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect();
    let variables = service["environment"].as_object().expect("an environment");
    variables
        .iter()
        .map(|(name, value)| {
            let value = value.as_str().unwrap_or_else(|| panic!("{name} is text"));
            let value = match value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
                None => value,
                Some(inner) => {
                    let (variable, default) = inner.split_once(":-").map_or((inner, None), |(v, d)| (v, Some(d)));
                    given
                        .get(variable)
                        .copied()
                        .or(default)
                        .unwrap_or_else(|| panic!("{variable} is not in .env.example"))
                }
            };
            let Some(secret) = value.strip_prefix("/run/secrets/") else { return (name.clone(), value.into()) };
            assert!(service["secrets"].as_array().is_some_and(|all| all.iter().any(|one| one == secret)), "{secret}");
            let path = secrets.join(secret);
            std::fs::write(&path, "s3cret\n").expect("room");
            (name.clone(), path.into())
        })
        .collect()
}

fn deploy() -> std::path::PathBuf {
    repository().join("deploy")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
