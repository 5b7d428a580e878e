//! The words of the command line. What they do is in the module of each; here is how they are said.

use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use fedstream_jetstream::parked::Filter;
use fedstream_lane::{InstanceName, LaneKind, ParkReason, Seq};
use fedstream_service::cli::{USAGE, described};
use uuid::Uuid;

use crate::broker;
use crate::settings::Assignment;
use crate::target::{LaneName, Target};

/// Looks at the lanes of fedstream, sets and pauses them, and brings back what was parked.
///
/// A lane is written <destination>/<source>, as in the logs: aussie.zone/lemmy.world. One that leads out is written
/// <remote>/<partition>: mastodon.social/3.
#[derive(Debug, Parser)]
#[command(name = "fedctl", version, disable_help_subcommand = true)]
struct Words {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Every lane: what waits in it, who sends it, what is set of it
    Lanes {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// One lane, or all of a kind (`default`, `outbox`): the settings in force and where they come from
    Show {
        /// A lane; default: all that lead in; outbox: all that lead out
        target: Target,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Change settings of a lane, or of all lanes that have none of their own
    Set {
        /// A lane; default: all that lead in; outbox: all that lead out
        target: Target,
        /// For example batch_items=50 profile=lemmy; nats/README.md lists all
        #[arg(required = true, value_name = "FIELD=VALUE")]
        fields: Vec<Assignment>,
    },
    /// Take settings away: the default holds again, or the services' own
    Unset {
        /// A lane, default or outbox
        target: Target,
        /// For example batch_items
        #[arg(required = true, value_name = "FIELD")]
        fields: Vec<String>,
    },
    /// Take all settings away, also ones that are not valid
    Reset {
        /// A lane, default or outbox
        target: Target,
    },
    /// Post nothing of a lane; the front door answers 503 for one that leads in
    Pause {
        /// The lane
        lane: LaneName,
    },
    /// Go on with a lane: lifts `pause`, and the pause after many refusals in a row
    Resume {
        /// The lane
        lane: LaneName,
    },
    /// Take the head of a lane out of its way, into FED_PARKED
    Park {
        /// The lane
        lane: LaneName,
        /// The head's sequence, as `show` and the log have it
        #[arg(value_parser = sequence)]
        sequence: Seq,
        /// Park it when it becomes the head, if it is not yet
        #[arg(long)]
        wait: bool,
    },
    /// List what left its lane undelivered, or show one copy
    Parked(Parked),
    /// Put copies back, at the end of their lanes
    Redrive(Which),
}

/// `parked`, alone or with a word behind it.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Parked {
    /// One copy.
    #[command(subcommand)]
    pub one: Option<OneParked>,
    /// The list.
    #[command(flatten)]
    pub list: ParkedList,
}

/// What to do with one copy.
#[derive(Debug, Subcommand)]
pub enum OneParked {
    /// Everything that one copy carries, with its body
    Show {
        /// Its sequence in FED_PARKED
        #[arg(value_parser = sequence)]
        sequence: Seq,
        /// With the values of Authorization, Cookie and Signature
        #[arg(long)]
        headers: bool,
    },
}

/// Which copies to list, and how.
#[derive(Debug, Args)]
pub struct ParkedList {
    /// Of this lane only
    pub lane: Option<LaneName>,
    /// Which of them.
    #[command(flatten)]
    pub those: Those,
    /// At most this many, the oldest first
    #[arg(long, default_value_t = 100)]
    pub limit: usize,
    /// From this sequence on
    #[arg(long, default_value = "1", value_parser = sequence)]
    pub from: Seq,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What copies must have in common.
#[derive(Debug, Args)]
pub struct Those {
    /// Of lanes of this kind only: inbox, outbox or backfill
    #[arg(long)]
    pub kind: Option<LaneKind>,
    /// Of the lanes of this instance only, not ours: that sent it, or was to have it
    #[arg(long, value_name = "HOST")]
    pub remote: Option<InstanceName>,
    /// Outbound only, of the actor with this id
    #[arg(long, value_name = "UUID")]
    pub actor: Option<Uuid>,
    /// With this reason only: rejected, expired, poison, unprocessed, operator, unreadable or remote-full
    #[arg(long)]
    pub reason: Option<ParkReason>,
}

impl Those {
    /// Of this lane, if it is given.
    pub fn of(self, lane: Option<LaneName>) -> Filter {
        let Self { kind, remote, actor, reason } = self;
        Filter { lane: lane.map(|name| name.0), kind, remote, actor, reason }
    }
}

/// Which copies to put back.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("which").required(true).multiple(true).args(["sequences", "lane", "all", "remote", "actor"])
)]
pub struct Which {
    /// These, by their sequences in FED_PARKED
    #[arg(
        value_name = "SEQUENCE",
        value_parser = sequence,
        conflicts_with_all = ["lane", "all", "kind", "remote", "actor", "reason"],
    )]
    pub sequences: Vec<Seq>,
    /// All of a lane
    #[arg(long, conflicts_with_all = ["all", "kind", "remote"])]
    pub lane: Option<LaneName>,
    /// All with a reason, of every lane
    #[arg(long, requires = "reason")]
    pub all: bool,
    /// Which of them.
    #[command(flatten)]
    pub those: Those,
    /// Say what would go, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Reads the command line. `--help`, `--version` and a wrong word end the process, with the exit code that is returned.
