//! `docs/metrics.md` says what the definitions say. After a change of them:
//! `FED_WRITE_DOCS=1 cargo test -p fedstream-service --test metrics_table`

use std::path::Path;

use fedstream_service::metrics::{Definition, Kind, Label, Values, table};

const BEGIN: &str = "<!-- made from the definitions: begin -->\n";
const END: &str = "<!-- made from the definitions: end -->";

/// A list of words that is longer goes below the table.
const WORDS_IN_THE_TABLE: usize = 11;

#[test]
fn the_table_in_the_docs_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("where it begins");
    let (_, after) = rest.split_once(END).expect("where it ends");
    let current = format!("{before}{BEGIN}{}{END}{after}", made());
    if std::env::var_os("FED_WRITE_DOCS").is_some() {
        std::fs::write(&path, current).unwrap();
    } else {
        assert_eq!(page, current, "FED_WRITE_DOCS=1 cargo test -p fedstream-service --test metrics_table");
    }
}

#[test]
fn every_definition_is_whole_and_there_once() {
    for (at, definition) in table::ALL.iter().enumerate() {
        let name = definition.name;
        assert!(!definition.services.is_empty(), "{name} is of no service");
        assert!(!definition.description.ends_with('.') && !definition.description.contains("  "), "{name}");
        assert_ne!(definition.unit, "1", "{name} would end in _ratio");
        assert!(table::ALL[..at].iter().all(|other| other.name != name), "{name} is there twice");
        if let Kind::Histogram(bounds) = definition.kind {
            assert!(bounds.is_sorted_by(|one, next| one < next), "{name}");
        }
    }
}

fn made() -> String {
    let mut lines = vec![
        "| OpenTelemetry | `/metrics` | kind, unit | labels | service | what it says |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    lines.extend(table::ALL.iter().map(|definition| row(definition)));
    lines.extend([String::new(), "The longer lists of words:".to_owned(), String::new()]);
    for definition in table::ALL {
        for label in definition.labels {
            if let Values::Words(words) = label.values
                && words.len() > WORDS_IN_THE_TABLE
            {
                lines.push(format!("- `{}` of `{}`: {}", label.key, definition.name, code(words)));
            }
        }
    }
    lines.join("\n") + "\n\n"
}

fn row(definition: &Definition) -> String {
    let kind = match definition.kind {
        Kind::Counter => "counter".to_owned(),
        Kind::Gauge => "gauge".to_owned(),
        Kind::Histogram(bounds) => format!("histogram {} .. {}", bounds[0], bounds[bounds.len() - 1]),
    };
    let unit = if definition.unit.is_empty() { "0 or 1" } else { definition.unit };
    let labels: Vec<_> = definition.labels.iter().map(said).collect();
    format!(
        "| `{}` | `{}` | {kind}, {unit} | {} | {} | {} |",
        definition.name,
        definition.prometheus_name(),
        labels.join("; "),
        definition.services.join(", "),
        definition.description
    )
}

fn said(label: &Label) -> String {
    match label.values {
        Values::Lanes => format!("`{}`", label.key),
        Values::Words(words) if words.len() > WORDS_IN_THE_TABLE => format!("`{}`: see below", label.key),
        Values::Words(words) => format!("`{}`: {}", label.key, code(words)),
        Values::AtMost(_, which) => format!("`{}`: {which}", label.key),
    }
}

fn code(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
