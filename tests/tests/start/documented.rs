//! Every warning and error that a service can log, and every readiness message, is explained in `docs/operate.md`: an
//! operator who searches for the words of a line finds it.

use std::path::Path;

use fedstream_tests::broker::repository;

/// Calls whose last text is what an operator reads.
const LOGGED: [&str; 2] = ["tracing::warn!(", "tracing::error!("];
const SHOWN: [&str; 2] = [".not_ready(", "readiness.note("];

#[test]
fn every_warning_and_error_is_explained() {
    let texts = all_texts(&LOGGED);
    assert!(texts.len() > 50, "the search finds {} only", texts.len());
    assert_explained(texts);
}

#[test]
fn every_readiness_message_is_explained() {
    let texts = all_texts(&SHOWN);
    assert!(texts.len() > 5, "the search finds {} only", texts.len());
    assert_explained(texts);
}

fn assert_explained(texts: Vec<(String, String)>) {
    let page = std::fs::read_to_string(repository().join("docs/operate.md")).expect("docs/operate.md");
    let page = words(&page);
    let missing: Vec<String> = texts
        .into_iter()
        // What is put in at run time splits a text into pieces; each is there.
        .filter(|(_, text)| !text.split(['{', '}']).step_by(2).all(|piece| page.contains(words(piece).trim())))
        .map(|(file, text)| format!("{file}: {text}"))
        .collect();
    assert!(missing.is_empty(), "docs/operate.md, \"What each log line means\", lacks:\n{}", missing.join("\n"));
}

/// The texts of all such calls in the services and what they share: file and text.
fn all_texts(calls: &[&str]) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for folder in ["services", "shared"] {
        sources(&repository().join(folder), &mut |path, source| {
            // Unit tests come last in a file.
            let source = source.split("#[cfg(test)]").next().unwrap_or_default();
            for call in calls {
                for (at, _) in source.match_indices(call) {
                    let text = last_text(&source[at + call.len()..]);
                    texts.extend(text.map(|text| (path.display().to_string(), text)));
                }
            }
        });
    }
    texts
}

fn sources(folder: &Path, found: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "tests" && name != "target" {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && name != "tests.rs" {
            found(&path, &std::fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// The last string literal before the call's closing parenthesis, if it says more than what is put in.
fn last_text(source: &str) -> Option<String> {
    let (mut depth, mut last, mut chars) = (1, None, source.chars());
    while let Some(next) = chars.next() {
        match next {
            '(' => depth += 1,
            ')' => depth -= 1,
            '"' => {
                let mut text = String::new();
                while let Some(next) = chars.next().filter(|next| *next != '"') {
                    match next {
                        // `\` at the end of a line joins it with the next one.
                        '\\' => match chars.next() {
                            Some('\n') => text.push('\n'),
                            other => text.extend(other),
                        },
                        other => text.push(other),
                    }
                }
                last = Some(text);
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    last.filter(|text| text.split(['{', '}']).step_by(2).any(|piece| piece.contains(' ')))
}

/// One space between words, and none of Markdown's marks.
fn words(text: &str) -> String {
    let text = text.replace(['`', '|'], " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