pub fn read() -> Result<Command, ExitCode> {
    let variables = described(broker::variables());
    let after = format!(
        "The broker is named by environment variables:\n{variables}\n\
         Exit codes: 0; 1: not done, or only a part of it; 64: a wrong word or value; 69: the broker or a stream is away;\n\
         78: it is there and not safe to use.\n"
    );
    let words = Words::command().after_help(after).try_get_matches();
    let words = words.and_then(|matches| Words::from_arg_matches(&matches));
    words.map(|words| words.command).map_err(|said| {
        let code = if said.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        said.print().ok(); // whoever closed the pipe does not want it
        code
    })
}

fn sequence(text: &str) -> Result<Seq, &'static str> {
    text.parse().ok().filter(|number| *number > 0).map(Seq).ok_or("not a sequence: a number from 1 on")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &str) -> Result<Command, clap::Error> {
        Words::try_parse_from(std::iter::once("fedctl").chain(words.split(' '))).map(|words| words.command)
    }

    #[test]
    fn the_words_of_the_manual_are_understood() {
        Words::command().debug_assert();
        for words in [
            "lanes --json",
            "show default",
            "set home.test/a.test batch_items=5 profile=lemmy",
            "park inbox.home_test.a_test 7 --wait",
            "parked home.test/a.test --reason rejected --limit 5 --json",
            "parked show 7 --headers",
            "redrive 7 8",
            "redrive --lane home.test/a.test",
            "redrive --all --reason expired --dry-run",
            "set outbox rate_per_s=5",
            "pause mastodon.social/3",
            "park mastodon.social/3 7",
            "parked mastodon.social/3 --reason remote-full",
            "parked --kind outbox --remote mastodon.social --actor 7f9c24e8-3b12-4fef-91e1-4c1d2f1a0b77",
            "redrive --lane mastodon.social/3 --actor 7f9c24e8-3b12-4fef-91e1-4c1d2f1a0b77",
            "redrive --remote mastodon.social --kind outbox --reason remote-full",
            "redrive --all --reason remote-full --kind outbox",
        ] {
            assert!(command(words).is_ok(), "{words}: {:?}", command(words));
        }
    }

    #[test]
    fn what_could_mean_two_things_is_refused() {
        for words in [
            "redrive",
            "redrive --all",
            "redrive 7 --all --reason expired",
            "redrive 7 --reason expired",
            "redrive 7 --remote a.test",
            "redrive --kind outbox",
            "redrive --reason expired",
            "redrive --lane a.test/3 --remote a.test",
            "parked --kind out",
            "parked --actor alice",
            "set a.test/7f9c24e8-3b12-4fef-91e1-4c1d2f1a0b77 rate_per_s=5",
            "redrive 0",
            "set default",
            "pause default",
            "parked show",
            "show nowhere",
        ] {
            assert!(command(words).is_err(), "{words}");
        }
    }
}
