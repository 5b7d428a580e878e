//! The compose files, and the files that their containers read, for what they say of each other. None of these programs but
//! Prometheus is to be had here, so that is all that is seen of them: no container was started.

use std::collections::BTreeSet;
use std::process::Command;

use fedstream_tests::broker::repository;
use fedstream_tests::process::binary;
use serde_json::Value;

use crate::{deployed, read};

/// The whole of it, and what it puts over the two files of `deploy/`.
const ALL: &str = "compose.observability.yaml";
const OVERLAYS: [(&str, &str); 2] =
    [("compose.front.telemetry.yaml", "compose.front.yaml"), ("compose.back.telemetry.yaml", "compose.back.yaml")];

#[test]
fn what_is_composed_is_pinned_private_bounded_and_has_no_default_password() {
    let file = yaml(ALL);
    for (name, service) in services(&file) {
        let image = text(&service["image"]);
        let (repository, version) = image.split_once(':').unwrap_or_else(|| panic!("{name}: {image} has no version"));
        assert!(version.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()), "{image}");
        assert_eq!(version.split('.').count(), 3, "{image} is not one version");
        assert!(!repository.contains('.'), "{image} names a registry");
        for port in list(&service["ports"]) {
            let private =
                ["127.0.0.1:", "${FED_PRIVATE_ADDRESS:-127.0.0.1}:"].iter().any(|begin| port.starts_with(begin));
            assert!(private, "{name} publishes {port}");
        }
        for key in ["mem_limit", "restart", "stop_grace_period"] {
            assert!(service[key].is_string(), "{name} has no {key}");
        }
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
        for (variable, value) in service["environment"].as_object().into_iter().flatten() {
            let is_secret = variable.contains("PASSWORD") || variable.contains("SECRET");
            assert!(!is_secret || text(value).starts_with("/run/secrets/"), "{name}: {variable}");
        }
    }
    let grafana = &file["services"]["grafana"];
    assert_eq!(grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"], "/run/secrets/grafana_admin");
    assert_eq!(grafana["environment"]["GF_AUTH_ANONYMOUS_ENABLED"], "false");
    assert_eq!(list(&grafana["secrets"]), ["grafana_admin"]);
    assert_eq!(file["secrets"]["grafana_admin"]["file"], "../secrets/grafana_admin");
}

