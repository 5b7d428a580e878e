//! What the services have: metrics with their labels and words, as `docs/metrics.md` lists them (a test of theirs keeps that page
//! true), and the attributes of spans.

use std::collections::{BTreeMap, BTreeSet};

use fedstream_tests::broker::repository;

use crate::promql::{self, Selector};
use crate::read;

/// Labels that Prometheus puts on every series, and `le`, which is a histogram's.
const EVERYWHERE: [&str; 3] = ["job", "instance", "le"];

/// Names that Prometheus makes: whether a scrape worked, and which alerts there are.
const OF_PROMETHEUS: [&str; 2] = ["up", "ALERTS"];

/// A label's values, where they are a list.
type Words = Option<BTreeSet<String>>;

/// Labels of a metric, as they are on `/metrics`.
type Labels = BTreeMap<String, Words>;

/// Every name that an expression may use.
#[derive(Debug)]
pub struct Known {
    metrics: BTreeMap<String, Labels>,
    recorded: BTreeSet<String>,
}

impl Known {
    /// Reads the page, and takes the names of recorded series as given.
    pub fn with(recorded: impl IntoIterator<Item = String>) -> Self {
        let page = read(&repository().join("docs/metrics.md"));
        let mut metrics = BTreeMap::new();
        for row in page.lines() {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let [metric, name, kind, labels, ..] = cells[..] else { continue };
            if !["counter", "gauge", "histogram"].iter().any(|known| kind.starts_with(known)) {
                continue;
            }
            let labels: Labels = labels
                .split("; ")
                .filter(|text| !text.is_empty())
                .map(|text| label(text, metric.trim_matches('`'), &page))
                .collect();
            let name = name.trim_matches('`');
            let series: &[&str] = if kind.starts_with("histogram") { &["_bucket", "_sum", "_count"] } else { &[""] };
            metrics.extend(series.iter().map(|end| (format!("{name}{end}"), labels.clone())));
        }
        assert!(metrics.len() > 30, "docs/metrics.md is read wrongly: {:?}", metrics.keys());
        Self { metrics, recorded: recorded.into_iter().collect() }
    }

    /// Names of metrics, with `_bucket`, `_sum` and `_count` for a histogram.
    pub fn metrics(&self) -> impl Iterator<Item = &str> {
        self.metrics.keys().map(String::as_str)
    }

    /// Everything in this expression that nobody has.
    pub fn unknown_in(&self, expression: &str) -> Vec<String> {
        let read = promql::read(expression);
        let mut unknown: Vec<String> = read.selectors.iter().flat_map(|selector| self.unknown_of(selector)).collect();
        // A label in `by (..)` has to be one of a series in the expression; what a recorded one has, its own rule says.
        let names: Vec<&String> = read.selectors.iter().flat_map(|selector| &selector.names).collect();
        for label in read.grouped.iter().filter(|label| !EVERYWHERE.contains(&label.as_str())) {
            let has = |name: &&String| self.metrics.get(*name).is_none_or(|labels| labels.contains_key(label));
            if !names.iter().any(has) {
                unknown.push(format!("label {label} in {expression}"));
            }
        }
        unknown
    }

    fn unknown_of(&self, selector: &Selector) -> Vec<String> {
        let mut unknown = Vec::new();
        for name in &selector.names {
            if OF_PROMETHEUS.contains(&name.as_str()) || self.recorded.contains(name) {
                continue;
            }
            let Some(labels) = self.metrics.get(name) else {
                unknown.push(name.clone());
                continue;
            };
            for (label, operator, value) in &selector.matchers {
                match labels.get(label) {
                    _ if EVERYWHERE.contains(&label.as_str()) => {}
                    None => unknown.push(format!("{name}{{{label}}}")),
                    Some(None) => {}
                    Some(Some(words)) => {
                        let wrong = value.split('|').filter(|word| !word.is_empty() && !fits(word, operator, words));
                        unknown.extend(wrong.map(|word| format!("{name}{{{label}{operator}{word:?}}}")));
                    }
                }
            }
        }
        unknown
    }
}

/// `` `outcome`: delivered, duplicate ``, or a label alone.
fn label(text: &str, metric: &str, page: &str) -> (String, Words) {
    let (key, values) = text.split_once(": ").unwrap_or((text, ""));
    let key = key.trim_matches('`');
    let values = match key {
        "lane" | "version" | "http.request.method" | "http.response.status_code" => None,
        // The page has no room for all of them in a row: they are a line below the table.
        _ if values == "see below" => {
            let below = page.lines().find_map(|line| line.strip_prefix(&format!("- `{key}` of `{metric}`: ")));
            Some(words(below.unwrap_or_else(|| panic!("docs/metrics.md: no words of {metric}'s {key}"))))
        }
        _ => Some(words(values)),
    };
    (key.replace('.', "_"), values)
}

/// `` `delivered`, `duplicate` ``
fn words(text: &str) -> BTreeSet<String> {
    text.split(", ").map(|word| word.trim_matches('`').to_owned()).collect()
}

/// Is it one of the words? Of regular expressions only `|` and a `.+` at the end are used.
fn fits(word: &str, operator: &str, words: &BTreeSet<String>) -> bool {
    match word.strip_suffix(".+") {
        Some(stem) if operator.contains('~') => words.iter().any(|known| known.starts_with(stem)),
        _ => words.contains(word),
    }
}

/// Attributes of spans, as the services write them.
pub fn attributes() -> BTreeSet<String> {
    let source = read(&repository().join("shared/service/src/attributes.rs"));
    let constants = source.lines().filter(|line| line.starts_with("pub const "));
    let names: BTreeSet<String> = constants.filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect();
    assert!(names.len() > 20, "attributes.rs is read wrongly: {names:?}");
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_is_found() {
        let known = Known::with(["lane:x".to_owned()]);
        let unknown = |expression: &str| known.unknown_in(expression);
        for right in [
            "sum by (lane, outcome) (rate(fedstream_lane_outcomes_total{outcome=\"delivered\"}[5m]))",
            "histogram_quantile(0.9, sum by (le) (rate(fedstream_lane_latency_seconds_bucket{lane=\"a/b\"}[5m])))",
            "fedstream_front_refused_total{reason=~\"lane-.+|storage-full\"} or lane:x{anything=\"y\"}",
            "sum by (http_response_status_code) (http_server_request_duration_seconds_count{job=\"x\"})",
        ] {
            assert_eq!(unknown(right), Vec::<String>::new(), "{right}");
        }
        assert_eq!(unknown("fedstream_lane_dept"), ["fedstream_lane_dept"]);
        assert_eq!(
            unknown("fedstream_lane_latency_seconds"),
            ["fedstream_lane_latency_seconds"],
            "a histogram has parts"
        );
        assert_eq!(unknown("fedstream_lane_depth{lan=\"x\"}"), ["fedstream_lane_depth{lan}"]);
        assert_eq!(unknown("fedstream_lane_outcomes_total{outcome=\"sent\"}").len(), 1);
        assert_eq!(unknown("fedstream_front_refused_total{reason=~\"lane-full|lanes-.+\"}").len(), 1);
        assert_eq!(unknown("sum by (source) (fedstream_lane_depth)").len(), 1);
    }
}
