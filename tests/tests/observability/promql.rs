//! As much of PromQL as tells which series an expression asks for, by what it picks them and by what it groups them.
//!
//! Prometheus itself says whether an expression can be understood; this only reads names out of one that can.

use std::collections::BTreeSet;

/// One look at series: `name{label="value", ..}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// Of the metric; several where it is picked by `__name__=~"a|b"`.
    pub names: Vec<String>,
    /// Label, operator and value.
    pub matchers: Vec<(String, String, String)>,
}

/// What an expression refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// In the order in which they are written.
    pub selectors: Vec<Selector>,
    /// Labels in `by (..)`, `on (..)` and the like.
    pub grouped: BTreeSet<String>,
}

/// Words that are followed by labels in parentheses.
const GROUPING: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Words that are no names.
const WORDS: [&str; 7] = ["and", "or", "unless", "offset", "bool", "inf", "nan"];

/// Reads an expression.
pub fn read(expression: &str) -> Read {
    let mut found = Read::default();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if let Some(end) = (first == '[').then(|| rest.find(']').expect("a range ends")) {
            rest = &rest[end + 1..];
        } else if first == '{' {
            let (matchers, after) = matchers(rest);
            let name = matchers.iter().find(|(label, ..)| label == "__name__").expect("a selector has a name");
            let names = name.2.split('|').map(str::to_owned).collect();
            let matchers = matchers.iter().filter(|(label, ..)| label != "__name__").cloned().collect();
            found.selectors.push(Selector { names, matchers });
            rest = after;
        } else if first.is_ascii_digit() {
            // A number or a duration: `10m` is no name.
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
        } else if is_name(first) {
            let end = rest.find(|c: char| !is_name(c) && !c.is_ascii_digit()).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after.trim_start();
            if GROUPING.contains(&word) && rest.starts_with('(') {
                let (labels, after) = rest[1..].split_once(')').expect("a list of labels ends");
                found.grouped.extend(labels.split(',').map(|label| label.trim().to_owned()).filter(|l| !l.is_empty()));
                rest = after;
            } else if rest.starts_with('{') {
                let (matchers, after) = matchers(rest);
                found.selectors.push(Selector { names: vec![word.to_owned()], matchers });
                rest = after;
            } else if !rest.starts_with('(')
                && !WORDS.contains(&word.to_ascii_lowercase().as_str())
                && !GROUPING.contains(&word)
                && !aggregates_by(word, rest)
            {
                found.selectors.push(Selector { names: vec![word.to_owned()], matchers: Vec::new() });
            }
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

/// `sum by (lane) (..)`: the function's name stands before its grouping.
fn aggregates_by(word: &str, rest: &str) -> bool {
    let next = rest.split(|c: char| !is_name(c)).next().unwrap_or_default();
    matches!(next, "by" | "without") && !word.contains('_')
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == ':'
}

/// What stands in `{..}`, and what comes after it.
fn matchers(text: &str) -> (Vec<(String, String, String)>, &str) {
    let mut found = Vec::new();
    let mut rest = text[1..].trim_start();
    while !rest.starts_with('}') {
        let end = rest.find(['=', '!']).expect("a matcher has an operator");
        let label = rest[..end].trim().to_owned();
        let quote = rest.find('"').expect("a value in quotes");
        let operator = rest[end..quote].trim().to_owned();
        let (value, after) = rest[quote + 1..].split_once('"').expect("a value ends"); // none of ours has a quote in it
        found.push((label, operator, value.to_owned()));
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    (found, &rest[1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(expression: &str) -> Vec<String> {
        read(expression).selectors.into_iter().flat_map(|selector| selector.names).collect()
    }

    #[test]
    fn names_are_told_from_functions_labels_words_and_durations() {
        assert_eq!(names("topk(10, max by (lane) (a_b))"), ["a_b"]);
        assert_eq!(names("sum(rate(a_total{x=\"y\"}[5m])) > 3 * clamp_min(sum(b), 1) or vector(0)"), ["a_total", "b"]);
        assert_eq!(
            names("a > 0 unless on (lane) max by (lane) (last_over_time(b[5m])) unless on () c"),
            ["a", "b", "c"]
        );
        assert_eq!(names("count by (job) (a) unless count by (job) (a offset 5m)"), ["a", "a"]);
        assert_eq!(names("lane:a:rate5m{lane=\"x/y\"} / 1e9"), ["lane:a:rate5m"]);
        assert_eq!(names("label_values({__name__=~\"a|b\"}, lane)"), ["a", "b", "lane"]);
        assert_eq!(names("histogram_quantile(0.99, sum by (le) (rate(a_bucket[$__rate_interval])))"), ["a_bucket"]);
    }

    #[test]
    fn labels_and_values_are_read() {
        let read = read("sum by (lane, le) (a{lane=\"x/y\", reason=~\"b-.+|c\", d!=\"\"})");
        let matcher = |l: &str, o: &str, v: &str| (l.to_owned(), o.to_owned(), v.to_owned());
        let matchers = vec![matcher("lane", "=", "x/y"), matcher("reason", "=~", "b-.+|c"), matcher("d", "!=", "")];
        assert_eq!(read.selectors, [Selector { names: vec!["a".to_owned()], matchers }]);
        assert_eq!(read.grouped, ["lane", "le"].map(str::to_owned).into());
    }
}
