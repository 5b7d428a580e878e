//! One row of a service's table of variables.

use std::fmt::Display;
use std::str::FromStr;

use super::ConfigError;
use super::values::as_predicate;

/// A variable: its name, what it means, what is right for it. Made in `static` tables, hence `const` throughout.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// The environment variable's name.
    pub name: &'static str,
    /// The value used when it isn't set.
    pub default: Option<&'static str>,
    /// A right value, shown in errors and help.
    pub example: &'static str,
    /// What it does, in a few words, with its unit.
    pub meaning: &'static str,
    /// Never shown, and readable from `<NAME>_FILE`.
    pub secret: bool,
    /// Not set and no default is an error.
    pub required: bool,
    parse: fn(&str) -> Result<(), String>,
}

impl Variable {
    /// A required variable of type `T`; [`default`](Self::default) and [`optional`](Self::optional) relax that.
    pub const fn new<T>(name: &'static str, example: &'static str, meaning: &'static str) -> Self
    where
        T: FromStr,
        T::Err: Display,
    {
        Self { name, default: None, example, meaning, secret: false, required: true, parse: parses::<T> }
    }

    /// Used when the variable isn't set.
    #[must_use]
    pub const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self.required = false;
        self
    }

    /// May be absent; the field is an `Option`.
    #[must_use]
    pub const fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    /// A value that is never shown and may come from `<NAME>_FILE`.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// `NAME=example`.
    pub fn assignment(&self) -> String {
        format!("{}={}", self.name, self.example)
    }

    /// Is this value one of the variable's type?
    pub fn check(&self, value: &str) -> Result<(), ConfigError> {
        let Err(fault) = (self.parse)(value) else {
            return Ok(());
        };
        let example = self.assignment();
        // The fault may quote what it was given, so a secret's fault stays untold.
        if self.secret {
            return Err(ConfigError::new(
                self.name,
                format_args!("the value (not shown) is not usable, for example {example}"),
            ));
        }
        let fault = as_predicate(&fault);
        Err(ConfigError::new(self.name, format_args!("{value:?} {fault}, for example {example}")))
    }
}

fn parses<T>(value: &str) -> Result<(), String>
where
    T: FromStr,
    T::Err: Display,
{
    value.parse::<T>().map(drop).map_err(|fault| fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Count;

    #[test]
    fn a_fault_never_shows_a_secret() {
        let variable = Variable::new::<u16>("FED_KEY", "12", "a secret number").secret();
        let line = variable.check("hunter2").unwrap_err().to_string();
        assert!(!line.contains("hunter2"), "{line}");
        assert!(line.starts_with("FED_KEY: "));
    }

    #[test]
    fn faults_of_the_standard_library_read_as_a_sentence_too() {
        let variable = Variable::new::<std::net::SocketAddr>("FED_LISTEN", "127.0.0.1:8080", "where");
        assert_eq!(
            variable.check("8080").unwrap_err().to_string(),
            "FED_LISTEN: \"8080\" is not usable: invalid socket address syntax, for example FED_LISTEN=127.0.0.1:8080"
        );
    }

    #[test]
    fn a_default_or_optional_makes_it_not_required() {
        assert!(Variable::new::<Count>("A", "1", "").required);
        assert!(!Variable::new::<Count>("A", "1", "").default("1").required);
        assert!(!Variable::new::<Count>("A", "1", "").optional().required);
    }
}
