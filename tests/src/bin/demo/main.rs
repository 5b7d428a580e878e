//! `make demo` and `make up`: the pipeline running on this machine, to be looked at and to be tried.

mod show;
mod table;
mod up;

use std::process::ExitCode;

const HELP: &str = "\
fedstream on this machine

usage: demo            the demonstration (make demo)
       demo up         the pipeline alone, in front of an instance of yours (make up)
       demo --help

The demonstration starts a nats-server, inbox-receiver, batch-sender, batch-receiver, a link of 300 ms round trip
between the last two, and an instance that verifies the digest and the HTTP signature of all it gets. Two sending
instances post 1,000 signed activities, one after the other each. At the end it compares both sides, and ends with an
error when anything was lost, repeated, altered or out of order, and shows the way of the slowest activity as its spans
tell it. It takes about half a minute.

`up` wants
  FED_DEST_URL       your instance, for example FED_DEST_URL=http://127.0.0.1:8536
  FED_DESTINATIONS   its host name as others know it, for example FED_DESTINATIONS=my.instance
  FED_SOURCES        whose activities to take, for example FED_SOURCES=lemmy.world,lemmy.ml
and takes
  FED_LISTEN         where the front listens (127.0.0.1:8080)
  HTTP_ALLOWED_IPS   who may post to it (127.0.0.1,::1)
and every other variable of inbox-receiver (inbox-receiver --help), OTEL_* and LOG_*. The broker's store and the logs
are in .up/.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [] => run(show::demo()),
        ["up"] => run(up::up()),
        ["--help" | "-h" | "help"] => {
            println!("{HELP}");
            Ok(true)
        }
        _ => {
            eprintln!("unknown: {}\n\n{HELP}", words.join(" "));
            return ExitCode::from(64);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: impl Future<Output = anyhow::Result<bool>>) -> anyhow::Result<bool> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(what)
}