#[test]
fn every_mounted_file_is_there_and_every_volume_declared() {
    let file = yaml(ALL);
    for (name, service) in services(&file) {
        for volume in list(&service["volumes"]) {
            let source = volume.split(':').next().unwrap_or_default();
            match source.strip_prefix("./") {
                Some(path) => assert!(deployed(path).exists(), "{name}: {source}"),
                None => assert!(file["volumes"][source].is_object(), "{name}: {source}"),
            }
        }
        // What a service is told to read lies in what is mounted.
        for argument in list(&service["command"]) {
            let Some((_, path)) = argument.split_once("file=").or_else(|| argument.split_once("config=")) else {
                continue;
            };
            let mounted = list(&service["volumes"])
                .iter()
                .any(|volume| volume.split(':').nth(1).is_some_and(|target| path.starts_with(target)));
            assert!(mounted, "{name}: {argument}");
        }
    }
    let grafana = list(&file["services"]["grafana"]["volumes"]).join("\n");
    let provider = yaml("grafana/provisioning/dashboards/fedstream.yaml");
    let path = text(&provider["providers"][0]["options"]["path"]);
    assert!(grafana.contains(&format!("./grafana/dashboards:{path}:ro")), "{path} is not mounted");
    let home = text(&file["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]);
    assert_eq!(home, format!("{path}/fleet.json"));
}

#[test]
fn who_is_told_to_talk_to_whom_finds_it_listening() {
    let file = yaml(ALL);
    let names: BTreeSet<String> = services(&file).into_iter().map(|(name, _)| name).collect();

    let collector = yaml("collector.yaml");
    let mut used = BTreeSet::new();
    for (pipeline, parts) in collector["service"]["pipelines"].as_object().expect("pipelines") {
        for kind in ["receivers", "processors", "exporters"] {
            for part in list(&parts[kind]) {
                assert!(!collector[kind][part.as_str()].is_null(), "{pipeline}: no {part}");
                used.insert(part);
            }
        }
    }
    for kind in ["receivers", "processors", "exporters"] {
        for (part, _) in collector[kind].as_object().expect("parts") {
            assert!(used.contains(part), "{part} is in no pipeline");
        }
    }
    for signal in ["traces", "metrics"] {
        assert!(
            collector["service"]["pipelines"][signal].is_object(),
            "{signal} would be refused, and count as dropped"
        );
    }
    assert_eq!(collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"], "0.0.0.0:4317");
    assert!(list(&file["services"]["collector"]["ports"])[0].ends_with(":4317:4317"));

    let tempo = yaml("tempo.yaml");
    assert_eq!(tempo["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"], "0.0.0.0:4317");
    assert_eq!(collector["exporters"]["otlp_grpc/tempo"]["endpoint"], "tempo:4317");
    let data = list(&file["services"]["tempo"]["volumes"])[1].split(':').nth(1).map(str::to_owned);
    for kind in ["wal", "local"] {
        let path = text(&tempo["storage"]["trace"][kind]["path"]);
        assert!(data.as_ref().is_some_and(|data| path.starts_with(data.as_str())), "{path} is lost at a restart");
    }

    let sources = yaml("grafana/provisioning/datasources/fedstream.yaml");
    let ports = [("prometheus", 9090), ("tempo", tempo["server"]["http_listen_port"].as_u64().expect("a port"))];
    for source in sources["datasources"].as_array().expect("data sources") {
        let (name, port) = ports[ports.iter().position(|(kind, _)| source["type"] == *kind).expect("a known kind")];
        assert_eq!(text(&source["url"]), format!("http://{name}:{port}"));
        assert!(names.contains(name));
        let interval = source["jsonData"]["timeInterval"].as_str();
        assert!(
            name != "prometheus" || interval == yaml("prometheus/prometheus.yml")["global"]["scrape_interval"].as_str()
        );
    }
}

#[test]
fn the_services_plug_in_by_settings_that_they_know_and_are_scraped_where_they_listen() {
    let targets = yaml("prometheus/targets.yml");
    let mut scraped = BTreeSet::new();
    for (overlay, base) in OVERLAYS {
        let (file, base) = (yaml(overlay), yaml(&format!("../{base}")));
        for (name, service) in services(&file) {
            let listens = text(&base["services"][&name]["environment"]["FED_ADMIN_LISTEN"]);
            let target = format!("{name}:{}", listens.rsplit(':').next().unwrap_or_default());
            let group =
                targets.as_array().expect("groups").iter().find(|group| group["labels"]["job"] == name.as_str());
            assert_eq!(group.map(|group| group["targets"][0].clone()), Some(target.into()), "{name}");
            scraped.insert(name.clone());

            let help = Command::new(binary(&name).expect("a built service")).arg("--help").output().expect("it runs");
            let help = String::from_utf8_lossy(&help.stdout).into_owned();
            for (variable, value) in service["environment"].as_object().expect("variables") {
                assert!(help.contains(&format!("  {variable} (")), "{name} knows no {variable}");
                if variable == "OTEL_EXPORTER_OTLP_ENDPOINT" {
                    assert!(text(value).ends_with(":4317"), "{name}: {value}");
                }
            }
            // A list of networks replaces the file's own.
            for network in list(&base["services"][&name]["networks"]) {
                let kept = service["networks"].is_null() || list(&service["networks"]).contains(&network);
                assert!(kept, "{name} leaves the network {network}");
            }
        }
        if let Some(network) = file["networks"]["observability"].as_object() {
            assert_eq!(network["name"], yaml(ALL)["networks"]["observability"]["name"]);
        }
        let example = read(&repository().join("deploy/.env.example"));
        let whole = read(&deployed(overlay));
        for (at, _) in whole.match_indices("${") {
            let inner = whole[at + 2..].split('}').next().unwrap_or_default();
            let given = inner.contains(":-")
                || example.contains(&format!("\n{inner}="))
                || example.contains(&format!("\n#{inner}="));
            assert!(given, "{overlay}: {inner} has no default, and is not in .env.example");
        }
    }
    assert_eq!(scraped.into_iter().collect::<Vec<_>>(), ["batch-receiver", "batch-sender", "inbox-receiver"]);
}

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&read(&deployed(file))).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn services(file: &Value) -> Vec<(String, Value)> {
    let services = file["services"].as_object().expect("services");
    services.iter().map(|(name, service)| (name.clone(), service.clone())).collect()
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
