//! The variables as the process was given them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{ConfigError, Variable, former};
use crate::Service;

/// A snapshot of the environment, so that a test can give its own and never touches the process's.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    values: BTreeMap<String, String>,
    /// Names whose values are not UTF-8: an error where they are ours, other people's are none of our business.
    not_text: BTreeSet<String>,
}

impl Environment {
    /// The process's variables.
    pub fn of_process() -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => drop(environment.values.insert(name, value)),
                Err(_) => drop(environment.not_text.insert(name)),
            }
        }
        environment
    }

    /// An environment of these variables only.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        let values = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { values, ..Self::default() }
    }

    /// The value to use: set, from a file, or the default.
    pub(crate) fn value_of(&self, variable: &Variable) -> Result<Option<String>, ConfigError> {
        let given = self.non_empty(variable.name);
        let file_name = format!("{}_FILE", variable.name);
        // Taken for not set, a list of who may send would be a list of nobody in particular.
        for name in [variable.name, &file_name] {
            if self.not_text.contains(name) && (name == variable.name || variable.secret) {
                return Err(ConfigError::new(name, "is not UTF-8"));
            }
        }
        let file = if variable.secret { self.non_empty(&file_name) } else { None };
        match (given, file) {
            (Some(_), Some(_)) => {
                Err(ConfigError::between(format_args!("{} and {file_name}: both are set, one must go", variable.name)))
            }
            (Some(value), None) => Ok(Some(value.to_owned())),
            (None, Some(path)) => read_secret(&file_name, Path::new(path)).map(Some),
            (None, None) => Ok(variable.default.map(str::to_owned)),
        }
    }

    /// A sentence for each `FED_*` variable that this service doesn't know: usually a slip of the keyboard.
    pub(super) fn unknown_names(&self, service: &Service) -> Vec<String> {
        let known: Vec<&str> = service.all_variables().map(|variable| variable.name).collect();
        let secret_file =
            |name: &str| service.all_variables().any(|v| v.secret && name.strip_suffix("_FILE") == Some(v.name));
        self.values
            .keys()
            .filter(|name| name.starts_with("FED_") && !known.contains(&name.as_str()) && !secret_file(name))
            .map(|name| match nearest(name, &known) {
                Some(near) => {
                    format!("{name} is not a variable of this service; did you mean {near}?")
                }
                None => format!("{name} is not a variable of this service"),
            })
            .collect()
    }

    /// A sentence for each variable of the existing batcher that means nothing any more.
    pub(super) fn former_names(&self) -> Vec<String> {
        self.values.keys().filter_map(|name| former::replaced(name)).collect()
    }

    fn non_empty(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.trim().is_empty())
    }
}

fn read_secret(file_variable: &str, path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::new(file_variable, format_args!("{}: {error}", path.display())))?;
    // Editors and `echo` end a file with a newline, which is never part of a credential.
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(ConfigError::new(file_variable, format_args!("{}: the file is empty", path.display())));
    }
    Ok(secret.to_owned())
}

/// The known name that takes the fewest edits, if few enough to be a slip.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let furthest = name.len() / 3;
    known
        .iter()
        .map(|candidate| (edits(name.as_bytes(), candidate.as_bytes()), *candidate))
        .min()
        .filter(|(distance, _)| *distance <= furthest)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, one row at a time.
fn edits(from: &[u8], to: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bytes, Secret};

    static SERVICE: Service = Service {
        name: "sample",
        about: "",
        version: "0",
        variables: &[&[
            Variable::new::<Bytes>("FED_BODY_MAX", "1MiB", "").default("1MiB"),
            Variable::new::<Secret>("FED_KEY", "s3cret", "").optional().secret(),
        ]],
    };

    #[test]
    fn an_unknown_name_gets_the_nearest_known_one() {
        let environment = Environment::from_pairs(&[
            ("FED_BODYMAX", "1"),
            ("FED_KEY_FILE", "/x"),
            ("FED_XYZ_ABC_DEF", ""),
            ("HOME", "/"),
        ]);
        assert_eq!(
            environment.unknown_names(&SERVICE),
            [
                "FED_BODYMAX is not a variable of this service; did you mean FED_BODY_MAX?",
                "FED_XYZ_ABC_DEF is not a variable of this service"
            ]
        );
    }

    #[test]
    fn a_former_variable_gets_a_line_of_its_own_and_is_not_called_unknown() {
        let environment = Environment::from_pairs(&[("RABBITMQ_HOSTNAME", "rabbit"), ("FED_KEY", "x")]);
        assert_eq!(environment.unknown_names(&SERVICE), [""; 0]);
        let [line] = environment.former_names().try_into().unwrap();
        assert!(line.starts_with("RABBITMQ_HOSTNAME has no meaning any more: ") && !line.contains("rabbit"), "{line}");
    }

    #[test]
    fn a_secret_is_read_from_its_file_without_the_newline() {
        let path = std::env::temp_dir().join(format!("fedstream-secret-{}", std::process::id()));
        std::fs::write(&path, "Bearer s3cret\n").unwrap();
        let path_text = path.to_str().unwrap();
        let key = SERVICE.all_variables().nth(1).unwrap();

        let from_file = Environment::from_pairs(&[("FED_KEY_FILE", path_text)]);
        assert_eq!(from_file.value_of(key).unwrap().as_deref(), Some("Bearer s3cret"));
        let both = Environment::from_pairs(&[("FED_KEY_FILE", path_text), ("FED_KEY", "x")]);
        assert!(both.value_of(key).unwrap_err().to_string().contains("both are set"));

        std::fs::remove_file(&path).unwrap();
        assert!(from_file.value_of(key).unwrap_err().to_string().starts_with("FED_KEY_FILE: "));
    }

    #[test]
    fn a_value_that_is_not_text_is_an_error_and_not_unset() {
        let environment =
            Environment { not_text: ["FED_BODY_MAX".into(), "PATH".into()].into(), ..Environment::default() };
        let [body_max, key] = [0, 1].map(|at| SERVICE.all_variables().nth(at).unwrap());
        assert_eq!(environment.value_of(body_max).unwrap_err().to_string(), "FED_BODY_MAX: is not UTF-8");
        assert_eq!(environment.value_of(key), Ok(None));
    }

    #[test]
    fn only_a_secret_may_come_from_a_file() {
        let environment = Environment::from_pairs(&[("FED_BODY_MAX_FILE", "/does/not/exist")]);
        let body_max = SERVICE.all_variables().next().unwrap();
        assert_eq!(environment.value_of(body_max).unwrap().as_deref(), Some("1MiB"));
    }
}
