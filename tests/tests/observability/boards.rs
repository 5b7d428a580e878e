//! The dashboards: Grafana's types where npm is there, and everywhere what those can't say: that panels lie side by side, links lead
//! somewhere, variables are there, and no query refers to what doesn't exist.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output};

use fedstream_tests::broker::repository;
use serde_json::Value;

use crate::known::{self, Known};
use crate::{deployed, read, rules};

/// Grafana's grid.
const COLUMNS: u64 = 24;

/// Exit code of `tests/dashboards.sh` where it can't check.
const NOT_CHECKED: i32 = 69;

/// Variables that Grafana has in every dashboard.
const BUILT_IN: [&str; 6] = ["__rate_interval", "__interval", "__range", "__url_time_range", "__from", "__to"];

/// A dashboard, by the name of its file.
pub struct Board {
    /// Without `.json`.
    pub name: String,
    /// All of it.
    pub value: Value,
}

/// Every dashboard, by name.
pub fn all() -> Vec<Board> {
    let mut boards: Vec<Board> = std::fs::read_dir(deployed("grafana/dashboards"))
        .expect("dashboards")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
            let value = serde_json::from_str(&read(&path)).unwrap_or_else(|error| panic!("{name}: {error}"));
            Board { name, value }
        })
        .collect();
    boards.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(boards.iter().map(|board| board.name.as_str()).collect::<Vec<_>>(), ["fleet", "lane", "traces"]);
    boards
}

impl Board {
    /// Its panels, without the rows between them.
    pub fn panels(&self) -> impl Iterator<Item = &Value> {
        self.value["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row")
    }

    /// Every PromQL expression, and where it stands.
    pub fn expressions(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for panel in self.panels() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let at = format!("{}: {}", self.name, text(&panel["title"]));
                found.extend(target["expr"].as_str().map(|expression| (at, expression.to_owned())));
            }
        }
        for annotation in self.value["annotations"]["list"].as_array().expect("annotations") {
            found.push((format!("{}: {}", self.name, text(&annotation["name"])), text(&annotation["expr"])));
        }
        found
    }

    /// Every TraceQL query.
    fn searches(&self) -> Vec<String> {
        let targets = self.panels().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
        targets.filter_map(|target| target["query"].as_str().map(str::to_owned)).collect()
    }

    fn variables(&self) -> BTreeSet<String> {
        let list = self.value["templating"]["list"].as_array().expect("variables");
        list.iter().map(|variable| text(&variable["name"])).collect()
    }
}

