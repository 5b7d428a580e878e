//! What a metric is: everything about it that a reader of a dashboard has to know, in one value.

use crate::attributes::HTTP_STATUS;

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Definition {
    /// OpenTelemetry's name, with dots.
    pub name: &'static str,
    /// What is done with it.
    pub kind: Kind,
    /// The unit, in UCUM; empty where it is a yes or no. Not `1`: that would end the Prometheus name in `_ratio`.
    pub unit: &'static str,
    /// What it says, in one sentence without a full stop.
    pub description: &'static str,
    /// By what it is told apart.
    pub labels: &'static [Label],
    /// Which services have it.
    pub services: &'static [&'static str],
}

/// What is done with a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is looked at when somebody asks.
    Gauge,
    /// Measurements, in buckets up to these bounds.
    Histogram(&'static [f64]),
}

/// A label of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Label {
    /// Its key, with dots.
    pub key: &'static str,
    /// What it can be.
    pub values: Values,
}

/// What a label's value can be. Always a bounded set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Values {
    /// `<destination>/<source>` of an inbound lane, `<remote>/<partition>` of an outbound one; `other` beyond FED_METRIC_LANES.
    Lanes,
    /// One of these words.
    Words(&'static [&'static str]),
    /// One of at most so many, which are these.
    AtMost(usize, &'static str),
}

/// HTTP status codes that are told apart: all that are defined, and the hundreds. See [`super::http::status`].
pub(super) const STATUSES_MAX: usize = 80;

impl Label {
    /// The lane.
    pub const LANE: Self = Self { key: "lane", values: Values::Lanes };

    /// The status code of an HTTP answer.
    pub const STATUS: Self = Self { key: HTTP_STATUS, values: Values::AtMost(STATUSES_MAX, "the status code") };

    /// A label that is one of these words.
    pub const fn words(key: &'static str, words: &'static [&'static str]) -> Self {
        Self { key, values: Values::Words(words) }
    }
}

impl Definition {
    /// The most series that it can have where `lanes` lanes are named. A label may also be absent.
    #[must_use]
    pub fn series(&self, lanes: usize) -> usize {
        let values = |label: &Label| match label.values {
            Values::Lanes => lanes.saturating_add(2), // those, "other", and none
            Values::Words(words) => words.len() + 1,
            Values::AtMost(most, _) => most + 1,
        };
        self.labels.iter().map(values).fold(1, usize::saturating_mul).min(usize::MAX - 1)
    }

    /// The words that a label can be.
    #[must_use]
    pub fn words(&self, key: &str) -> Option<&'static [&'static str]> {
        self.labels.iter().find(|label| label.key == key).and_then(|label| match label.values {
            Values::Words(words) => Some(words),
            Values::Lanes | Values::AtMost(..) => None,
        })
    }

    /// Its name on `/metrics`.
    #[must_use]
    pub fn prometheus_name(&self) -> String {
        let unit = match self.unit {
            "s" => "_seconds",
            "By" => "_bytes",
            _ => "", // an annotation in braces
        };
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{unit}{total}", self.name.replace('.', "_"))
    }

    /// Are these its labels? Some may be absent.
    pub(super) fn allows(&self, labels: &[opentelemetry::KeyValue]) -> bool {
        labels.iter().all(|given| {
            let label = self.labels.iter().find(|label| label.key == given.key.as_str());
            label.is_some_and(|label| match label.values {
                Values::Words(words) => words.contains(&given.value.as_str().as_ref()),
                Values::Lanes | Values::AtMost(..) => true,
            })
        })
    }
}
