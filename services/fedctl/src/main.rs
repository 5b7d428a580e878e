//! fedctl: the operator's tool. It looks at lanes, sets and pauses them, and brings back what was parked.
//!
//! ```text
//!   lanes, show ◀── FED_INBOX, FED_OUTBOX, FED_BACKFILL, fed_leases, fed_lanes
//!   set, unset, reset, pause, resume, park ──▶ fed_lanes ──▶ every service, without a restart
//!   parked ◀── FED_PARKED        redrive: FED_PARKED ──▶ the lane's end
//! ```
//!
//! It talks to the broker alone, with the variables that the services have, and runs wherever the broker can be reached.
//! What it changes it checks first. It never makes or changes a stream, never purges a lane, and prints no credential of
//! an activity unless asked to.

mod broker;
mod command_line;
mod lanes;
mod park;
mod parked;
mod redrive;
mod settings;
mod target;
mod text;

use std::process::ExitCode;

use fedstream_service::cli::{self, Failure};

use broker::SERVICE;
use command_line::Command;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match command_line::read() {
        Ok(command) => cli::exit(&SERVICE, Box::pin(run(command)).await),
        Err(code) => code,
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Lanes { json } => lanes::list(json).await,
        Command::Show { target, json } => lanes::show(&target, json).await,
        Command::Set { target, fields } => settings::set(&target, &fields).await,
        Command::Unset { target, fields } => settings::unset(&target, &fields).await,
        Command::Reset { target } => settings::reset(&target).await,
        Command::Pause { lane } => settings::pause(lane).await,
        Command::Resume { lane } => settings::resume(lane).await,
        Command::Park { lane, sequence, wait } => park::head(lane, sequence, wait).await,
        Command::Parked(parked) => match parked.one {
            Some(command_line::OneParked::Show { sequence, headers }) => parked::show(sequence, headers).await,
            None => parked::list(parked.list).await,
        },
        Command::Redrive(which) => redrive::run(which).await,
    }
}