/// A data source's queries that Grafana offers at a span: `tracesToMetrics`.
pub fn queries_at_spans() -> Vec<(String, String)> {
    let file = deployed("grafana/provisioning/datasources/fedstream.yaml");
    let parsed: Value = serde_saphyr::from_str(&read(&file)).expect("YAML");
    let sources = parsed["datasources"].as_array().expect("data sources");
    let queries = sources.iter().flat_map(|source| source["jsonData"]["tracesToMetrics"]["queries"].as_array());
    let found: Vec<_> = queries
        .flatten()
        .map(|query| (text(&query["name"]), text(&query["query"]).replace("$$__tags", "lane=\"$lane\"")))
        .collect();
    assert!(!found.is_empty());
    found
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

#[test]
fn grafanas_types_take_the_dashboards_and_would_not_take_a_fault() {
    let fleet = read(&deployed("grafana/dashboards/fleet.json"));
    let faults = tempfile::tempdir().expect("room");
    let wrong = [
        ("misspelled", "\"graphMode\"", "\"graphMod\""),
        ("no-such-word", "\"drawStyle\": \"line\"", "\"drawStyle\": \"lines\""),
        ("no-description", "\"description\"", "\"descripton\""),
        ("text-for-a-number", "\"lineWidth\": 1", "\"lineWidth\": \"1\""),
        ("no-such-panel", "\"type\": \"timeseries\"", "\"type\": \"graph\""),
        ("no-such-query", "\"legendFormat\"", "\"legendFormt\""),
    ];
    for (name, from, to) in wrong {
        assert!(fleet.contains(from), "{from}");
        std::fs::write(faults.path().join(format!("{name}.json")), fleet.replacen(from, to, 1)).expect("room");
    }
    let given: Vec<_> = wrong.iter().map(|(name, ..)| faults.path().join(format!("{name}.json"))).collect();
    let (right, faulty) = (types(&[]), types(&given));
    let said =
        |output: &Output| String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    if right.status.code() == Some(NOT_CHECKED) {
        // Not `eprintln!`, which a test that passes keeps to itself: tests/suite.sh shows these lines.
        let mut stderr = std::io::stderr();
        stderr.write_all(said(&right).as_bytes()).expect("standard error");
        return;
    }
    assert!(right.status.success(), "{}", said(&right));
    let complaints = said(&faulty);
    assert!(!faulty.status.success(), "{complaints}");
    for (name, ..) in wrong {
        assert!(complaints.contains(&format!("{name}.json.ts")), "{name} is taken\n{complaints}");
    }
}

fn types(files: &[PathBuf]) -> Output {
    Command::new("sh").arg(repository().join("tests/dashboards.sh")).args(files).output().expect("sh")
}

#[test]
fn no_registry_is_named_in_the_lock_file() {
    let lock = read(&repository().join("tests/dashboards/package-lock.json"));
    assert!(!lock.contains("resolved") && !lock.contains("://"), "npm wrote where its packages came from");
}

#[test]
fn panels_lie_side_by_side_with_a_title_a_description_and_an_id_of_their_own() {
    for board in all() {
        let name = &board.name;
        assert_eq!(board.value["uid"], format!("fedstream-{name}"));
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in board.value["panels"].as_array().expect("panels") {
            assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{name}: {panel}");
            assert!(!text(&panel["title"]).is_empty(), "{name}: {panel}");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a place"));
            assert!(x + w <= COLUMNS && h > 0, "{name}: {}", panel["title"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{name}: {} lies on another one", panel["title"]);
            }
        }
        for panel in board.panels() {
            let description = text(&panel["description"]);
            assert!(
                description.len() > 25 && description.ends_with('.'),
                "{name}, {}: {description:?}",
                panel["title"]
            );
            assert!(
                panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()),
                "{name}: {}",
                panel["title"]
            );
        }
    }
}

#[test]
fn data_sources_are_variables_and_every_variable_is_there() {
    for board in all() {
        let variables = board.variables();
        let whole = board.value.to_string();
        for (at, _) in whole.match_indices('$') {
            let rest = whole[at + 1..].trim_start_matches('{');
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let name = &rest[..end];
            let is_known = variables.contains(name) || BUILT_IN.contains(&name) || name == "__value";
            assert!(is_known, "{}: ${name} is no variable", board.name);
        }
        let sources = board.panels().flat_map(|panel| {
            let targets = panel["targets"].as_array().into_iter().flatten();
            std::iter::once(panel).chain(targets).map(|one| &one["datasource"])
        });
        for source in sources {
            let kind = text(&source["type"]);
            assert_eq!(source["uid"], format!("${{{kind}}}"), "{}: {source}", board.name);
        }
    }
}

#[test]
fn links_lead_to_dashboards_and_panels_about_time_lead_to_traces() {
    let boards = all();
    let uids: BTreeSet<String> = boards.iter().map(|board| text(&board.value["uid"])).collect();
    for board in &boards {
        let whole = board.value.to_string();
        for (at, _) in whole.match_indices("/d/") {
            let uid = whole[at + 3..].split(['?', '"']).next().unwrap_or_default();
            assert!(uids.contains(uid), "{}: no dashboard {uid}", board.name);
        }
        assert_eq!(board.value["links"][0]["tags"], board.value["tags"], "{}: the others are not linked", board.name);
        let about_time = board.panels().filter(|panel| text(&panel["title"]).starts_with("From door to answer"));
        for panel in about_time.filter(|_| board.name != "traces") {
            let links = panel["links"].to_string();
            assert!(links.contains("/d/fedstream-traces"), "{}: {} has no way to traces", board.name, panel["title"]);
        }
    }
}

#[test]
fn no_query_refers_to_a_name_that_does_not_exist() {
    let known = Known::with(rules::records().into_iter().map(|record| record.name));
    let mut unknown = Vec::new();
    let queries = all().into_iter().flat_map(|board| board.expressions()).chain(queries_at_spans());
    for (at, expression) in queries {
        unknown.extend(known.unknown_in(&expression).into_iter().map(|what| format!("{at}: {what}")));
    }
    for variable in
        all().iter().flat_map(|board| board.value["templating"]["list"].as_array().cloned().unwrap_or_default())
    {
        if let Some(query) = variable["definition"].as_str() {
            let selector =
                query.strip_prefix("label_values(").and_then(|rest| rest.rsplit_once(", ")).expect("a selector");
            unknown.extend(known.unknown_in(selector.0));
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn no_search_for_traces_refers_to_an_attribute_that_no_span_has() {
    let known = known::attributes();
    let mut searches = 0;
    for board in all() {
        for query in board.searches() {
            searches += 1;
            let attributes: Vec<&str> =
                query.split("span.").skip(1).filter_map(|rest| rest.split(' ').next()).collect();
            assert!(!attributes.is_empty(), "{query} looks everywhere");
            for attribute in attributes {
                assert!(known.contains(attribute), "{}: {query}", board.name);
            }
        }
    }
    assert!(searches > 5, "{searches}");
}
