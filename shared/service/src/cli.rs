//! The command line, which only has words about the service itself: everything else is in the environment. And how a
//! service ends: one plain line on stderr and an exit code that says whose move it is.

use std::fmt;
use std::net::SocketAddr;
use std::process::ExitCode;

use tokio::net::TcpListener;

use crate::Service;
use crate::config::{ConfigError, Environment, Variable};
use crate::healthy;

/// A wrong command line or configuration (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// Something it needs isn't there: the broker, a port (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// What it needs is there and not safe to run on: a stream that would lose data, an old server (`EX_CONFIG`).
pub const UNSAFE: u8 = 78;

/// Why a service ends with an error: one line, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}")]
pub struct Failure {
    /// The process's exit code.
    pub code: u8,
    /// One line, in plain words.
    pub line: String,
}

impl Failure {
    /// Exit code 64: the operator's settings are wrong.
    pub fn usage(reason: impl fmt::Display) -> Self {
        Self { code: USAGE, line: reason.to_string() }
    }

    /// Exit code 69: a supervisor may try again later.
    pub fn unavailable(reason: impl fmt::Display) -> Self {
        Self { code: UNAVAILABLE, line: reason.to_string() }
    }

    /// Exit code 78: trying again doesn't help until somebody changes what was found.
    pub fn unsafe_to_run(reason: impl fmt::Display) -> Self {
        Self { code: UNSAFE, line: reason.to_string() }
    }

    /// Exit code 1: what should not happen.
    pub fn other(reason: impl fmt::Display) -> Self {
        Self { code: 1, line: reason.to_string() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

/// Answers `--help`, `--version` and `--healthy` and ends the process; ends it with 64 on any other word; else returns.
pub fn entry(service: &Service) {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    match parse(&words) {
        Request::Run => {}
        Request::Help => {
            print!("{}", help(service));
            std::process::exit(0);
        }
        Request::Version => {
            println!("{} {}", service.name, service.version);
            std::process::exit(0);
        }
        Request::Healthy => {
            let code = match healthy::ask(service, &Environment::of_process()) {
                Ok(()) => 0,
                Err(failure) => {
                    eprintln!("{}: {failure}", service.name);
                    failure.code
                }
            };
            std::process::exit(i32::from(code));
        }
        Request::Unknown(word) => {
            eprintln!("{}: {word:?} is not understood; settings are environment variables, see --help", service.name);
            std::process::exit(i32::from(USAGE));
        }
    }
}

/// What `main` returns: 0, or the failure's line on stderr and its code.
pub fn exit(service: &Service, result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // A cause may bring line breaks of its own; one line is what a supervisor shows.
            let line = failure.line.split_whitespace().collect::<Vec<_>>().join(" ");
            eprintln!("{}: {line}", service.name);
            ExitCode::from(failure.code)
        }
    }
}

/// Binds `address`; a failure names the variable it came from.
pub async fn bind(variable: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::unavailable(format_args!("{variable}={address}: {error}")))
}

enum Request {
    Run,
    Help,
    Version,
    Healthy,
    Unknown(String),
}

fn parse(words: &[String]) -> Request {
    match words {
        [] => Request::Run,
        [word] if word == "--help" || word == "-h" => Request::Help,
        [word] if word == "--version" || word == "-V" => Request::Version,
        [word] if word == "--healthy" => Request::Healthy,
        [first, ..] => Request::Unknown(first.clone()),
    }
}

/// The text of `--help`.
pub fn help(service: &Service) -> String {
    let mut text = format!("{} {}\n{}\n\n", service.name, service.version, service.about);
    text.push_str("usage: ");
    text.push_str(service.name);
    text.push_str(" [--help | --version | --healthy]\n\n--healthy asks the running service of the same settings whether it is alive: 0, or 1 and why not.\nSettings are environment variables. A secret NAME may come from the file NAME_FILE names instead.\n");
    text.push_str("Sizes: 1048576, 64KiB, 1MiB. Times: 5s, 200ms, 10m; a plain number is seconds.\n");
    for group in service.variables {
        text.push('\n');
        text.push_str(&described(*group));
    }
    text
}

/// Variables as `--help` lists them.
pub fn described<'v>(variables: impl IntoIterator<Item = &'v Variable>) -> String {
    let mut text = String::new();
    variables.into_iter().for_each(|variable| describe(&mut text, variable));
    text
}

fn describe(text: &mut String, variable: &Variable) {
    let state = match (variable.default, variable.required) {
        (Some(default), _) => format!("default: {default}"),
        (None, true) => "required".to_owned(),
        (None, false) => "optional".to_owned(),
    };
    let secret = if variable.secret { ", secret" } else { "" };
    let example = if variable.default == Some(variable.example) {
        String::new()
    } else {
        format!("; for example {}", variable.assignment())
    };
    text.push_str(&format!("  {} ({state}{secret})\n      {}{example}\n", variable.name, variable.meaning));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bytes, Secret, common};

    static COMMON: [Variable; common::COUNT] = common::variables("127.0.0.1:9090");
    static SERVICE: Service = Service {
        name: "sample",
        about: "Does nothing.",
        version: "1.2.3",
        variables: &[
            &[
                Variable::new::<Bytes>("FED_BODY_MAX", "1MiB", "largest body").default("1MiB"),
                Variable::new::<Secret>("FED_KEY", "s3cret", "credential").secret(),
            ],
            &COMMON,
        ],
    };

    #[test]
    fn help_lists_every_variable_with_default_and_meaning() {
        let text = help(&SERVICE);
        for variable in SERVICE.all_variables() {
            assert!(text.contains(&format!("  {} (", variable.name)), "{}", variable.name);
            assert!(text.contains(variable.meaning), "{}", variable.name);
        }
        assert!(text.contains("  FED_BODY_MAX (default: 1MiB)\n      largest body\n"), "{text}");
        assert!(text.contains("  FED_KEY (required, secret)\n"), "{text}");
    }

    #[test]
    fn every_default_and_example_passes_its_own_check() {
        for variable in SERVICE.all_variables().chain(&crate::config::nats::VARIABLES) {
            variable.check(variable.example).unwrap();
            if let Some(default) = variable.default {
                variable.check(default).unwrap();
            }
        }
    }

    #[test]
    fn a_failure_carries_its_exit_code() {
        assert_eq!(Failure::from(ConfigError::new("FED_LISTEN", "is wrong")).code, USAGE);
        assert_eq!(Failure::unavailable("no broker").code, UNAVAILABLE);
        assert_eq!(Failure::unsafe_to_run("discard old").code, UNSAFE);
    }
}
