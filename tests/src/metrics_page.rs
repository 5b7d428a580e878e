//! `/metrics` of a service, read as Prometheus reads it: names, labels, numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::broker::repository;
use crate::http1;
use crate::process::Service;

/// Service and name on `/metrics` to the kind.
pub type Metrics = BTreeMap<(String, String), String>;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its name, with `_bucket`, `_sum` or `_count` for a histogram.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// The page as it was.
#[derive(Clone, Debug, Default)]
pub struct MetricsPage {
    /// Name and kind of each metric.
    pub kinds: BTreeMap<String, String>,
    /// Every line.
    pub samples: Vec<Sample>,
}

impl MetricsPage {
    /// Of this service; `None` while nobody answers.
    ///
    /// # Panics
    /// It is no such page.
    pub async fn of(service: &Service) -> Option<Self> {
        let answer = http1::get(service.admin(), "/metrics").await.ok()?;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Some(Self::read(std::str::from_utf8(&answer.body).expect("text")))
    }

    /// From the text.
    ///
    /// # Panics
    /// A line can't be read.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and a kind");
                page.kinds.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                page.samples.push(sample(line));
            }
        }
        page
    }

    /// The sum over the series of this name that have these labels; `None` where there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |sample: &&Sample| {
            let label = |(key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|found| found == value);
            sample.name == name && labels.iter().all(label)
        };
        let found: Vec<f64> = self.samples.iter().filter(has).map(|sample| sample.value).collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }

    /// The values that a label has anywhere on the page.
    #[must_use]
    pub fn values_of(&self, label: &str) -> BTreeSet<&str> {
        self.samples.iter().filter_map(|sample| sample.labels.get(label)).map(String::as_str).collect()
    }
}

/// For people who look for what went wrong: without the buckets.
impl fmt::Display for MetricsPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for sample in self.samples.iter().filter(|sample| !sample.name.ends_with("_bucket")) {
            writeln!(f, "{} {:?} {}", sample.name, sample.labels, sample.value)?;
        }
        Ok(())
    }
}

/// `name{key="value",..} number`; no value of ours has a quote, a brace or a comma in it.
fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a name and a number");
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let pairs = labels.trim_end_matches('}').split(',').filter(|pair| !pair.is_empty());
    let labels = pairs.map(|pair| {
        let (key, value) = pair.split_once('=').expect("a label");
        (key.to_owned(), value.trim_matches('"').to_owned())
    });
    Sample { name: name.to_owned(), labels: labels.collect(), value: value.parse().expect("a number") }
}

/// What `docs/metrics.md` says: a row is `| OpenTelemetry | /metrics | kind, unit | labels | service | what it says |`.
///
/// # Panics
/// There is no such page, or a row is none.
#[must_use]
pub fn table() -> Metrics {
    let page = std::fs::read_to_string(repository().join("docs/metrics.md")).expect("the page");
    let mut metrics = Metrics::new();
    for row in page.lines().filter(|line| {
        line.starts_with("| `fedstream.") || line.starts_with("| `http.") || line.starts_with("| `messaging.")
    }) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, name, kind, _, services, ..] = cells.as_slice() else { panic!("a row of six cells: {row}") };
        let kind = kind.split([' ', ',']).next().unwrap_or_default();
        for service in services.split(", ") {
            metrics.insert((service.to_owned(), name.trim_matches('`').to_owned()), kind.to_owned());
        }
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_it_is_written() {
        let page = MetricsPage::read(
            "# HELP a_total What\n# TYPE a_total counter\na_total{lane=\"b/c\",x=\"\"} 2\na_total{lane=\"b/d\"} 3\n\nb 1e3\n",
        );
        assert_eq!(page.kinds["a_total"], "counter");
        assert_eq!(page.sum("a_total", &[]), Some(5.0));
        assert_eq!(page.sum("a_total", &[("lane", "b/d")]), Some(3.0));
        assert_eq!(page.sum("a_total", &[("lane", "b/e")]), None);
        assert_eq!(page.sum("b", &[]), Some(1000.0));
        assert_eq!(page.values_of("lane"), BTreeSet::from(["b/c", "b/d"]));
    }
}
