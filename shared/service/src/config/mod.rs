//! Configuration: environment variables, checked against one table before anything is bound.
//!
//! The table ([`Variable`]) is the only place that knows a default, an example and a meaning; the structs that
//! hold the values derive `Envconfig` and carry names only (`#[envconfig(from = "FED_LISTEN")]`). So `--help`, the
//! check of each value and the value that is used can't disagree.
//!
//! - An empty value counts as not set: compose files pass `NAME=${NAME:-}`.
//! - A secret may come from a file instead: `NAME_FILE=/run/secrets/name`. Its value is in no message.
//! - Nothing here reads a variable later: what [`load`] returned is what runs.

pub mod common;
mod environment;
mod former;
pub mod nats;
mod sender_id;
mod url;
mod values;
mod variable;

pub use environment::Environment;
pub use sender_id::SenderId;
pub use url::{Scheme, UrlPath};
pub use values::{Bytes, Count, List, NotA, Secret, Span, Switch};
pub use variable::Variable;

use std::collections::HashMap;

use envconfig::Envconfig;

use crate::Service;

/// What is wrong with the configuration, in one line that names the variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// An error of `variable`; the sentence says what is wrong and what would be right.
    pub fn new(variable: &str, sentence: impl std::fmt::Display) -> Self {
        Self(format!("{variable}: {sentence}"))
    }

    /// A fault in several variables together, in a sentence that names them itself.
    pub fn between(sentence: impl std::fmt::Display) -> Self {
        Self(sentence.to_string())
    }
}

/// Checks that concern more than one variable; each alone was checked against its type before.
pub trait Check {
    /// The first fault, as a sentence that names the variables concerned.
    fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// Reads the process's environment into `C`; prints a warning line for each `FED_*` variable that nobody knows,
/// and for each of the existing batcher's that means nothing any more.
pub fn load<C: Envconfig + Check>(service: &Service) -> Result<C, ConfigError> {
    let environment = Environment::of_process();
    for warning in environment.unknown_names(service).into_iter().chain(environment.former_names()) {
        // Not through tracing: its settings are among the variables being read.
        eprintln!("{}: warning: {warning}", service.name);
    }
    load_from(service, &environment)
}

/// [`load`] from given variables, for tests.
pub fn load_from<C: Envconfig + Check>(service: &Service, environment: &Environment) -> Result<C, ConfigError> {
    let mut values = HashMap::new();
    for variable in service.all_variables() {
        if let Some(value) = environment.value_of(variable)? {
            variable.check(&value)?;
            values.insert(variable.name.to_owned(), value);
        } else if variable.required {
            return Err(ConfigError::new(
                variable.name,
                format_args!("is required: {}; for example {}", variable.meaning, variable.assignment()),
            ));
        }
    }
    // What can fail here is a field whose name or type is not the table's: a bug, shown by the first test that loads.
    let config = C::init_from_hashmap(&values)
        .map_err(|error| ConfigError::between(format_args!("the table of variables is incomplete: {error}")))?;
    config.check()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Envconfig)]
    struct Sample {
        #[envconfig(from = "FED_BODY_MAX")]
        body_max: Bytes,
        #[envconfig(from = "FED_SOURCES")]
        sources: List<String>,
        #[envconfig(from = "FED_KEY")]
        key: Option<Secret>,
    }
    impl Check for Sample {
        fn check(&self) -> Result<(), ConfigError> {
            if self.body_max.get() == 0 {
                return Err(ConfigError::new("FED_BODY_MAX", "must be above zero"));
            }
            Ok(())
        }
    }

    static SAMPLE: Service = Service {
        name: "sample",
        about: "",
        version: "0",
        variables: &[&[
            Variable::new::<Bytes>("FED_BODY_MAX", "1MiB", "largest body").default("1MiB"),
            Variable::new::<List<String>>("FED_SOURCES", "lemmy.world", "who may send"),
            Variable::new::<Secret>("FED_KEY", "s3cret", "credential").optional().secret(),
        ]],
    };

    fn error(pairs: &[(&str, &str)]) -> String {
        load_from::<Sample>(&SAMPLE, &Environment::from_pairs(pairs)).unwrap_err().to_string()
    }

    #[test]
    fn defaults_come_from_the_table() {
        let environment = Environment::from_pairs(&[("FED_SOURCES", "a.example, b.example")]);
        let sample: Sample = load_from(&SAMPLE, &environment).unwrap();
        assert_eq!(sample.body_max.get(), 1 << 20);
        assert_eq!(sample.sources.as_slice(), ["a.example", "b.example"]);
        assert!(sample.key.is_none());
    }

    #[test]
    fn a_wrong_value_is_one_line_with_name_fault_and_example() {
        assert_eq!(
            error(&[("FED_SOURCES", "a"), ("FED_BODY_MAX", "abc")]),
            "FED_BODY_MAX: \"abc\" is not a size in bytes, for example FED_BODY_MAX=1MiB"
        );
    }

    #[test]
    fn a_missing_required_variable_is_named_with_its_meaning() {
        assert_eq!(error(&[]), "FED_SOURCES: is required: who may send; for example FED_SOURCES=lemmy.world");
    }

    #[test]
    fn an_empty_value_counts_as_not_set() {
        assert!(error(&[("FED_SOURCES", "")]).starts_with("FED_SOURCES: is required"));
    }

    #[test]
    fn cross_field_checks_run_last() {
        assert_eq!(error(&[("FED_SOURCES", "a"), ("FED_BODY_MAX", "0")]), "FED_BODY_MAX: must be above zero");
    }
}
