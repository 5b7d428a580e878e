//! The rules: promtool runs their own tests, and nothing is left out of those.

use std::collections::BTreeSet;

use fedstream_tests::broker::repository;
use serde_json::Value;

use crate::known::Known;
use crate::prometheus::promtool;
use crate::{deployed, read};

/// A rule that records, or one that alerts.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The recorded series, or the alert.
    pub name: String,
    /// What it asks.
    pub expression: String,
    /// All of it.
    pub value: Value,
}

/// What records.
pub fn records() -> Vec<Rule> {
    rules("records.yml", "record")
}

/// What alerts.
pub fn alerts() -> Vec<Rule> {
    rules("alerts.yml", "alert")
}

fn rules(file: &str, kind: &str) -> Vec<Rule> {
    let parsed = yaml(file);
    let groups = parsed["groups"].as_array().expect("groups");
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
    rules
        .map(|rule| Rule {
            name: rule[kind].as_str().unwrap_or_else(|| panic!("{rule} is no {kind}")).to_owned(),
            expression: rule["expr"].as_str().unwrap_or_else(|| panic!("{rule} asks nothing")).to_owned(),
            value: rule.clone(),
        })
        .collect()
}

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&read(&deployed("prometheus").join(file))).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn promtool_takes_every_file_and_every_unit_test_of_the_rules_passes() {
    let directory = deployed("prometheus");
    for arguments in [
        &["check", "config", "prometheus.yml"][..],
        &["check", "rules", "records.yml", "alerts.yml"],
        &["test", "rules", "records_test.yml", "alerts_test.yml"],
    ] {
        let output = promtool(&directory, arguments, "");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool {arguments:?}\n{said}");
    }
}

#[test]
fn each_alert_is_seen_to_fire_and_to_keep_quiet_and_each_record_is_looked_at() {
    let tests = yaml("alerts_test.yml");
    let cases: Vec<(&str, bool)> = tests["tests"]
        .as_array()
        .expect("tests")
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().expect("an alert in each"))
        .map(|case| (case["alertname"].as_str().expect("a name"), case["exp_alerts"][0].is_object()))
        .collect();
    for alert in alerts() {
        for (fires, how) in [(true, "fires"), (false, "keeps quiet")] {
            assert!(cases.contains(&(&alert.name, fires)), "no test in which {} {how}", alert.name);
        }
    }
    let names: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    for (name, _) in cases {
        assert!(names.contains(name), "{name} is tested, and no alert: a quiet one would go unnoticed");
    }
    let tested = read(&deployed("prometheus").join("records_test.yml"));
    for record in records() {
        assert!(tested.contains(&record.name), "{} is in no test", record.name);
    }
}

#[test]
fn each_alert_says_how_bad_it_is_what_happened_and_where_to_read_on() {
    let page = read(&repository().join("docs/operate.md"));
    let sections: BTreeSet<String> =
        page.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_lowercase).collect();
    for Rule { name, value, .. } in alerts() {
        let severity = value["labels"]["severity"].as_str().unwrap_or_default();
        assert!(["critical", "warning"].contains(&severity), "{name} is {severity:?}");
        for text in ["summary", "description"] {
            assert!(value["annotations"][text].as_str().is_some_and(|text| text.len() > 20), "{name} has no {text}");
        }
        let runbook = value["annotations"]["runbook"].as_str().unwrap_or_default();
        let section = runbook.strip_prefix("docs/operate.md#").unwrap_or_else(|| panic!("{name}: {runbook:?}"));
        assert_eq!(section, name.to_lowercase(), "{name}");
        assert!(sections.contains(section), "docs/operate.md has no section {name}");
    }
}

#[test]
fn no_rule_refers_to_a_name_that_does_not_exist() {
    let known = Known::with(records().into_iter().map(|record| record.name));
    let rules = records().into_iter().chain(alerts());
    let unknown: Vec<String> = rules
        .flat_map(|rule| {
            known.unknown_in(&rule.expression).into_iter().map(move |what| format!("{}: {what}", rule.name))
        })
        .collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}
